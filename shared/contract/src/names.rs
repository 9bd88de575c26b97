//! Checked names: each made by one constructor, so that a name that exists is a name that fits everywhere it is
//! used (NATS token, KV key, file name, DNS label). Nothing here looks anything up.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Why a text is not the name it was meant to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {what}: {rule}")]
pub struct InvalidName {
    /// What the text was to be, in words.
    pub what: &'static str,
    /// The text as given, cut at 80 characters.
    pub text: String,
    /// The rule that it breaks.
    pub rule: &'static str,
}

impl InvalidName {
    fn new(what: &'static str, text: &str, rule: &'static str) -> Self {
        InvalidName { what, text: text.chars().take(80).collect(), rule }
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

const DOMAIN_RULE: &str = "a DNS name in lower case without a final dot, at most 253 characters (RFC 1123)";

fn is_domain(text: &str) -> bool {
    text.len() <= 253
        && !text.is_empty()
        && text.split('.').all(|label| {
            let bytes = label.as_bytes();
            let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
            bytes.len() <= 63
                && bytes.iter().all(|b| plain(b) || *b == b'-')
                && bytes.first().is_some_and(plain)
                && bytes.last().is_some_and(plain)
        })
}

macro_rules! checked_name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:ident, $rule:ident, $pattern:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks a text and makes the name of it.
            pub fn new(text: impl Into<String>) -> Result<Self, InvalidName> {
                let text = text.into();
                if $check(&text) { Ok($name(text)) } else { Err(InvalidName::new($what, &text, $rule)) }
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
                json_schema!({ "type": "string", "description": $what, "pattern": $pattern })
            }
        }
    };
}

checked_name!(
    /// The name of a virtual machine, unique in a realm.
    VmName, "vm name", is_label, LABEL_RULE, "^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$"
);
checked_name!(
    /// The name of a machine that runs services.
    HostName, "host name", is_label, LABEL_RULE, "^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$"
);
checked_name!(
    /// The name of a schedule.
    ScheduleId, "schedule id", is_label, LABEL_RULE, "^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$"
);
checked_name!(
    /// The name of a seed: a cloud image that virtual machines grow from.
    SeedName, "seed name", is_seed, SEED_RULE, "^[a-z0-9][a-z0-9_-]{0,39}$"
);
checked_name!(
    /// The name of a disk inside its machine, as the hypervisor calls it (`vda`).
    DiskName, "disk name", is_label, LABEL_RULE, "^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$"
);
checked_name!(
    /// A DNS name under which a machine is reached through the proxy.
    DomainName, "domain name", is_domain, DOMAIN_RULE, "^[a-z0-9-]+(\\.[a-z0-9-]+)*$"
);
checked_name!(
    /// The id of an operation: a ULID, so that ids sort by the time they were made.
    OperationId, "operation id", is_ulid, ULID_RULE, "^[0-7][0-9A-HJKMNP-TV-Z]{25}$"
);
checked_name!(
    /// The id of a backup: a ULID. The snapshot in the store carries the same id.
    BackupId, "backup id", is_ulid, ULID_RULE, "^[0-7][0-9A-HJKMNP-TV-Z]{25}$"
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

/// A backup as a person names it: `web@01J…`, `web@latest`, or an unambiguous beginning of the id (`web@01J4`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BackupRef {
    /// The machine that was backed up.
    pub vm: VmName,
    /// `latest`, an id, or the beginning of one (upper case).
    pub which: String,
}

impl FromStr for BackupRef {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        const RULE: &str = "VM@latest, or VM@ and an id or its first characters";
        let (vm, which) =
            text.split_once('@').ok_or_else(|| InvalidName::new("backup reference", text, RULE))?;
        let vm = VmName::new(vm)?;
        if which == "latest" {
            return Ok(BackupRef { vm, which: which.into() });
        }
        let which = which.to_ascii_uppercase();
        let fits = !which.is_empty() && which.len() <= 26 && which.bytes().all(|b| b.is_ascii_alphanumeric());
        if fits { Ok(BackupRef { vm, which }) } else { Err(InvalidName::new("backup reference", text, RULE)) }
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
        write!(f, "{}@{}", self.vm, self.which)
    }
}
impl JsonSchema for BackupRef {
    fn schema_name() -> Cow<'static, str> {
        "BackupRef".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": "VM@latest or VM@id", "pattern": "^[a-z0-9-]+@[0-9A-Za-z]+$" })
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
    fn operation_ids_sort_by_time() {
        assert!(OperationId::from_parts(1, u128::MAX) < OperationId::from_parts(2, 0));
        assert!(OperationId::new(OperationId::from_bits(7).as_str()).is_ok());
    }
}
