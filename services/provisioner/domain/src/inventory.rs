//! The VMs and seeds of one host, and what must hold between them: a name is used once, a domain is routed to one VM, a
//! disk is not smaller than its seed, a seed in use stays. (Names are used once over all hosts: see `name`.)
//!
//! A row that this build cannot read may be about any VM or seed: its key stays taken, and while there is one, nothing
//! is removed because no record needs it.
//!
//! Each decision returns the record to write, and changes nothing; once it is written, `put` or `forget` takes it over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use contract::provisioner::{
    AddSeedRefused, CreateVmRefused, DiskSize, RemoveSeedRefused, Seed, VmDefinition,
};
use contract::{ByteCount, HostName, OperationId, SeedName, Timestamp, VmName};

use crate::bounds;
use crate::identity::Identity;
use crate::name::RESERVED_FOR_RESTORE;
use crate::secrets::{StoredSecrets, without_secrets};
use crate::seed::{SeedImageRecord, is_sha256};
use crate::vm::{DesiredPowerState, DiskSource, VmPhase, VmRecord};

/// All records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Shared, so that a snapshot of everything costs little.
    vms: BTreeMap<VmName, Arc<VmRecord>>,
    seeds: BTreeMap<SeedName, SeedImageRecord>,
    /// The keys of the rows that cannot be read, each with the VM's name where that is known.
    unreadable_vms: BTreeMap<String, Option<VmName>>,
    unreadable_seeds: BTreeSet<String>,
}

/// What a new VM gets besides its definition.
#[derive(Clone, Debug)]
pub struct NewVmParams {
    /// The operation that creates it.
    pub by: OperationId,
    /// 128 random bits.
    pub random_bits: u128,
    /// The host that it will be on.
    pub host: HostName,
    /// When its creation began.
    pub now: Timestamp,
    /// Its variables and scripts, encrypted; none where the definition has neither.
    pub secrets: Option<StoredSecrets>,
}

impl NewVmParams {
    /// Its UUID and MAC address.
    pub fn identity(&self) -> Identity {
        Identity::from_random(self.random_bits)
    }
}

impl Inventory {
    /// Takes records over from their tables.
    pub fn new(
        vms: impl IntoIterator<Item = VmRecord>,
        seeds: impl IntoIterator<Item = SeedImageRecord>,
    ) -> Self {
        Inventory {
            vms: vms.into_iter().map(|vm| (vm.name().clone(), Arc::new(vm))).collect(),
            seeds: seeds.into_iter().map(|seed| (seed.name().clone(), seed)).collect(),
            ..Inventory::default()
        }
    }

    /// Takes over that the row of a VM cannot be read; `name` where the table of names has it.
    pub fn set_aside_vm(&mut self, key: &str, name: Option<VmName>) {
        self.vms.retain(|_, vm| vm.key() != key);
        self.unreadable_vms.insert(key.into(), name);
    }

    /// Takes over that the row of a seed cannot be read. `key` is that of the row, without the host.
    pub fn set_aside_seed(&mut self, key: &str) {
        self.seeds.retain(|name, _| name.as_str() != key);
        self.unreadable_seeds.insert(key.into());
    }

    /// Whether the row of a VM of that name cannot be read.
    pub fn is_vm_unreadable(&self, name: &VmName) -> bool {
        self.unreadable_vms.values().any(|other| other.as_ref() == Some(name))
    }

    /// Whether there is a row of this key that cannot be read.
    pub fn has_unreadable_vm(&self, key: &str) -> bool {
        self.unreadable_vms.contains_key(key)
    }

    /// Whether the row of a seed cannot be read.
    pub fn is_seed_unreadable(&self, name: &SeedName) -> bool {
        self.unreadable_seeds.contains(name.as_str())
    }

    /// Whether every row of a VM was read. Otherwise a VM without a record may be one whose row was not.
    pub fn knows_all_vms(&self) -> bool {
        self.unreadable_vms.is_empty()
    }

    /// One VM's record.
    pub fn vm(&self, name: &VmName) -> Option<&VmRecord> {
        self.vms.get(name).map(Arc::as_ref)
    }

    /// All VMs, by name.
    pub fn vms(&self) -> impl Iterator<Item = &VmRecord> {
        self.vms.values().map(Arc::as_ref)
    }

    /// The names that were reserved for a restore so long ago that nobody restores it any more, each with its operation.
    pub fn expired_reservations(&self, now: Timestamp) -> impl Iterator<Item = (&VmName, &OperationId)> {
        self.vms().filter_map(move |vm| match &vm.phase {
            VmPhase::Reserved { by } if vm.created + RESERVED_FOR_RESTORE <= now => Some((vm.name(), by)),
            _ => None,
        })
    }

