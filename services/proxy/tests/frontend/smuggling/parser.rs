//! A strict parser of RFC 9112, independent of the one under test: counts the valid requests in the bytes that reached
//! an upstream, or says what is wrong with them.

/// The result of parsing a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// Whole requests and nothing else.
    Complete { requests: usize },
    /// Whole requests and the beginning of another.
    Unfinished { whole: usize },
    /// Bytes that two parsers may read in two ways.
    Invalid(String),
}

impl Parsed {
    pub(crate) fn requests(&self) -> usize {
        match self {
            Self::Complete { requests: count } | Self::Unfinished { whole: count } => *count,
            Self::Invalid(_) => 0,
        }
    }
}

pub(crate) fn parse(mut bytes: &[u8]) -> Parsed {
    let mut requests = 0;
    while !bytes.is_empty() {
        match one(bytes) {
            Ok(Some(length)) => bytes = &bytes[length..],
            Ok(None) => return Parsed::Unfinished { whole: requests },
            Err(why) => return Parsed::Invalid(why),
        }
        requests += 1;
    }
    Parsed::Complete { requests }
}

/// The length of the request at the beginning, if it is whole.
fn one(bytes: &[u8]) -> Result<Option<usize>, String> {
    let Some(end) = find(bytes, b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&bytes[..end]).map_err(|_| "a head that is no text")?;
    if head.chars().any(|character| character.is_control() && !"\r\n\t".contains(character)) {
        return Err(format!("a control character in {head:?}"));
    }
    let mut lines = head.split("\r\n");
    let first: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
    if first.len() != 3 || first[2] != "HTTP/1.1" || !first[1].starts_with('/') {
        return Err(format!("the request line {first:?}"));
    }
    let (mut hosts, mut length, mut chunked) = (0, None, false);
    for line in lines {
        if line.contains(['\r', '\n']) {
            return Err(format!("a bare line end in {line:?}"));
        }
        let (name, value) = line.split_once(':').ok_or_else(|| format!("no colon in {line:?}"))?;
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return Err(format!("the name {name:?}"));
        }
        match name.to_ascii_lowercase().as_str() {
            "host" => hosts += 1,
            "content-length" if length.is_none() => {
                length = Some(value.trim().parse::<usize>().map_err(|_| format!("the length {value:?}"))?);
            }
            "transfer-encoding" if value.trim() == "chunked" && !chunked => chunked = true,
            "content-length" | "transfer-encoding" => return Err(format!("{line:?}")),
            _ => {}
        }
    }
    if hosts != 1 || (chunked && length.is_some()) {
        return Err(format!("{hosts} hosts, length {length:?}, chunked {chunked}"));
    }
    let body = &bytes[end + 4..];
    let body_length = if chunked {
        chunks(body)?
    } else {
        length.filter(|&length| length <= body.len()).or(if length.is_none() { Some(0) } else { None })
    };
    Ok(body_length.map(|length| end + 4 + length))
}

fn chunks(body: &[u8]) -> Result<Option<usize>, String> {
    let mut at = 0;
    loop {
        let Some(line) = find(&body[at..], b"\r\n") else {
            return Ok(None);
        };
        let digits = std::str::from_utf8(&body[at..at + line]).map_err(|_| "a chunk size that is no text")?;
        let size = usize::from_str_radix(digits, 16).map_err(|_| format!("the chunk size {digits:?}"))?;
        at += line + 2;
        if size == 0 {
            // Trailers may follow; each is a line, and an empty line ends them.
            loop {
                let Some(line) = find(&body[at..], b"\r\n") else {
                    return Ok(None);
                };
                at += line + 2;
                if line == 0 {
                    return Ok(Some(at));
                }
            }
        }
        match body.get(at + size..at + size + 2) {
            None => return Ok(None),
            Some(b"\r\n") => at += size + 2,
            Some(other) => return Err(format!("a chunk that ends with {other:?}")),
        }
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
