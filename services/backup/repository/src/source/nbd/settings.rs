//! Where an NBD server is and how long to wait for it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Time to connect and agree.
const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// Time for one answer: a guest's disk may be slow while it also serves the guest.
const REQUEST_TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
/// Time for a flush: a server may have to write gigabytes that it held back.
pub(super) const FLUSH_TIMEOUT: Duration = Duration::from_secs(30 * 60);
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
pub struct NbdExportSettings {
    /// The server's socket or port.
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

impl NbdExportSettings {
    /// The export of that name, with the usual waits and without a dirty bitmap.
    pub fn new(address: NbdAddress, export: &str) -> NbdExportSettings {
        NbdExportSettings {
            address,
            export: export.to_owned(),
            dirty_bitmap: None,
            connect_timeout: CONNECT_TIMEOUT_DEFAULT,
            request_timeout: REQUEST_TIMEOUT_DEFAULT,
            requests_in_flight: REQUESTS_IN_FLIGHT_DEFAULT,
        }
    }

    /// The same with a dirty bitmap.
    #[must_use]
    pub fn with_dirty_bitmap(mut self, name: &str) -> NbdExportSettings {
        self.dirty_bitmap = Some(name.to_owned());
        self
    }
}

impl fmt::Display for NbdExportSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            NbdAddress::Unix(path) => write!(f, "nbd+unix:///{}?socket={}", self.export, path.display()),
            NbdAddress::Tcp { host, port } if host.contains(':') => {
                write!(f, "nbd://[{host}]:{port}/{}", self.export)
            }
            NbdAddress::Tcp { host, port } => write!(f, "nbd://{host}:{port}/{}", self.export),
        }
    }
}

/// The text is not an NBD URI that we can use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is neither nbd://host:port/export nor nbd+unix:///export?socket=/path, both with &bitmap=name if wanted"
)]
pub struct NotAnNbdUri(String);

/// As in the NBD project's `uri.md`, with one parameter more: `bitmap=NAME` in the query asks for QEMU's map of
/// changes of that name.
impl FromStr for NbdExportSettings {
    type Err = NotAnNbdUri;

    fn from_str(uri: &str) -> Result<NbdExportSettings, NotAnNbdUri> {
        parsed(uri).ok_or_else(|| NotAnNbdUri(uri.to_owned()))
    }
}

fn parsed(uri: &str) -> Option<NbdExportSettings> {
    let (place, query) = uri.split_once('?').unwrap_or((uri, ""));
    let (mut socket, mut bitmap) = (None, None);
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (key, value) = parameter.split_once('=')?;
        let known = match key {
            "socket" => &mut socket,
            "bitmap" => &mut bitmap,
            // An unknown parameter, such as one about TLS, must not be ignored.
            _ => return None,
        };
        if known.replace(decoded(value).filter(|value| !value.is_empty())?).is_some() {
            return None;
        }
    }
    // The path may be left out with the name that it holds.
    let unix = place.strip_prefix("nbd+unix:///").or_else(|| (place == "nbd+unix://").then_some(""));
    let mut settings = match (unix, place.strip_prefix("nbd://"), socket) {
        (Some(export), None, Some(socket)) if socket.starts_with('/') => {
            NbdExportSettings::new(NbdAddress::Unix(PathBuf::from(socket)), &decoded(export)?)
        }
        (None, Some(rest), None) => {
            let (authority, export) = rest.split_once('/').unwrap_or((rest, ""));
            NbdExportSettings::new(host_and_port(authority)?, &decoded(export)?)
        }
        _ => return None,
    };
    settings.dirty_bitmap = bitmap;
    Some(settings)
}

fn host_and_port(authority: &str) -> Option<NbdAddress> {
    let bracket = authority.rfind(']');
    let (host, port) = match authority.rfind(':') {
        Some(colon) if bracket.is_none_or(|bracket| bracket < colon) => {
            (&authority[..colon], authority[colon + 1..].parse().ok()?)
        }
        _ => (authority, PORT_DEFAULT),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    (!host.is_empty()).then_some(NbdAddress::Tcp { host, port })
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
        let unix: NbdExportSettings = "nbd+unix:///vda?socket=/run/a%20b.sock".parse().unwrap();
        assert_eq!(unix.address, NbdAddress::Unix("/run/a b.sock".into()));
        assert_eq!(unix.export, "vda");
        let tcp: NbdExportSettings = "nbd://[::1]:10810/disk%2F1".parse().unwrap();
        assert_eq!(tcp.address, NbdAddress::Tcp { host: "::1".into(), port: 10810 });
        assert_eq!(tcp.export, "disk/1");
        let short: NbdExportSettings = "nbd://host".parse().unwrap();
        assert_eq!(short.address, NbdAddress::Tcp { host: "host".into(), port: 10809 });
        let unnamed: NbdExportSettings = "nbd+unix://?socket=/s".parse().unwrap();
        assert_eq!(unnamed, "nbd+unix:///?socket=/s".parse().unwrap());
        let mapped: NbdExportSettings = "nbd+unix:///?socket=/s&bitmap=since%20noon".parse().unwrap();
        assert_eq!(mapped.dirty_bitmap.as_deref(), Some("since noon"));
        let mapped: NbdExportSettings = "nbd://host/x?bitmap=b".parse().unwrap();
        assert_eq!((mapped.export.as_str(), mapped.dirty_bitmap.as_deref()), ("x", Some("b")));
        for wrong in [
            "http://x",
            "nbd+unix:///x",
            "nbd+unix://x?socket=/s",
            "nbd://",
            "nbd://h:port/x",
            "nbd+unix:///x?socket=rel",
            "nbd://h/x?socket=/s",
            "nbd+unix:///x?socket=/s&tls-certificates=/t",
            "nbd+unix:///x?socket=/s&socket=/t",
            "nbd://h/x?bitmap=",
        ] {
            assert!(wrong.parse::<NbdExportSettings>().is_err(), "{wrong}");
        }
    }
}