    /// One seed's record.
    pub fn seed(&self, name: &SeedName) -> Option<&SeedImageRecord> {
        self.seeds.get(name)
    }

    /// The records of all seeds, by name.
    pub fn seed_records(&self) -> impl Iterator<Item = &SeedImageRecord> {
        self.seeds.values()
    }

    /// The seeds that are imported, by name.
    pub fn seeds(&self) -> impl Iterator<Item = &Seed> {
        self.seeds.values().filter_map(SeedImageRecord::imported)
    }

    /// The seeds that are being imported, each with its operation.
    pub fn importing_seeds(&self) -> impl Iterator<Item = (&SeedName, &OperationId)> {
        self.seeds.values().filter_map(|seed| match seed {
            SeedImageRecord::Importing { name, by, .. } => Some((name, by)),
            SeedImageRecord::Imported { .. } => None,
        })
    }

    /// Takes a written record over.
    pub fn put_vm(&mut self, record: VmRecord) {
        self.unreadable_vms.remove(&record.key());
        self.vms.insert(record.name().clone(), Arc::new(record));
    }

    /// Takes a removal over.
    pub fn forget_vm(&mut self, name: &VmName) {
        self.unreadable_vms.retain(|_, other| other.as_ref() != Some(name));
        self.vms.remove(name);
    }

    /// Takes a written record over.
    pub fn put_seed(&mut self, record: SeedImageRecord) {
        self.seeds.insert(record.name().clone(), record);
    }

    /// Takes a removal over.
    pub fn forget_seed(&mut self, name: &SeedName) {
        self.seeds.remove(name);
    }

    /// The memory of all VMs that run or should run, or are being restored.
    pub fn promised_memory(&self) -> ByteCount {
        let runs = |vm: &&VmRecord| match &vm.phase {
            VmPhase::Reserved { .. } | VmPhase::Creating { .. } => true,
            VmPhase::Exists { desired, observed, .. } => {
                *desired == DesiredPowerState::Running || observed.power.is_on()
            }
        };
        ByteCount(self.vms().filter(runs).map(|vm| vm.definition.ram_size.0).sum())
    }

    /// Whether a VM of this definition may be created; returns its seed.
    ///
    /// # Errors
    /// The refusal.
    pub fn may_create(&self, definition: &VmDefinition) -> Result<&Seed, CreateVmRefused> {
        self.may_be_named(definition)?;
        let seed = self
            .seeds
            .get(&definition.seed)
            .and_then(SeedImageRecord::imported)
            .ok_or_else(|| CreateVmRefused::UnknownSeed(definition.seed.clone()))?;
        if definition.disk_size < seed.virtual_size {
            return Err(CreateVmRefused::DiskTooSmall {
                asked: definition.disk_size,
                seed: seed.virtual_size,
            });
        }
        Ok(seed)
    }

    fn may_be_named(&self, definition: &VmDefinition) -> Result<(), CreateVmRefused> {
        bounds::check(definition).map_err(|error| CreateVmRefused::InvalidField {
            field: error.field.into(),
            reason: error.reason,
        })?;
        if self.vms.contains_key(&definition.name) || self.is_vm_unreadable(&definition.name) {
            return Err(CreateVmRefused::NameTaken(definition.name.clone()));
        }
        for route in &definition.domains {
            let has = |vm: &&VmRecord| vm.definition.domains.iter().any(|other| other.domain == route.domain);
            if let Some(other) = self.vms().find(has) {
                return Err(CreateVmRefused::HttpDomainTaken {
                    domain: route.domain.clone(),
                    vm: other.name().clone(),
                });
            }
        }
        Ok(())
    }

    /// The record of a new VM; the same one for the same operation.
    ///
    /// # Errors
    /// As [`Inventory::may_create`].
    pub fn create(
        &self,
        definition: &VmDefinition,
        new_vm: &NewVmParams,
    ) -> Result<VmRecord, CreateVmRefused> {
        match self.vm(&definition.name) {
            Some(known) if matches!(&known.phase, VmPhase::Creating { by, .. } if *by == new_vm.by) => {
                return Ok(known.clone());
            }
            _ => {}
        }
        let source = DiskSource::Seed { sha256: self.may_create(definition)?.sha256.clone() };
        let phase = VmPhase::Creating { by: new_vm.by.clone(), reserved_by: None };
        Ok(record(definition, new_vm, source, phase))
    }

