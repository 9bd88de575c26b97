//! Unused connections to machines, the one used last on top.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::settings::Settings;
use super::upstream::Upstream;

/// The connections of all machines.
#[derive(Debug)]
pub(super) struct Pool {
    idle: Mutex<HashMap<SocketAddr, Vec<Idle>>>,
    idle_max: usize,
    pooled_idle: Duration,
}

#[derive(Debug)]
struct Idle {
    since: Instant,
    upstream: Box<Upstream>,
}

impl Pool {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            idle: Mutex::default(),
            idle_max: settings.limits.idle_upstreams_max,
            pooled_idle: settings.timeouts.pooled_idle,
        }
    }

    /// An unused connection that still lives as far as can be seen.
    pub(super) fn take(&self, address: SocketAddr) -> Option<Box<Upstream>> {
        loop {
            // The lock is given back before the connection is looked at, or closed.
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&address)?.pop()?;
            let Idle { since, mut upstream } = idle;
            if since.elapsed() < self.pooled_idle && upstream.is_ready() {
                upstream.reused = true;
                return Some(upstream);
            }
        }
    }

    /// Keeps a connection whose last exchange is over, if it can be used again.
    pub(super) fn keep(&self, mut upstream: Box<Upstream>) {
        if !upstream.is_ready() {
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let stack = idle.entry(upstream.address).or_default();
        if stack.len() < self.idle_max {
            stack.push(Idle { since: Instant::now(), upstream });
        }
    }

    /// Closes what was unused for too long, and what the machine has closed.
    pub(super) fn sweep(&self) {
        let mut dead = Vec::new();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|_, stack| {
            let alive = |idle: &mut Idle| idle.since.elapsed() < self.pooled_idle && idle.upstream.is_ready();
            dead.extend(stack.extract_if(.., |idle| !alive(idle)));
            !stack.is_empty()
        });
        drop(idle);
        drop(dead);
    }

    /// How many there are.
    pub(super) fn idle(&self) -> usize {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).values().map(Vec::len).sum()
    }
}
