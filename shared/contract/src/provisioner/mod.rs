//! Words of the provisioner: seeds, virtual machines, the doors it opens to their disks, and the places it keeps for
//! machines that are brought back.

mod doors;
mod machines;
mod places;
mod seeds;

pub use self::doors::*;
pub use self::machines::*;
pub use self::places::*;
pub use self::seeds::*;
use crate::Service;
use crate::word::{Audience, Owner};

const OWNER: Owner = Owner::One(Service::Provisioner);
const BACKUP_ONLY: Audience = Audience::Services(&[Service::Backup]);
