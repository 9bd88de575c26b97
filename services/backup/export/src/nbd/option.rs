//! Options of the handshake: what their data say.

use super::wire::STRING_BYTES_MAX;

/// The data of an option do not follow the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Nonsense;

/// `NBD_OPT_INFO` and `NBD_OPT_GO`: an export and what to tell of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Inquiry<'a> {
    pub(super) name: &'a str,
    pub(super) wanted: Vec<u16>,
}

/// `NBD_OPT_LIST_META_CONTEXT` and `NBD_OPT_SET_META_CONTEXT`: an export and contexts of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Contexts<'a> {
    pub(super) name: &'a str,
    pub(super) queries: Vec<&'a str>,
}

impl Inquiry<'_> {
    pub(super) fn parse(data: &[u8]) -> Result<Inquiry<'_>, Nonsense> {
        let mut data = Fields(data);
        let name = data.string()?;
        let count = u16::from_be_bytes(data.array()?);
        // Each takes two of the bytes at hand, which are few: the count itself is not believed.
        let wanted =
            data.0.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect::<Vec<_>>();
        if data.0.len() != 2 * usize::from(count) {
            return Err(Nonsense);
        }
        Ok(Inquiry { name, wanted })
    }
}

impl Contexts<'_> {
    pub(super) fn parse(data: &[u8]) -> Result<Contexts<'_>, Nonsense> {
        let mut data = Fields(data);
        let name = data.string()?;
        let count = u32::from_be_bytes(data.array()?);
        let mut queries = Vec::new();
        while !data.0.is_empty() {
            queries.push(data.string()?);
        }
        if queries.len() as u64 != u64::from(count) {
            return Err(Nonsense);
        }
        Ok(Contexts { name, queries })
    }
}

/// What is left to read.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Nonsense> {
        let (field, rest) = self.0.split_first_chunk().ok_or(Nonsense)?;
        self.0 = rest;
        Ok(*field)
    }

    fn string(&mut self) -> Result<&'a str, Nonsense> {
        let length = u32::from_be_bytes(self.array()?) as usize;
        if length > STRING_BYTES_MAX {
            return Err(Nonsense);
        }
        let (text, rest) = self.0.split_at_checked(length).ok_or(Nonsense)?;
        self.0 = rest;
        std::str::from_utf8(text).map_err(|_| Nonsense)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn string(text: &str) -> Vec<u8> {
        [&(text.len() as u32).to_be_bytes()[..], text.as_bytes()].concat()
    }

    proptest! {
        #[test]
        fn any_bytes_are_understood_or_refused(data in proptest::collection::vec(any::<u8>(), 0..64)) {
            // Neither panics nor allocates by what the bytes claim.
            let _ = Inquiry::parse(&data);
            let _ = Contexts::parse(&data);
        }

        #[test]
        fn inquiries_and_contexts_are_read_as_written(
            name in "[a-z]{0,12}",
            wanted in proptest::collection::vec(any::<u16>(), 0..5),
            queries in proptest::collection::vec("[a-z:]{0,12}", 0..5),
        ) {
            let mut data = string(&name);
            data.extend((wanted.len() as u16).to_be_bytes());
            data.extend(wanted.iter().flat_map(|info| info.to_be_bytes()));
            prop_assert_eq!(Inquiry::parse(&data), Ok(Inquiry { name: &name, wanted }));

            let mut data = string(&name);
            data.extend((queries.len() as u32).to_be_bytes());
            data.extend(queries.iter().flat_map(|query| string(query)));
            let found = Contexts::parse(&data).unwrap();
            prop_assert_eq!(found.queries, queries);
        }
    }

    #[test]
    fn counts_and_lengths_that_lie_are_refused() {
        let endless = [&u32::MAX.to_be_bytes()[..], b"name"].concat();
        assert_eq!(Inquiry::parse(&endless), Err(Nonsense));
        let many = [&string("a")[..], &u32::MAX.to_be_bytes()].concat();
        assert_eq!(Contexts::parse(&many), Err(Nonsense));
        let more = [&string("a")[..], &[0, 9, 0, 1]].concat();
        assert_eq!(Inquiry::parse(&more), Err(Nonsense));
    }
}
