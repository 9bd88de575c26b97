//! Settings of the proxy, the part `[proxy]`.

use std::net::SocketAddr;

use ipnet::IpNet;
use serde::Deserialize;

use crate::front::Settings;

/// On loopback, so that nothing is open to the network before somebody says so.
pub const DEFAULTS: &str = "[proxy]\nhttp_listen = \"127.0.0.1:8080\"\n";

/// The settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where to listen for HTTP; port 0 lets the system choose.
    pub http_listen: SocketAddr,
    /// Networks of the proxies in front of us, whose `X-Forwarded-For` counts.
    #[serde(default)]
    pub trusted_networks: Vec<IpNet>,
}

impl Config {
    /// How the front behaves.
    pub fn front(&self) -> Settings {
        let mut settings = Settings::default();
        settings.trusted.networks = self.trusted_networks.clone();
        settings
    }
}
