//! Text for people: tables that fit the terminal, lists of fields, times as "in 41 min".
//!
//! A [`Page`] only collects text, so that what commands show can be tested without a terminal.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::time::{SystemTime, UNIX_EPOCH};

/// The narrowest that a column becomes so that a table fits.
const COLUMN_MIN: usize = 8;

/// What a piece of text means, shown as a colour where colours are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// Nothing special.
    #[default]
    Plain,
    /// All is well.
    Good,
    /// It passes, but deserves a look.
    Warn,
    /// A person has to act.
    Bad,
    /// Beside the point.
    Dim,
}

impl Tone {
    fn paint(self, text: &str, color: bool) -> String {
        let code = match self {
            Self::Plain => return text.to_owned(),
            Self::Good => "32",
            Self::Warn => "33",
            Self::Bad => "31",
            Self::Dim => "2",
        };
        if color && !text.trim().is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// One cell of a table, or one value of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// `text` in a tone. Control characters, which a hostile issuer's words may hold, are shown
    /// as `\u{FFFD}`.
    pub fn new(text: impl Into<String>, tone: Tone) -> Self {
        let text: String = text.into();
        let text = text.replace(char::is_control, "\u{FFFD}");
        Self { text, tone }
    }

    /// What stands where there is nothing.
    pub fn none() -> Self {
        Self::new("-", Tone::Dim)
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }

    /// The text in exactly `width` columns, cut with `…` if it is longer.
    fn fitted(&self, width: usize, pad: bool, color: bool) -> String {
        let length = self.width();
        let text = if length > width {
            let cut: String = self.text.chars().take(width.saturating_sub(1)).collect();
            format!("{cut}…")
        } else if pad {
            format!("{}{}", self.text, " ".repeat(width - length))
        } else {
            self.text.clone()
        };
        self.tone.paint(&text, color)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::new(text, Tone::Plain)
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::new(text, Tone::Plain)
    }
}

impl From<u64> for Cell {
    fn from(number: u64) -> Self {
        number.to_string().into()
    }
}

/// How a page is laid out.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// Columns of the terminal; `None` cuts nothing.
    pub width: Option<usize>,
    /// Whether tones become colours.
    pub color: bool,
}

impl Style {
    /// What suits standard output: the terminal's width and, unless `NO_COLOR` is set, colours;
    /// neither where there is no terminal.
    pub fn of_stdout() -> Self {
        let stdout = std::io::stdout();
        let terminal = stdout.is_terminal();
        let columns = rustix::termios::tcgetwinsize(&stdout).map(|size| size.ws_col);
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|v| v == "dumb");
        Self {
            width: match columns {
                Ok(columns) if terminal && columns > 0 => Some(usize::from(columns)),
                Ok(_) | Err(_) => None,
            },
            color: terminal && !no_color && !dumb,
        }
    }
}

/// Text in the making.
#[derive(Clone, Debug)]
pub struct Page {
    style: Style,
    now_ms: u64,
    text: String,
}

impl Page {
    /// An empty page; relative times count from `now_ms`.
    pub fn new(style: Style, now_ms: u64) -> Self {
        Self {
            style,
            now_ms,
            text: String::new(),
        }
    }

    /// From now on, relative times count from here: the cluster's clock, where it is known.
    pub fn set_now(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
    }

    /// The text so far.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Adds a line.
    pub fn line(&mut self, line: impl Into<Cell>) {
        let cell: Cell = line.into();
        let text = cell.tone.paint(&cell.text, self.style.color);
        let _ = writeln!(self.text, "{text}");
    }

    /// Adds a list of names and values, values aligned.
    pub fn fields(&mut self, fields: &[(&str, Cell)]) {
        let names = fields.iter().map(|(name, _)| name.chars().count());
        let width = names.max().unwrap_or(0);
        for (name, cell) in fields {
            let value = cell.tone.paint(&cell.text, self.style.color);
            let line = format!("{name:width$}  {value}");
            let _ = writeln!(self.text, "{}", line.trim_end());
        }
    }

    /// Adds a table, or `empty` if it has no row. Columns are cut so that it fits the terminal.
    pub fn table(&mut self, head: &[&str], rows: &[Vec<Cell>], empty: &str) {
        if rows.is_empty() {
            self.line(Cell::new(empty, Tone::Dim));
            return;
        }
        let widths = self.widths(head, rows);
        let titles = head.iter().map(|title| Cell::new(*title, Tone::Dim));
        self.row(&titles.collect::<Vec<_>>(), &widths);
        for row in rows {
            self.row(row, &widths);
        }
    }

    /// Adds one row of a table that has no end.
    pub fn cells(&mut self, cells: &[Cell]) {
        let widths: Vec<usize> = cells.iter().map(Cell::width).collect();
        self.row(cells, &widths);
    }

