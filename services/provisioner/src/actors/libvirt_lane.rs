//! A lane to libvirtd: one thread with one connection. Calls block, and always come back: the connection cuts them
//! off when their time is over. Several lanes share one mailbox, so that a hung machine delays one of them only.

use actix::{Actor, Handler, Message, SyncContext};
use actor::Traced;
use provisioner_libvirt::{Connection, Error, Settings};

/// One thread's connection.
pub struct LibvirtLane {
    connection: Connection,
}

impl LibvirtLane {
    /// A lane that connects with its first call.
    pub fn new(settings: Settings) -> LibvirtLane {
        LibvirtLane { connection: Connection::new(settings) }
    }
}

impl Actor for LibvirtLane {
    type Context = SyncContext<Self>;
}

/// What a call came to.
pub type Outcome<T> = Result<T, Error>;

/// A deed with a connection.
pub type Deed<T> = dyn FnOnce(&mut Connection) -> Outcome<T> + Send;

/// A call to be made on a lane.
pub struct OnLane<T>(pub Box<Deed<T>>);

impl<T: Send + 'static> Message for OnLane<T> {
    type Result = Outcome<T>;
}

impl<T: Send + 'static> Handler<Traced<OnLane<T>>> for LibvirtLane {
    type Result = Outcome<T>;
    fn handle(&mut self, asked: Traced<OnLane<T>>, _: &mut SyncContext<Self>) -> Outcome<T> {
        let _in = asked.span.enter();
        (asked.message.0)(&mut self.connection)
    }
}
