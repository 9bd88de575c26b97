//! A lane to libvirtd: one thread with one connection. Calls block, and always return: the connection cuts them off at
//! their deadline. Several lanes share one mailbox, so that a hung VM delays one of them only.

use actix::{Actor, Handler, Message, SyncContext};
use actor::TracedMessage;
use provisioner_libvirt::{Connection, Error, Settings};

/// One thread's connection.
pub(super) struct LibvirtLane {
    connection: Connection,
}

impl LibvirtLane {
    /// A lane that connects with its first call.
    pub(super) fn new(settings: Settings) -> LibvirtLane {
        LibvirtLane { connection: Connection::new(settings) }
    }
}

impl Actor for LibvirtLane {
    type Context = SyncContext<Self>;

    /// No caller is left. The thread stays all the same, until the process ends: libvirt's client brings OpenSSL
    /// with it, which cleans up at the end of each thread that used it and at the end of the process, and frees memory
    /// twice where the two meet. About one end in a thousand crashed.
    fn stopped(&mut self, _: &mut SyncContext<Self>) {
        self.connection.disconnect();
        loop {
            std::thread::park();
        }
    }
}

/// The result of a call.
pub(super) type Outcome<T> = Result<T, Error>;

/// A call with a connection.
pub(super) type LaneCall<T> = dyn FnOnce(&mut Connection) -> Outcome<T> + Send;

/// A call to be made on a lane.
pub(super) struct RunOnLane<T>(pub(super) Box<LaneCall<T>>);

impl<T: Send + 'static> Message for RunOnLane<T> {
    type Result = Outcome<T>;
}

impl<T: Send + 'static> Handler<TracedMessage<RunOnLane<T>>> for LibvirtLane {
    type Result = Outcome<T>;
    fn handle(&mut self, asked: TracedMessage<RunOnLane<T>>, _: &mut SyncContext<Self>) -> Outcome<T> {
        let _in = asked.span.enter();
        (asked.message.0)(&mut self.connection)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::time::Duration;

    use actix::SyncArbiter;
    use tokio::sync::oneshot;

    use super::*;

    /// Without a lane that stays, its thread ends at once.
    const LONG_AFTER: Duration = Duration::from_millis(500);

    thread_local! {
        /// Dropped when the thread ends.
        static LIFE: RefCell<Option<oneshot::Sender<()>>> = const { RefCell::new(None) };
    }

    #[actix::test]
    async fn a_thread_that_used_libvirt_does_not_end_before_the_process() {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = Settings { socket: folder.path().join("none"), ..Settings::system(folder.path()) };
        let lanes = SyncArbiter::start(1, move || LibvirtLane::new(settings.clone()));
        let (life, end) = oneshot::channel();
        let call = move |line: &mut Connection| {
            LIFE.set(Some(life));
            Ok(line.version().is_err())
        };
        let asked = TracedMessage::here(RunOnLane(Box::new(call)));
        assert!(lanes.send(asked).await.expect("it answers").expect("it is done"), "no libvirtd answers");
        drop(lanes);
        assert!(tokio::time::timeout(LONG_AFTER, end).await.is_err(), "it has ended");
    }
}
