//! Messages of the provisioner: hosts, seeds, VMs, exports of their disks, and restores (names and disks that are reserved
//! for VMs restored from a backup).

mod definition;
mod exports;
mod hosts;
mod restores;
mod seeds;
mod state;
mod vms;

pub use self::definition::*;
pub use self::exports::*;
pub use self::hosts::*;
pub use self::restores::*;
pub use self::seeds::*;
pub use self::state::*;
pub use self::vms::*;
use crate::catalog::Visitor;

pub(crate) fn visit(visitor: &mut impl Visitor) {
    hosts::visit(visitor);
    seeds::visit(visitor);
    vms::visit(visitor);
    exports::visit(visitor);
    restores::visit(visitor);
}
