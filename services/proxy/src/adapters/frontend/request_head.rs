//! Rewrites the head of a client's request for the upstream.

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderValue, Uri, Version};
use proxy_domain::forwarded::{ClientInfo, set_forwarding_headers};
use proxy_domain::headers::clean_request;
use proxy_domain::request::RequestTarget;

use super::trace::RequestTrace;

/// Rewrites `head` for the upstream. `has_body`: whether a body follows.
pub(super) fn rewrite(
    head: &mut Parts,
    target: &RequestTarget,
    client: &ClientInfo,
    trace: &RequestTrace,
    has_body: bool,
) {
    let host = host_as_sent(head, target);
    let headers = &mut head.headers;
    clean_request(headers);
    set_forwarding_headers(headers, client, &host);
    headers.insert(HOST, host);
    trace.inject(headers);
    if has_body && !headers.contains_key(CONTENT_LENGTH) {
        // Otherwise hyper would send a GET with a body of unknown length without its body.
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if let Some(protocol) = &target.upgrade_protocol {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol.clone());
    }
    if head.uri.authority().is_some() {
        let path = head.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        head.uri = Uri::from(path);
    }
    head.version = Version::HTTP_11;
    // hyper's extensions concern the client's connection.
    head.extensions.clear();
}

/// The host as the client sent it, with its port: sites build links from it.
fn host_as_sent(head: &Parts, target: &RequestTarget) -> HeaderValue {
    let authority = head.uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    authority
        .or_else(|| head.headers.get(HOST).cloned())
        .unwrap_or_else(|| HeaderValue::from_str(&target.host.to_string()).expect("hosts are visible ASCII"))
}
