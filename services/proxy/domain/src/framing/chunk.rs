//! The line before a chunk: its size, and extensions, which are ignored.

use super::FramingViolation;
use super::field::is_text;

/// Sixteen digits hold every 64-bit size.
const SIZE_DIGITS_MAX: usize = 16;
/// Extensions are not used in practice; longer lines would only take memory.
const LINE_BYTES_MAX: usize = 256;

/// Parses a chunk's size line. `None`: the line is incomplete. Otherwise its length with CR LF, and the size.
pub(super) fn size_line(bytes: &[u8]) -> Result<Option<(usize, u64)>, FramingViolation> {
    let digits = bytes.iter().take(SIZE_DIGITS_MAX + 1).take_while(|byte| byte.is_ascii_hexdigit()).count();
    if digits > SIZE_DIGITS_MAX || (digits == 0 && !bytes.is_empty()) {
        return Err(FramingViolation::ChunkSize);
    }
    match bytes.get(digits) {
        None => return Ok(None),
        Some(b'\r' | b';') => {}
        Some(_) => return Err(FramingViolation::ChunkSize),
    }
    let Some(end) = bytes.iter().take(LINE_BYTES_MAX).position(|&byte| byte == b'\r' || byte == b'\n') else {
        return if bytes.len() >= LINE_BYTES_MAX { Err(FramingViolation::ChunkSize) } else { Ok(None) };
    };
    if !bytes[digits..end].iter().all(|&byte| is_text(byte)) {
        return Err(FramingViolation::ControlCharacter);
    }
    match bytes.get(end..end + 2) {
        Some(b"\r\n") => Ok(Some((end + 2, value(&bytes[..digits])))),
        Some(_) => Err(FramingViolation::BareLineEnd),
        None if bytes[end] == b'\n' => Err(FramingViolation::BareLineEnd),
        None => Ok(None),
    }
}

fn value(digits: &[u8]) -> u64 {
    digits.iter().fold(0, |size, &digit| {
        let digit = char::from(digit).to_digit(16).expect("only hexadecimal digits were counted");
        size << 4 | u64::from(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_pure_hexadecimal_and_of_at_most_sixteen_digits() {
        assert_eq!(size_line(b"1aF\r\nrest"), Ok(Some((5, 0x1af))));
        assert_eq!(size_line(b"0000000000000005\r\n"), Ok(Some((18, 5))));
        assert_eq!(size_line(b"5;name=value\r\n"), Ok(Some((14, 5))));
        for partial in [&b""[..], b"1", b"1\r", b"1;abc"] {
            assert_eq!(size_line(partial), Ok(None), "{partial:?}");
        }
        for wrong in
            [&b"0x5\r\n"[..], b"+5\r\n", b" 5\r\n", b"5 \r\n", b"\r\n", b"-1\r\n", b"00000000000000005\r\n"]
        {
            assert_eq!(size_line(wrong), Err(FramingViolation::ChunkSize), "{wrong:?}");
        }
        for wrong in [&b"5\n"[..], b"5;a\n", b"5\rX", b"5;\rX"] {
            assert!(size_line(wrong).is_err(), "{wrong:?}");
        }
    }
}
