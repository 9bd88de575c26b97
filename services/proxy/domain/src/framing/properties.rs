//! Properties of the strict parser: it does not matter how the bytes arrive, valid requests pass whole, and damaged
//! ones never pass as something longer or shorter than they are.

use proptest::prelude::*;

use super::*;

fn framing() -> FramingParser {
    FramingParser::new(HeadLimits::default())
}

/// Checks a stream that arrives in pieces, keeping what did not pass.
fn feed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (usize, u64, FramingAction) {
    let mut framing = framing();
    let (mut pending, mut passed, mut heads) = (Vec::new(), 0, 0);
    let mut next = FramingAction::ReadMore;
    for piece in pieces {
        pending.extend_from_slice(piece);
        let checked = framing.check(&pending);
        pending.drain(..checked.passed_bytes);
        passed += checked.passed_bytes;
        heads += checked.complete_heads;
        next = checked.next;
        if next != FramingAction::ReadMore {
            break;
        }
    }
    (passed, heads, next)
}

fn refusal(bytes: &[u8]) -> Option<FramingViolation> {
    match feed([bytes]).2 {
        FramingAction::Refuse(violation) => Some(violation),
        FramingAction::ReadMore | FramingAction::HoldForUpgrade => None,
    }
}

fn request() -> impl Strategy<Value = Vec<u8>> {
    let body = prop_oneof![
        Just(Body::None),
        prop::collection::vec(any::<u8>(), 1..200).prop_map(Body::Counted),
        prop::collection::vec(prop::collection::vec(any::<u8>(), 1..60), 0..4).prop_map(Body::Chunked),
    ];
    let fields = prop::collection::vec(("x-[a-z]{1,8}", "[ -~]{0,20}"), 0..6);
    ("GET|POST|PUT|DELETE", "/[a-z0-9/?=&%]{0,20}", fields, body, any::<bool>()).prop_map(
        |(method, target, fields, body, trailer)| {
            let mut bytes = format!("{method} {target} HTTP/1.1\r\nHost: a.example\r\n").into_bytes();
            for (name, value) in fields {
                bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
            }
            body.write(&mut bytes, trailer);
            bytes
        },
    )
}

#[derive(Clone, Debug)]
enum Body {
    None,
    Counted(Vec<u8>),
    Chunked(Vec<Vec<u8>>),
}

impl Body {
    fn write(&self, bytes: &mut Vec<u8>, trailer: bool) {
        match self {
            Self::None => bytes.extend_from_slice(b"\r\n"),
            Self::Counted(body) => {
                bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
                bytes.extend_from_slice(body);
            }
            Self::Chunked(chunks) => {
                bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
                for chunk in chunks {
                    bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                    bytes.extend_from_slice(chunk);
                    bytes.extend_from_slice(b"\r\n");
                }
                bytes.extend_from_slice(if trailer { b"0\r\nx-sum: 1\r\n\r\n" } else { b"0\r\n\r\n" });
            }
        }
    }
}

proptest! {
    #[test]
    fn valid_requests_pass_whole_and_are_counted(requests in prop::collection::vec(request(), 1..5)) {
        let stream = requests.concat();
        prop_assert_eq!(feed([&stream[..]]), (stream.len(), requests.len() as u64, FramingAction::ReadMore));
    }

    #[test]
    fn it_does_not_matter_how_the_bytes_arrive(
        requests in prop::collection::vec(request(), 1..4), size in 1usize..40,
        damage in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
    ) {
        let mut stream = requests.concat();
        if let Some((at, byte)) = damage {
            let at = at.index(stream.len());
            stream[at] = byte;
        }
        let (passed, heads, next) = feed([&stream[..]]);
        let (passed_in_pieces, heads_in_pieces, next_in_pieces) = feed(stream.chunks(size));
        prop_assert_eq!((passed, heads), (passed_in_pieces, heads_in_pieces));
        prop_assert_eq!(next, next_in_pieces);
    }

    #[test]
    fn no_bytes_make_it_panic_or_pass_more_than_it_was_given(stream in prop::collection::vec(any::<u8>(), 0..300)) {
        let (passed, _, _) = feed([&stream[..]]);
        prop_assert!(passed <= stream.len());
    }
}

