//! Checked names: each made by one constructor, so that a name that exists is a name that fits everywhere it is
//! used (NATS token, KV key, file name, DNS label). Nothing here looks anything up.

mod domain;

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Why a text is not the name it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {expected_kind}: {rule}")]
pub struct InvalidName {
    /// What the text should be, with its article (`a vm name`).
    pub expected_kind: &'static str,
    /// The text as given, cut at 80 characters.
    pub text: String,
    /// The rule that it breaks, or what would be right.
    pub rule: Cow<'static, str>,
}

impl InvalidName {
    fn new(expected: &'static str, text: &str, rule: impl Into<Cow<'static, str>>) -> Self {
        InvalidName { expected_kind: expected, text: text.chars().take(80).collect(), rule: rule.into() }
    }
}

const LABEL_RULE: &str =
    "1 to 40 characters of a-z, 0-9 and '-', beginning and ending with a letter or digit";

fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    !bytes.is_empty()
        && bytes.len() <= 40
        && bytes.iter().all(|b| plain(b) || *b == b'-')
        && bytes.first().is_some_and(plain)
        && bytes.last().is_some_and(plain)
}

const SEED_RULE: &str = "1 to 40 characters of a-z, 0-9, '-', '_', beginning with a letter or digit";

fn is_seed(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    text.len() <= 40
        && text.bytes().next().is_some_and(plain)
        && text.bytes().all(|b| plain(b) || b == b'-' || b == b'_')
}

const ULID_RULE: &str = "26 characters of Crockford's base 32 in upper case (a ULID)";

fn is_ulid(text: &str) -> bool {
    text.len() == 26 && ulid::Ulid::from_string(text).is_ok_and(|id| id.to_string() == text)
}

const UUID_RULE: &str = "a UUID in lower case with hyphens (RFC 9562)";

fn is_uuid(text: &str) -> bool {
    const HYPHENS: [usize; 4] = [8, 13, 18, 23];
    let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    text.len() == 36
        && text
            .bytes()
            .enumerate()
            .all(|(at, b)| if HYPHENS.contains(&at) { b == b'-' } else { lower_hex(b) })
}

const MAC_RULE: &str =
    "a unicast MAC address in lower case: six pairs of hexadecimal digits with colons, not all zero";

fn is_mac(text: &str) -> bool {
    let octet = |pair: &str| {
        let lower = pair.len() == 2 && !pair.bytes().any(|b| b.is_ascii_uppercase() || b == b'+');
        lower.then(|| u8::from_str_radix(pair, 16).ok()).flatten()
    };
    let octets: Option<Vec<u8>> = text.split(':').map(octet).collect();
    // The lowest bit of the first octet marks a group address (IEEE 802).
    octets.is_some_and(|octets| octets.len() == 6 && octets[0] & 1 == 0 && octets != [0; 6])
}

macro_rules! checked_name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:path, $rule:expr, $pattern:literal, $example:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks a text and makes the name of it.
            ///
            /// # Errors
            /// When the text breaks the rule of this name.
            pub fn new(text: impl Into<String>) -> Result<Self, InvalidName> {
                let text = text.into();
                if $check(&text) { Ok($name(text)) } else { Err(InvalidName::new($what, &text, $rule(&text))) }
            }
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                $name::new(text)
            }
        }
        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                $name::new(text)
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }
        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "type": "string", "description": $what, "pattern": $pattern, "examples": [$example]
                })
            }
        }
    };
}

checked_name!(
    /// The name of a virtual machine, unique in a realm.
    VmName, "a vm name", is_label, |_: &str| LABEL_RULE, "^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$", "web"
);
checked_name!(
    /// The name of a host: a machine that runs the services.
    HostName, "a host name", is_label, |_: &str| LABEL_RULE, "^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$", "h1"
);
checked_name!(
    /// The name of a schedule.
    ScheduleId, "a schedule id", is_label, |_: &str| LABEL_RULE, "^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$", "nightly"
);
checked_name!(
    /// The name of a seed: a base image that VMs are created from.
    SeedName, "a seed name", is_seed, |_: &str| SEED_RULE, "^[a-z0-9][a-z0-9_-]{0,39}$", "debian-12"
);
checked_name!(
    /// The name of a disk in its VM, as the hypervisor calls it (`vda`).
    DiskName, "a disk name", is_label, |_: &str| LABEL_RULE, "^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$", "vda"
);
checked_name!(
    /// A DNS name that the proxy routes to a VM.
    DomainName, "a domain name", domain::is_domain, domain::rule_for, "^[a-z0-9-]+(\\.[a-z0-9-]+)*$", "web.example"
);
checked_name!(
    /// The UUID of a VM: what libvirt knows it by, whatever its name.
    VmUuid, "a vm uuid", is_uuid, |_: &str| UUID_RULE,
    "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$", "0b2d1b9e-5f0f-4e0b-8a4e-0d5f1b9e5f0f"
);
checked_name!(
    /// The MAC address of a VM's network card.
    MacAddress, "a MAC address", is_mac, |_: &str| MAC_RULE, "^([0-9a-f]{2}:){5}[0-9a-f]{2}$", "52:54:00:aa:bb:cc"
);
checked_name!(
    /// The id of an operation: a ULID, so that ids sort by the time they were made.
    OperationId, "an operation id", is_ulid, |_: &str| ULID_RULE, "^[0-7][0-9A-HJKMNP-TV-Z]{25}$", "01K9NXQZ6R3W4V5T8Y2B7C1D0E"
);
checked_name!(
    /// The id of a backup: a ULID. The snapshot in the store carries the same id.
    BackupId, "a backup id", is_ulid, |_: &str| ULID_RULE, "^[0-7][0-9A-HJKMNP-TV-Z]{25}$", "01K9NXQZ6R3W4V5T8Y2B7C1D0F"
);

