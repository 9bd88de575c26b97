//! Golden samples of every message, as JSON and as MessagePack: what was sent once stays readable, and today's messages
//! are written as they were. A new or changed message: run `tests/generate` and read the difference.
//!
//! `wire/v1` holds the samples of version 1. The samples of a message that changes stay: the new ones go into a file
//! beside them (`get_vm.json`, `get_vm.2.json`), and all of them must be read.

mod samples;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use contract::catalog::{Visitor, visit};
use contract::provisioner::GetVm;
use contract::upgrade::ReleaseManifest;
use contract::{DurableCommand, Event, Request};
use schemars::{JsonSchema, schema_for};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Whether samples are kept. Until version 1 is released a change may write them over; from then on this is `true`.
const FROZEN: bool = false;

struct Golden {
    folder: PathBuf,
    write: bool,
    frozen: bool,
    expected: BTreeSet<String>,
    wrong: Vec<String>,
}

impl Golden {
    fn open() -> Golden {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("wire/v1");
        let write = std::env::var_os("LOAM_WRITE_SAMPLES").is_some();
        Golden { folder, write, frozen: FROZEN, expected: BTreeSet::new(), wrong: Vec::new() }
    }

    fn hold<T: Serialize + DeserializeOwned + JsonSchema>(&mut self, name: &str) {
        let samples = samples::of(&schema_for!(T));
        let values: Vec<T> = samples
            .iter()
            .map(|sample| {
                T::deserialize(sample).unwrap_or_else(|error| panic!("{name}: {error} in {sample:#}"))
            })
            .collect();
        let json = serde_json::to_string_pretty(&values).expect("plain data") + "\n";
        let packed = rmp_serde::to_vec_named(&values).expect("plain data");
        let unpacked: Vec<T> = rmp_serde::from_slice(&packed).expect("readable");
        let plain = |values: &Vec<T>| serde_json::to_value(values).expect("plain data");
        assert_eq!(plain(&unpacked), plain(&values), "{name}: both encodings say the same");
        for (sample, written) in samples.iter().zip(plain(&values).as_array().expect("a list")) {
            assert!(holds(written, sample), "{name}: a field was lost: {sample:#} became {written:#}");
        }
        self.compare(name, "json", json.as_bytes(), |old| serde_json::from_slice::<Vec<T>>(old).is_ok());
        self.compare(name, "msgpack", &packed, |old| rmp_serde::from_slice::<Vec<T>>(old).is_ok());
    }

    /// The newest samples of a message are today's, and the older ones can be read.
    fn compare(&mut self, name: &str, form: &str, today: &[u8], can_read: impl Fn(&[u8]) -> bool) {
        let file = |number: u32| match number {
            1 => format!("{name}.{form}"),
            _ => format!("{name}.{number}.{form}"),
        };
        let read = |number| std::fs::read(self.folder.join(file(number))).ok();
        let kept: Vec<Vec<u8>> = (1..).map_while(read).collect();
        let mut newest = u32::try_from(kept.len()).expect("a few files").max(1);
        if self.write && kept.last().is_none_or(|newest| newest != today) {
            newest += u32::from(self.frozen && !kept.is_empty());
            std::fs::write(self.folder.join(file(newest)), today).expect("written");
        } else if kept.last().is_none_or(|newest| newest != today) {
            self.wrong.push(format!("{} differs or is missing", file(newest)));
        }
        for (number, old) in (1..newest).zip(&kept) {
            if !can_read(old) {
                self.wrong.push(format!("{} cannot be read any more", file(number)));
            }
        }
        for number in 1..=newest {
            assert!(self.expected.insert(file(number)), "{}: two messages have this name", file(number));
        }
    }

    /// Files that no message has any more are removed with it.
    fn leftovers(&mut self) {
        for entry in std::fs::read_dir(&self.folder).expect("readable") {
            let entry = entry.expect("readable");
            let name = entry.file_name().into_string().expect("plain names");
            if !self.expected.contains(&name) {
                if self.write {
                    std::fs::remove_file(entry.path()).expect("removed");
                } else {
                    self.wrong.push(format!("{name} belongs to no message"));
                }
            }
        }
    }
}

/// Whether all of a sample is in a value; fields with defaults may have been added.
fn holds(value: &Value, sample: &Value) -> bool {
    match (value, sample) {
        (Value::Object(value), Value::Object(sample)) => {
            sample.iter().all(|(field, part)| value.get(field).is_some_and(|value| holds(value, part)))
        }
        (Value::Array(value), Value::Array(sample)) => {
            value.len() == sample.len() && value.iter().zip(sample).all(|(value, part)| holds(value, part))
        }
        _ => value == sample,
    }
}

impl Visitor for Golden {
    fn request<R: Request>(&mut self) {
        self.hold::<R>(R::NAME);
        self.hold::<R::Reply>(&format!("{}.reply", R::NAME));
        let refusals = samples::of(&schema_for!(R::Refusal));
        if !refusals.is_empty() {
            self.hold::<R::Refusal>(&format!("{}.refused", R::NAME));
        }
    }
    fn durable<C: DurableCommand>(&mut self) {
        self.request::<C>();
    }
    fn event<E: Event>(&mut self) {
        self.hold::<E>(&format!("event.{}", E::NAME));
    }
}

#[test]
fn every_message_is_written_as_it_was() {
    let mut golden = Golden::open();
    visit(&mut golden);
    golden.hold::<ReleaseManifest>("release_manifest");
    golden.leftovers();
    assert!(
        golden.wrong.is_empty(),
        "samples differ; `tests/generate` writes them (kept ones stay, new ones go beside them): {:#?}",
        golden.wrong
    );
}

