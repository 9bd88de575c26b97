//! The operation id of a run.

use contract::{OperationId, ScheduleId, Timestamp};

/// Bits of an id below its 48 bits of time.
const REST_BITS: u32 = 80;

/// The operation id of a run: the due time in its first 48 bits, so that ids sort, and the rest derived from schedule
/// and due time, so that a command sent again (after a crash, by another scheduler) starts no second operation.
pub fn operation_for(schedule: &ScheduleId, due: Timestamp) -> OperationId {
    let name = format!("{schedule}.{}", due.timestamp());
    let mut digest = [0; 16];
    digest.copy_from_slice(&blake3::hash(name.as_bytes()).as_bytes()[..16]);
    let rest = u128::from_be_bytes(digest) >> (u128::BITS - REST_BITS);
    let milliseconds = u128::from(due.timestamp_millis().max(0).cast_unsigned()) & ((1 << 48) - 1);
    OperationId::from_bits(milliseconds << REST_BITS | rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_run_has_the_same_id_and_ids_sort_by_due_time() {
        let nightly = ScheduleId::new("nightly").expect("valid");
        let hourly = ScheduleId::new("hourly").expect("valid");
        let due: Timestamp = "2026-05-02T03:00:00Z".parse().expect("valid");
        let later = due + chrono::TimeDelta::seconds(1);
        assert_eq!(operation_for(&nightly, due), operation_for(&nightly, due));
        assert_ne!(operation_for(&nightly, due), operation_for(&hourly, due));
        assert!(operation_for(&nightly, due) < operation_for(&hourly, later));
        assert!(operation_for(&hourly, due) < operation_for(&nightly, later));
    }
}
