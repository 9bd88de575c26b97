use futures::FutureExt;
use proptest::prelude::*;

use super::*;

/// Reads from memory, which never waits.
macro_rules! read {
    ($kind:ty, $bytes:expr $(, $length:expr)?) => {
        <$kind>::read(&mut &$bytes[..] $(, $length)?).now_or_never().expect("memory is always ready")
    };
}

proptest! {
    #[test]
    fn any_bytes_are_a_message_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..64), length: u16) {
        // Neither panics nor allocates by what the bytes claim.
        let _ = InfoRequest::decode(&bytes);
        let _ = ContextRequest::decode(&bytes);
        let _ = Info::decode(&bytes);
        let _ = MetaContext::decode(&bytes);
        let _ = read!(BlockStatus, bytes, length.into());
        let _ = read!(ErrorChunk, bytes, length.into());
        prop_assert!(read!(Greeting, bytes).is_err());
        prop_assert!(read!(OptionHeader, bytes).is_err());
        prop_assert!(read!(OptionReplyHeader, bytes).is_err());
        prop_assert!(read!(ReplyHeader, bytes).is_err());
        prop_assert!(read!(Request, bytes).is_err());
    }

    #[test]
    fn headers_are_read_as_they_were_sent(
        (flags, kind) in any::<(u16, u16)>(),
        (option, length, errno) in any::<(u32, u32, u32)>(),
        (cookie, offset) in any::<(u64, u64)>(),
    ) {
        let greeting = Greeting { flags };
        prop_assert_eq!(read!(Greeting, greeting.encode()).unwrap(), greeting);
        let header = OptionHeader { option, length };
        prop_assert_eq!(read!(OptionHeader, header.encode()).unwrap(), header);
        let header = OptionReplyHeader { option, kind: errno, length };
        prop_assert_eq!(read!(OptionReplyHeader, header.encode()).unwrap(), header);
        let request = Request { flags, command: kind, cookie, offset, length };
        prop_assert_eq!(read!(Request, request.encode()).unwrap(), request);
        let simple = SimpleReply { errno, cookie };
        prop_assert_eq!(read!(ReplyHeader, simple.encode()).unwrap(), ReplyHeader::Simple(simple));
        let chunk = ReplyChunkHeader { flags, kind, cookie, length };
        prop_assert_eq!(read!(ReplyHeader, chunk.encode()).unwrap(), ReplyHeader::Chunk(chunk));
        let hole = HoleChunk { offset, length };
        prop_assert_eq!(read!(HoleChunk, hole.encode()).unwrap(), hole);
    }

    #[test]
    fn data_and_payloads_are_read_as_they_were_sent(
        text in "[a-z:ü]{0,12}",
        wanted in proptest::collection::vec(any::<u16>(), 0..5),
        queries in proptest::collection::vec("[a-z:]{0,12}", 0..5),
        descriptors in proptest::collection::vec(any::<Descriptor>(), 0..5),
        (a, b, c) in any::<(u32, u32, u32)>(),
        (size_bytes, flags) in any::<(u64, u16)>(),
    ) {
        let request = InfoRequest { export: &text, info_types: wanted };
        let bytes = request.encode();
        prop_assert_eq!(InfoRequest::decode(&bytes), Ok(request));
        let queries = queries.iter().map(String::as_str).collect();
        let request = ContextRequest { export: &text, queries };
        let bytes = request.encode();
        prop_assert_eq!(ContextRequest::decode(&bytes), Ok(request));
        for info in [
            Info::Export { size_bytes, flags },
            Info::Name(&text),
            Info::BlockSize { min: a, preferred: b, max: c },
        ] {
            let bytes = info.encode();
            prop_assert_eq!(Info::decode(&bytes), Some(info));
        }
        let context = MetaContext { id: a, name: text.clone() };
        prop_assert_eq!(MetaContext::decode(&context.encode()), Ok(context));
        let status = BlockStatus { context: a, descriptors };
        let bytes = status.encode();
        prop_assert_eq!(read!(BlockStatus, bytes, bytes.len() as u32).unwrap(), status);
        let error = ErrorChunk { errno: a, message: text };
        let bytes = error.encode();
        prop_assert_eq!(read!(ErrorChunk, bytes, bytes.len() as u32).unwrap(), error);
    }
}

#[test]
fn counts_and_lengths_that_lie_are_refused() {
    let endless = [&u32::MAX.to_be_bytes()[..], b"name"].concat();
    InfoRequest::decode(&endless).unwrap_err();
    let many = [&string("a")[..], &u32::MAX.to_be_bytes()].concat();
    ContextRequest::decode(&many).unwrap_err();
    let more = [&string("a")[..], &[0, 9, 0, 1]].concat();
    InfoRequest::decode(&more).unwrap_err();
    let long = string(&"a".repeat(STRING_BYTES_MAX + 1));
    InfoRequest::decode(&[&long[..], &[0, 0]].concat()).unwrap_err();
}

/// The numbers themselves are held by QEMU and libnbd: `tests/suite/nbd.rs` here and `tests/nbd.rs` of the server.
#[test]
fn magic_numbers_spell_what_the_protocol_says() {
    assert_eq!(&Greeting { flags: 3 }.encode(), b"NBDMAGICIHAVEOPT\x00\x03");
}
