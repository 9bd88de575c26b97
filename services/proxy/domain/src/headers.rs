//! Cleans headers: hop-by-hop fields are removed, in both directions.

use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION,
    TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Removed whether `Connection` names them or not (RFC 9110, 7.6.1).
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    HTTP2_SETTINGS,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Removes hop-by-hop fields, and those that `Connection` names. `Content-Length` and `Host` stay even if it names
/// them: without them the message would have another meaning.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|option| HeaderName::from_bytes(option.trim().as_bytes()).ok())
            .filter(|name| ![CONTENT_LENGTH, HOST].contains(name))
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Cleans a client's headers for an HTTP/1.1 upstream; `Host` and the forwarding headers are set afterwards.
///
/// Beside hop-by-hop fields it removes `Expect` (the proxy replies to it) and names with an underscore (many servers
/// read `X_Real_IP` as `X-Real-IP`), and joins cookie fields, which HTTP/2 may split.
pub fn clean_request(headers: &mut HeaderMap) {
    let takes_trailers = headers
        .get_all(TE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.split(',').any(|coding| coding.trim().eq_ignore_ascii_case("trailers")));
    strip_hop_by_hop(headers);
    headers.remove(EXPECT);
    if takes_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    let underscored: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().contains('_')).cloned().collect();
    for name in underscored {
        headers.remove(name);
    }
    join_cookies(headers);
}

/// Cleans an upstream's headers for the client.
pub fn clean_response(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
}

/// Removes from a trailer section what would change framing, routing or the client's address.
pub fn clean_trailers(trailers: &mut HeaderMap) {
    strip_hop_by_hop(trailers);
    for name in
        [CONTENT_LENGTH, HOST, EXPECT, TRAILER, http::header::AUTHORIZATION, COOKIE, http::header::FORWARDED]
    {
        trailers.remove(name);
    }
    let forwarding: Vec<HeaderName> =
        trailers.keys().filter(|name| crate::forwarded::is_forwarding_header(name)).cloned().collect();
    for name in forwarding {
        trailers.remove(name);
    }
}

fn join_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(COOKIE).iter();
    let (Some(first), Some(second)) = (cookies.next(), cookies.next()) else {
        return;
    };
    let mut joined = first.as_bytes().to_vec();
    for cookie in std::iter::once(second).chain(cookies) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(cookie.as_bytes());
    }
    let joined = HeaderValue::from_bytes(&joined).expect("valid values joined by valid characters are valid");
    headers.insert(COOKIE, joined);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head(fields: &[(&str, &str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| {
                let name = HeaderName::from_bytes(name.as_bytes()).expect("valid");
                (name, HeaderValue::from_str(value).expect("valid"))
            })
            .fold(HeaderMap::new(), |mut headers, (name, value)| {
                headers.append(name, value);
                headers
            })
    }

    #[test]
    fn hop_by_hop_fields_are_removed() {
        let mut headers = head(&[
            ("connection", "close, X-Internal"),
            ("connection", "keep-alive"),
            ("keep-alive", "timeout=5"),
            ("x-internal", "1"),
            ("te", "trailers, gzip"),
            ("expect", "100-continue"),
            ("x_real_ip", "6.6.6.6"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABk"),
            ("proxy-authorization", "Basic x"),
            ("accept", "*/*"),
        ]);
        clean_request(&mut headers);
        let mut left: Vec<_> =
            headers.iter().map(|(name, value)| (name.as_str(), value.to_str().expect("text"))).collect();
        left.sort_unstable();
        assert_eq!(left, [("accept", "*/*"), ("te", "trailers")]);
    }

    #[test]
    fn connection_cannot_remove_the_length_or_the_host() {
        let mut headers =
            head(&[("connection", "content-length, host"), ("content-length", "3"), ("host", "a")]);
        clean_request(&mut headers);
        assert_eq!((headers.contains_key(CONTENT_LENGTH), headers.contains_key(HOST)), (true, true));
    }

    #[test]
    fn split_cookies_are_joined() {
        let mut headers = head(&[("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")]);
        clean_request(&mut headers);
        assert_eq!(headers.get_all(COOKIE).iter().collect::<Vec<_>>(), ["a=1; b=2; c=3"]);
    }

    #[test]
    fn trailers_about_framing_or_the_client_are_removed() {
        let mut trailers =
            head(&[("x-checksum", "1"), ("content-length", "9"), ("x-forwarded-for", "6.6.6.6")]);
        clean_trailers(&mut trailers);
        assert_eq!(trailers, head(&[("x-checksum", "1")]));
    }

    proptest! {
        #[test]
        fn cleaning_twice_is_cleaning_once(fields in prop::collection::vec(
            ("connection|te|upgrade|cookie|x-[a-c]|y_[a-c]|keep-alive", "x-a|x-b|trailers|close|host"), 0..12,
        )) {
            let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let mut once = head(&fields);
            clean_request(&mut once);
            let mut twice = once.clone();
            clean_request(&mut twice);
            prop_assert_eq!(&once, &twice);
            prop_assert!(HOP_BY_HOP.iter().all(|name| name == TE || !once.contains_key(name)));
        }
    }
}
