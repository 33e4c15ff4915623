//! Flame graphs of folded stacks, as one SVG file.
//!
//! A folded stack is a line: frames from the outermost in, with `;` between them, a blank, a count.
//! The SVG has a script of its own that zooms and searches; it loads nothing from elsewhere.

use std::io::Write;

use inferno::flamegraph::{self, Options, TextTruncateDirection};

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DrawError {
    /// There is nothing to draw.
    #[error("no stack was seen: there is nothing to draw")]
    Empty,
    /// It could not be drawn or written.
    #[error("cannot draw the flame graph: {0}")]
    Draw(String),
}

/// Draws folded stacks; the width of a frame is its count, of which `unit` is the name.
///
/// # Errors
///
/// [`DrawError`].
pub fn draw(
    title: &str,
    unit: &str,
    folded: &[String],
    out: &mut dyn Write,
) -> Result<(), DrawError> {
    if folded.is_empty() {
        return Err(DrawError::Empty);
    }
    let mut options = Options::default();
    options.title = title.to_owned();
    options.count_name = unit.to_owned();
    options.text_truncate_direction = TextTruncateDirection::Right;
    // The same stacks give the same picture.
    options.hash = true;
    flamegraph::from_lines(&mut options, folded.iter().map(String::as_str), out)
        .map_err(|error| DrawError::Draw(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_is_in_the_picture_with_its_share() {
        let folded = ["a;b;migrate_pages 30", "a;c 70"].map(str::to_owned);
        let mut svg = Vec::new();
        draw("Migrations", "us", &folded, &mut svg).unwrap();
        let svg = String::from_utf8(svg).unwrap();
        assert!(svg.contains("<svg") && svg.contains("Migrations"), "{svg}");
        assert!(svg.contains("migrate_pages (30 us, 30.00%)"), "{svg}");
    }

    #[test]
    fn nothing_to_draw_is_said() {
        let error = draw("t", "us", &[], &mut Vec::new()).unwrap_err();
        assert!(matches!(error, DrawError::Empty));
    }
}
