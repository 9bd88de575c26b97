//! Answers: JSON for programs, tables and lines for people.

use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use serde::Serialize;

use super::exit::{Exit, Trouble};

/// Shows an answer: as JSON, or as people read it.
pub(super) fn show<T: Serialize>(json: bool, answer: &T, for_people: impl FnOnce(&T)) -> Result<(), Trouble> {
    if json {
        let text = serde_json::to_string_pretty(answer)
            .map_err(|error| Trouble::new(Exit::Failed, format!("writing the answer: {error}")))?;
        println!("{text}");
    } else {
        for_people(answer);
    }
    Ok(())
}

/// Prints rows under a head; `none` where there are no rows.
pub(super) fn table<const N: usize>(head: [&str; N], rows: Vec<[String; N]>, none: &str) {
    if rows.is_empty() {
        println!("{none}");
        return;
    }
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_header(head);
    for row in rows {
        table.add_row(row);
    }
    println!("{table}");
}

/// A time as people read it.
pub(super) fn time(time: &contract::Timestamp) -> String {
    time.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}
