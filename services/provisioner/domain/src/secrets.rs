//! What of a definition may be secret, and how a record holds it.
//!
//! ```text
//!   VmDefinition --split--> definition without variables and scripts     in the record, in clear
//!                     '---> VmSecrets --encrypted--> StoredSecrets       in the record: names in clear, the rest encrypted
//! ```
//!
//! Nothing here encrypts or decrypts: a record is decided on, listed and started without what is encrypted in it.

use contract::VmUuid;
use contract::bucket;
use contract::provisioner::{VmDefinition, VmSecrets};
use encryption::{Encrypted, RowRef};
use serde::{Deserialize, Serialize};

/// The variables and scripts of a VM, as its record holds them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredSecrets {
    /// The names of the variables.
    pub variables: Vec<String>,
    /// The names of the scripts, in their order.
    pub scripts: Vec<String>,
    /// The [`VmSecrets`], encrypted for [`row_of`] the VM.
    pub encrypted: Encrypted,
}

impl StoredSecrets {
    /// The secrets of a VM, once they are encrypted.
    pub fn new(secrets: &VmSecrets, encrypted: Encrypted) -> StoredSecrets {
        StoredSecrets {
            variables: secrets.env.keys().cloned().collect(),
            scripts: secrets.install.iter().map(|script| script.name.clone()).collect(),
            encrypted,
        }
    }
}

/// What the secrets of a VM are encrypted for: its row, by what identifies the VM whatever its name.
pub fn row_of(vm: &VmUuid) -> RowRef<'_> {
    RowRef { table: bucket::VMS.name, key: vm.as_str() }
}

/// The secrets of a definition, where it has any.
pub fn secrets_of(definition: &VmDefinition) -> Option<VmSecrets> {
    let VmDefinition { env, install, .. } = definition;
    let has_any = !env.is_empty() || !install.is_empty();
    has_any.then(|| VmSecrets { env: env.clone(), install: install.clone() })
}

/// A definition without its secrets.
pub fn without_secrets(definition: &VmDefinition) -> VmDefinition {
    VmDefinition { env: Default::default(), install: Vec::new(), ..definition.clone() }
}

/// A definition with its secrets.
pub fn with_secrets(definition: VmDefinition, secrets: VmSecrets) -> VmDefinition {
    VmDefinition { env: secrets.env, install: secrets.install, ..definition }
}
