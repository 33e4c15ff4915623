//! Aligned columns of text, for people. Whoever wants to parse asks for `--json`.

use std::fmt;

/// On which side the cells of a column are filled up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    /// Text begins below its heading.
    Left,
    /// Numbers end below the end of their heading.
    Right,
}

/// A table under construction. Prints with two blanks between columns and none at a line's end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    columns: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Adds a column on the right, with a cell for each row. The first column says how many rows
    /// there are; a missing cell is empty.
    pub(crate) fn column(
        &mut self,
        heading: impl Into<String>,
        align: Align,
        cells: impl IntoIterator<Item = String>,
    ) {
        let cells: Vec<String> = cells.into_iter().collect();
        if self.columns.is_empty() {
            self.rows.resize_with(cells.len(), Vec::new);
        }
        let mut cells = cells.into_iter();
        for row in &mut self.rows {
            row.push(cells.next().unwrap_or_default());
        }
        self.columns.push((heading.into(), align));
    }

    fn widths(&self) -> Vec<usize> {
        let width = |at: usize| {
            let cells = self.rows.iter().map(|row| &row[at]);
            let heading = &self.columns[at].0;
            cells.chain([heading]).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        (0..self.columns.len()).map(width).collect()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        let headings: Vec<String> =
            self.columns.iter().map(|(heading, _)| heading.clone()).collect();
        for row in [&headings].into_iter().chain(&self.rows) {
            let mut line = String::new();
            for ((cell, width), (_, align)) in row.iter().zip(&widths).zip(&self.columns) {
                if !line.is_empty() {
                    line += "  ";
                }
                line += &match align {
                    Align::Left => format!("{cell:<width$}"),
                    Align::Right => format!("{cell:>width$}"),
                };
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_do_not_end_in_blanks() {
        let mut table = Table::default();
        table.column("node", Align::Right, ["0", "10"].map(str::to_owned));
        table.column("CPUs", Align::Left, ["0-31", "-"].map(str::to_owned));
        table.column("free", Align::Right, ["1.5 GiB"].map(str::to_owned));
        table.column("note", Align::Left, ["", "x"].map(str::to_owned));
        assert_eq!(
            table.to_string(),
            "node  CPUs     free  note\n   0  0-31  1.5 GiB\n  10  -              x\n"
        );
    }

    #[test]
    fn a_table_without_rows_is_its_headings() {
        let mut table = Table::default();
        table.column("node", Align::Right, []);
        assert_eq!(table.to_string(), "node\n");
    }
}
