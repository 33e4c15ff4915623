//! JSON for programs: one document, with `"schema": 1`, sizes and times as integers.

use std::io::{self, Write as _};

use engine::plan::SCHEMA;
use serde::Serialize;

/// A document with one list in it.
#[derive(Serialize)]
struct Document<'a, T> {
    schema: u32,
    #[serde(flatten)]
    body: &'a T,
}

/// Prints `body` as one document.
pub(crate) fn print<T: Serialize>(body: &T) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, &Document { schema: SCHEMA, body })
        .map_err(io::Error::from)?;
    Ok(writeln!(out)?)
}

/// Prints each of `bodies` as a document on a line of its own.
pub(crate) fn print_lines<T: Serialize>(bodies: &[T]) -> anyhow::Result<()> {
    let mut text = Vec::new();
    for body in bodies {
        serde_json::to_writer(&mut text, &Document { schema: SCHEMA, body })?;
        text.push(b'\n');
    }
    let mut out = io::stdout().lock();
    out.write_all(&text)?;
    Ok(out.flush()?)
}
