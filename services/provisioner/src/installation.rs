//! What belongs to all hosts of the installation: which hosts there are, who has which name, and the VMs and seeds of the
//! other hosts as their provisioners wrote them.
//!
//! ```text
//!   hosts      each provisioner writes its own row again and again and reads all of them (worker `report_host`)
//!   vm_names   a name is taken by whoever writes its row first (compare-and-set), on whatever host
//!   vms, seeds the rows of this host are in the registry; those of the others are read here, and never written, but for
//!              a VM of a removed host that a person forgets
//! ```

mod names;

use std::sync::{Arc, RwLock};

use bus::{Bus, Entry, Table, TableError};
use contract::message::{Failure, FailureKind};
use contract::provisioner::{DomainRoute, HostRefused, HostState, Seed, Vm, VmState, choose_host};
use contract::{DomainName, HostName, SeedName, Timestamp, VmName, bucket};
use provisioner_domain::{HostRecord, HypervisorInfo, SeedImageRecord, VmRecord};

pub use names::{NameError, Names};

/// The installation, as one host sees it.
pub struct Installation {
    host: HostName,
    hosts: Table<HostRecord>,
    vms: Table<VmRecord>,
    seeds: Table<SeedImageRecord>,
    /// Who has which name.
    pub names: Names,
    /// The hosts as they were read last.
    known: RwLock<Arc<Vec<HostRecord>>>,
}

impl Installation {
    /// The installation on this bus, as a host sees it. No other host is known before the first [`Self::refresh`].
    pub fn new(bus: &Bus, host: HostName) -> Installation {
        Installation {
            hosts: bus.table(bucket::HOSTS),
            vms: bus.table(bucket::VMS),
            seeds: bus.table(bucket::SEEDS),
            names: Names::new(bus, host.clone()),
            known: RwLock::default(),
            host,
        }
    }

    /// The hosts as they were read last, this one included once it has reported.
    pub fn hosts(&self) -> Arc<Vec<HostRecord>> {
        Arc::clone(&self.known.read().expect("no code here panics while it holds the lock"))
    }

