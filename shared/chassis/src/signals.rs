//! The signals that end a service.

use std::future::Future;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that end a service, at any moment. SIGHUP ends nothing.
pub(crate) struct EndSignals {
    terminate: Signal,
    interrupt: Signal,
    _hang_up: Signal,
}

impl EndSignals {
    pub(crate) fn listen() -> anyhow::Result<EndSignals> {
        Ok(EndSignals {
            terminate: signal(SignalKind::terminate()).context("listening for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("listening for SIGINT")?,
            _hang_up: signal(SignalKind::hangup()).context("listening for SIGHUP")?,
        })
    }

    pub(crate) async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Does some work, unless a signal comes first: then the work is dropped.
    pub(crate) async fn unless_received<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            () = self.received() => None,
        }
    }
}
