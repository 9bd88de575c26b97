//! Names: taken before the row of a VM is written, held once it is, and freed after it is removed.

use bus::{Bus, Entry, Revision, Table, TableError};
use contract::{HostName, OperationId, VmName, VmUuid, bucket};
use provisioner_domain::name::RESERVED_FOR;
use provisioner_domain::vm::row_key;
use provisioner_domain::{Inventory, NameRecord, VmRecord};

/// Writers that may come between a read and a write before the attempt is given up: each is another VM of the same name.
const ATTEMPTS: usize = 4;

/// Who has which name, over all hosts. Cloning is cheap.
#[derive(Clone)]
pub struct Names {
    host: HostName,
    names: Table<NameRecord>,
    vms: Table<VmRecord>,
}

/// Why a name was not taken.
#[derive(Debug, thiserror::Error)]
pub enum NameError {
    /// Another VM has it.
    #[error("there is a VM {name} on host {host} already")]
    Taken {
        /// The name.
        name: VmName,
        /// Where the other VM is.
        host: HostName,
    },
    /// The table cannot be read or written.
    #[error(transparent)]
    Table(#[from] TableError),
}

impl Names {
    pub(super) fn new(bus: &Bus, host: HostName) -> Names {
        Names { host, names: bus.table(bucket::VM_NAMES), vms: bus.table(bucket::VMS) }
    }

    /// The VM that has a name.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn owner(&self, name: &VmName) -> Result<Option<NameRecord>, TableError> {
        Ok(self.names.get(name.as_str()).await?.map(|row| row.value))
    }

