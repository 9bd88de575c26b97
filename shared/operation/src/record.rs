//! An operation as a row.

use contract::message::Caller;
use contract::operation::{OperationReport, OperationState};
use contract::{HostName, NoPrevious, OperationId, Service, Stored, Timestamp};
use saga::{Action, Journal, JournalEntry, SagaOutcome, next_action};
use serde::{Deserialize, Serialize};

use crate::confidential::StoredCommand;
use crate::context::ProgressMeter;

/// An operation as it is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct OperationRecord {
    pub(crate) id: OperationId,
    pub(crate) service: Service,
    /// Where it runs: only the service on this host drives it.
    pub(crate) host: HostName,
    pub(crate) caller: Caller,
    pub(crate) on_behalf_of: Option<Caller>,
    pub(crate) kind: String,
    pub(crate) about: String,
    /// The command: the same id with another command is refused.
    pub(crate) command: StoredCommand,
    pub(crate) journal: Journal,
    pub(crate) state: OperationState,
    pub(crate) steps: Vec<String>,
    pub(crate) started: Timestamp,
    pub(crate) updated: Timestamp,
    pub(crate) trace: telemetry::TraceContext,
}

impl Stored for OperationRecord {
    const VERSION: u16 = 1;
    type Previous = NoPrevious;

    fn migrate(previous: NoPrevious) -> Self {
        match previous {}
    }

    fn is_known(&self) -> bool {
        self.state != OperationState::Unknown && self.service != Service::Unknown
    }
}

impl OperationRecord {
    /// Takes over a journal and the state that follows from it.
    pub(crate) fn follow(&mut self, journal: &Journal, now: Timestamp) {
        self.journal = journal.clone();
        self.updated = now;
        self.state = match next_action(&self.order(), journal) {
            Action::Do(_) => OperationState::Running,
            Action::Undo(_) => OperationState::Undoing,
            Action::End(SagaOutcome::Done) => OperationState::Done,
            Action::End(SagaOutcome::Undone(_)) => OperationState::Undone,
            Action::End(SagaOutcome::Stuck(_)) => OperationState::Stuck,
        };
        if self.state.is_final() {
            self.erase_outputs();
        }
    }

    /// Who asked for it in the end.
    pub(crate) fn asked_by(&self) -> &Caller {
        self.on_behalf_of.as_ref().unwrap_or(&self.caller)
    }

    fn order(&self) -> Vec<&str> {
        self.steps.iter().map(String::as_str).collect()
    }

    /// What steps returned to later ones is needed no more; the last one returned the result.
    fn erase_outputs(&mut self) {
        let entries = &mut self.journal.entries;
        let kept =
            if self.state == OperationState::Done { entries.len().saturating_sub(1) } else { entries.len() };
        for entry in &mut entries[..kept] {
            if let JournalEntry::Done(_, output) = entry {
                output.take();
            }
        }
    }

    /// What is told of it; `meter` where this process drives it.
    pub(crate) fn report(&self, meter: Option<&ProgressMeter>) -> OperationReport {
        let order = self.order();
        let step = match next_action(&order, &self.journal) {
            Action::Do(index) | Action::Undo(index) => self.steps.get(index).cloned(),
            Action::End(_) => None,
        };
        let reason = match next_action(&order, &self.journal) {
            Action::End(SagaOutcome::Stuck(reason)) => Some(reason),
            _ => self.journal.undo_reason(),
        };
        let output = match (&self.state, self.journal.entries.last()) {
            (OperationState::Done, Some(JournalEntry::Done(_, value))) if !value.is_null() => {
                Some(value.clone())
            }
            _ => None,
        };
        OperationReport {
            id: self.id.clone(),
            service: self.service,
            host: self.host.clone(),
            caller: self.caller.clone(),
            on_behalf_of: self.on_behalf_of.clone(),
            kind: self.kind.clone(),
            about: self.about.clone(),
            state: self.state.clone(),
            progress: meter.filter(|_| step.is_some()).and_then(ProgressMeter::read),
            waiting_for: meter.filter(|_| step.is_some()).and_then(ProgressMeter::waiting_for),
            step,
            steps_done: self.journal.done_count() as u32,
            steps_total: self.steps.len() as u32,
            reason,
            output,
            started: self.started,
            updated: self.updated,
            trace_id: self
                .trace
                .get("traceparent")
                .and_then(|text| text.split('-').nth(1))
                .map(str::to_string),
        }
    }
}

#[cfg(test)]
mod tests {
    use encryption::{RowKeys, RowRef};

    use super::*;

    #[test]
    fn a_row_of_version_1_is_read_and_written() {
        let steps = vec!["lock".to_string(), "boot".to_string()];
        let journal = Journal {
            entries: vec![
                JournalEntry::Started("lock".into()),
                JournalEntry::Done("lock".into(), serde_json::json!({ "vm": "web" })),
            ],
        };
        let record = OperationRecord {
            id: OperationId::from_bits(7),
            service: Service::Provisioner,
            host: HostName::new("h1").expect("a name"),
            caller: Caller::Service(Service::Scheduler),
            on_behalf_of: Some(Caller::Person { user: "UALICE".into(), name: Some("alice".into()) }),
            kind: "start_vm".into(),
            about: "web".into(),
            command: StoredCommand::Plain(serde_json::json!({ "vm": "web" })),
            journal,
            state: OperationState::Running,
            steps,
            started: Timestamp::UNIX_EPOCH,
            updated: Timestamp::UNIX_EPOCH,
            trace: [("traceparent".to_string(), "00-0-0-01".to_string())].into(),
        };
        let row = bus::write_row(&record).expect("written");
        testkit::golden_row(env!("CARGO_MANIFEST_DIR"), "operations", &row);
        assert_eq!(bus::read_row(&row).as_ref(), Ok(&record));

        // Of a command with secret fields: while it runs, and after its end.
        let keys = RowKeys::parse(&"01".repeat(32)).expect("a key");
        let encrypt = |salt, text| keys.encrypt(RowRef { table: "operations", key: "x" }, [salt; 32], text);
        let ended = StoredCommand::Ended {
            digest: keys.digest(RowRef { table: "operations", key: "x" }, b"command").expect("a digest"),
            scripts: Some(encrypt(2, b"scripts").expect("encrypted")),
        };
        let running = StoredCommand::Encrypted(encrypt(1, b"contents").expect("encrypted"));
        for (name, command) in [("operations_encrypted", running), ("operations_ended", ended)] {
            let record = OperationRecord { command, ..record.clone() };
            let row = bus::write_row(&record).expect("written");
            testkit::golden_row(env!("CARGO_MANIFEST_DIR"), name, &row);
            assert_eq!(bus::read_row(&row), Ok(record));
        }
    }
}
