//! Makes a client's head into the head that a machine gets: written anew from its parts, nothing passed by.

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderValue, Uri, Version};
use proxy_domain::forwarded::{Identity, announce};
use proxy_domain::hygiene::clean_request;
use proxy_domain::request::Call;

use super::trace::Trace;

/// Rewrites `head` for the machine. `has_body` tells whether bytes follow.
pub(super) fn prepare(head: &mut Parts, asked: &Call, identity: &Identity, trace: &Trace, has_body: bool) {
    let host = host_as_asked(head, asked);
    let headers = &mut head.headers;
    clean_request(headers);
    announce(headers, identity, &host);
    headers.insert(HOST, host);
    trace.announce(headers);
    if has_body && !headers.contains_key(CONTENT_LENGTH) {
        // Otherwise a GET with a body of unknown length would be sent without it.
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if let Some(protocol) = &asked.upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol.clone());
    }
    if head.uri.authority().is_some() {
        let path = head.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        head.uri = Uri::from(path);
    }
    head.version = Version::HTTP_11;
    // What hyper keeps there concerns the client's connection.
    head.extensions.clear();
}

/// The host as the client wrote it, port and all: machines build links from it.
fn host_as_asked(head: &Parts, asked: &Call) -> HeaderValue {
    let authority = head.uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    authority
        .or_else(|| head.headers.get(HOST).cloned())
        .unwrap_or_else(|| HeaderValue::from_str(&asked.host.to_string()).expect("hosts are visible ASCII"))
}
