//! Answers: JSON for programs, tables and lines for people.
//!
//! A table is as wide as the terminal, or as `COLUMNS` says, or 100 columns where there is neither. Where it does not
//! fit, `extra` columns are left out, and `cut` columns end in `…`: `show` commands and `--json` have the whole values.

use std::fmt::Display;

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Row, Table, Width};
use serde::Serialize;

use super::exit::{CliError, CliExitCode};
use crate::stdio;

/// The width of a table where neither a terminal nor `COLUMNS` says one.
const COLUMNS_DEFAULT: u16 = 100;
/// Narrower than this a table cannot be read.
const COLUMNS_MIN: u16 = 40;
/// Between two columns.
const GAP: u16 = 2;
/// `extra` columns are left out rather than others be cut below this.
const CUT_WIDTH_WANTED: usize = 20;
/// Characters of an id that are always shown.
const ID_LENGTH_MIN: usize = 8;

/// What a command says to people, written at once.
#[derive(Debug, Default)]
pub(super) struct Text(String);

impl Text {
    /// Adds a line.
    pub(super) fn line(&mut self, line: impl Display) {
        self.0.push_str(&format!("{line}\n"));
    }

    /// Adds text that has its line ends.
    pub(super) fn block(&mut self, text: impl Display) {
        self.0.push_str(&text.to_string());
    }

    /// Adds a name and its value, where there is one.
    pub(super) fn field(&mut self, name: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.line(format_args!("{name:<13}{value}"));
        }
    }

    /// Adds rows under a head; `none` where there are no rows.
    pub(super) fn table<const N: usize>(&mut self, head: [Column; N], rows: Vec<[String; N]>, none: &str) {
        if rows.is_empty() {
            self.line(none);
        } else {
            self.line(fitted(head, rows, width()));
        }
    }
}

/// The head of a column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    title: &'static str,
    kind: ColumnKind,
    is_extra: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ColumnKind {
    Whole,
    Number,
    Cut,
}

/// A column whose values are never cut.
pub(super) const fn whole(title: &'static str) -> Column {
    Column { title, kind: ColumnKind::Whole, is_extra: false }
}

/// A column of amounts: never cut, and aligned at the right.
pub(super) const fn number(title: &'static str) -> Column {
    Column { title, kind: ColumnKind::Number, is_extra: false }
}

/// A column whose values are cut where the table would be too wide.
pub(super) const fn cut(title: &'static str) -> Column {
    Column { title, kind: ColumnKind::Cut, is_extra: false }
}

/// The same column, left out where the table would be too wide.
pub(super) const fn extra(column: Column) -> Column {
    Column { is_extra: true, ..column }
}

/// Shows an answer: as JSON, or as people read it.
pub(super) fn show<T: Serialize>(
    json: bool,
    answer: &T,
    for_people: impl FnOnce(&T, &mut Text),
) -> Result<(), CliError> {
    let mut text = Text::default();
    if json {
        let json = serde_json::to_string_pretty(answer)
            .map_err(|error| CliError::new(CliExitCode::Failed, format!("writing the answer: {error}")))?;
        text.line(json);
    } else {
        for_people(answer, &mut text);
    }
    stdio::write(&text.0);
    Ok(())
}

fn width() -> u16 {
    let variable = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    // What goes through a pipe often ends on the terminal that standard error is.
    let terminals = [console::Term::stdout(), console::Term::stderr()];
    let terminal =
        || terminals.iter().find_map(|terminal| terminal.size_checked()).map(|(_, columns)| columns);
    variable.or_else(terminal).unwrap_or(COLUMNS_DEFAULT).max(COLUMNS_MIN)
}

