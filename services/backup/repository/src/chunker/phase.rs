//! The offset of the grid on a disk: old partitions do not begin on multiples of 4 KiB.
//!
//! Systems up to about 2008 began the first partition at sector 63 and the others where a cylinder of 255 x 63 sectors
//! does; everything in such a partition is off the grid by as much as its beginning.

use super::BLOCK_BYTES;

const SECTOR_BYTES: u32 = 512;
const ENTRIES_AT: usize = 446;
const ENTRY_BYTES: usize = 16;
/// Says that the disk has a GUID partition table, whose partitions begin on the grid.
const PROTECTIVE: u8 = 0xee;
/// A list of partitions, not one of them.
const EXTENDED: [u8; 3] = [0x05, 0x0f, 0x85];

/// The offset of the grid, less than 4096: that of the largest partition in the disk's master boot record (`start` is what
/// the disk begins with), or 0 where there is none.
pub(crate) fn of(start: &[u8]) -> u32 {
    let Some((entries, [0x55, 0xaa, ..])) =
        start.get(ENTRIES_AT..).and_then(|table| table.split_at_checked(64))
    else {
        return 0;
    };
    let partitions = entries.chunks_exact(ENTRY_BYTES).filter_map(|entry| {
        let number =
            |at: usize| entry[at..at + 4].iter().rev().fold(0, |sum, byte| sum << 8 | u32::from(*byte));
        let (kind, first, sectors) = (entry[4], number(8), number(12));
        let counts = kind != 0 && kind != PROTECTIVE && !EXTENDED.contains(&kind);
        counts.then_some((sectors, first))
    });
    let largest = partitions.max_by_key(|(sectors, _)| *sectors);
    largest.map_or(0, |(_, first)| first % (BLOCK_BYTES as u32 / SECTOR_BYTES) * SECTOR_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(partitions: &[(u8, u32, u32)]) -> Vec<u8> {
        let mut sector = vec![0; 512];
        for (index, (kind, first, sectors)) in partitions.iter().enumerate() {
            let entry = &mut sector[ENTRIES_AT + index * ENTRY_BYTES..][..ENTRY_BYTES];
            entry[4] = *kind;
            entry[8..12].copy_from_slice(&first.to_le_bytes());
            entry[12..16].copy_from_slice(&sectors.to_le_bytes());
        }
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        sector
    }

    #[test]
    fn the_grid_begins_where_the_largest_partition_does() {
        assert_eq!(of(&disk(&[(0x07, 63, 1_000_000)])), 7 * 512);
        assert_eq!(of(&disk(&[(0x83, 2048, 1_000_000)])), 0);
        assert_eq!(of(&disk(&[(0x83, 63, 208_782), (0x8e, 208_845, 41_736_870)])), 208_845 % 8 * 512);
    }

    #[test]
    fn what_is_no_partition_does_not_count() {
        assert_eq!(of(&[]), 0);
        assert_eq!(of(&[0; 512]), 0, "no table");
        assert_eq!(of(&disk(&[])), 0, "an empty table");
        assert_eq!(of(&disk(&[(0xee, 1, u32::MAX)])), 0, "a GUID partition table");
        assert_eq!(of(&disk(&[(0x07, 64, 1000), (0x0f, 16_065, 90_000)])), 0, "a list of partitions");
        assert_eq!(of(&disk(&[(0, 63, 1000)])), 0, "an entry not in use");
        let mut unsigned = disk(&[(0x07, 63, 1000)]);
        unsigned[511] = 0;
        assert_eq!(of(&unsigned), 0);
        assert_eq!(of(&disk(&[(0x07, 63, 1000)])[..511]), 0, "a disk of less than a sector");
    }
}