    /// The host that a VM of this name is on.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn host_of(&self, name: &VmName) -> Result<Option<HostName>, TableError> {
        Ok(self.owner(name).await?.map(|owner| owner.host))
    }

    /// Whether a VM on another host has a name.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub async fn is_taken_elsewhere(&self, name: &VmName) -> Result<bool, TableError> {
        match self.owner(name).await? {
            Some(owner) if owner.host != self.host => self.is_kept(&owner).await,
            _ => Ok(false),
        }
    }

    /// The names that this host has of these rows' VMs, for what cannot be read of them.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn of_rows(&self, keys: &[&str]) -> Result<Vec<(String, VmName)>, TableError> {
        let names = self.names.all().await?.read.into_iter().filter_map(|row| {
            let key = row_key(&row.value.host, &row.value.uuid);
            let name = VmName::new(row.key).ok()?;
            keys.contains(&key.as_str()).then_some((key, name))
        });
        Ok(names.collect())
    }

    /// Reserves the name of a VM whose row is about to be written; the revision of the reservation.
    ///
    /// # Errors
    /// Where another VM has it, or the table does not answer.
    pub async fn reserve(&self, vm: &VmRecord, by: &OperationId) -> Result<Revision, NameError> {
        let wanted = NameRecord {
            host: self.host.clone(),
            uuid: vm.identity.uuid.clone(),
            by: by.clone(),
            reserved_until: Some(chrono::Utc::now() + RESERVED_FOR),
        };
        let key = vm.name().as_str();
        let mut conflict = match self.names.create(key, &wanted).await {
            Ok(revision) => return Ok(revision),
            Err(error @ TableError::Conflict { .. }) => error,
            Err(error) => return Err(error.into()),
        };
        for _ in 0..ATTEMPTS {
            let written = match self.names.get_from_leader(key).await? {
                None => self.names.create(key, &wanted).await,
                Some(Entry { value, revision, .. }) => {
                    if !value.is_of(&wanted) && self.is_kept(&value).await? {
                        return Err(NameError::Taken { name: vm.name().clone(), host: value.host });
                    }
                    self.names.update(key, &wanted, revision).await
                }
            };
            match written {
                Ok(revision) => return Ok(revision),
                Err(error @ TableError::Conflict { .. }) => conflict = error,
                Err(error) => return Err(error.into()),
            }
        }
        Err(conflict.into())
    }

    /// Holds a reserved name, now that the row of its VM is written. While the table does not answer that can wait: a name
    /// whose VM has a row is nobody else's.
    ///
    /// # Errors
    /// Where the reservation had expired and another VM has the name now.
    pub async fn hold(&self, vm: &VmRecord, by: &OperationId, reserved: Revision) -> Result<(), NameError> {
        let held = NameRecord {
            host: self.host.clone(),
            uuid: vm.identity.uuid.clone(),
            by: by.clone(),
            reserved_until: None,
        };
        let key = vm.name().as_str();
        let error = match self.names.update(key, &held, reserved).await {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        if matches!(error, TableError::Conflict { .. })
            && let Ok(Some(Entry { value, .. })) = self.names.get_from_leader(key).await
            && !value.is_of(&held)
        {
            return Err(NameError::Taken { name: vm.name().clone(), host: value.host });
        }
        tracing::debug!(vm = key, %error, "a name stays reserved for now");
        Ok(())
    }

    /// Frees the name of a VM whose row is removed; a no-op where it is another's.
    ///
    /// # Errors
    /// When the table cannot be read or written.
    pub async fn release(&self, name: &VmName, host: &HostName, uuid: &VmUuid) -> Result<(), TableError> {
        let key = name.as_str();
        match self.names.get_from_leader(key).await? {
            Some(row) if row.value.host == *host && row.value.uuid == *uuid => {
                match self.names.remove(key, row.revision).await {
                    // Another has taken it meanwhile.
                    Ok(()) | Err(TableError::Conflict { .. }) => Ok(()),
                    Err(error) => Err(error),
                }
            }
            _ => Ok(()),
        }
    }

    /// Brings the names of this host in line with its VMs: what a crash, or a table that did not answer, left undone.
    /// Returns the VMs whose name another VM has.
    ///
    /// # Errors
    /// When the tables cannot be read or written.
    pub async fn repair(&self, inventory: &Inventory) -> Result<Vec<NameError>, TableError> {
        let rows = self.names.all().await?;
        let (now, mut taken) = (chrono::Utc::now(), Vec::new());
        for vm in inventory.vms() {
            let held = |row: &&Entry<NameRecord>| {
                row.key == vm.name().as_str()
                    && row.value.uuid == vm.identity.uuid
                    && row.value.reserved_until.is_none()
            };
            if rows.read.iter().any(|row| held(&row))
                || rows.unreadable.iter().any(|row| row.key == vm.name().as_str())
            {
                continue;
            }
            let by = vm.locked_by().or(vm.last_completed_operation.as_ref());
            let by = by.cloned().unwrap_or_else(operation::new_id);
            let repaired = match self.reserve(vm, &by).await {
                Ok(revision) => self.hold(vm, &by, revision).await,
                Err(error) => Err(error),
            };
            match repaired {
                Ok(()) => {}
                Err(error @ NameError::Taken { .. }) => taken.push(error),
                Err(NameError::Table(error)) => return Err(error),
            }
        }
        for row in rows.read.iter().filter(|row| row.value.host == self.host) {
            let key = row_key(&row.value.host, &row.value.uuid);
            let has_row = inventory.has_unreadable_vm(&key) || inventory.vms().any(|vm| vm.key() == key);
            if row.value.is_free(has_row, now) {
                match self.names.remove(&row.key, row.revision).await {
                    Ok(()) | Err(TableError::Conflict { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(taken)
    }

    /// Whether the VM that has a name keeps it.
    async fn is_kept(&self, owner: &NameRecord) -> Result<bool, TableError> {
        let has_row = match self.vms.get_from_leader(&row_key(&owner.host, &owner.uuid)).await {
            Ok(row) => row.is_some(),
            Err(TableError::Unreadable { .. }) => true,
            Err(error) => return Err(error),
        };
        Ok(!owner.is_free(has_row, chrono::Utc::now()))
    }
}
