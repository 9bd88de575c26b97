//! A definition is read as people write it, and an error says where and what.

use std::io;
use std::path::Path;

use contract::ByteCount;
use contract::provisioner::VmDefinition;
use proptest::prelude::*;
use provisioner_domain::{DefinitionError, parse_definition};

fn parse(text: &str) -> Result<VmDefinition, DefinitionError> {
    let read = |path: &Path| match path.to_str() {
        Some("scripts/install.sh") => Ok("#!/bin/sh\necho hello\n".to_owned()),
        Some("plain.txt") => Ok("echo hello\n".to_owned()),
        _ => Err(io::ErrorKind::NotFound.into()),
    };
    parse_definition("web.toml", text, &read)
}

#[test]
fn a_whole_definition_is_read() {
    let text = r#"
name = "web"
seed = "debian-12"
cpu_count = 2
ram_size = "1G"
disk_size = "20G"
domains = ["web.example", "api.example->8080"]
install = ["scripts/install.sh"]
[env]
GREETING = "hello"
"#;
    let read = parse(text).expect("good");
    assert_eq!(read.name.as_str(), "web");
    assert_eq!((read.cpu_count, read.ram_size), (2, ByteCount::gib(1)));
    let ports: Vec<u16> = read.domains.iter().map(|route| route.port).collect();
    assert_eq!(ports, [80, 8080]);
    assert_eq!(read.env["GREETING"], "hello");
    assert_eq!(read.install[0].name, "install.sh");
    assert!(read.install[0].text.starts_with("#!/bin/sh"));
}

#[test]
fn what_is_not_given_has_a_sensible_value() {
    let read = parse("name = \"web\"\nseed = \"debian-12\"").expect("good");
    assert_eq!((read.cpu_count, read.ram_size, read.disk_size), (1, ByteCount::mib(512), ByteCount::gib(10)));
}

#[test]
fn an_error_names_file_line_and_key_and_what_would_be_right() {
    let with = |line: &str| format!("name = \"web\"\nseed = \"tiny\"\n{line}\n");
    for (line, expected) in [
        ("cpu_cuont = 2", "web.toml:3: cpu_cuont: there is no such key; there are name, seed"),
        ("cpu_count = 0", "web.toml:3: cpu_count: must be from 1 to 64"),
        ("cpu_count = -5", "web.toml:3: cpu_count: must be from 1 to 64"),
        ("cpu_count = \"2\"", "web.toml:3: cpu_count: must be a whole number, not a string"),
        ("ram_size = 512", "web.toml:3: ram_size: must be text in quotes, not an integer"),
        ("ram_size = \"much\"", "web.toml:3: ram_size: \"much\" is not a size"),
        ("ram_size = \"1M\"", "web.toml:3: ram_size: must be from 64 MiB to 1 TiB, not 1 MiB"),
        ("domains = \"web.example\"", "web.toml:3: domains: must be a list of texts"),
        (
            "domains = [\"a.example\",\n  \"Bad_Name\"]",
            "web.toml:4: domains: \"Bad_Name\" is not a domain name",
        ),
        ("domains = [\"a.example->0\"]", "web.toml:3: domains: \"0\" is not a port"),
        ("domains = [\"a.example->\"]", "web.toml:3: domains: \"a.example->\" names no port"),
        ("domains = [\"a.example\", \"a.example->81\"]", "web.toml:3: domains: a.example is given twice"),
        ("install = [\"gone.sh\"]", "web.toml:3: install: \"gone.sh\" cannot be read"),
        ("install = [\"plain.txt\"]", "web.toml:3: install: plain.txt does not begin with a line that names"),
        ("[env]\nA = 1", "web.toml:4: env.A: must be text in quotes, not an integer"),
        ("[env]\n\"A B\" = \"1\"", "web.toml:3: env: \"A B\" is not a variable's name"),
        ("env = 1", "web.toml:3: env: must be a table"),
        ("name = \"again\"", "web.toml:3: "),
        ("seed", "web.toml:3: "),
    ] {
        let error = parse(&with(line)).expect_err(line).to_string();
        assert!(error.starts_with(expected), "{line}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
    let missing = parse("seed = \"tiny\"").expect_err("no name").to_string();
    assert_eq!(missing, "web.toml:1: name: it must be given");
    let wrong = parse("name = \"Web\"\nseed = \"tiny\"").expect_err("upper case");
    assert!(wrong.to_string().starts_with("web.toml:1: name: \"Web\" is not a vm name"), "{wrong}");
}

proptest! {
    /// No text makes the reader panic, and every error is one line with a line number within the text.
    #[test]
    fn any_text_is_read_or_refused_in_one_line(text in "\\PC{0,200}|([a-z_]{1,10} ?= ?[\"0-9\\[a-z]{0,8}\n){0,6}") {
        if let Err(error) = parse(&text) {
            prop_assert!(error.line >= 1 && error.line <= text.lines().count() + 1);
            prop_assert!(!error.to_string().contains('\n'));
        }
    }
}
