//! What of an operation only its service may read, where its command has secret fields.
//!
//! ```text
//!   while it runs:   command, outputs of its steps, outputs of scripts     encrypted in its row
//!   after its end:   a keyed digest of the command                         tells a repetition from another command
//!                    outputs of scripts                                    encrypted, for who asks for them
//! ```
//!
//! The output of the last step is the result that everybody sees: it holds no secret.

use std::collections::BTreeMap;
use std::sync::Arc;

use bus::Encoding;
use contract::operation::ScriptOutput;
use contract::{OperationId, bucket};
use encryption::{DecryptError, Encrypted, KeyedDigest, NoKey, RowKeys, RowRef};
use saga::{Journal, JournalEntry};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::context::ScriptOutputs;

/// The command of an operation, as its row holds it: JSON without the operation id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StoredCommand {
    /// Of a command without secret fields.
    Plain(Value),
    /// Of one with secret fields, while the operation has not ended: all that is confidential.
    Encrypted(Encrypted),
    /// Of one with secret fields, after the end.
    Ended {
        digest: KeyedDigest,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        scripts: Option<Encrypted>,
    },
}

/// What is encrypted of an unfinished operation.
#[derive(Serialize, Deserialize)]
struct Contents {
    command: Value,
    /// By step.
    outputs: BTreeMap<String, Value>,
    scripts: Vec<ScriptOutput>,
}

/// What a row held, readable.
pub(crate) struct Decrypted {
    pub(crate) command: Value,
    pub(crate) journal: Journal,
    pub(crate) scripts: ScriptOutputs,
}

/// The row of an operation and the keys that it is encrypted with.
#[derive(Clone)]
pub(crate) struct Cipher {
    keys: Arc<RowKeys>,
    id: OperationId,
}

impl Cipher {
    pub(crate) fn new(keys: Arc<RowKeys>, id: OperationId) -> Cipher {
        Cipher { keys, id }
    }

    fn row(&self) -> RowRef<'_> {
        RowRef { table: bucket::OPERATIONS.name, key: self.id.as_str() }
    }

    fn encrypt<T: Serialize>(&self, value: &T) -> Result<Encrypted, NoKey> {
        // No part of it is a map with keys other than texts.
        let bytes = Encoding::MessagePack.write(value).expect("plain data");
        self.keys.encrypt(self.row(), rand::random(), &bytes)
    }

    /// The command of an operation that begins.
    pub(crate) fn begin(&self, command: &Value) -> Result<StoredCommand, NoKey> {
        let contents = Contents { command: command.clone(), outputs: BTreeMap::new(), scripts: Vec::new() };
        self.encrypt(&contents).map(StoredCommand::Encrypted)
    }

    /// What is recorded of an operation that goes on: the outputs are taken out of its journal.
    pub(crate) fn record(
        &self,
        command: &Value,
        scripts: &ScriptOutputs,
        journal: &mut Journal,
    ) -> Result<StoredCommand, NoKey> {
        let outputs = journal.entries.iter_mut().filter_map(|entry| match entry {
            JournalEntry::Done(step, output) => Some((step.clone(), output.take())),
            _ => None,
        });
        let contents =
            Contents { command: command.clone(), outputs: outputs.collect(), scripts: scripts.read() };
        self.encrypt(&contents).map(StoredCommand::Encrypted)
    }

    /// What is left of an operation that has ended.
    pub(crate) fn end(&self, command: &Value, scripts: &ScriptOutputs) -> Result<StoredCommand, NoKey> {
        let scripts = scripts.read();
        let scripts = if scripts.is_empty() { None } else { Some(self.encrypt(&scripts)?) };
        Ok(StoredCommand::Ended { digest: self.keys.digest(self.row(), &bytes_of(command))?, scripts })
    }

    /// Reads what an unfinished operation recorded.
    pub(crate) fn decrypt(
        &self,
        encrypted: &Encrypted,
        journal: &Journal,
    ) -> Result<Decrypted, DecryptError> {
        let Contents { command, mut outputs, scripts } = self.read(encrypted)?;
        let mut journal = journal.clone();
        for entry in &mut journal.entries {
            if let JournalEntry::Done(step, output) = entry {
                *output = outputs.remove(step).unwrap_or_default();
            }
        }
        Ok(Decrypted { command, journal, scripts: ScriptOutputs::new(scripts) })
    }

    /// Whether an operation was begun by this command.
    pub(crate) fn is_begun_by(&self, stored: &StoredCommand, command: &Value) -> Result<bool, DecryptError> {
        match stored {
            StoredCommand::Plain(known) => Ok(known == command),
            StoredCommand::Encrypted(known) => Ok(self.read::<Contents>(known)?.command == *command),
            StoredCommand::Ended { digest, .. } => {
                self.keys.is_digest_of(digest, self.row(), &bytes_of(command))
            }
        }
    }

    /// What the scripts of an operation wrote.
    pub(crate) fn scripts(&self, stored: &StoredCommand) -> Result<Vec<ScriptOutput>, DecryptError> {
        match stored {
            StoredCommand::Encrypted(contents) => Ok(self.read::<Contents>(contents)?.scripts),
            StoredCommand::Ended { scripts: Some(scripts), .. } => self.read(scripts),
            StoredCommand::Plain(_) | StoredCommand::Ended { scripts: None, .. } => Ok(Vec::new()),
        }
    }

    fn read<T: serde::de::DeserializeOwned>(&self, encrypted: &Encrypted) -> Result<T, DecryptError> {
        let bytes = self.keys.decrypt(self.row(), encrypted)?;
        Encoding::MessagePack.read(&bytes).map_err(|_| DecryptError::UnknownForm)
    }
}