    /// The record of a name that is reserved for a restore; the same one for the same operation.
    ///
    /// # Errors
    /// As [`Inventory::may_create`], but that no seed is needed.
    pub fn reserve(
        &self,
        definition: &VmDefinition,
        disks: &[DiskSize],
        new_vm: &NewVmParams,
    ) -> Result<VmRecord, CreateVmRefused> {
        match self.vm(&definition.name) {
            Some(known) if matches!(&known.phase, VmPhase::Reserved { by } if *by == new_vm.by) => {
                return Ok(known.clone());
            }
            _ => {}
        }
        self.may_be_named(definition)?;
        let invalid =
            |reason: &str| CreateVmRefused::InvalidField { field: "disks".into(), reason: reason.into() };
        if disks.is_empty() || disks.len() > DISKS_MAX {
            return Err(invalid("a VM has 1 to 16 disks"));
        }
        let twice = |(at, disk): (usize, &DiskSize)| disks[..at].iter().any(|other| other.disk == disk.disk);
        if disks.iter().enumerate().any(twice) {
            return Err(invalid("a disk is given twice"));
        }
        let source = DiskSource::Restored { disks: disks.to_vec() };
        let phase = VmPhase::Reserved { by: new_vm.by.clone() };
        Ok(record(definition, new_vm, source, phase))
    }

    /// Whether a seed may be added; `None` when this very one is imported already.
    ///
    /// # Errors
    /// The refusal.
    pub fn add_seed(
        &self,
        name: &SeedName,
        sha256: &str,
        by: &OperationId,
    ) -> Result<Option<SeedImageRecord>, AddSeedRefused> {
        if !is_sha256(sha256) {
            return Err(AddSeedRefused::NotADigest(sha256.chars().take(80).collect()));
        }
        let importing =
            SeedImageRecord::Importing { name: name.clone(), sha256: sha256.into(), by: by.clone() };
        match self.seeds.get(name) {
            None => Ok(Some(importing)),
            Some(known) if *known == importing => Ok(Some(importing)),
            Some(SeedImageRecord::Importing { by, .. }) => Err(AddSeedRefused::Busy(by.clone())),
            Some(SeedImageRecord::Imported { seed, .. }) if seed.sha256 == sha256 => Ok(None),
            Some(SeedImageRecord::Imported { seed, .. }) => {
                Err(AddSeedRefused::NameTaken { name: name.clone(), sha256: seed.sha256.clone() })
            }
        }
    }

    /// Whether a seed may be removed; the seed, if so.
    ///
    /// # Errors
    /// The refusal.
    pub fn remove_seed(&self, name: &SeedName) -> Result<Seed, RemoveSeedRefused> {
        let seed = self
            .seeds
            .get(name)
            .and_then(SeedImageRecord::imported)
            .ok_or_else(|| RemoveSeedRefused::UnknownSeed(name.clone()))?;
        // Another seed with the same image keeps the file; the last one is kept by the VMs on it.
        let other_name =
            self.seeds.values().any(|other| other.name() != name && other.sha256() == seed.sha256);
        let vms: Vec<VmName> =
            self.vms().filter(|vm| is_based_on(vm, &seed.sha256)).map(|vm| vm.name().clone()).collect();
        if vms.is_empty() || other_name {
            Ok(seed.clone())
        } else {
            Err(RemoveSeedRefused::InUse { name: name.clone(), vms })
        }
    }

    /// Whether the image of this digest is needed: by a seed, imported or importing, by a VM's disk, or perhaps by one
    /// whose row cannot be read.
    pub fn needs_image(&self, sha256: &str) -> bool {
        !self.knows_all_vms()
            || !self.unreadable_seeds.is_empty()
            || self.seeds.values().any(|seed| seed.sha256() == sha256)
            || self.vms().any(|vm| is_based_on(vm, sha256))
    }
}

/// Disks of one VM: as many as fit beside the other devices.
const DISKS_MAX: usize = 16;

fn is_based_on(vm: &VmRecord, digest: &str) -> bool {
    matches!(&vm.source, DiskSource::Seed { sha256 } if sha256 == digest)
}

fn record(definition: &VmDefinition, new_vm: &NewVmParams, source: DiskSource, phase: VmPhase) -> VmRecord {
    VmRecord {
        definition: without_secrets(definition),
        secrets: new_vm.secrets.clone(),
        identity: new_vm.identity(),
        host: new_vm.host.clone(),
        cloud_init_generation: 1,
        source,
        created: new_vm.now,
        phase,
        host_key: None,
        last_completed_operation: None,
    }
}
