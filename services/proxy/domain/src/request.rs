//! Validates a parsed request head, HTTP/1 and HTTP/2 alike, and finds the requested host.
//!
//! HTTP/1 bytes have passed [`crate::framing`] before; here are the checks that need a parsed head.

use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::{HeaderValue, Method};
use thiserror::Error;

use crate::host::{Host, InvalidHost};

/// Why a request is refused before it is routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RequestError {
    /// `CONNECT` needs a forward proxy.
    #[error("the method CONNECT is not supported")]
    ConnectMethod,
    /// No host, or several.
    #[error("exactly one Host field is required")]
    HostCount,
    /// The host is invalid.
    #[error("{0}")]
    Host(#[from] InvalidHost),
    /// The request line or `:authority` names another host than the `Host` field.
    #[error("the request names two different hosts")]
    HostMismatch,
    /// A request target that is neither a path nor `*` with `OPTIONS`.
    #[error("the request target is not a path")]
    Target,
    /// More fields than the limit.
    #[error("there are too many header fields")]
    TooManyFields,
    /// An expectation other than `100-continue`.
    #[error("the only supported expectation is 100-continue")]
    UnsupportedExpectation,
}

impl RequestError {
    /// The status code of the response.
    pub fn status(self) -> u16 {
        match self {
            Self::ConnectMethod => 501,
            Self::TooManyFields => 431,
            Self::UnsupportedExpectation => 417,
            _ => 400,
        }
    }
}

/// The target of a valid request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestTarget {
    /// The requested host.
    pub host: Host,
    /// The protocol of a valid upgrade request: HTTP/1.1, `Connection: upgrade`, no body.
    pub upgrade_protocol: Option<HeaderValue>,
}

/// Validates a head. `fields_max` bounds the number of its fields.
///
/// # Errors
///
/// The first rule that the head violates.
pub fn validate(head: &Parts, fields_max: usize) -> Result<RequestTarget, RequestError> {
    if head.method == Method::CONNECT {
        return Err(RequestError::ConnectMethod);
    }
    if head.headers.len() > fields_max {
        return Err(RequestError::TooManyFields);
    }
    let path = head.uri.path();
    let is_target = path.starts_with('/') || (path == "*" && head.method == Method::OPTIONS);
    if !is_target {
        return Err(RequestError::Target);
    }
    if head
        .headers
        .get_all(EXPECT)
        .iter()
        .any(|value| !value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
    {
        return Err(RequestError::UnsupportedExpectation);
    }
    Ok(RequestTarget { host: host(head)?, upgrade_protocol: upgrade(head) })
}

fn host(head: &Parts) -> Result<Host, RequestError> {
    let mut fields = head.headers.get_all(HOST).iter();
    let field = fields.next();
    if fields.next().is_some() {
        return Err(RequestError::HostCount);
    }
    let field =
        field.map(|value| value.to_str().map_err(|_| InvalidHost::Name).and_then(Host::parse)).transpose()?;
    let authority = head.uri.authority().map(|authority| Host::parse(authority.as_str())).transpose()?;
    match (authority, field) {
        (Some(authority), Some(field)) if authority != field => Err(RequestError::HostMismatch),
        (Some(host), _) | (None, Some(host)) => Ok(host),
        (None, None) => Err(RequestError::HostCount),
    }
}

fn upgrade(head: &Parts) -> Option<HeaderValue> {
    let protocol = head.headers.get(UPGRADE)?;
    let requested = head
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
    (requested && !has_body && head.version == http::Version::HTTP_11).then(|| protocol.clone())
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

    fn host_of(target: &str, fields: &[(&str, &str)]) -> Result<String, RequestError> {
        validate(&head(target, fields), 100).map(|target| target.host.to_string())
    }

    #[test]
    fn the_host_comes_from_the_field_or_from_the_target_and_they_agree() {
        assert_eq!(host_of("/", &[("host", "A.example:80")]), Ok("a.example".into()));
        assert_eq!(host_of("http://a.example/x", &[("host", "a.example.")]), Ok("a.example".into()));
        assert_eq!(host_of("http://a.example/x", &[]), Ok("a.example".into()));
        assert_eq!(host_of("http://a.example/x", &[("host", "b.example")]), Err(RequestError::HostMismatch));
        assert_eq!(host_of("/", &[]), Err(RequestError::HostCount));
        assert_eq!(host_of("/", &[("host", "a"), ("host", "a")]), Err(RequestError::HostCount));
        assert_eq!(host_of("/", &[("host", "a/b")]), Err(RequestError::Host(InvalidHost::Name)));
        assert_eq!(host_of("http://user@a.example/", &[]), Err(RequestError::Host(InvalidHost::Name)));
    }

    #[test]
    fn a_target_is_a_path() {
        assert_eq!(host_of("*", &[("host", "a")]), Err(RequestError::Target));
        let mut options = head("*", &[("host", "a")]);
        options.method = Method::OPTIONS;
        assert!(validate(&options, 100).is_ok());
        options.method = Method::CONNECT;
        assert_eq!(validate(&options, 100), Err(RequestError::ConnectMethod));
    }

    #[test]
    fn an_upgrade_needs_the_connection_option_and_no_body() {
        let is_upgrade = |fields: &[(&str, &str)]| {
            let fields: Vec<_> =
                fields.iter().copied().chain([("host", "a"), ("upgrade", "websocket")]).collect();
            validate(&head("/", &fields), 100).expect("valid").upgrade_protocol.is_some()
        };
        assert!(is_upgrade(&[("connection", "keep-alive, Upgrade")]));
        assert!(is_upgrade(&[("connection", "upgrade"), ("content-length", "0")]));
        assert!(!is_upgrade(&[]));
        assert!(!is_upgrade(&[("connection", "upgrade"), ("content-length", "1")]));
        assert!(!is_upgrade(&[("connection", "upgrade"), ("transfer-encoding", "chunked")]));
    }

    #[test]
    fn other_expectations_and_too_many_fields_are_refused() {
        assert_eq!(
            host_of("/", &[("host", "a"), ("expect", "200-ok")]),
            Err(RequestError::UnsupportedExpectation)
        );
        assert_eq!(validate(&head("/", &[("host", "a"), ("x", "1")]), 1), Err(RequestError::TooManyFields));
    }
}
