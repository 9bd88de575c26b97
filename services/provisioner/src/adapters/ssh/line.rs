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
const ENTER_MAX: Duration = Duration::from_secs(30);
/// A line that says nothing for so long is asked whether it is there.
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVES_MISSED_MAX: usize = 4;

/// Takes down the host key that is shown, and compares it with the one that is known.
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
        let fits = self.known.as_ref().is_none_or(|known| *known == text);
        *self.seen.lock().expect("no code here panics while it holds the lock") = Some(text);
        Ok(fits)
    }
}

/// An open line.
pub(super) struct Line {
    handle: Handle<HostKeyCheck>,
    pub(super) host_key: String,
}

fn unreachable(address: IpAddr, reason: impl std::fmt::Display) -> ShellError {
    ShellError::Unreachable(format!("SSH to root at {address}: {reason}"))
}

impl Line {
    /// Enters a guest.
    pub(super) async fn open(guest: &Guest, key: Arc<PrivateKey>) -> Result<Line, ShellError> {
        let seen = Arc::default();
        let host_key_check = HostKeyCheck { known: guest.host_key.clone(), seen: Arc::clone(&seen) };
        let entering = tokio::time::timeout(ENTER_MAX, enter(guest.address, key, host_key_check)).await;
        let seen = seen.lock().expect("no code here panics while it holds the lock").take();
        match (entering, seen, &guest.host_key) {
            (Ok(Ok(handle)), Some(host_key), _) => Ok(Line { handle, host_key }),
            (_, Some(seen), Some(known)) if seen != *known => {
                Err(ShellError::HostKeyChanged { address: guest.address, seen, known: known.clone() })
            }
            (Ok(Ok(_)), None, _) => Err(unreachable(guest.address, "it showed no host key")),
            (Ok(Err(reason)), ..) => Err(unreachable(guest.address, reason)),
            (Err(_), ..) => {
                Err(unreachable(guest.address, format!("no answer within {} s", ENTER_MAX.as_secs())))
            }
        }
    }

    /// Gives `sh` a text, hands over what it writes, and tells its exit status; none where the line broke first.
    pub(super) async fn shell(
        &self,
        text: String,
        mut heard: impl FnMut(&[u8]),
    ) -> Result<Option<u32>, russh::Error> {
        let mut channel = self.handle.channel_open_session().await?;
        channel.exec(true, "sh").await?;
        channel.data(text.as_bytes()).await?;
        channel.eof().await?;
        let mut status = None;
        while let Some(message) = channel.wait().await {
            match message {
                ChannelMsg::Data { data } | ChannelMsg::ExtendedData { data, .. } => heard(&data),
                ChannelMsg::ExitStatus { exit_status } => status = Some(exit_status),
                _ => {}
            }
        }
        Ok(status)
    }

    /// Leaves.
    pub(super) async fn close(self) {
        let goodbye = self.handle.disconnect(Disconnect::ByApplication, "", "en");
        // Whether the guest hears it is not important.
        let _ = tokio::time::timeout(Duration::from_secs(2), goodbye).await;
    }
}

async fn enter(
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