impl OperationId {
    /// Makes an id from a time (milliseconds since 1970) and 80 random bits.
    pub fn from_parts(unix_ms: u64, random: u128) -> Self {
        OperationId(ulid::Ulid::from_parts(unix_ms, random).to_string())
    }

    /// Makes an id from 128 bits that the caller derived from something else; the same bits give the same id.
    pub fn from_bits(bits: u128) -> Self {
        OperationId(ulid::Ulid(bits).to_string())
    }
}

impl From<&OperationId> for BackupId {
    /// A backup carries the id of the operation that made it, so that repeating the operation names the same backup.
    fn from(operation: &OperationId) -> BackupId {
        BackupId(operation.0.clone())
    }
}

/// A backup as people write it: `web@01J…`, `web@latest`, or an unambiguous beginning of the id (`web@01J4`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BackupRef {
    /// The VM that was backed up.
    pub vm: VmName,
    /// `latest`, an id, or the beginning of one (upper case).
    pub id_or_latest: String,
}

impl BackupRef {
    /// Whether it means the latest backup of its VM, whichever that is.
    pub fn is_latest(&self) -> bool {
        self.id_or_latest == LATEST
    }
}

const LATEST: &str = "latest";

impl FromStr for BackupRef {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        const RULE: &str = "VM@latest, or VM@ and an id or its first characters";
        let (vm, which) =
            text.split_once('@').ok_or_else(|| InvalidName::new("a backup reference", text, RULE))?;
        let vm = VmName::new(vm)?;
        if which == LATEST {
            return Ok(BackupRef { vm, id_or_latest: which.into() });
        }
        let which = which.to_ascii_uppercase();
        let fits = !which.is_empty() && which.len() <= 26 && which.bytes().all(|b| b.is_ascii_alphanumeric());
        if fits {
            Ok(BackupRef { vm, id_or_latest: which })
        } else {
            Err(InvalidName::new("a backup reference", text, RULE))
        }
    }
}
impl TryFrom<String> for BackupRef {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}
impl From<BackupRef> for String {
    fn from(reference: BackupRef) -> String {
        reference.to_string()
    }
}
impl fmt::Display for BackupRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.vm, self.id_or_latest)
    }
}
impl JsonSchema for BackupRef {
    fn schema_name() -> Cow<'static, str> {
        "BackupRef".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "VM@latest or VM@id",
            "pattern": "^[a-z0-9-]+@[0-9A-Za-z]+$",
            "examples": ["web@latest"]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vm_name_is_a_dns_label_and_nothing_else() {
        for good in ["web", "a", "web-2", "0", &"a".repeat(40)] {
            assert!(VmName::new(good).is_ok(), "{good}");
        }
        for bad in
            ["", "-web", "web-", "Web", "web.example", "we b", "wéb", "a>", "*", "../x", &"a".repeat(41)]
        {
            assert!(VmName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_bad_name_says_what_it_was_to_be_and_why_not() {
        let error = VmName::new("Web").expect_err("upper case");
        assert!(error.to_string().starts_with("\"Web\" is not a vm name: 1 to 40 characters"));
    }

    #[test]
    fn a_bad_name_is_refused_while_reading_a_message() {
        let error = serde_json::from_str::<VmName>("\"a.b\"").expect_err("dot");
        assert!(error.to_string().contains("is not a vm name"));
    }

    #[test]
    fn a_backup_reference_is_read_and_written_alike() {
        let reference: BackupRef = "web@01j4".parse().expect("valid");
        assert_eq!(reference.to_string(), "web@01J4");
        assert!("web".parse::<BackupRef>().is_err());
        assert!("web@".parse::<BackupRef>().is_err());
        assert!("web@../x".parse::<BackupRef>().is_err());
    }

    #[test]
    fn uuids_and_mac_addresses_have_one_spelling() {
        assert!(VmUuid::new("0b2d1b9e-5f0f-4e0b-8a4e-0d5f1b9e5f0f").is_ok());
        for bad in ["0B2D1B9E-5f0f-4e0b-8a4e-0d5f1b9e5f0f", "0b2d1b9e5f0f4e0b8a4e0d5f1b9e5f0f", ""] {
            assert!(VmUuid::new(bad).is_err(), "{bad}");
        }
        assert!(MacAddress::new("52:54:00:aa:bb:cc").is_ok());
        for bad in [
            "52:54:00:AA:BB:CC",
            "52:54:00:aa:bb",
            "53:54:00:aa:bb:cc",
            "52:54:00:aa:bb:+c",
            "52-54-00-aa-bb-cc",
            "00:00:00:00:00:00",
        ] {
            assert!(MacAddress::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn operation_ids_sort_by_time() {
        assert!(OperationId::from_parts(1, u128::MAX) < OperationId::from_parts(2, 0));
        assert!(OperationId::new(OperationId::from_bits(7).as_str()).is_ok());
    }
}
