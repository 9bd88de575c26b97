//! Where an NBD server is and how long to wait for it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Time to connect and agree.
const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// Time for one answer: a guest's disk may be slow while it also serves the guest.
const REQUEST_TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
/// Requests that keep one connection busy.
const REQUESTS_IN_FLIGHT_DEFAULT: usize = 16;
/// The port that IANA gave to NBD.
const PORT_DEFAULT: u16 = 10809;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NbdAddress {
    /// A Unix socket.
    Unix(PathBuf),
    /// A TCP port.
    Tcp {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
    },
}

/// Which export of which server to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NbdSettings {
    /// The server.
    pub address: NbdAddress,
    /// The export's name; may be empty.
    pub export: String,
    /// The name of QEMU's bitmap that says what changed since the parent, without `qemu:dirty-bitmap:`.
    pub dirty_bitmap: Option<String>,
    /// Time to connect and agree.
    pub connect_timeout: Duration,
    /// Time for one answer.
    pub request_timeout: Duration,
    /// Requests in flight at one time.
    pub requests_in_flight: usize,
}

impl NbdSettings {
    /// The export of that name, with the usual waits and without a map of changes.
    pub fn new(address: NbdAddress, export: &str) -> NbdSettings {
        NbdSettings {
            address,
            export: export.to_owned(),
            dirty_bitmap: None,
            connect_timeout: CONNECT_TIMEOUT_DEFAULT,
            request_timeout: REQUEST_TIMEOUT_DEFAULT,
            requests_in_flight: REQUESTS_IN_FLIGHT_DEFAULT,
        }
    }

    /// The same with a map of changes.
    #[must_use]
    pub fn with_dirty_bitmap(mut self, name: &str) -> NbdSettings {
        self.dirty_bitmap = Some(name.to_owned());
        self
    }
}

impl fmt::Display for NbdSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            NbdAddress::Unix(path) => write!(f, "nbd+unix:///{}?socket={}", self.export, path.display()),
            NbdAddress::Tcp { host, port } => write!(f, "nbd://{host}:{port}/{}", self.export),
        }
    }
}

/// The text is not an NBD URI that we can use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither nbd://host:port/export nor nbd+unix:///export?socket=/path")]
pub struct NotAnNbdUri(String);

impl FromStr for NbdSettings {
    type Err = NotAnNbdUri;

    fn from_str(uri: &str) -> Result<NbdSettings, NotAnNbdUri> {
        let refuse = || NotAnNbdUri(uri.to_owned());
        if let Some(rest) = uri.strip_prefix("nbd+unix:///") {
            let (export, socket) = rest.split_once("?socket=").ok_or_else(refuse)?;
            let socket = decoded(socket).filter(|path| path.starts_with('/')).ok_or_else(refuse)?;
            let address = NbdAddress::Unix(PathBuf::from(socket));
            return Ok(NbdSettings::new(address, &decoded(export).ok_or_else(refuse)?));
        }
        let rest = uri.strip_prefix("nbd://").ok_or_else(refuse)?;
        let (authority, export) = rest.split_once('/').unwrap_or((rest, ""));
        let bracket = authority.rfind(']');
        let (host, port) = match authority.rfind(':') {
            Some(colon) if bracket.is_none_or(|bracket| bracket < colon) => {
                (&authority[..colon], authority[colon + 1..].parse().map_err(|_| refuse())?)
            }
            _ => (authority, PORT_DEFAULT),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(refuse());
        }
        Ok(NbdSettings::new(NbdAddress::Tcp { host, port }, &decoded(export).ok_or_else(refuse)?))
    }
}

/// Undoes percent-encoding.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte == b'%' {
            let mut decoded = [0];
            hex::decode_to_slice(after.get(..2)?, &mut decoded).ok()?;
            bytes.push(decoded[0]);
            rest = &after[2..];
        } else {
            bytes.push(byte);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_say_where_the_export_is() {
        let unix: NbdSettings = "nbd+unix:///vda?socket=/run/a%20b.sock".parse().unwrap();
        assert_eq!(unix.address, NbdAddress::Unix("/run/a b.sock".into()));
        assert_eq!(unix.export, "vda");
        let tcp: NbdSettings = "nbd://[::1]:10810/disk%2F1".parse().unwrap();
        assert_eq!(tcp.address, NbdAddress::Tcp { host: "::1".into(), port: 10810 });
        assert_eq!(tcp.export, "disk/1");
        let short: NbdSettings = "nbd://host".parse().unwrap();
        assert_eq!(short.address, NbdAddress::Tcp { host: "host".into(), port: 10809 });
        for wrong in ["http://x", "nbd+unix:///x", "nbd://", "nbd://h:port/x", "nbd+unix:///x?socket=rel"] {
            assert!(wrong.parse::<NbdSettings>().is_err(), "{wrong}");
        }
    }
}
