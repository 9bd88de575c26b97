//! Idle upstream connections, the one used last on top.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::settings::Settings;
use super::upstream::UpstreamConnection;

/// The idle connections to all upstreams.
#[derive(Debug)]
pub(super) struct UpstreamPool {
    idle: Mutex<HashMap<SocketAddr, Vec<IdleUpstream>>>,
    idle_max: usize,
    pooled_idle: Duration,
}

#[derive(Debug)]
struct IdleUpstream {
    since: Instant,
    upstream: Box<UpstreamConnection>,
}

impl UpstreamPool {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            idle: Mutex::default(),
            idle_max: settings.limits.idle_per_upstream_max,
            pooled_idle: settings.timeouts.pooled_idle,
        }
    }

    /// An idle connection that is still open as far as this side knows.
    pub(super) fn take(&self, address: SocketAddr) -> Option<Box<UpstreamConnection>> {
        loop {
            // The lock is released before the connection is polled, or closed.
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&address)?.pop()?;
            let IdleUpstream { since, mut upstream } = idle;
            if since.elapsed() < self.pooled_idle && upstream.is_ready() {
                upstream.reused = true;
                return Some(upstream);
            }
        }
    }

    /// Keeps a connection whose last exchange is over, if it can be used again.
    pub(super) fn put(&self, mut upstream: Box<UpstreamConnection>) {
        if !upstream.is_ready() {
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let stack = idle.entry(upstream.address).or_default();
        if stack.len() < self.idle_max {
            stack.push(IdleUpstream { since: Instant::now(), upstream });
        }
    }

    /// Closes what was idle for too long, and drops what the upstream has closed.
    pub(super) fn sweep(&self) {
        let mut closed = Vec::new();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|_, stack| {
            let usable =
                |idle: &mut IdleUpstream| idle.since.elapsed() < self.pooled_idle && idle.upstream.is_ready();
            closed.extend(stack.extract_if(.., |idle| !usable(idle)));
            !stack.is_empty()
        });
        drop(idle);
        drop(closed);
    }

    /// How many there are.
    pub(super) fn idle(&self) -> usize {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).values().map(Vec::len).sum()
    }
}