fn fitted<const N: usize>(head: [Column; N], rows: Vec<[String; N]>, width: u16) -> String {
    let cells = |index: usize| rows.iter().map(move |row: &[String; N]| printable(&row[index]));
    let mut columns: Vec<(Column, Vec<String>)> =
        head.into_iter().enumerate().map(|(index, column)| (column, cells(index).collect())).collect();
    let total = |columns: &[(Column, Vec<String>)], width_of: fn(&(Column, Vec<String>)) -> usize| {
        columns.iter().map(width_of).sum::<usize>()
    };
    while total(&columns, width_wanted) > usize::from(width + GAP)
        && let Some(index) = columns.iter().rposition(|(column, _)| column.is_extra)
    {
        columns.remove(index);
    }
    if total(&columns, width_min) > usize::from(width + GAP) {
        // What is named first is what the other commands need; everything else may be cut.
        columns.iter_mut().skip(1).for_each(|(column, _)| column.kind = ColumnKind::Cut);
    }
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width + GAP);
    let mut titles = Row::from(columns.iter().map(|(column, _)| column.title));
    titles.max_height(1);
    table.set_header(titles);
    for index in 0..rows.len() {
        let mut row = Row::from(columns.iter().map(|(_, cells)| cells[index].as_str()));
        row.max_height(1);
        table.add_row(row);
    }
    for (shown, (column, cells)) in table.column_iter_mut().zip(&columns) {
        shown.set_padding((0, GAP));
        shown.set_constraint(match column.kind {
            ColumnKind::Whole | ColumnKind::Number => ColumnConstraint::ContentWidth,
            ColumnKind::Cut => {
                let least = width_min(&(*column, cells.clone()));
                ColumnConstraint::LowerBoundary(Width::Fixed(u16::try_from(least).unwrap_or(u16::MAX)))
            }
        });
        if column.kind == ColumnKind::Number {
            shown.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}

/// The least width of a column with the gap after it: of its values, or of its title where they may be cut.
fn width_min((column, cells): &(Column, Vec<String>)) -> usize {
    width_of(column, cells, 0)
}

/// The same where no more is cut than a reader can do without.
fn width_wanted((column, cells): &(Column, Vec<String>)) -> usize {
    width_of(column, cells, CUT_WIDTH_WANTED)
}

fn width_of(column: &Column, cells: &[String], cut_at: usize) -> usize {
    let title = column.title.chars().count();
    let content = cells.iter().map(|cell| console::measure_text_width(cell)).max().unwrap_or(0);
    let content = if column.kind == ColumnKind::Cut { content.min(cut_at) } else { content };
    content.max(title) + usize::from(GAP)
}

/// A time as people read it: local, with its offset.
pub(super) fn time(time: &contract::Timestamp) -> String {
    let local = time.with_timezone(&chrono::Local);
    let offset =
        if local.offset().local_minus_utc() == 0 { "Z".into() } else { local.format("%:z").to_string() };
    format!("{}{offset}", local.format("%Y-%m-%d %H:%M:%S"))
}

/// A duration in seconds, as people read it.
pub(super) fn seconds(milliseconds: i64) -> String {
    format!("{:.1} s", milliseconds as f64 / 1000.0)
}

/// Text that a guest or another host chose: control characters are shown, not sent to the terminal.
pub(super) fn printable(text: &str) -> String {
    let shown = |c: char| if c.is_control() { c.escape_default().collect() } else { String::from(c) };
    text.chars().map(shown).collect()
}

/// The number of first characters that distinguishes these ids, at least eight: what a table shows of an id.
pub(super) fn short_length<'a>(ids: impl IntoIterator<Item = &'a str>) -> usize {
    let mut ids: Vec<&str> = ids.into_iter().collect();
    ids.sort_unstable();
    ids.dedup();
    let common = |pair: &[&str]| pair[0].bytes().zip(pair[1].bytes()).take_while(|(a, b)| a == b).count();
    let longest = ids.windows(2).map(common).max().unwrap_or(0);
    ID_LENGTH_MIN.max(longest + 1)
}

/// The first characters of an id, as many as [`short_length`] says.
pub(super) fn short(id: &str, length: usize) -> String {
    id.chars().take(length).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: [Column; 3] = [whole("NAME"), cut("REASON"), extra(number("DISK SIZE"))];

    fn rows() -> Vec<[String; 3]> {
        let reason = "the hypervisor does not answer, and neither does anybody else ".repeat(6);
        vec![
            ["web".into(), reason + "\u{1b}[31m", "4.0 GiB".into()],
            ["a-name-of-twenty-one".into(), String::new(), "12 KiB".into()],
        ]
    }

    #[test]
    fn a_table_fits_its_width_cuts_what_may_be_cut_and_keeps_the_rest_whole() {
        for width in [60, 80, 100] {
            let text = fitted(HEAD, rows(), width);
            let widest = text.lines().map(|line| line.chars().count()).max().expect("lines");
            assert!(widest <= usize::from(width), "{widest} > {width}:\n{text}");
            assert_eq!(text.lines().count(), 3, "a line a row:\n{text}");
            assert!(text.contains('…') && text.contains("a-name-of-twenty-one"), "{text}");
            assert!(text.contains("4.0 GiB") && text.contains(" 12 KiB"), "{text}");
        }
        let narrow = fitted(HEAD, rows(), 40);
        assert!(!narrow.contains("DISK SIZE") && narrow.contains("a-name-of-twenty-one"), "{narrow}");
        assert!(narrow.lines().all(|line| line.chars().count() <= 40), "{narrow}");
        let whole = fitted(HEAD, rows(), 1000);
        assert!(
            !whole.contains('…') && whole.contains("\\u{1b}[31m") && !whole.contains('\u{1b}'),
            "{whole}"
        );
    }

    #[test]
    fn short_ids_are_unique() {
        let ids = ["01KB0000AAAA", "01KB0000AABB", "01KC0000AAAA"];
        let length = short_length(ids);
        assert_eq!((length, short(ids[0], length).as_str()), (11, "01KB0000AAA"));
        assert_eq!(short_length([]), 8);
        assert_eq!(short_length(["01KB0000AAAA", "01KB0000AAAA"]), 8, "the same id twice is one");
    }

    #[test]
    fn a_time_has_its_offset() {
        let at = contract::Timestamp::from_timestamp(1_800_000_000, 0).expect("a time");
        let text = time(&at);
        assert!(text.ends_with('Z') || text[19..].starts_with(['+', '-']), "{text}");
    }
}
