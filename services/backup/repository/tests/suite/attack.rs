//! A simulated attack, by the numbers of real backups: an ordinary machine has no findings, malware raises an alarm.

use backup_repository::anomaly::{AnomalyThresholds, Backup, Detector, Disk, Finding};
use backup_repository::{Repository, Snapshot};
use rand::rngs::StdRng;
use rand::{Rng, RngExt};

use crate::support::{GRAIN, MIB, MemoryDisk, back_up, memory, new_repository, request, seeded};

const DAY_MS: u64 = 86_400_000;

/// A machine of 64 MiB of text, backed up every day into a repository of its own.
struct Machine {
    rng: StdRng,
    vocabulary: Vec<String>,
    disk: MemoryDisk,
    repository: Repository,
    backups: Vec<Backup>,
}

impl Machine {
    /// Ten days of small changes.
    async fn after_ten_days() -> Machine {
        let mut rng = seeded();
        let word = |rng: &mut StdRng| {
            let length = rng.random_range(2..10);
            (0..length).map(|_| rng.random_range('a'..='z')).collect()
        };
        let vocabulary = (0..3000).map(|_| word(&mut rng)).collect();
        let disk = MemoryDisk::new(vec![0; 64 * MIB]);
        let repository = new_repository(memory()).await;
        let mut machine = Machine { rng, vocabulary, disk, repository, backups: Vec::new() };
        machine.write_text(0, 48 * MIB);
        machine.back_up().await;
        for _ in 0..10 {
            for _ in 0..12 {
                let at = machine.rng.random_range(0..48 * MIB - 20_000);
                machine.write_text(at, 10_000);
            }
            let findings = machine.back_up().await;
            assert_eq!(findings, [], "an ordinary day was found unusual");
        }
        machine
    }

    fn write_text(&mut self, at: usize, length: usize) {
        let mut text = Vec::with_capacity(length + 10);
        while text.len() < length {
            text.extend_from_slice(
                self.vocabulary[self.rng.random_range(0..self.vocabulary.len())].as_bytes(),
            );
            text.push(b' ');
        }
        self.disk.write(at, &text[..length]);
    }

    fn write_noise(&mut self, at: usize, length: usize) {
        let mut noise = vec![0; length];
        self.rng.fill_bytes(&mut noise);
        self.disk.write(at, &noise);
    }

    /// Backs up, a day after the last time, and returns the findings.
    async fn back_up(&mut self) -> Vec<Finding> {
        let mut request = request(&self.disk);
        request.taken_at_unix_ms += self.backups.len() as u64 * DAY_MS;
        let Snapshot { contents, .. } = back_up(&self.repository, request).await;
        let used = self.disk.bytes.chunks(GRAIN).filter(|grain| grain.iter().any(|&byte| byte != 0));
        let backup = Backup {
            taken_at_unix_ms: contents.taken_at_unix_ms,
            disks: contents
                .disks
                .iter()
                .map(|d| Disk { name: d.name.clone(), size_bytes: d.size_bytes })
                .collect(),
            used_bytes: used.map(|grain| grain.len() as u64).sum(),
            read_bytes: contents.stats.read_bytes,
            new_bytes: contents.stats.new_bytes,
            stored_bytes: contents.stats.stored_bytes,
        };
        let detector = Detector::try_from(AnomalyThresholds::default()).unwrap();
        let findings = detector.find(&backup, &self.backups);
        println!("{backup:?}\n  {}", findings.iter().map(Finding::to_string).collect::<Vec<_>>().join("; "));
        self.backups.push(backup);
        findings
    }
}

#[tokio::test]
async fn a_disk_that_malware_overwrote_with_noise_raises_the_alarm() {
    let mut machine = Machine::after_ten_days().await;
    machine.write_noise(0, 48 * MIB);
    assert!(matches!(&machine.back_up().await[..], [Finding::LikelyEncryption { .. }]));
}

#[tokio::test]
async fn malware_that_encrypts_every_other_piece_raises_the_alarm_too() {
    let mut machine = Machine::after_ten_days().await;
    for at in (0..48 * MIB).step_by(2 * MIB) {
        machine.write_noise(at, MIB);
    }
    assert!(matches!(&machine.back_up().await[..], [Finding::LikelyEncryption { .. }]));
}

#[tokio::test]
async fn a_new_system_on_the_same_disk_is_a_mass_of_changes_and_no_encryption() {
    let mut machine = Machine::after_ten_days().await;
    machine.write_text(0, 24 * MIB);
    assert!(matches!(&machine.back_up().await[..], [Finding::MassChange { .. }]));
}
