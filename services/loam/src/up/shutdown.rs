//! The shutdown: signals, and everything in reverse order of its start, each in bounded time.

use contract::Service;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::host::StartedServices;

/// The signals that end `loam up`, at any moment. SIGHUP ends nothing: see [`outlive_terminal`].
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub(super) fn listen() -> std::io::Result<Signals> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for one; returns its name.
    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }

    /// A second signal ends everything at once.
    pub(super) fn force_at_next(mut self, force: CancellationToken) {
        tokio::spawn(async move {
            self.next().await;
            force.cancel();
        });
    }
}

/// From now on SIGHUP, which a terminal sends that is closed, ends nothing. It is handled and not set to be ignored: what
/// we start would inherit that, and nats-server reads its settings again at SIGHUP. Call it inside a runtime.
pub(super) fn outlive_terminal() -> std::io::Result<()> {
    // The handler stays when the stream of signals is dropped.
    signal(SignalKind::hangup()).map(drop)
}

/// Ends what was started, the last first.
pub(super) async fn in_order(started: StartedServices) {
    let StartedServices { processes: mut keepers, supervisor_server: serving, mut status_view } = started;
    if let Some(serving) = serving {
        serving.close().await;
    }
    while let Some(keeper) = keepers.pop() {
        let (name, handle) = (keeper.name.clone(), keeper.handle());
        keeper.end().await;
        if let Some(status_view) = &mut status_view {
            match name.parse::<Service>() {
                Ok(service) => status_view.show(service, &handle.status(), None, None),
                Err(_) => status_view.show_plain(&name, &handle.status(), ""),
            }
        }
    }
    if let Some(status_view) = status_view {
        status_view.leave();
    }
}
