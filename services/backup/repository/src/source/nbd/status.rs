//! From block status to extents.

use std::ops::Range;

use super::super::{Change, Extent, ExtentKind, SourceError};
use super::connection::Connection;
use super::handshake::Export;
use crate::nbd_wire::{Descriptor, STATE_DIRTY, STATE_ZERO};

/// One request covers no more than this: lengths are 32 bits wide, and servers want them aligned.
const STATUS_BYTES_MAX: u64 = 1 << 30;

/// Asks until the whole range is known.
pub(super) async fn extents(
    connection: &Connection,
    export: &Export,
    range: Range<u64>,
) -> Result<Vec<Extent>, SourceError> {
    if export.base_allocation_context.is_none() && export.dirty_bitmap_context.is_none() {
        let length = range.end - range.start;
        return Ok(vec![Extent { length, kind: ExtentKind::Data, change: Change::Unknown }]);
    }
    let mut extents = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let length = (range.end - at).min(STATUS_BYTES_MAX);
        let status = connection.block_status(at, length as u32).await?;
        let of = |context: Option<u32>| match context {
            None => Ok(None),
            Some(id) => status.get(&id).map(|found| Some(found.as_slice())).ok_or(()),
        };
        let known = match (of(export.base_allocation_context), of(export.dirty_bitmap_context)) {
            (Ok(base), Ok(dirty)) => merge(base, dirty, length, &mut extents),
            _ => 0,
        };
        if known == 0 {
            return Err(connection.protocol("its answer about holes says nothing".into()));
        }
        at += known;
    }
    Ok(extents)
}

/// Walks both lists at once; returns how many bytes both of them cover, at most `length`.
fn merge(
    base: Option<&[Descriptor]>,
    dirty: Option<&[Descriptor]>,
    length: u64,
    extents: &mut Vec<Extent>,
) -> u64 {
    let mut base = base.map(Walk::new);
    let mut dirty = dirty.map(Walk::new);
    let mut known = 0;
    while known < length {
        let walks = [base.as_mut(), dirty.as_mut()];
        let Some(here) = walks.into_iter().flatten().map(|walk| walk.left()).min().filter(|&left| left > 0)
        else {
            break;
        };
        let here = here.min(length - known);
        let kind = match base.as_mut().map(|walk| walk.take(here)) {
            Some(flags) if flags & STATE_ZERO != 0 => ExtentKind::Zero,
            _ => ExtentKind::Data,
        };
        let change = match dirty.as_mut().map(|walk| walk.take(here)) {
            None => Change::Unknown,
            Some(flags) if flags & STATE_DIRTY != 0 => Change::Dirty,
            Some(_) => Change::Clean,
        };
        match extents.last_mut() {
            Some(last) if (last.kind, last.change) == (kind, change) => last.length += here,
            _ => extents.push(Extent { length: here, kind, change }),
        }
        known += here;
    }
    known
}

/// A place in a list of descriptors.
struct Walk<'a> {
    descriptors: &'a [Descriptor],
    used: u64,
}

impl<'a> Walk<'a> {
    fn new(descriptors: &'a [Descriptor]) -> Walk<'a> {
        Walk { descriptors, used: 0 }
    }

    /// Bytes left of the current descriptor; 0 at the end.
    fn left(&mut self) -> u64 {
        while let Some(&(length, _)) = self.descriptors.first() {
            if self.used < u64::from(length) {
                return u64::from(length) - self.used;
            }
            self.descriptors = &self.descriptors[1..];
            self.used = 0;
        }
        0
    }

    /// Advances by as many bytes, which are in the current descriptor, and returns its flags.
    fn take(&mut self, bytes: u64) -> u32 {
        self.used += bytes;
        self.descriptors.first().map_or(0, |&(_, flags)| flags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_maps_are_merged_up_to_where_both_end() {
        let mut extents = Vec::new();
        let base = [(10, 0), (20, 3)];
        let dirty = [(5, 1), (10, 0), (100, 1)];
        assert_eq!(merge(Some(&base), Some(&dirty), 25, &mut extents), 25);
        let found: Vec<_> = extents.iter().map(|e| (e.length, e.kind, e.change)).collect();
        assert_eq!(
            found,
            [
                (5, ExtentKind::Data, Change::Dirty),
                (5, ExtentKind::Data, Change::Clean),
                (5, ExtentKind::Zero, Change::Clean),
                (10, ExtentKind::Zero, Change::Dirty),
            ]
        );
    }

    #[test]
    fn an_answer_may_end_early_and_an_empty_one_knows_nothing() {
        let mut extents = Vec::new();
        assert_eq!(merge(Some(&[(10, 0)]), Some(&[(4, 1)]), 100, &mut extents), 4);
        assert_eq!(merge(Some(&[(10, 0)]), Some(&[(0, 1)]), 100, &mut extents), 0);
    }
}