    /// Reads the hosts.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn refresh(&self) -> Result<(), TableError> {
        let mut hosts: Vec<HostRecord> =
            self.hosts.all().await?.read.into_iter().map(|row| row.value).collect();
        hosts.sort_by(|one, other| one.name.cmp(&other.name));
        *self.known.write().expect("no code here panics while it holds the lock") = Arc::new(hosts);
        Ok(())
    }

    /// Writes what this host reports of itself. A host that was removed and reports is there again.
    ///
    /// # Errors
    /// When the table cannot be read or written.
    pub async fn report(&self, record: &HostRecord) -> Result<(), TableError> {
        let key = record.name.as_str();
        match self.hosts.get_from_leader(key).await? {
            Some(row) => {
                if row.value.removed.is_some() {
                    tracing::warn!("this host was removed from the installation; it reports again");
                }
                self.hosts.update(key, record, row.revision).await.map(drop)
            }
            None => self.hosts.create(key, record).await.map(drop),
        }
    }

    /// Marks a host that does not report as removed; `None` where there is no such host.
    ///
    /// # Errors
    /// When the table cannot be read or written.
    pub async fn remove(&self, host: &HostName, now: Timestamp) -> Result<Option<HostRecord>, TableError> {
        let Some(Entry { value, revision, .. }) = self.hosts.get_from_leader(host.as_str()).await? else {
            return Ok(None);
        };
        if value.state(now) == HostState::Ready {
            return Ok(Some(value));
        }
        let removed = HostRecord { removed: value.removed.or(Some(now)), ..value };
        self.hosts.update(host.as_str(), &removed, revision).await?;
        Ok(Some(removed))
    }

    /// The host that a command is for: the one that it names, or the only one.
    ///
    /// # Errors
    /// Where it names none of several, or one that there is not.
    pub fn place(&self, named: Option<&HostName>) -> Result<HostName, HostRefused> {
        let known = self.hosts();
        let there = known.iter().filter(|host| host.removed.is_none());
        choose_host(named, &self.host, there.map(|host| host.name.clone()).collect())
    }

    /// Fails at once where a host has not reported for a while: nobody would answer there.
    ///
    /// # Errors
    /// That it is unreachable, and since when.
    pub async fn check_reachable(&self, host: &HostName) -> Result<(), Failure> {
        if self.unreachable(host).is_none() {
            return Ok(());
        }
        // It may have returned since the hosts were read last.
        self.refresh().await.map_err(|error| error.to_failure())?;
        match self.unreachable(host) {
            None => Ok(()),
            Some(message) => Err(Failure { kind: FailureKind::Unavailable, message }),
        }
    }

    fn unreachable(&self, host: &HostName) -> Option<String> {
        let known = self.hosts();
        let record = known.iter().find(|known| known.name == *host)?;
        match record.state(chrono::Utc::now()) {
            HostState::Ready | HostState::Unknown => None,
            HostState::Unreachable => {
                let since = record.reported.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
                Some(format!("host {host} is unreachable since {since}"))
            }
            HostState::Removed => Some(format!("host {host} was removed; `loam vm forget` forgets its VMs")),
        }
    }

    /// Whether there is another host.
    fn is_alone(&self) -> bool {
        self.hosts().iter().all(|host| host.name == self.host)
    }

    /// The VMs of the other hosts, as their lists show them: unreachable where the host is.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn vms_elsewhere(&self) -> Result<Vec<Vm>, TableError> {
        if self.is_alone() {
            return Ok(Vec::new());
        }
        let rows = self.vms.all().await?.read.into_iter().map(|row| row.value);
        let (hosts, now) = (self.hosts(), chrono::Utc::now());
        Ok(rows.filter(|vm| vm.host != self.host).map(|vm| shown(&vm, &hosts, now)).collect())
    }

    /// A VM of another host, by its name.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub async fn vm_elsewhere(&self, name: &VmName) -> Result<Option<Vm>, TableError> {
        let Some(owner) = self.names.owner(name).await? else { return Ok(None) };
        let row = self.vms.get(&provisioner_domain::vm::row_key(&owner.host, &owner.uuid)).await?;
        let (hosts, now) = (self.hosts(), chrono::Utc::now());
        Ok(row.filter(|row| row.value.host != self.host).map(|row| shown(&row.value, &hosts, now)))
    }

    /// A VM of another host that is routed one of these domains.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn routed_elsewhere(
        &self,
        domains: &[DomainRoute],
    ) -> Result<Option<(DomainName, VmName)>, TableError> {
        if domains.is_empty() {
            return Ok(None);
        }
        let vms = self.vms_elsewhere().await?;
        let wanted = |route: &DomainRoute| domains.iter().any(|other| other.domain == route.domain);
        Ok(vms.into_iter().find_map(|vm| {
            let route = vm.definition.domains.iter().find(|route| wanted(route))?;
            Some((route.domain.clone(), vm.definition.name.clone()))
        }))
    }

    /// Forgets a VM of a removed host; `None` where that host has no such VM.
    ///
    /// # Errors
    /// When the tables cannot be read or written.
    pub async fn forget(&self, host: &HostName, name: &VmName) -> Result<Option<Vm>, TableError> {
        let rows = self.vms.all_under(&format!("{host}.")).await?.read;
        let Some(row) = rows.into_iter().find(|row| row.value.name() == name) else { return Ok(None) };
        self.vms.remove(&row.key, row.revision).await?;
        self.names.release(name, host, &row.value.identity.uuid).await?;
        Ok(Some(shown(&row.value, &self.hosts(), chrono::Utc::now())))
    }

    /// The seeds of the other hosts.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn seeds_elsewhere(&self) -> Result<Vec<Seed>, TableError> {
        if self.is_alone() {
            return Ok(Vec::new());
        }
        let rows = self.seeds.all().await?.read;
        let imported = rows.iter().filter_map(|row| row.value.imported().cloned());
        Ok(imported.filter(|seed| seed.host != self.host).collect())
    }

    /// The other hosts that have a seed of this name.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn hosts_with_seed(&self, name: &SeedName) -> Result<Vec<HostName>, TableError> {
        let seeds = self.seeds_elsewhere().await?;
        Ok(seeds.into_iter().filter(|seed| seed.name == *name).map(|seed| seed.host).collect())
    }
}

/// A VM of another host: as its provisioner wrote it, and by what that host last reported.
fn shown(vm: &VmRecord, hosts: &[HostRecord], now: Timestamp) -> Vm {
    let host = hosts.iter().find(|host| host.name == vm.host);
    let mut shown = vm.outline(&HypervisorInfo { name: "unknown", emulation_reason: None });
    if let Some(host) = host {
        shown.hypervisor = host.hypervisor.clone();
        shown.emulation_reason = host.emulation_reason.clone();
    }
    if host.is_none_or(|host| host.state(now) != HostState::Ready) {
        shown.state = VmState::Unreachable;
        shown.pause_reason = None;
    }
    shown
}
