//! The bounds of a definition. A file that a person writes and a message on the bus pass the same check.

use contract::ByteCount;
use contract::provisioner::VmDefinition;

/// Virtual processors of one VM: more than any host of the tests has, few enough to catch a typing error.
pub const CPU_COUNT: std::ops::RangeInclusive<u32> = 1..=64;
/// Memory: a Linux kernel does not boot in less; a tebibyte is a typing error.
pub const RAM_SIZE: std::ops::RangeInclusive<ByteCount> = ByteCount::mib(64)..=ByteCount::gib(1024);
/// A disk: from what a boot sector and a kernel need to 64 TiB, where ext4 gets difficult.
pub const DISK_SIZE: std::ops::RangeInclusive<ByteCount> = ByteCount::mib(16)..=ByteCount::gib(64 * 1024);
/// Domains of one VM.
pub const DOMAINS_MAX: usize = 100;
/// Variables of one VM.
pub const ENV_MAX: usize = 200;
/// Scripts of one VM.
pub const SCRIPTS_MAX: usize = 50;
/// Scripts and variables together. A definition travels in one message of 256 KiB, and is stored two or three times in
/// the row of the operation that creates a VM, which has half a mebibyte.
pub const TEXTS_BYTES_MAX: usize = 96 * 1024;

/// A value that no VM may have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct OutOfBounds {
    /// The key in the definition.
    pub field: &'static str,
    /// What is wrong with it, and what would be right.
    pub reason: String,
}

fn refuse<T>(field: &'static str, reason: impl Into<String>) -> Result<T, OutOfBounds> {
    Err(OutOfBounds { field, reason: reason.into() })
}

/// Checks every value of a definition.
///
/// # Errors
/// The first value that is out of its bounds.
pub fn check(definition: &VmDefinition) -> Result<(), OutOfBounds> {
    if !CPU_COUNT.contains(&definition.cpu_count) {
        let (least, most) = (CPU_COUNT.start(), CPU_COUNT.end());
        return refuse("cpu_count", format!("must be from {least} to {most}"));
    }
    size("ram_size", definition.ram_size, &RAM_SIZE)?;
    if !definition.ram_size.0.is_multiple_of(1 << 20) {
        return refuse("ram_size", "must be whole mebibytes");
    }
    size("disk_size", definition.disk_size, &DISK_SIZE)?;
    if !definition.disk_size.0.is_multiple_of(1 << 16) {
        return refuse("disk_size", "must be a multiple of 64 KiB");
    }
    domains(definition)?;
    env(definition)?;
    scripts(definition)?;
    texts(definition)
}

fn texts(definition: &VmDefinition) -> Result<(), OutOfBounds> {
    let scripts: usize = definition.install.iter().map(|script| script.text.len()).sum();
    let variables: usize = definition.env.iter().map(|(name, value)| name.len() + value.len()).sum();
    if scripts + variables <= TEXTS_BYTES_MAX {
        return Ok(());
    }
    let field = if scripts >= variables { "install" } else { "env" };
    refuse(
        field,
        format!(
            "scripts and variables together may have {TEXTS_BYTES_MAX} bytes, these have {}",
            scripts + variables
        ),
    )
}

fn size(
    field: &'static str,
    asked: ByteCount,
    bounds: &std::ops::RangeInclusive<ByteCount>,
) -> Result<(), OutOfBounds> {
    if bounds.contains(&asked) {
        return Ok(());
    }
    refuse(field, format!("must be from {} to {}, not {asked}", bounds.start(), bounds.end()))
}

fn domains(definition: &VmDefinition) -> Result<(), OutOfBounds> {
    if definition.domains.len() > DOMAINS_MAX {
        return refuse("domains", format!("at most {DOMAINS_MAX} may be given"));
    }
    for (at, route) in definition.domains.iter().enumerate() {
        if route.port == 0 {
            return refuse("domains", format!("{}: there is no port 0", route.domain));
        }
        if definition.domains[..at].iter().any(|other| other.domain == route.domain) {
            return refuse("domains", format!("{} is given twice", route.domain));
        }
    }
    Ok(())
}

fn env(definition: &VmDefinition) -> Result<(), OutOfBounds> {
    if definition.env.len() > ENV_MAX {
        return refuse("env", format!("at most {ENV_MAX} variables may be given"));
    }
    for (name, value) in &definition.env {
        if !is_variable(name) {
            let rule = "letters, digits and '_', not beginning with a digit";
            return refuse("env", format!("{name:?} is not a variable's name: {rule}"));
        }
        if value.contains('\0') {
            return refuse("env", format!("{name} holds a zero byte"));
        }
    }
    Ok(())
}

fn is_variable(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    name.len() <= 128
        && name.bytes().all(plain)
        && name.bytes().next().is_some_and(|first| !first.is_ascii_digit())
}

fn scripts(definition: &VmDefinition) -> Result<(), OutOfBounds> {
    if definition.install.len() > SCRIPTS_MAX {
        return refuse("install", format!("at most {SCRIPTS_MAX} scripts may be given"));
    }
    for script in &definition.install {
        if !script.text.starts_with("#!") {
            let reason =
                format!("{} does not begin with a line that names its interpreter (#!/bin/sh)", script.name);
            return refuse("install", reason);
        }
        if script.text.contains('\0') {
            return refuse("install", format!("{} holds a zero byte", script.name));
        }
    }
    Ok(())
}
