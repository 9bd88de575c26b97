//! Amounts with their unit.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A number of bytes. Written by people as `512M`, `1G`, `10 GiB` (always powers of 1024) or a plain number.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct ByteCount(pub u64);

/// Why a text is not an amount of bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a size: write a whole number and one of K, M, G, T (powers of 1024), as in \"512M\"")]
pub struct InvalidSize(pub String);

impl ByteCount {
    /// So many mebibytes.
    pub const fn mib(count: u64) -> Self {
        ByteCount(count << 20)
    }
    /// So many gibibytes.
    pub const fn gib(count: u64) -> Self {
        ByteCount(count << 30)
    }
}

impl FromStr for ByteCount {
    type Err = InvalidSize;
    fn from_str(text: &str) -> Result<Self, InvalidSize> {
        let refused = || InvalidSize(text.chars().take(40).collect());
        let trimmed = text.trim();
        let digits = trimmed.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = trimmed.split_at(digits);
        let number: u64 = number.parse().map_err(|_| refused())?;
        let shift = match unit.trim().to_ascii_uppercase().as_str() {
            "" | "B" => 0,
            "K" | "KB" | "KIB" => 10,
            "M" | "MB" | "MIB" => 20,
            "G" | "GB" | "GIB" => 30,
            "T" | "TB" | "TIB" => 40,
            _ => return Err(refused()),
        };
        number.checked_mul(1 << shift).map(ByteCount).ok_or_else(refused)
    }
}

impl fmt::Display for ByteCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
        match UNITS.iter().find(|(_, shift)| self.0 >> shift > 0) {
            None => write!(f, "{} B", self.0),
            Some((unit, shift)) if self.0.is_multiple_of(1 << shift) => {
                write!(f, "{} {unit}", self.0 >> shift)
            }
            Some((unit, shift)) => write!(f, "{:.1} {unit}", self.0 as f64 / (1u64 << shift) as f64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in
            [("512M", 512 << 20), ("1G", 1 << 30), ("10 GiB", 10 << 30), ("4096", 4096), ("2t", 2 << 40)]
        {
            assert_eq!(text.parse(), Ok(ByteCount(bytes)), "{text}");
        }
        for text in ["", "G", "-1G", "1.5G", "1X", "99999999999999T"] {
            assert!(text.parse::<ByteCount>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_shown_with_the_largest_fitting_unit() {
        assert_eq!(ByteCount::gib(2).to_string(), "2 GiB");
        assert_eq!(ByteCount(1536 << 20).to_string(), "1.5 GiB");
        assert_eq!(ByteCount(12).to_string(), "12 B");
    }
}