/// A command as bytes, the same whatever the order of its fields.
fn bytes_of(command: &Value) -> Vec<u8> {
    let mut sorted = command.clone();
    sorted.sort_all_objects();
    serde_json::to_vec(&sorted).expect("plain data")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cipher() -> Cipher {
        let keys = RowKeys::parse(&"01".repeat(32)).expect("a key");
        Cipher::new(Arc::new(keys), OperationId::from_bits(7))
    }

    #[test]
    fn the_order_of_fields_does_not_make_another_command() {
        let [one, two] = [r#"{ "a": { "x": 1, "y": 2 }, "b": 3 }"#, r#"{ "b": 3, "a": { "y": 2, "x": 1 } }"#]
            .map(|text| serde_json::from_str::<Value>(text).expect("JSON"));
        let ended = cipher().end(&one, &ScriptOutputs::default()).expect("a digest");
        assert_eq!(cipher().is_begun_by(&ended, &two), Ok(true));
        assert_eq!(cipher().is_begun_by(&ended, &serde_json::json!({ "b": 3 })), Ok(false));
    }

    #[test]
    fn what_is_recorded_is_read_back_and_nothing_of_it_is_in_the_row() {
        let command = serde_json::json!({ "password": "sesame" });
        let (scripts, mut journal) = (ScriptOutputs::default(), Journal::default());
        scripts.keep("install.sh", "sesame".into());
        journal.entries.push(JournalEntry::Done("lock".into(), serde_json::json!("sesame")));
        let whole = journal.clone();
        let stored = cipher().record(&command, &scripts, &mut journal).expect("encrypted");
        assert!(!format!("{stored:?} {journal:?}").contains("sesame"));
        let StoredCommand::Encrypted(encrypted) = &stored else { panic!("{stored:?}") };
        let read = cipher().decrypt(encrypted, &journal).expect("decrypted");
        assert_eq!((read.command, read.journal, read.scripts.read()), (command, whole, scripts.read()));
        assert_eq!(cipher().scripts(&stored), Ok(scripts.read()));
    }
}
