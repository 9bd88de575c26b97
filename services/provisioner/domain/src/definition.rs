//! A VM's definition as a person writes it.
//!
//! ```toml
//! name      = "web"
//! seed      = "debian-12"
//! cpu_count = 2                  # 1 unless given
//! ram_size  = "1G"               # 512M unless given
//! disk_size = "20G"              # 10G unless given
//! domains   = ["web.example", "api.example->8080"]
//! install   = ["install.sh"]     # run over SSH after the first boot, in this order
//! [env]
//! GREETING  = "hello"
//! ```
//!
//! Everything is checked before anything is touched; an error names file, line and key.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::str::FromStr;

use contract::ByteCount;
use contract::provisioner::{DomainRoute, Script, VmDefinition};
use toml_edit::{Document, Item, TableLike, Value};

use crate::bounds;

const KEYS: [&str; 8] = ["name", "seed", "cpu_count", "ram_size", "disk_size", "domains", "env", "install"];
const RAM_DEFAULT: ByteCount = ByteCount::mib(512);
const DISK_DEFAULT: ByteCount = ByteCount::gib(10);
const PORT_DEFAULT: u16 = 80;

/// Why a file is not a definition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {}{reason}", .key.as_ref().map(|key| format!("{key}: ")).unwrap_or_default())]
pub struct DefinitionError {
    /// The file as it was called.
    pub file: String,
    /// The line, counted from 1.
    pub line: usize,
    /// The key, where one is to blame.
    pub key: Option<String>,
    /// What is wrong, and what would be right.
    pub reason: String,
}

/// Reads a definition. `read` gives the text of a script by its path as written in the file.
///
/// # Errors
/// The first thing that is wrong: syntax, an unknown or missing key, a wrong value, a script that cannot be read.
pub fn parse_definition(
    file: &str,
    text: &str,
    read: &dyn Fn(&Path) -> io::Result<String>,
) -> Result<VmDefinition, DefinitionError> {
    let page = Page { file, text };
    let document =
        Document::parse(text).map_err(|error| page.error(error.span(), None, error.message().trim()))?;
    let table = document.as_table();
    for (key, item) in table.iter() {
        if !KEYS.contains(&key) {
            let span = table.key(key).and_then(toml_edit::Key::span).or(item.span());
            let reason = format!("there is no such key; there are {}", KEYS.join(", "));
            return Err(page.error(span, Some(key), &reason));
        }
    }
    let definition = VmDefinition {
        name: page.text_of(table, "name")?.ok_or_else(|| page.missing("name"))?,
        seed: page.text_of(table, "seed")?.ok_or_else(|| page.missing("seed"))?,
        cpu_count: page.count(table, "cpu_count")?.unwrap_or(1),
        ram_size: page.text_of(table, "ram_size")?.unwrap_or(RAM_DEFAULT),
        disk_size: page.text_of(table, "disk_size")?.unwrap_or(DISK_DEFAULT),
        domains: page.list(table, "domains", domain_route)?,
        env: page.env(table)?,
        install: page.list(table, "install", |path| script(path, read))?,
    };
    bounds::check(&definition).map_err(|error| {
        let span = table.get(error.field).and_then(Item::span);
        page.error(span, Some(error.field), &error.reason)
    })?;
    Ok(definition)
}

fn domain_route(text: &str) -> Result<DomainRoute, String> {
    let (domain, port) = match text.split_once("->") {
        Some((domain, port)) => (domain.trim(), port.trim()),
        None => (text, ""),
    };
    let domain = domain.parse().map_err(|error| format!("{error}"))?;
    let port = match port {
        "" if text.contains("->") => return Err(format!("{text:?} names no port after '->'")),
        "" => PORT_DEFAULT,
        digits => digits
            .parse()
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(|| format!("{digits:?} is not a port: a number from 1 to 65535"))?,
    };
    Ok(DomainRoute { domain, port })
}

fn script(path: &str, read: &dyn Fn(&Path) -> io::Result<String>) -> Result<Script, String> {
    let text = read(Path::new(path)).map_err(|error| format!("{path:?} cannot be read: {error}"))?;
    let name = Path::new(path).file_name().ok_or_else(|| format!("{path:?} names no file"))?;
    Ok(Script { name: name.to_string_lossy().into_owned(), text })
}

/// The file, to find lines in.
struct Page<'a> {
    file: &'a str,
    text: &'a str,
}

impl Page<'_> {
    fn error(&self, span: Option<Range<usize>>, key: Option<&str>, reason: &str) -> DefinitionError {
        let at = span.map_or(0, |span| span.start).min(self.text.len());
        let line = 1 + self.text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count();
        DefinitionError {
            file: self.file.into(),
            line,
            key: key.map(str::to_owned),
            reason: reason.replace('\n', " "),
        }
    }

    fn missing(&self, key: &str) -> DefinitionError {
        self.error(None, Some(key), "it must be given")
    }

    fn wrong(&self, item: &Item, key: &str, wanted: &str) -> DefinitionError {
        let reason = format!("must be {wanted}, not {}", kind(item.type_name()));
        self.error(item.span(), Some(key), &reason)
    }

    fn text_of<T: FromStr>(&self, table: &dyn TableLike, key: &str) -> Result<Option<T>, DefinitionError>
    where
        T::Err: std::fmt::Display,
    {
        let Some(item) = table.get(key) else {
            return Ok(None);
        };
        let text = item.as_str().ok_or_else(|| self.wrong(item, key, "text in quotes"))?;
        text.parse().map(Some).map_err(|error| self.error(item.span(), Some(key), &format!("{error}")))
    }

    fn count(&self, table: &dyn TableLike, key: &str) -> Result<Option<u32>, DefinitionError> {
        let Some(item) = table.get(key) else {
            return Ok(None);
        };
        let number = item.as_integer().ok_or_else(|| self.wrong(item, key, "a whole number"))?;
        // Far out of bounds either way; `bounds` has the bounds.
        Ok(Some(u32::try_from(number.max(0)).unwrap_or(u32::MAX)))
    }

    fn list<T>(
        &self,
        table: &dyn TableLike,
        key: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, DefinitionError> {
        let Some(item) = table.get(key) else {
            return Ok(Vec::new());
        };
        let wanted = "a list of texts: [\"…\", \"…\"]";
        let array = item.as_array().ok_or_else(|| self.wrong(item, key, wanted))?;
        let one = |value: &Value| {
            let text = value.as_str().ok_or_else(|| {
                let reason = format!("must be {wanted}, but holds {}", kind(value.type_name()));
                self.error(value.span(), Some(key), &reason)
            })?;
            read(text).map_err(|reason| self.error(value.span(), Some(key), &reason))
        };
        array.iter().map(one).collect()
    }

    fn env(&self, table: &dyn TableLike) -> Result<BTreeMap<String, String>, DefinitionError> {
        let Some(item) = table.get("env") else {
            return Ok(BTreeMap::new());
        };
        let variables = item.as_table_like().ok_or_else(|| self.wrong(item, "env", "a table"))?;
        let one = |(name, value): (&str, &Item)| {
            let key = format!("env.{name}");
            let text = value.as_str().ok_or_else(|| self.wrong(value, &key, "text in quotes"))?;
            Ok((name.to_owned(), text.to_owned()))
        };
        variables.iter().map(one).collect()
    }
}

/// TOML's kinds in a sentence.
fn kind(type_name: &str) -> String {
    match type_name {
        "integer" => "an integer".into(),
        "array" => "a list".into(),
        "inline table" | "table" => "a table".into(),
        "array of tables" => "a list of tables".into(),
        other => format!("a {other}"),
    }
}
