//! When something is tried again: an attempt for each VM, with pauses that grow; and when a host has room again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use contract::{ByteCount, VmName};

/// Attempts for each VM. The first comes at once, the next after `first`, then after twice as long each time, at most
/// `max`. After twice `max` without an attempt it begins anew: whatever was wrong has passed.
#[derive(Clone, Debug)]
pub struct VmRetryBackoff {
    first: Duration,
    max: Duration,
    attempts: BTreeMap<VmName, (Instant, Duration)>,
}

impl VmRetryBackoff {
    /// No attempts yet.
    pub fn new(first: Duration, max: Duration) -> VmRetryBackoff {
        VmRetryBackoff { first, max, attempts: BTreeMap::new() }
    }

    /// Whether an attempt is due now; it then counts as made.
    pub fn is_due(&mut self, vm: &VmName, now: Instant) -> bool {
        let pause = match self.attempts.get(vm) {
            Some((last, pause)) if now < *last + *pause => return false,
            Some((last, _)) if now > *last + self.max * 2 => self.first,
            Some((_, pause)) => (*pause * 2).min(self.max),
            None => self.first,
        };
        self.attempts.insert(vm.clone(), (now, pause));
        true
    }

    /// Forgets the attempts for VMs that do not exist any more.
    pub fn retain(&mut self, exists: impl Fn(&VmName) -> bool) {
        self.attempts.retain(|vm, _| exists(vm));
    }
}

/// Whether a host has room for disks that grow. Two limits, so that it does not change with every block written: room
/// is gone below `low`, and back only from `enough` on.
#[derive(Clone, Copy, Debug)]
pub struct FreeSpaceHysteresis {
    low: ByteCount,
    enough: ByteCount,
    has_room: bool,
}

impl FreeSpaceHysteresis {
    /// A host that was not measured yet: it has room when there is `enough`.
    pub fn new(low: ByteCount, enough: ByteCount) -> FreeSpaceHysteresis {
        FreeSpaceHysteresis { low, enough, has_room: false }
    }

    /// Takes over how much is free, and returns whether that is room.
    pub fn measured(&mut self, free: ByteCount) -> bool {
        self.has_room = free >= if self.has_room { self.low } else { self.enough };
        self.has_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_come_after_growing_pauses_and_begin_anew_after_a_long_rest() {
        let (vm, start) = (VmName::new("web").expect("a good name"), Instant::now());
        let seconds = |seconds| start + Duration::from_secs(seconds);
        let mut attempts = VmRetryBackoff::new(Duration::from_secs(10), Duration::from_secs(30));
        let due: Vec<u64> = (0..120).filter(|at| attempts.is_due(&vm, seconds(*at))).collect();
        assert_eq!(due, [0, 10, 30, 60, 90]);
        assert!(attempts.is_due(&vm, seconds(200)));
        assert!(attempts.is_due(&vm, seconds(210)), "the first pause again");
    }

    #[test]
    fn room_is_back_only_when_there_is_enough() {
        let mut room = FreeSpaceHysteresis::new(ByteCount::gib(1), ByteCount::gib(2));
        let measured = [1, 2, 1, 0, 1, 2].map(|gib| room.measured(ByteCount::gib(gib)));
        assert_eq!(measured, [false, true, true, false, false, true]);
    }
}
