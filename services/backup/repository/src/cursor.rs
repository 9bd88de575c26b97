//! Reading fixed layouts from bytes that may be damaged.

use crate::damage::Damage;

/// Takes fields off the front; a field that is cut off is an error that names the object.
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8], what: &'static str) -> Cursor<'a> {
        Cursor { rest: bytes, what }
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Damage> {
        let (field, rest) =
            self.rest.split_first_chunk::<N>().ok_or_else(|| self.malformed("it ends too early"))?;
        self.rest = rest;
        Ok(*field)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Damage> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Damage> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Damage> {
        self.array().map(u64::from_le_bytes)
    }

    /// A count of records of at least `record_bytes` each: never more than the rest can hold.
    pub(crate) fn count(&mut self, record_bytes: usize) -> Result<usize, Damage> {
        let count = self.u32()? as usize;
        if count > self.rest.len() / record_bytes {
            return Err(self.malformed("it counts more entries than it holds"));
        }
        Ok(count)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Checks that everything was read.
    pub(crate) fn end(self) -> Result<(), Damage> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.malformed("something follows its end")) }
    }

    pub(crate) fn malformed(&self, why: &'static str) -> Damage {
        Damage::Malformed { what: self.what, why }
    }
}
