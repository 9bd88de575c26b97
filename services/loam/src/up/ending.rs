//! The end: signals, and everything in reverse order, each in bounded time.

use contract::Service;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::host::Started;

/// The signals by which we are told to end.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    pub(super) fn listen() -> std::io::Result<Signals> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for one.
    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.hang_up.recv() => "SIGHUP",
        }
    }

    /// Whoever tells us twice is in a hurry.
    pub(super) fn hurry_at_next(mut self, hurry: CancellationToken) {
        tokio::spawn(async move {
            self.next().await;
            hurry.cancel();
        });
    }
}

/// Ends what was started, the last first.
pub(super) async fn in_order(started: Started) {
    let Started { mut keepers, serving, mut board } = started;
    if let Some(serving) = serving {
        serving.close().await;
    }
    while let Some(keeper) = keepers.pop() {
        let (name, handle) = (keeper.name.clone(), keeper.handle());
        keeper.end().await;
        if let Some(board) = &mut board {
            match name.parse::<Service>() {
                Ok(service) => board.show(service, &handle.view(), None),
                Err(_) => board.show_plain(&name, &handle.view(), ""),
            }
        }
    }
    if let Some(board) = board {
        board.leave();
    }
}