#[test]
fn what_can_be_read_in_two_ways_is_refused() {
    let table: [(&str, FramingViolation); 33] = [
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            FramingViolation::LengthAndEncoding,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
            FramingViolation::LengthAndEncoding,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            FramingViolation::TransferEncoding,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: ,chunked\r\n\r\n",
            FramingViolation::TransferEncoding,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
            FramingViolation::TransferEncoding,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
            FramingViolation::TransferEncoding,
        ),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n", FramingViolation::TransferEncoding),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            FramingViolation::TransferEncoding,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \u{b}chunked\r\n\r\n",
            FramingViolation::ControlCharacter,
        ),
        (
            "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            FramingViolation::TransferEncodingInHttp10,
        ),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\n", FramingViolation::ContentLength),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\n", FramingViolation::ContentLength),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x3\r\n\r\n", FramingViolation::ContentLength),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", FramingViolation::ContentLength),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
            FramingViolation::ContentLength,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
            FramingViolation::ContentLengthMismatch,
        ),
        ("GET / HTTP/1.1\r\n\r\n", FramingViolation::HostCount),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", FramingViolation::HostCount),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", FramingViolation::FieldName),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n", FramingViolation::FoldedField),
        ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", FramingViolation::FoldedField),
        ("GET / HTTP/1.1\nHost: a\n\n", FramingViolation::BareLineEnd),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: 1\nY: 2\r\n\r\n", FramingViolation::BareLineEnd),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: 1\rY: 2\r\n\r\n", FramingViolation::ControlCharacter),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", FramingViolation::ControlCharacter),
        ("GET / HTTP/1.1\r\nHost: a\r\n: 1\r\n\r\n", FramingViolation::FieldName),
        ("GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", FramingViolation::FieldName),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", FramingViolation::RequestLine),
        ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", FramingViolation::RequestLine),
        ("GET /\u{1} HTTP/1.1\r\nHost: a\r\n\r\n", FramingViolation::RequestLine),
        ("GET /\r\nHost: a\r\n\r\n", FramingViolation::RequestLine),
        ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", FramingViolation::Version),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue, x\r\n\r\n",
            FramingViolation::UnsupportedExpectation,
        ),
    ];
    for (bytes, violation) in table {
        assert_eq!(refusal(bytes.as_bytes()), Some(violation), "{bytes:?}");
        assert_eq!(feed([bytes.as_bytes()]).0, 0, "nothing of it passes: {bytes:?}");
    }
}

#[test]
fn a_body_ends_where_its_framing_says_and_nowhere_else() {
    const HEAD: &str = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let table: [(&str, FramingViolation); 7] = [
        ("3\r\nabcd\r\n0\r\n\r\n", FramingViolation::ChunkEnd),
        ("3\r\nabc0\r\n\r\n", FramingViolation::ChunkEnd),
        ("3\nabc\r\n0\r\n\r\n", FramingViolation::ChunkSize),
        ("0x3\r\nabc\r\n0\r\n\r\n", FramingViolation::ChunkSize),
        ("3 ;x\r\nabc\r\n0\r\n\r\n", FramingViolation::ChunkSize),
        ("0\r\nContent-Length: 5\r\n\r\n", FramingViolation::FramingInTrailer),
        ("0\r\nTransfer-Encoding: chunked\r\n\r\n", FramingViolation::FramingInTrailer),
    ];
    for (body, violation) in table {
        assert_eq!(refusal(format!("{HEAD}{body}").as_bytes()), Some(violation), "{body:?}");
    }
}

#[test]
fn after_an_upgrade_request_nothing_passes_until_the_response_is_known() {
    let head = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let smuggled = b"GET /admin HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut framing = framing();
    let checked = framing.check(&[&head[..], smuggled].concat());
    assert_eq!(
        checked,
        CheckedPrefix { passed_bytes: head.len(), complete_heads: 1, next: FramingAction::HoldForUpgrade }
    );
    assert_eq!(framing.check(smuggled).next, FramingAction::HoldForUpgrade);
    framing.resume();
    assert_eq!(
        framing.check(smuggled),
        CheckedPrefix { passed_bytes: smuggled.len(), complete_heads: 1, next: FramingAction::ReadMore }
    );

    let mut granted = self::framing();
    granted.check(head);
    granted.tunnel();
    assert_eq!(
        granted.check(b"\x81\x05hello"),
        CheckedPrefix { passed_bytes: 7, complete_heads: 0, next: FramingAction::ReadMore }
    );
}

#[test]
fn an_upgrade_with_a_body_is_an_ordinary_request() {
    let stream =
        b"POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nok";
    assert_eq!(feed([&stream[..]]), (stream.len(), 1, FramingAction::ReadMore));
}

#[test]
fn a_head_has_bounds_in_bytes_fields_and_its_first_line() {
    let limits = HeadLimits { head_bytes_max: 200, fields_max: 3, request_line_bytes_max: 50 };
    let refused = |text: String| match FramingParser::new(limits).check(text.as_bytes()).next {
        FramingAction::Refuse(violation) => Some(violation.status()),
        FramingAction::ReadMore | FramingAction::HoldForUpgrade => None,
    };
    assert_eq!(refused(format!("GET /{} HTTP/1.1\r\n", "a".repeat(60))), Some(414));
    assert_eq!(refused(format!("GET /{}", "a".repeat(60))), Some(414));
    assert_eq!(refused(format!("GET / HTTP/1.1\r\nHost: {}", "a".repeat(300))), Some(431));
    assert_eq!(refused(format!("GET / HTTP/1.1\r\nHost: {}\r\n", "a".repeat(300))), Some(431));
    assert_eq!(refused("GET / HTTP/1.1\r\nHost: a\r\nA: 1\r\nB: 1\r\nC: 1\r\n\r\n".into()), Some(431));
    assert_eq!(refused("GET / HTTP/1.1\r\nHost: a\r\nA: 1\r\nB: 1\r\n\r\n".into()), None);
}
