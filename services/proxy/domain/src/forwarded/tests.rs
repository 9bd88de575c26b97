use proptest::prelude::*;

use super::*;

fn trusted(header: ForwardedHeader) -> TrustedProxies {
    let networks = ["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().expect("valid")).to_vec();
    TrustedProxies { networks, header }
}

fn head(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).expect("valid"));
    }
    headers
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("valid")
}

#[test]
fn the_client_of_an_untrusted_peer_is_the_peer() {
    let headers = head(&[("x-forwarded-for", "6.6.6.6"), ("x-forwarded-proto", "https")]);
    let client =
        trusted(ForwardedHeader::XForwardedFor).client_info(ip("203.0.113.9"), Scheme::Http, &headers);
    assert_eq!((client.address(), client.scheme), (ip("203.0.113.9"), Scheme::Http));
    assert!(!client.peer_is_trusted);
}

#[test]
fn trusted_hops_are_walked_from_the_right_to_the_first_untrusted_address() {
    let headers = head(&[
        ("x-forwarded-for", "6.6.6.6, 203.0.113.9"),
        ("x-forwarded-for", "10.0.0.4:5000"),
        ("x-forwarded-proto", "https"),
        ("forwarded", "for=7.7.7.7"),
    ]);
    let client =
        trusted(ForwardedHeader::XForwardedFor).client_info(ip("::ffff:10.0.0.5"), Scheme::Http, &headers);
    assert_eq!(client.addresses, [ip("203.0.113.9"), ip("10.0.0.4"), ip("10.0.0.5")]);
    assert_eq!(client.scheme, Scheme::Https);
}

#[test]
fn the_forwarded_header_is_read_with_quotes_ports_and_schemes() {
    let headers = head(&[
        (
            "forwarded",
            "for=6.6.6.6, For=\"[2001:db8::1]:4711\";proto=https;host=\"a,b;c\", for=10.0.0.4;proto=http",
        ),
        ("x-forwarded-for", "7.7.7.7"),
    ]);
    let client = trusted(ForwardedHeader::Forwarded).client_info(ip("fd00::1"), Scheme::Http, &headers);
    assert_eq!(client.address(), ip("2001:db8::1"));
    assert_eq!(client.scheme, Scheme::Https);
}

#[test]
fn an_invalid_hop_ends_the_walk_at_the_hop_that_reported_it() {
    for unreadable in ["unknown", "_hidden", "", "999.1.1.1", "6.6.6.6 7.7.7.7"] {
        let headers = head(&[("x-forwarded-for", &format!("6.6.6.6, {unreadable}, 10.0.0.4"))]);
        let client =
            trusted(ForwardedHeader::XForwardedFor).client_info(ip("10.0.0.5"), Scheme::Http, &headers);
        assert_eq!(client.address(), ip("10.0.0.4"), "{unreadable:?}");
    }
}

#[test]
fn forged_headers_are_replaced_by_verified_ones() {
    let mut headers = head(&[
        ("x-forwarded-for", "6.6.6.6"),
        ("x-forwarded-server", "evil"),
        ("x-real-ip", "6.6.6.6"),
        ("forwarded", "for=6.6.6.6"),
        ("accept", "*/*"),
    ]);
    let client =
        trusted(ForwardedHeader::XForwardedFor).client_info(ip("2001:db8::9"), Scheme::Http, &headers);
    set_forwarding_headers(&mut headers, &client, &HeaderValue::from_static("web.example"));
    let text = |name: &str| headers.get(name).map(|value| value.to_str().expect("text").to_owned());
    assert_eq!(text("x-forwarded-for").as_deref(), Some("2001:db8::9"));
    assert_eq!(text("x-real-ip").as_deref(), Some("2001:db8::9"));
    assert_eq!(text("x-forwarded-proto").as_deref(), Some("http"));
    assert_eq!(text("x-forwarded-host").as_deref(), Some("web.example"));
    assert_eq!(text("forwarded").as_deref(), Some("for=\"[2001:db8::9]\";proto=http;host=\"web.example\""));
    assert_eq!((text("x-forwarded-server"), text("accept").as_deref()), (None, Some("*/*")));
}

proptest! {
    #[test]
    fn no_client_can_choose_its_own_address(
        forged in "[0-9a-f:., _]{0,40}", client in any::<std::net::Ipv4Addr>(), hops in prop::collection::vec(any::<u8>(), 0..5),
    ) {
        let trusted = trusted(ForwardedHeader::XForwardedFor);
        let client = IpAddr::from(client);
        prop_assume!(!trusted.contains(client));
        // The client connects to the first trusted hop, each hop appends its peer, the last one connects to this proxy.
        let path: Vec<IpAddr> = hops.iter().map(|last| IpAddr::from([10, 0, 0, *last])).collect();
        let (peer, addresses) = match path.split_last() {
            None => (client, vec![forged]),
            Some((peer, between)) => {
                let seen = std::iter::once(client).chain(between.iter().copied()).map(|address| address.to_string());
                (*peer, std::iter::once(forged).chain(seen).collect())
            }
        };
        let headers = head(&[("x-forwarded-for", &addresses.join(", "))]);
        prop_assert_eq!(trusted.client_info(peer, Scheme::Http, &headers).address(), client);
    }
}
