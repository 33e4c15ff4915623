//! Colour, for terminals only. What it says is always said by a word or a sign as well.

use std::fmt::Display;

use anstyle::{AnsiColor, Color, Style};

/// Something wrong or worth a second look: orange, and a `!` in the text.
pub(crate) fn warn(text: impl Display) -> String {
    paint(AnsiColor::Yellow.on_default().bold(), text)
}

/// A heading.
pub(crate) fn heading(text: impl Display) -> String {
    paint(Style::new().bold(), text)
}

/// What is less important than the rest of its line.
pub(crate) fn faint(text: impl Display) -> String {
    paint(Style::new().dimmed(), text)
}

/// The word of a line that tells it from others.
pub(crate) fn word(text: impl Display) -> String {
    paint(AnsiColor::Cyan.on_default(), text)
}

/// Colours for nodes, in turn; chosen to be told apart by the colour-blind, red and green not
/// among them.
const NODES: [AnsiColor; 4] =
    [AnsiColor::Blue, AnsiColor::Yellow, AnsiColor::Magenta, AnsiColor::Cyan];

/// A sign in the colour of a node.
pub(crate) fn node(node: machine::NodeId, sign: char) -> String {
    let color = NODES[node.index() % NODES.len()];
    paint(Style::new().fg_color(Some(Color::Ansi(color))), sign)
}

fn paint(style: Style, text: impl Display) -> String {
    format!("{style}{text}{style:#}")
}
