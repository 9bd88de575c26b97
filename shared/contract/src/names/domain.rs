//! The rule of a domain name, and what a text that breaks it should have been.

use std::borrow::Cow;

const RULE: &str = "a DNS name in lower case without a final dot, at most 253 characters (RFC 1123)";
const NO_ADDRESS: &str = "an IP address is not a DNS name; requests are routed by name";
const NO_WILDCARD: &str = "no wildcards yet: give each name by itself";

pub(super) fn is_domain(text: &str) -> bool {
    text.len() <= 253 && !text.is_empty() && text.split('.').all(is_label) && !is_address(text)
}

fn is_label(label: &str) -> bool {
    let bytes = label.as_bytes();
    let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    bytes.len() <= 63
        && bytes.iter().all(|b| plain(b) || *b == b'-')
        && bytes.first().is_some_and(plain)
        && bytes.last().is_some_and(plain)
}

/// Whether clients take it for an IPv4 address, in one of its forms: its last label is a number (WHATWG URL, 3.5).
fn is_address(text: &str) -> bool {
    let last = text.rsplit('.').next().unwrap_or(text);
    let is_hex = |digits: &str| digits.bytes().all(|b| b.is_ascii_hexdigit());
    last.bytes().all(|b| b.is_ascii_digit()) || last.strip_prefix("0x").is_some_and(is_hex)
}

/// The rule that a text breaks, as it helps best.
pub(super) fn rule_for(text: &str) -> Cow<'static, str> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    if bare.parse::<std::net::IpAddr>().is_ok() || (text.split('.').all(is_label) && is_address(text)) {
        return NO_ADDRESS.into();
    }
    if text.contains('*') {
        return NO_WILDCARD.into();
    }
    match in_ascii(text) {
        Some(form) if text.is_ascii() => format!("write it as {form}").into(),
        Some(form) => format!("in DNS it is {form} (punycode); write it so").into(),
        None => RULE.into(),
    }
}

/// The form that DNS has for a name: lower case, and punycode for what is not ASCII (UTS 46).
fn in_ascii(text: &str) -> Option<String> {
    let form = idna::domain_to_ascii(text.strip_suffix('.').unwrap_or(text)).ok()?;
    is_domain(&form).then_some(form)
}

#[cfg(test)]
mod tests {
    use super::super::DomainName;

    fn refused(text: &str) -> String {
        DomainName::new(text).expect_err(text).to_string()
    }

    #[test]
    fn a_name_that_dns_has_is_a_domain_name() {
        for good in [
            "localhost",
            "web.example",
            "xn--exmple-cua.com",
            "1.web.example",
            "10.88.0.1.example",
            "0x.example",
        ] {
            assert!(DomainName::new(good).is_ok(), "{good}");
        }
        for bad in
            ["", ".", "a..b", "-a.example", "a_b.example", "we b.example", "a.example/x", &"a.".repeat(200)]
        {
            assert!(refused(bad).ends_with("(RFC 1123)"), "{}", refused(bad));
        }
    }

    #[test]
    fn an_address_is_refused_in_all_its_forms() {
        for address in
            ["10.88.0.1", "127.1", "2130706433", "0x7f.1", "1.2.0x7f", "::1", "[fd00::1]", "1.2.3.4.5"]
        {
            assert!(refused(address).contains("an IP address is not a DNS name"), "{}", refused(address));
        }
    }

    #[test]
    fn a_wildcard_is_refused_as_such() {
        for wildcard in ["*.example.com", "*", "a.*.example"] {
            assert!(refused(wildcard).contains("no wildcards yet"), "{}", refused(wildcard));
        }
    }

    #[test]
    fn a_name_in_another_form_is_refused_with_the_right_one() {
        for (text, form) in [
            ("ex\u{e4}mple.com", "xn--exmple-cua.com"),
            ("EX\u{c4}MPLE.com", "xn--exmple-cua.com"),
            ("Web.Example", "web.example"),
            ("web.example.", "web.example"),
        ] {
            assert!(refused(text).contains(form), "{}", refused(text));
            assert!(DomainName::new(form).is_ok());
        }
    }
}
