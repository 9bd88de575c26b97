//! The detector.

use std::cmp::Reverse;
use std::time::Duration;

use super::statistics::Baseline;
use super::{AnomalyThresholds, Backup, Finding, InvalidThresholds, Ratio};

/// Finds anomalies by checked expectations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detector(AnomalyThresholds);

impl TryFrom<AnomalyThresholds> for Detector {
    type Error = InvalidThresholds;

    fn try_from(expectations: AnomalyThresholds) -> Result<Detector, InvalidThresholds> {
        expectations.check()?;
        Ok(Detector(expectations))
    }
}

impl Detector {
    /// What is unusual about `new`, most severe first. `earlier` are backups of the same machine in any order; those that
    /// were not taken before the new one are ignored.
    pub fn find(&self, new: &Backup, earlier: &[Backup]) -> Vec<Finding> {
        let mut history: Vec<&Backup> =
            earlier.iter().filter(|backup| backup.taken_at_unix_ms < new.taken_at_unix_ms).collect();
        history.sort_by_key(|backup| Reverse(backup.taken_at_unix_ms));
        history.truncate(self.0.history_max.into());
        let mut findings = Vec::new();
        findings.extend(self.too_small(new));
        findings.extend(self.changes(new, &history));
        if let Some(last) = history.first() {
            findings.extend(self.shrank(new, last));
            findings.extend(disks(new, last));
            findings.extend(self.late(last.taken_at_unix_ms, new.taken_at_unix_ms));
        }
        findings.sort_by_key(|finding| Reverse(finding.severity()));
        findings
    }

    /// Whether a machine whose last backup was taken then should have had another by now.
    pub fn late(&self, last_unix_ms: u64, now_unix_ms: u64) -> Option<Finding> {
        let age = Duration::from_millis(now_unix_ms.saturating_sub(last_unix_ms));
        let expected = Duration::from_hours(self.0.age_hours_max.into());
        (expected > Duration::ZERO && age > expected).then_some(Finding::Late { age, expected })
    }

    fn too_small(&self, new: &Backup) -> Option<Finding> {
        let (used_bytes, least_bytes) = (new.used_bytes, self.0.used_bytes_min);
        (used_bytes < least_bytes).then_some(Finding::TooSmall { used_bytes, least_bytes })
    }

    fn shrank(&self, new: &Backup, last: &Backup) -> Option<Finding> {
        let (from_bytes, to_bytes) = (last.used_bytes, new.used_bytes);
        let lost = Ratio::of(from_bytes.saturating_sub(to_bytes), from_bytes)?;
        (lost > percent(self.0.shrink_percent_max)).then_some(Finding::Shrank { from_bytes, to_bytes })
    }

    /// The two signs of mass encryption, alone or together.
    fn changes(&self, new: &Backup, history: &[&Backup]) -> Option<Finding> {
        if new.new_bytes < self.0.new_bytes_min {
            return None;
        }
        match (self.mass_change(new, history), self.incompressible(new, history)) {
            (
                Some(Finding::MassChange { changed, usually_changed, .. }),
                Some(Finding::Incompressible { stored, usually_stored }),
            ) => Some(Finding::LikelyEncryption { changed, usually_changed, stored, usually_stored }),
            (one, other) => one.or(other),
        }
    }

    fn mass_change(&self, new: &Backup, history: &[&Backup]) -> Option<Finding> {
        let changed = new.changed()?;
        let usual = Baseline::of(history.iter().filter_map(|backup| backup.changed()), self.0.history_min)?;
        let limit = usual.limit(self.0.deviations_max, percent(self.0.changed_percent_min));
        let usually_changed = usual.median;
        (changed > limit).then_some(Finding::MassChange { changed, usually_changed, limit })
    }

    fn incompressible(&self, new: &Backup, history: &[&Backup]) -> Option<Finding> {
        let stored = new.stored()?;
        // Of a handful of bytes mostly their recipe is stored.
        let comparable = history.iter().filter(|backup| backup.new_bytes >= self.0.new_bytes_min);
        let usually_stored = Baseline::of(comparable.filter_map(|b| b.stored()), self.0.history_min)?.median;
        let is_sudden = stored >= percent(self.0.incompressible_stored_percent_min)
            && usually_stored <= percent(self.0.compressible_up_to_percent);
        is_sudden.then_some(Finding::Incompressible { stored, usually_stored })
    }
}

fn percent(percent: u8) -> Ratio {
    Ratio(f64::from(percent) / 100.0)
}

/// How the disks differ from those of the backup before.
fn disks(new: &Backup, last: &Backup) -> Vec<Finding> {
    let gone_or_resized = last.disks.iter().filter_map(|before| {
        let disk = before.name.clone();
        match new.disk(&before.name) {
            None => Some(Finding::DiskVanished { disk, size_bytes: before.size_bytes }),
            Some(now) if now.size_bytes != before.size_bytes => {
                Some(Finding::DiskResized { disk, from_bytes: before.size_bytes, to_bytes: now.size_bytes })
            }
            Some(_) => None,
        }
    });
    let appeared = new.disks.iter().filter(|disk| last.disk(&disk.name).is_none());
    let appeared =
        appeared.map(|disk| Finding::DiskAppeared { disk: disk.name.clone(), size_bytes: disk.size_bytes });
    gone_or_resized.chain(appeared).collect()
}
