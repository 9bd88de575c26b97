//! One SSH connection: handshake, host key, login, one command.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use russh::client::{self, Handle};
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use russh::{ChannelMsg, Disconnect};

use crate::ports::{Guest, ShellError};

const PORT: u16 = 22;
/// From the first packet to the login. An emulated guest needs seconds for the key exchange.
const LOGIN_MAX: Duration = Duration::from_secs(30);
/// The interval of keepalives on a silent connection.
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVES_MISSED_MAX: usize = 4;

/// Records the host key that the guest shows, and compares it with the known one.
struct HostKeyCheck {
    known: Option<String>,
    seen: Arc<Mutex<Option<String>>>,
}

impl client::Handler for HostKeyCheck {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        let PublicKeyOrCertificate::PublicKey { key, .. } = shown else {
            return Ok(false);
        };
        let mut key = key.clone();
        key.set_comment("");
        let text = key.to_openssh()?;
        let matches_known = self.known.as_ref().is_none_or(|known| *known == text);
        *self.seen.lock().expect("no code here panics while it holds the lock") = Some(text);
        Ok(matches_known)
    }
}

/// An open SSH session.
pub(super) struct Session {
    handle: Handle<HostKeyCheck>,
    pub(super) host_key: String,
}

fn unreachable(address: IpAddr, reason: impl std::fmt::Display) -> ShellError {
    ShellError::Unreachable(format!("SSH to root at {address}: {reason}"))
}

impl Session {
    /// Logs in to a guest.
    pub(super) async fn open(guest: &Guest, key: Arc<PrivateKey>) -> Result<Session, ShellError> {
        let seen = Arc::default();
        let host_key_check = HostKeyCheck { known: guest.host_key.clone(), seen: Arc::clone(&seen) };
        let login = tokio::time::timeout(LOGIN_MAX, log_in(guest.address, key, host_key_check)).await;
        let seen = seen.lock().expect("no code here panics while it holds the lock").take();
        match (login, seen, &guest.host_key) {
            (Ok(Ok(handle)), Some(host_key), _) => Ok(Session { handle, host_key }),
            (_, Some(seen), Some(known)) if seen != *known => {
                Err(ShellError::HostKeyChanged { address: guest.address, seen, known: known.clone() })
            }
            (Ok(Ok(_)), None, _) => Err(unreachable(guest.address, "it showed no host key")),
            (Ok(Err(reason)), ..) => Err(unreachable(guest.address, reason)),
            (Err(_), ..) => {
                Err(unreachable(guest.address, format!("no answer within {} s", LOGIN_MAX.as_secs())))
            }
        }
    }

    /// Runs a text with `sh`, passes its output on, and returns its exit status; none where the connection broke first.
    pub(super) async fn shell(
        &self,
        text: String,
        mut output: impl FnMut(&[u8]),
    ) -> Result<Option<u32>, russh::Error> {
        let mut channel = self.handle.channel_open_session().await?;
        channel.exec(true, "sh").await?;
        channel.data(text.as_bytes()).await?;
        channel.eof().await?;
        let mut status = None;
        while let Some(message) = channel.wait().await {
            match message {
                ChannelMsg::Data { data } | ChannelMsg::ExtendedData { data, .. } => output(&data),
                ChannelMsg::ExitStatus { exit_status } => status = Some(exit_status),
                _ => {}
            }
        }
        Ok(status)
    }

    /// Disconnects.
    pub(super) async fn close(self) {
        let goodbye = self.handle.disconnect(Disconnect::ByApplication, "", "en");
        // Whether it reaches the guest is not important.
        let _ = tokio::time::timeout(Duration::from_secs(2), goodbye).await;
    }
}

async fn log_in(
    address: IpAddr,
    key: Arc<PrivateKey>,
    host_key_check: HostKeyCheck,
) -> Result<Handle<HostKeyCheck>, String> {
    let config = client::Config {
        keepalive_interval: Some(KEEPALIVE),
        keepalive_max: KEEPALIVES_MISSED_MAX,
        ..client::Config::default()
    };
    let mut handle = client::connect(Arc::new(config), (address, PORT), host_key_check)
        .await
        .map_err(|error| error.to_string())?;
    let key = PrivateKeyWithHashAlg::new(key, None);
    match handle.authenticate_publickey("root", key).await {
        Ok(outcome) if outcome.success() => Ok(handle),
        Ok(_) => Err("our key is not accepted (cloud-init may not have come that far)".into()),
        Err(error) => Err(error.to_string()),
    }
}
