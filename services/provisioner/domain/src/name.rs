//! Who has the name of a VM. A name is used once over all hosts, and each host creates VMs by itself:
//!
//! ```text
//!   name reserved (owner, expiry) --> row of the VM --> name held --> ... --> row of the VM removed --> name removed
//! ```
//!
//! A crash between two of these leaves a name that another may take: one whose VM has no row and whose reservation, if it
//! is one, has expired.

use std::time::Duration;

use contract::{HostName, NoPrevious, OperationId, Stored, Timestamp, VmUuid};
use serde::{Deserialize, Serialize};

/// How long a name stays reserved for a VM whose row has not been written. Writing it takes a second; the operation that
/// does is tried again for minutes.
pub const RESERVED_FOR: Duration = Duration::from_secs(15 * 60);

/// How long a name stays reserved for a VM that is being restored, whose row is written at once: its disks may take two days
/// over a slow line. Whoever restores it frees the name before, if it still can.
pub const RESERVED_FOR_RESTORE: Duration = Duration::from_secs(72 * 3600);

/// A row of the table `vm_names`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameRecord {
    /// The host of the VM that has the name.
    pub host: HostName,
    /// That VM's UUID.
    pub uuid: VmUuid,
    /// The operation that reserved it.
    pub by: OperationId,
    /// When the reservation expires; none once the VM's row is written.
    pub reserved_until: Option<Timestamp>,
}

impl Stored for NameRecord {
    const VERSION: u16 = 1;
    type Previous = NoPrevious;

    fn migrate(previous: NoPrevious) -> Self {
        match previous {}
    }
}

impl NameRecord {
    /// Whether another VM may take the name. `has_row`: whether there is a row of the VM that has it.
    pub fn is_free(&self, has_row: bool, now: Timestamp) -> bool {
        !has_row && self.reserved_until.is_none_or(|until| until <= now)
    }

    /// Whether it is of the same owner: that VM, or an earlier attempt of the operation that creates it.
    pub fn is_of(&self, other: &NameRecord) -> bool {
        self.host == other.host && (self.uuid == other.uuid || self.by == other.by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;

    #[test]
    fn a_name_is_free_when_its_vm_has_no_row_and_nobody_reserves_it_any_more() {
        let now = Timestamp::UNIX_EPOCH;
        let mut name = NameRecord {
            host: HostName::new("h1").expect("a good name"),
            uuid: Identity::from_random(1).uuid,
            by: OperationId::from_bits(1),
            reserved_until: Some(now + RESERVED_FOR),
        };
        assert!(!name.is_free(false, now), "reserved");
        assert!(name.is_free(false, now + RESERVED_FOR), "expired");
        assert!(!name.is_free(true, now + RESERVED_FOR), "the VM's row was written");
        name.reserved_until = None;
        assert!(!name.is_free(true, now), "held");
        assert!(name.is_free(false, now), "the VM was removed");
    }
}
