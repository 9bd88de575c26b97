//! The variables and scripts of VMs, encrypted in their records and decrypted for who needs them: the first scripts come
//! from the command itself, so that is a backup, and the operator.
//!
//! ```text
//!   keys/rows.key --read_keys--> RowKeys (none, and why, where the file cannot be used)
//!   create, reserve --encrypt--> StoredSecrets --decrypt--> get_vm_secrets, open_disks
//!   start of the service --renew--> encrypted with the newest key
//! ```
//!
//! A key that is missing keeps nothing from running: a VM is listed, started, backed up and removed without its secrets,
//! and health names it.

use std::path::Path;

use bus::{Encoding, Entry, Table};
use contract::VmUuid;
use contract::message::with_causes;
use contract::provisioner::{VmDefinition, VmSecrets};
use encryption::{DecryptError, KeyId, NoKey, RowKeys};
use provisioner_domain::secrets::{row_of, with_secrets};
use provisioner_domain::{Inventory, StoredSecrets, VmRecord};

/// Reads the keys of rows. A file that is missing, damaged, or readable by others gives no keys.
pub fn read_keys(path: &Path) -> RowKeys {
    let problem =
        |error: &dyn std::error::Error| RowKeys::none(format!("{}: {}", path.display(), with_causes(error)));
    if let Err(error) = chassis::refuse_if_others_have_access(path) {
        return problem(&error);
    }
    let text = match std::fs::read_to_string(path) {
        Ok(text) => zeroize::Zeroizing::new(text),
        Err(error) => return problem(&error),
    };
    RowKeys::parse(&text).unwrap_or_else(|error| problem(&error))
}

/// Encrypts the secrets of a VM.
///
/// # Errors
/// When there is no key.
pub(crate) fn encrypt(keys: &RowKeys, vm: &VmUuid, secrets: &VmSecrets) -> Result<StoredSecrets, NoKey> {
    let bytes = Encoding::MessagePack.write(secrets).expect("texts by name are plain data");
    let encrypted = keys.encrypt(row_of(vm), rand::random(), &bytes)?;
    Ok(StoredSecrets::new(secrets, encrypted))
}

/// The secrets of a VM; empty where it has none.
///
/// # Errors
/// When they do not decrypt.
pub(crate) fn decrypt(keys: &RowKeys, record: &VmRecord) -> Result<VmSecrets, DecryptError> {
    let Some(stored) = &record.secrets else {
        return Ok(VmSecrets::default());
    };
    let bytes = keys.decrypt(row_of(&record.identity.uuid), &stored.encrypted)?;
    Encoding::MessagePack.read(&bytes).map_err(|_| DecryptError::UnknownForm)
}

/// Encrypts the secrets of a row anew, where a newer key came since. What does not decrypt is left as it is.
pub(crate) async fn renew(table: &Table<VmRecord>, row: &mut Entry<VmRecord>, keys: &RowKeys) {
    let record = match renewed(&row.value, keys) {
        Ok(Some(record)) => record,
        Ok(None) => return,
        Err(reason) => {
            tracing::warn!(vm = %row.value.name(), reason, "its variables and scripts do not decrypt; they are left as they are");
            return;
        }
    };
    match table.update(&row.key, &record, row.revision).await {
        Ok(revision) => (row.value, row.revision) = (record, revision),
        // The older key is still there; the next start tries again.
        Err(error) => {
            tracing::warn!(vm = %record.name(), %error, "its variables and scripts were not encrypted anew")
        }
    }
}

/// The record with its secrets encrypted with the newest key; none where they are, or there is no key at all.
///
/// # Errors
/// Why they do not decrypt.
fn renewed(record: &VmRecord, keys: &RowKeys) -> Result<Option<VmRecord>, String> {
    let is_old = |stored: &StoredSecrets| !keys.is_newest(stored.encrypted.key());
    if !record.secrets.as_ref().is_some_and(is_old) {
        return Ok(None);
    }
    let secrets = decrypt(keys, record).map_err(|error| error.to_string())?;
    let stored = encrypt(keys, &record.identity.uuid, &secrets).map_err(|error| error.to_string())?;
    Ok(Some(VmRecord { secrets: Some(stored), ..record.clone() }))
}

/// The definition that a backup keeps. Where the secrets do not decrypt it is kept without them: the disks must not be
/// lost, too.
pub(crate) fn whole_definition(keys: &RowKeys, record: &VmRecord) -> VmDefinition {
    match decrypt(keys, record) {
        Ok(secrets) => with_secrets(record.definition.clone(), secrets),
        Err(error) => {
            tracing::warn!(vm = %record.name(), %error, "a backup is made without its variables and scripts");
            record.definition.clone()
        }
    }
}

/// What is wrong with the keys: no file, or VMs whose secrets need a key that is not in it.
pub(crate) fn problems(keys: &RowKeys, inventory: &Inventory) -> Vec<String> {
    let undecryptable = |vm: &VmRecord| {
        let error = decrypt(keys, vm).err()?;
        Some(format!("the variables and scripts of VM {} do not decrypt: {error}", vm.name()))
    };
    keys.problem().map(str::to_owned).into_iter().chain(inventory.vms().filter_map(undecryptable)).collect()
}

/// The older keys that no VM's secrets are encrypted with.
pub(crate) fn unused<'a>(keys: &'a RowKeys, inventory: &Inventory) -> Vec<&'a KeyId> {
    let used: Vec<&KeyId> =
        inventory.vms().filter_map(|vm| Some(vm.secrets.as_ref()?.encrypted.key())).collect();
    keys.ids().skip(1).filter(|id| !used.contains(id)).collect()
}
