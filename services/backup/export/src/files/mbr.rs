//! The old partition table: four partitions in the first sector, more in a chain of others.

use super::table::{PARTITIONS_MAX, PartitionKind, Slice, TableError};
use super::window::Window;

const SECTOR_BYTES: u64 = 512;
const TABLE_AT: usize = 446;
const ENTRY_BYTES: usize = 16;
/// The whole disk belongs to a GPT.
const TYPE_PROTECTIVE: u8 = 0xee;
/// Logical partitions are counted from here.
const LOGICAL_FIRST: u32 = 5;

pub(super) enum Table {
    None,
    /// There is a GPT.
    Protective,
    Partitions(Vec<Slice>),
}

#[derive(Clone, Copy)]
struct Entry {
    active: u8,
    kind: u8,
    start: u64,
    sectors: u64,
}

impl Entry {
    fn is_extended(&self) -> bool {
        matches!(self.kind, 0x05 | 0x0f | 0x85)
    }

    fn is_used(&self) -> bool {
        self.kind != 0 && self.sectors > 0
    }

    /// As a partition, counted from sector `base` on, if it lies within the disk.
    fn slice(&self, number: u32, base: u64, disk_bytes: u64) -> Result<Slice, TableError> {
        // Both are 32 bits wide, so this cannot overflow.
        let start = (base + self.start) * SECTOR_BYTES;
        let end = start + self.sectors * SECTOR_BYTES;
        if end > disk_bytes {
            return Err(TableError::Damaged(format!("partition {number} ends at {end}, beyond the disk")));
        }
        Ok(Slice { number, bytes: start..end, kind: PartitionKind::Mbr(self.kind) })
    }
}

pub(super) fn read(window: &mut Window) -> Result<Table, TableError> {
    if window.size_bytes() < SECTOR_BYTES {
        return Ok(Table::None);
    }
    let Some(entries) = entries(window, 0)? else { return Ok(Table::None) };
    // The sector may be anything with this signature, such as code of a boot loader.
    if entries.iter().any(|entry| !matches!(entry.active, 0 | 0x80)) {
        return Ok(Table::None);
    }
    if entries.iter().any(|entry| entry.kind == TYPE_PROTECTIVE) {
        return Ok(Table::Protective);
    }
    let disk_bytes = window.size_bytes();
    let mut slices = Vec::new();
    for (number, entry) in (1..).zip(entries) {
        if entry.is_used() {
            if entry.is_extended() {
                logical(window, entry.start, &mut slices)?;
            } else {
                slices.push(entry.slice(number, 0, disk_bytes)?);
            }
        }
    }
    slices.sort_by_key(|slice| slice.number);
    Ok(Table::Partitions(slices))
}

/// Follows the chain within the extended partition that begins at sector `first`.
fn logical(window: &mut Window, first: u64, slices: &mut Vec<Slice>) -> Result<(), TableError> {
    let disk_bytes = window.size_bytes();
    let mut at = first;
    for number in LOGICAL_FIRST.. {
        if slices.len() >= PARTITIONS_MAX {
            return Err(TableError::Damaged("the chain of logical partitions does not end".into()));
        }
        let Some([data, next, ..]) = entries(window, at)? else {
            return Err(TableError::Damaged(format!("no logical partition begins at sector {at}")));
        };
        if !data.is_used() {
            return Ok(());
        }
        slices.push(data.slice(number, at, disk_bytes)?);
        if !next.is_used() {
            return Ok(());
        }
        at = first + next.start;
    }
    Ok(())
}

fn entries(window: &mut Window, sector: u64) -> Result<Option<[Entry; 4]>, TableError> {
    let mut bytes = [0; SECTOR_BYTES as usize];
    window.read_exact_at(sector * SECTOR_BYTES, &mut bytes)?;
    if bytes[510..] != [0x55, 0xaa] {
        return Ok(None);
    }
    Ok(Some(std::array::from_fn(|index| {
        let entry = &bytes[TABLE_AT + index * ENTRY_BYTES..][..ENTRY_BYTES];
        let field = |at: usize| u64::from(u32::from_le_bytes(std::array::from_fn(|byte| entry[at + byte])));
        Entry { active: entry[0], kind: entry[4], start: field(8), sectors: field(12) }
    })))
}
