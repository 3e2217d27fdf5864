//! Columns that fit: the least needed ones leave, then long texts are cut.

use crate::terminal;

/// Blanks between two columns.
const GAP: usize = 2;

/// A column.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    head: &'static str,
    /// Numbers stand to the right.
    right: bool,
    /// Never narrower, so that changing numbers do not move the others.
    wide: usize,
    /// Cells may be cut down to this; `None`: not at all.
    cut: Option<usize>,
    /// Where there is no room, the highest leave first; 0 stays.
    leaves: u8,
}

/// A column of texts.
pub(crate) const fn text(head: &'static str) -> Column {
    Column {
        head,
        right: false,
        wide: 0,
        cut: None,
        leaves: 0,
    }
}

/// A column of numbers.
pub(crate) const fn number(head: &'static str) -> Column {
    Column {
        right: true,
        ..text(head)
    }
}

impl Column {
    /// Never narrower than this.
    pub(crate) const fn wide(self, wide: usize) -> Self {
        Self { wide, ..self }
    }

    /// Cells may be cut down to this.
    pub(crate) const fn cut(self, least: usize) -> Self {
        Self {
            cut: Some(least),
            ..self
        }
    }

    /// Whose turn it is to leave where there is no room.
    pub(crate) const fn leaves(self, turn: u8) -> Self {
        Self {
            leaves: turn,
            ..self
        }
    }

    fn least(&self, width: usize) -> usize {
        self.cut.map_or(width, |cut| cut.min(width))
    }
}

/// A row: its cells, and a line of text below them.
#[derive(Debug)]
pub(crate) struct Row {
    /// One for each column.
    pub(crate) cells: Vec<String>,
    /// The line below.
    pub(crate) below: Option<String>,
}

impl From<Vec<String>> for Row {
    fn from(cells: Vec<String>) -> Self {
        Self { cells, below: None }
    }
}

/// Rows below their heads.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Row>,
    /// How many there would be if there was room for all.
    all: usize,
}

impl Table {
    pub(crate) fn new(columns: Vec<Column>, rows: Vec<Row>) -> Self {
        let all = rows.len();
        Self { columns, rows, all }
    }

    /// There are so many, those counted that are no rows.
    pub(crate) fn of(self, all: u64) -> Self {
        let all = usize::try_from(all).unwrap_or(usize::MAX);
        Self {
            all: all.max(self.rows.len()),
            ..self
        }
    }

    /// Its lines, at most so wide and so many; the first one is the head.
    pub(crate) fn lines(&self, width: usize, most: usize) -> Vec<String> {
        let columns = self.layout(width);
        let heads = |at: usize| self.columns[at].head;
        let mut lines = vec![self.line(&columns, heads, width)];
        let shown = self.shown(most);
        for row in self.rows.iter().take(shown) {
            lines.push(self.line(&columns, |at| row.cell(at), width));
            if let Some(below) = &row.below {
                lines.push(fit(&format!("  {below}"), width));
            }
        }
        if shown < self.all {
            lines.push(fit(&format!("  and {} more", self.all - shown), width));
        }
        lines
    }

    /// How many rows fit.
    fn shown(&self, most: usize) -> usize {
        let height = |row: &Row| 1 + usize::from(row.below.is_some());
        let needed: usize = self.rows.iter().map(height).sum();
        let more = usize::from(self.rows.len() < self.all);
        if needed + more < most {
            return self.rows.len();
        }
        // The head, and the line that counts the others.
        let mut left = most.saturating_sub(2);
        let fits = |row: &&Row| {
            let fits = left >= height(row);
            left = left.saturating_sub(height(row));
            fits
        };
        self.rows.iter().take_while(fits).count()
    }

    /// The columns that are shown, and their widths.
    fn layout(&self, width: usize) -> Vec<(usize, usize)> {
        let mut columns: Vec<_> = (0..self.columns.len())
            .map(|at| (at, self.natural(at)))
            .collect();
        loop {
            let total = total(columns.iter().map(|(_, wide)| *wide));
            let least = |(at, wide): &(usize, usize)| self.columns[*at].least(*wide);
            if total <= width {
                return columns;
            }
            let turn = columns.iter().map(|(at, _)| self.columns[*at].leaves);
            let turn = turn.max().unwrap_or(0);
            if self::total(columns.iter().map(least)) <= width || turn == 0 {
                self.cut(&mut columns, total - width);
                return columns;
            }
            columns.retain(|(at, _)| self.columns[*at].leaves < turn);
        }
    }

    /// Takes so many characters off, of the widest column each time.
    fn cut(&self, columns: &mut [(usize, usize)], mut excess: usize) {
        while excess > 0 {
            let widest = columns
                .iter_mut()
                .filter(|(at, wide)| self.columns[*at].least(*wide) < *wide)
                .max_by_key(|(_, wide)| *wide);
            let Some((_, wide)) = widest else { return };
            *wide -= 1;
            excess -= 1;
        }
    }

