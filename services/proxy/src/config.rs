//! Settings of the proxy.
//!
//! ```toml
//! [proxy]
//! http_listen = "127.0.0.1:8080"      # port 0: the system chooses
//! reach_other_hosts = false           # whether the networks of VMs of other hosts are routed to this one
//! trusted_networks = ["10.0.0.0/8"]   # of proxies in front of this one, whose X-Forwarded-For is believed
//! ```

use std::net::SocketAddr;

use contract::HostName;
use ipnet::IpNet;
use proxy_domain::Reach;
use serde::Deserialize;

use crate::adapters::frontend::Settings;

/// On loopback: nothing is open to the network by default.
pub const DEFAULTS: &str = "[proxy]\nhttp_listen = \"127.0.0.1:8080\"\n";

/// The section `[proxy]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The address to listen on for HTTP; port 0 lets the system choose.
    pub http_listen: SocketAddr,
    /// Whether the networks of the VMs of other hosts are routed to this one. Otherwise their domains are answered with
    /// 503, and `loam proxy` says that they are on another host.
    #[serde(default)]
    pub reach_other_hosts: bool,
    /// Networks of the proxies in front of this one, whose `X-Forwarded-For` is believed.
    #[serde(default)]
    pub trusted_networks: Vec<IpNet>,
}

impl Config {
    /// Which VMs a proxy on this host reaches.
    pub fn reach(&self, host: HostName) -> Reach {
        if self.reach_other_hosts { Reach::EveryHost } else { Reach::OneHost(host) }
    }

    /// The settings of the HTTP frontend.
    pub fn frontend(&self) -> Settings {
        let mut settings = Settings::default();
        settings.trusted_proxies.networks = self.trusted_networks.clone();
        settings
    }
}