    fn widths(&self, head: &[&str], rows: &[Vec<Cell>]) -> Vec<usize> {
        let mut widths: Vec<usize> = head.iter().map(|title| title.chars().count()).collect();
        for row in rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.width());
            }
        }
        let Some(terminal) = self.style.width else {
            return widths;
        };
        let gaps = 2 * widths.len().saturating_sub(1);
        while widths.iter().sum::<usize>() + gaps > terminal {
            let widest = widths.iter_mut().max_by_key(|width| **width);
            match widest {
                Some(width) if *width > COLUMN_MIN => *width -= 1,
                Some(_) | None => break,
            }
        }
        widths
    }

    fn row(&mut self, cells: &[Cell], widths: &[usize]) {
        let last = cells.len().saturating_sub(1);
        for (i, (cell, width)) in cells.iter().zip(widths).enumerate() {
            let gap = if i == last { "\n" } else { "  " };
            let text = cell.fitted(*width, i != last, self.style.color);
            let _ = write!(self.text, "{text}{gap}");
        }
    }

    /// A point in time relative to now: "in 41 min", "3 s ago".
    pub fn when(&self, at_ms: u64) -> String {
        if at_ms.abs_diff(self.now_ms) < 1_000 {
            "now".to_owned()
        } else if at_ms > self.now_ms {
            format!("in {}", span(at_ms - self.now_ms))
        } else {
            format!("{} ago", span(self.now_ms - at_ms))
        }
    }

    /// The same, or `-` where there is none.
    pub fn when_any(&self, at_ms: Option<u64>) -> Cell {
        at_ms.map_or_else(Cell::none, |at| self.when(at).into())
    }

    /// The end of a value: near ends are shown as such; "never" where there is none.
    pub fn end(&self, at_ms: Option<u64>) -> Cell {
        match at_ms {
            None => "never".into(),
            Some(at) if at <= self.now_ms => Cell::new(self.when(at), Tone::Bad),
            Some(at) => self.when(at).into(),
        }
    }
}

/// A length of time in its largest unit, and in the next one where that still matters.
pub fn span(ms: u64) -> String {
    let (s, m, h, d) = (ms / 1_000, ms / 60_000, ms / 3_600_000, ms / 86_400_000);
    match () {
        () if s < 1 => format!("{ms} ms"),
        () if s < 90 => format!("{s} s"),
        () if m < 90 => format!("{m} min"),
        () if h < 48 && m % 60 > 0 => format!("{h} h {} min", m % 60),
        () if h < 48 => format!("{h} h"),
        () => format!("{d} days"),
    }
}

/// RFC 3339 in UTC, to the second.
pub fn absolute(at_ms: u64) -> String {
    let seconds = i64::try_from(at_ms / 1_000).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).map_or_else(|_| at_ms.to_string(), |at| at.to_string())
}

/// The wall clock, in milliseconds since 1970.
pub fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, evermint_core::time::millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(width: Option<usize>, color: bool) -> Page {
        Page::new(Style { width, color }, 10_000_000)
    }

    fn rows() -> Vec<Vec<Cell>> {
        vec![
            vec!["a".into(), Cell::new("fresh", Tone::Good), "short".into()],
            vec![
                "longer-name".into(),
                Cell::new("retrying", Tone::Warn),
                "the issuer answered 503 Service Unavailable".into(),
            ],
        ]
    }

    #[test]
    fn a_table_aligns_its_columns() {
        let mut page = page(None, false);
        page.table(&["NAME", "VERDICT", "CAUSE"], &rows(), "none");
        assert_eq!(
            page.text(),
            "NAME         VERDICT   CAUSE\n\
             a            fresh     short\n\
             longer-name  retrying  the issuer answered 503 Service Unavailable\n"
        );
    }

    #[test]
    fn a_table_is_cut_to_the_terminal() {
        let mut page = page(Some(40), false);
        page.table(&["NAME", "VERDICT", "CAUSE"], &rows(), "none");
        assert_eq!(
            page.text(),
            "NAME         VERDICT   CAUSE\n\
             a            fresh     short\n\
             longer-name  retrying  the issuer answe…\n"
        );
        assert!(page.text().lines().all(|l| l.chars().count() <= 40));
    }

    #[test]
    fn colours_do_not_disturb_the_columns() {
        let (mut plain, mut colored) = (page(Some(40), false), page(Some(40), true));
        for page in [&mut plain, &mut colored] {
            page.table(&["NAME", "VERDICT", "CAUSE"], &rows(), "none");
        }
        assert!(colored.text().contains("\x1b[32mfresh   \x1b[0m"));
        let mut stripped = colored.text().to_owned();
        for code in ["\x1b[32m", "\x1b[33m", "\x1b[2m", "\x1b[0m"] {
            stripped = stripped.replace(code, "");
        }
        assert_eq!(stripped, plain.text());
    }

    #[test]
    fn an_empty_table_says_so() {
        let mut page = page(None, false);
        page.table(&["NAME"], &[], "no providers");
        assert_eq!(page.text(), "no providers\n");
    }

    #[test]
    fn fields_are_aligned() {
        let mut page = page(None, false);
        page.fields(&[("name", "x".into()), ("workspace", Cell::none())]);
        assert_eq!(page.text(), "name       x\nworkspace  -\n");
    }

    #[test]
    fn an_issuers_words_cannot_steer_the_terminal() {
        let mut page = page(None, true);
        page.line("evil \x1b[2J\r\n");
        assert_eq!(page.text(), "evil \u{FFFD}[2J\u{FFFD}\u{FFFD}\n");
    }

    #[test]
    fn times_are_told_as_people_tell_them() {
        let page = page(None, false);
        for (at, told) in [
            (10_000_400, "now"),
            (10_030_000, "in 30 s"),
            (12_460_000, "in 41 min"),
            (9_997_000, "3 s ago"),
            (17_200_000, "in 2 h"),
            (17_500_000, "in 2 h 5 min"),
            (300_000_000, "in 3 days"),
        ] {
            assert_eq!(page.when(at), told);
        }
        assert_eq!(page.end(None), "never".into());
        assert_eq!(page.end(Some(9_990_000)), Cell::new("10 s ago", Tone::Bad));
        assert_eq!(absolute(1_784_160_000_123), "2026-07-16T00:00:00Z");
    }
}