    fn natural(&self, at: usize) -> usize {
        let column = &self.columns[at];
        let cells = self.rows.iter().map(|row| measure(row.cell(at)));
        let most = cells.max().unwrap_or(0);
        most.max(column.head.len()).max(column.wide)
    }

    fn line<'t>(
        &self,
        columns: &[(usize, usize)],
        cell: impl Fn(usize) -> &'t str,
        width: usize,
    ) -> String {
        let mut line = String::new();
        for (place, (at, wide)) in columns.iter().enumerate() {
            let text = fit(cell(*at), *wide);
            let pad = wide.saturating_sub(measure(&text));
            let gap = if place > 0 { GAP } else { 0 };
            let (before, after) = if self.columns[*at].right {
                (gap + pad, 0)
            } else {
                (gap, pad)
            };
            line.push_str(&" ".repeat(before));
            line.push_str(&text);
            line.push_str(&" ".repeat(after));
        }
        fit(line.trim_end(), width)
    }
}

impl Row {
    fn cell(&self, at: usize) -> &str {
        self.cells.get(at).map_or("", String::as_str)
    }
}

fn total(widths: impl ExactSizeIterator<Item = usize>) -> usize {
    let gaps = widths.len().saturating_sub(1) * GAP;
    widths.sum::<usize>() + gaps
}

/// Cuts a text to so many columns; nothing in it steers a terminal.
pub(crate) fn fit(text: &str, width: usize) -> String {
    let plain = terminal::plain(text);
    if measure(&plain) <= width {
        return plain;
    }
    let mut room = width.saturating_sub(1);
    let mut cut: String = plain
        .chars()
        .take_while(|c| {
            let fits = breadth(*c) <= room;
            room = room.saturating_sub(breadth(*c));
            fits
        })
        .collect();
    if width > 0 {
        cut.push('…');
    }
    cut
}

fn measure(text: &str) -> usize {
    text.chars().map(breadth).sum()
}

/// Columns that a character takes at most: a line that is too short is better
/// than one that wraps.
fn breadth(c: char) -> usize {
    if c.is_ascii() || c == '…' || c == char::REPLACEMENT_CHARACTER {
        1
    } else {
        2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let columns = vec![
            text("NAME").cut(4),
            text("PLACE").cut(6).leaves(1),
            number("IN").wide(4),
            number("ERRORS").leaves(2),
        ];
        let row = |cells: [&str; 4]| Row {
            cells: cells.map(str::to_owned).to_vec(),
            below: Some(format!("about {}", cells[0])),
        };
        let rows = vec![
            row(["application", "127.0.0.1:8080", "12", "0"]),
            row(["db", "[::1]:1", "7", "12345"]),
        ];
        Table::new(columns, rows)
    }

    fn shown(width: usize, most: usize) -> String {
        table().lines(width, most).join("\n")
    }

    #[test]
    fn columns_are_aligned() {
        let expected = "\
NAME         PLACE             IN  ERRORS
application  127.0.0.1:8080    12       0
  about application
db           [::1]:1            7   12345
  about db";
        assert_eq!(shown(80, 100), expected);
        assert_eq!(shown(41, 100), expected);
    }

    #[test]
    fn long_texts_are_cut_before_columns_leave() {
        let expected = "\
NAME       PLACE       IN  ERRORS
applicat…  127.0.0…    12       0
  about application
db         [::1]:1      7   12345
  about db";
        assert_eq!(shown(33, 100), expected);
        let expected = "\
NAME     PLACE      IN
applic…  127.0.…    12
  about application
db       [::1]:1     7
  about db";
        assert_eq!(shown(22, 100), expected);
        let expected = "\
NAME     IN
appl…    12
  about ap…
db        7
  about db";
        assert_eq!(shown(11, 100), expected);
    }

    #[test]
    fn no_line_is_wider_than_it_may_be() {
        for width in 1..60 {
            for line in table().lines(width, 100) {
                assert!(measure(&line) <= width, "{width}: {line}");
            }
        }
    }

    #[test]
    fn rows_without_room_are_counted() {
        assert_eq!(shown(80, 5), shown(80, 100));
        for most in [3, 4] {
            let rows = if most == 4 { 1 } else { 0 };
            let lines = table().lines(80, most);
            assert!(lines.len() <= most, "{lines:?}");
            let last = lines.last().unwrap();
            assert_eq!(*last, format!("  and {} more", 2 - rows));
        }
        let told = table().of(12).lines(80, 100);
        assert_eq!(told.last().unwrap(), "  and 10 more");
    }

    #[test]
    fn a_cut_text_ends_with_an_ellipsis() {
        assert_eq!(fit("abcdef", 6), "abcdef");
        assert_eq!(fit("abcdef", 5), "abcd…");
        assert_eq!(fit("日本語", 5), "日本…");
        assert_eq!(fit("a\u{1b}[2J", 80), "a\u{fffd}[2J");
        assert_eq!(fit("abc", 0), "");
    }
}
