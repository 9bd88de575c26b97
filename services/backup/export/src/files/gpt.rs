//! The GUID partition table (UEFI specification, chapter 5), by its first or, where that is damaged, its last header.

use super::table::{PARTITIONS_MAX, PartitionKind, Slice, TableError};
use super::window::Window;

/// Sectors of disks; the table is counted in them.
const SECTOR_BYTES: [u64; 2] = [512, 4096];
/// What the header holds now. Its length may be as much as a sector.
const HEADER_BYTES: usize = 92;
const ENTRY_BYTES_MIN: usize = 128;
/// 128 entries of 128 bytes are usual. Some tools write more.
const ENTRIES_BYTES_MAX: u64 = 1024 * 1024;

pub(super) fn read(window: &mut Window) -> Result<Vec<Slice>, TableError> {
    let mut first_reason = None;
    for sector_bytes in SECTOR_BYTES {
        let sectors = window.size_bytes() / sector_bytes;
        for header_at in [1, sectors.saturating_sub(1)] {
            match read_at(window, header_at, sector_bytes) {
                Ok(slices) => return Ok(slices),
                Err(TableError::Disk(error)) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
                    return Err(TableError::Disk(error));
                }
                Err(TableError::Disk(_)) => {}
                Err(TableError::Damaged(why)) => {
                    first_reason.get_or_insert(why);
                }
            }
        }
    }
    Err(TableError::Damaged(first_reason.unwrap_or_else(|| "the disk is too short for it".into())))
}

fn read_at(window: &mut Window, header_at: u64, sector_bytes: u64) -> Result<Vec<Slice>, TableError> {
    let damaged = |why: &str| TableError::Damaged(format!("the header in sector {header_at}: {why}"));
    let mut header = vec![0; sector_bytes as usize];
    window.read_exact_at(header_at.saturating_mul(sector_bytes), &mut header)?;
    if !header.starts_with(b"EFI PART") {
        return Err(damaged("it is none"));
    }
    let short = |at: usize| u32::from_le_bytes(std::array::from_fn(|byte| header[at + byte]));
    let long = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| header[at + byte]));
    let (length, sum, itself, entries_at) = (short(12), short(16), long(24), long(72));
    let (count, entry_bytes, entries_sum) = (short(80), short(84), short(88));
    if !(HEADER_BYTES..=header.len()).contains(&(length as usize)) {
        return Err(damaged("it has an impossible length"));
    }
    // The sum is taken with zeros in its own place.
    header.truncate(length as usize);
    header[16..20].fill(0);
    if crc32fast::hash(&header) != sum || itself != header_at {
        return Err(damaged("its checksum is wrong"));
    }
    let entry_bytes = entry_bytes as usize;
    let table_bytes = u64::from(count) * entry_bytes as u64;
    if !entry_bytes.is_power_of_two() || entry_bytes < ENTRY_BYTES_MIN || table_bytes > ENTRIES_BYTES_MAX {
        return Err(damaged("its table has an impossible size"));
    }
    let mut table = vec![0; table_bytes as usize];
    window.read_exact_at(entries_at.saturating_mul(sector_bytes), &mut table)?;
    if crc32fast::hash(&table) != entries_sum {
        return Err(damaged("the checksum of its table is wrong"));
    }
    let mut slices = Vec::new();
    for (number, entry) in (1..).zip(table.chunks_exact(entry_bytes)) {
        if entry[..16] == [0; 16] {
            continue;
        }
        if slices.len() >= PARTITIONS_MAX {
            return Err(damaged("it has too many partitions"));
        }
        slices.push(slice(number, entry, window.size_bytes(), sector_bytes)?);
    }
    Ok(slices)
}

fn slice(number: u32, entry: &[u8], disk_bytes: u64, sector_bytes: u64) -> Result<Slice, TableError> {
    let sector = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| entry[at + byte]));
    let (first, last) = (sector(32), sector(40));
    let start = first.checked_mul(sector_bytes);
    let end = last.checked_add(1).and_then(|end| end.checked_mul(sector_bytes));
    let bytes = match (start, end) {
        (Some(start), Some(end)) if start < end && end <= disk_bytes => start..end,
        _ => {
            let why =
                format!("partition {number} goes from sector {first} to {last}, which are not on the disk");
            return Err(TableError::Damaged(why));
        }
    };
    let units = entry[56..128].chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
    let name = char::decode_utf16(units.take_while(|unit| *unit != 0));
    let name = name.map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
    Ok(Slice { number, bytes, kind: PartitionKind::Gpt { type_guid: guid(&entry[..16]), name } })
}

/// The first three groups are little-endian numbers, the rest are bytes.
fn guid(bytes: &[u8]) -> String {
    let hex = |order: &[usize]| order.iter().map(|at| format!("{:02x}", bytes[*at])).collect::<String>();
    let groups = [&[3, 2, 1, 0][..], &[5, 4], &[7, 6], &[8, 9], &[10, 11, 12, 13, 14, 15]];
    groups.map(hex).join("-")
}
