//! Judges a parsed request head, HTTP/1 and HTTP/2 alike: is it sound, and which host does it ask for?
//!
//! HTTP/1 bytes have passed [`crate::framing`] before; here is what only a parsed head shows.

use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::{HeaderValue, Method};
use thiserror::Error;

use crate::host::{Host, InvalidHost};

/// Why a request is refused before anybody is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// `CONNECT` asks for a forward proxy.
    #[error("the method CONNECT is not offered here")]
    Connect,
    /// No host, or several.
    #[error("exactly one host is needed")]
    HostCount,
    /// The host cannot be read.
    #[error("{0}")]
    Host(#[from] InvalidHost),
    /// The request line or `:authority` names another host than the `Host` field.
    #[error("the request names two hosts")]
    HostsUnlike,
    /// A request target that is neither a path nor `*` with `OPTIONS`.
    #[error("the request target is not a path")]
    Target,
    /// More fields than are read.
    #[error("there are too many header fields")]
    TooManyFields,
    /// An expectation other than `100-continue`.
    #[error("the only expectation known is 100-continue")]
    Expectation,
}

impl Refusal {
    /// The HTTP status code that answers it.
    pub fn status(self) -> u16 {
        match self {
            Self::Connect => 501,
            Self::TooManyFields => 431,
            Self::Expectation => 417,
            _ => 400,
        }
    }
}

/// What a sound request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The host.
    pub host: Host,
    /// The protocol to switch to, if the request asks for that and may: HTTP/1.1, `Connection: upgrade`, no body.
    pub upgrade: Option<HeaderValue>,
}

/// Judges a head. `fields_max` bounds the number of its fields.
pub fn examine(head: &Parts, fields_max: usize) -> Result<Call, Refusal> {
    if head.method == Method::CONNECT {
        return Err(Refusal::Connect);
    }
    if head.headers.len() > fields_max {
        return Err(Refusal::TooManyFields);
    }
    let path = head.uri.path();
    let is_target = path.starts_with('/') || (path == "*" && head.method == Method::OPTIONS);
    if !is_target {
        return Err(Refusal::Target);
    }
    if head
        .headers
        .get_all(EXPECT)
        .iter()
        .any(|value| !value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
    {
        return Err(Refusal::Expectation);
    }
    Ok(Call { host: host(head)?, upgrade: upgrade(head) })
}

fn host(head: &Parts) -> Result<Host, Refusal> {
    let mut fields = head.headers.get_all(HOST).iter();
    let field = fields.next();
    if fields.next().is_some() {
        return Err(Refusal::HostCount);
    }
    let field =
        field.map(|value| value.to_str().map_err(|_| InvalidHost::Name).and_then(Host::parse)).transpose()?;
    let authority = head.uri.authority().map(|authority| Host::parse(authority.as_str())).transpose()?;
    match (authority, field) {
        (Some(authority), Some(field)) if authority != field => Err(Refusal::HostsUnlike),
        (Some(host), _) | (None, Some(host)) => Ok(host),
        (None, None) => Err(Refusal::HostCount),
    }
}

fn upgrade(head: &Parts) -> Option<HeaderValue> {
    let protocol = head.headers.get(UPGRADE)?;
    let asks = head
        .headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.split(',').any(|option| option.trim().eq_ignore_ascii_case("upgrade")));
    let has_body = head.headers.contains_key(TRANSFER_ENCODING)
        || head
            .headers
            .get(CONTENT_LENGTH)
            .is_some_and(|length| length.as_bytes().iter().any(|&digit| digit != b'0'));
    (asks && !has_body && head.version == http::Version::HTTP_11).then(|| protocol.clone())
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn head(target: &str, fields: &[(&str, &str)]) -> Parts {
        let mut request = Request::get(target);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).expect("valid").into_parts().0
    }

    fn host_of(target: &str, fields: &[(&str, &str)]) -> Result<String, Refusal> {
        examine(&head(target, fields), 100).map(|asked| asked.host.to_string())
    }

    #[test]
    fn the_host_comes_from_the_field_or_from_the_target_and_they_agree() {
        assert_eq!(host_of("/", &[("host", "A.example:80")]), Ok("a.example".into()));
        assert_eq!(host_of("http://a.example/x", &[("host", "a.example.")]), Ok("a.example".into()));
        assert_eq!(host_of("http://a.example/x", &[]), Ok("a.example".into()));
        assert_eq!(host_of("http://a.example/x", &[("host", "b.example")]), Err(Refusal::HostsUnlike));
        assert_eq!(host_of("/", &[]), Err(Refusal::HostCount));
        assert_eq!(host_of("/", &[("host", "a"), ("host", "a")]), Err(Refusal::HostCount));
        assert_eq!(host_of("/", &[("host", "a/b")]), Err(Refusal::Host(InvalidHost::Name)));
        assert_eq!(host_of("http://user@a.example/", &[]), Err(Refusal::Host(InvalidHost::Name)));
    }

    #[test]
    fn a_target_is_a_path() {
        assert_eq!(host_of("*", &[("host", "a")]), Err(Refusal::Target));
        let mut options = head("*", &[("host", "a")]);
        options.method = Method::OPTIONS;
        assert!(examine(&options, 100).is_ok());
        options.method = Method::CONNECT;
        assert_eq!(examine(&options, 100), Err(Refusal::Connect));
    }

    #[test]
    fn an_upgrade_counts_only_when_it_is_asked_for_properly_and_has_no_body() {
        let asked = |fields: &[(&str, &str)]| {
            let fields: Vec<_> =
                fields.iter().copied().chain([("host", "a"), ("upgrade", "websocket")]).collect();
            examine(&head("/", &fields), 100).expect("sound").upgrade.is_some()
        };
        assert!(asked(&[("connection", "keep-alive, Upgrade")]));
        assert!(asked(&[("connection", "upgrade"), ("content-length", "0")]));
        assert!(!asked(&[]));
        assert!(!asked(&[("connection", "upgrade"), ("content-length", "1")]));
        assert!(!asked(&[("connection", "upgrade"), ("transfer-encoding", "chunked")]));
    }

    #[test]
    fn expectations_and_numbers_of_fields_are_bounded() {
        assert_eq!(host_of("/", &[("host", "a"), ("expect", "200-ok")]), Err(Refusal::Expectation));
        assert_eq!(examine(&head("/", &[("host", "a"), ("x", "1")]), 1), Err(Refusal::TooManyFields));
    }
}