#[test]
fn samples_that_are_kept_are_never_written_over_and_must_be_read() {
    let folder = std::env::temp_dir().join(format!("loam-wire-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let compare = |write, today: &str, can_read: fn(&[u8]) -> bool| {
        let (expected, wrong) = Default::default();
        let mut golden = Golden { folder: folder.clone(), write, frozen: true, expected, wrong };
        golden.compare("get_vm", "json", today.as_bytes(), can_read);
        golden.leftovers();
        golden.wrong
    };
    let read = |file: &str| std::fs::read_to_string(folder.join(file)).expect("written");
    assert_eq!(compare(true, "one", |_| true), [""; 0]);
    assert_eq!(compare(false, "two", |_| true), ["get_vm.json differs or is missing"]);
    assert_eq!(compare(true, "two", |_| true), [""; 0]);
    assert_eq!((read("get_vm.json").as_str(), read("get_vm.2.json").as_str()), ("one", "two"));
    assert_eq!(compare(false, "two", |_| true), [""; 0]);
    assert_eq!(compare(false, "two", |old| old != b"one"), ["get_vm.json cannot be read any more"]);
    std::fs::remove_dir_all(&folder).expect("removed");
}

#[test]
fn every_refusal_is_a_sentence() {
    struct Sentences;
    impl Visitor for Sentences {
        fn request<R: Request>(&mut self) {
            for sample in samples::of(&schema_for!(R::Refusal)) {
                let refusal: R::Refusal = serde_json::from_value(sample).expect("a sample of its schema");
                let text = refusal.to_string();
                assert!(text.contains(' ') && !text.ends_with('.'), "{}: {text:?}", R::NAME);
            }
        }
        fn durable<C: DurableCommand>(&mut self) {
            self.request::<C>();
        }
        fn event<E: Event>(&mut self) {}
    }
    visit(&mut Sentences);
}

#[test]
fn a_field_that_is_not_known_yet_is_ignored_in_messages_and_in_manifests() {
    let newer = r#"{ "vm": "web", "colour": "green" }"#;
    serde_json::from_str::<GetVm>(newer).expect("a newer sender is understood");
    let file = r#"{ "service": "proxy", "version": "1.0.0", "file": "x", "sha256": "y", "made": "2026-11-22T06:30:00Z", "colour": "green" }"#;
    serde_json::from_str::<ReleaseManifest>(file).expect("a newer release is understood");
}

/// Enums whose reader can do nothing with a case it does not know: the reply to a durable command is an operation id or
/// a refusal, and who may do what is decided by the caller.
const CLOSED: [&str; 2] = ["BegunOperation", "Caller"];

#[test]
fn an_enum_in_a_reply_or_event_has_a_case_for_what_is_not_known_yet() {
    #[derive(Default)]
    struct Enums {
        seen: BTreeSet<String>,
        closed: BTreeSet<String>,
    }
    impl Enums {
        fn look<T: JsonSchema>(&mut self) {
            let schema = schema_for!(T);
            let definitions = schema.get("$defs").and_then(Value::as_object).cloned().unwrap_or_default();
            let root = (T::schema_name().into_owned(), schema.as_value().clone());
            for (name, schema) in definitions.into_iter().chain([root]) {
                let cases: Vec<&Value> = ["oneOf", "anyOf", "enum"]
                    .iter()
                    .filter_map(|key| schema[*key].as_array())
                    .flatten()
                    .collect();
                if cases.is_empty() || CLOSED.contains(&name.as_str()) {
                    continue;
                }
                if !cases.iter().any(|case| is_open(case)) {
                    self.closed.insert(name.clone());
                }
                self.seen.insert(name);
            }
        }
    }
    /// A name that stands for any other, or a case that takes any value.
    fn is_open(case: &Value) -> bool {
        let names = |value: &Value| ["unknown", "other"].iter().any(|name| value == name);
        let any = case.as_bool() == Some(true)
            || case.as_object().is_some_and(|case| case.keys().all(|key| key == "description"));
        any || names(case)
            || names(&case["const"])
            || case["enum"].as_array().is_some_and(|values| values.iter().any(names))
    }
    impl Visitor for Enums {
        fn request<R: Request>(&mut self) {
            self.look::<R::Reply>();
        }
        fn durable<C: DurableCommand>(&mut self) {
            self.request::<C>();
        }
        fn event<E: Event>(&mut self) {
            self.look::<E>();
        }
    }
    let mut enums = Enums::default();
    visit(&mut enums);
    for known in ["VmState", "OperationState", "Service", "RouteTarget", "RunStartStatus", "PauseReason"] {
        assert!(enums.seen.contains(known), "the walk finds {known}: {:?}", enums.seen);
    }
    assert!(enums.closed.is_empty(), "enums without a case for what is not known yet: {:?}", enums.closed);
}

#[test]
fn a_case_that_is_not_known_yet_is_read_as_unknown() {
    use contract::provisioner::VmState;
    use contract::proxy::RouteTarget;
    assert_eq!(serde_json::from_str::<VmState>("\"moving\"").expect("read"), VmState::Unknown);
    let target = serde_json::json!({ "socket": { "path": "/run/x" } });
    let packed = rmp_serde::to_vec_named(&target).expect("plain data");
    let read: RouteTarget = rmp_serde::from_slice(&packed).expect("read");
    assert_eq!(read, RouteTarget::Unknown(target));
    let known = RouteTarget::Address("10.0.0.1:80".into());
    let packed = rmp_serde::to_vec_named(&known).expect("plain data");
    assert_eq!(rmp_serde::from_slice::<RouteTarget>(&packed).expect("read"), known);
}
