//! The librarian: holds the open repository, or the reason why it is shut, and the list of its backups.
//!
//! ```text
//!   start -> looking --opened, listed--> open --each `between_looks`, or when asked--> looking
//!               \--trouble--> shut (why) --back-off 1 s .. 30 s--> looking
//! ```
//!
//! One look is under way at a time, on a task of its own and within `LOOK_MAX`; its outcome comes back as a message.
//! Askers get an answer at once: the repository, or a sentence that says why there is none. When the actor dies the
//! process dies; nothing here lasts.

mod library;
mod look;

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, AsyncContext, Context, Handler, Message, MessageResult};
use actor::{AskError, Traced, remind};
use backup_repository::Repository;
use contract::backup::Backup;
use tokio::sync::oneshot;
use tracing::Instrument;

use crate::adapters::shelf::Shelf;
use crate::adapters::snapshots::in_words;
use crate::metrics::Metrics;

use self::look::{Shelved, look_at};
pub use library::Library;

/// How long one look at the store may take; a store that hangs is a store that is down.
const LOOK_MAX: Duration = Duration::from_secs(30);
/// A list younger than this is fresh: nobody types faster.
const FRESH: Duration = Duration::from_secs(2);
/// Askers that wait for one look; the desk lets no more in at a time.
const WAITING_MAX: usize = 256;

/// How often the store is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// While it is well. This service is the only one that writes there, so the list rarely surprises.
    pub between_looks: Duration,
    /// After the first trouble; doubled after each further one.
    pub back_off: Duration,
    /// The longest wait after trouble.
    pub back_off_max: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Pace {
            between_looks: Duration::from_secs(30),
            back_off: Duration::from_secs(1),
            back_off_max: Duration::from_secs(30),
        }
    }
}

/// The store cannot be used now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the backup store cannot be used: {reason}")]
pub struct StoreShut {
    /// Why, with all causes.
    pub reason: String,
}

impl StoreShut {
    fn new(error: &dyn std::error::Error) -> Self {
        StoreShut { reason: in_words(error) }
    }
}

impl From<AskError> for StoreShut {
    fn from(error: AskError) -> Self {
        StoreShut::new(&error)
    }
}

/// The backups that there are, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalogue(pub Vec<Backup>);

/// How old a list may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// The one at hand, which shows all that this service sealed.
    AtHand,
    /// Read from the store just now.
    Fresh,
}

type Listed = Result<Arc<Catalogue>, StoreShut>;
type Waiter = oneshot::Sender<Listed>;

enum Condition {
    Shut(StoreShut),
    Open(Shelved),
}

/// Keeps the repository open.
pub struct Librarian {
    shelf: Arc<Shelf>,
    pace: Pace,
    metrics: Metrics,
    condition: Condition,
    /// A look is under way.
    looking: bool,
    /// Something changed since the look under way began.
    stale: bool,
    /// Something changed that no look has shown yet.
    changed: bool,
    /// Looks in a row that met trouble.
    troubles: u32,
    /// The turn that the next reminder must name; older reminders are void.
    turn: u64,
    waiting: Vec<Waiter>,
}

/// Gives the repository.
#[derive(Message)]
#[rtype(result = "Result<Repository, StoreShut>")]
struct Borrow;

/// Gives the list, or a promise of it.
#[derive(Message)]
#[rtype(result = "Result<oneshot::Receiver<Listed>, StoreShut>")]
struct List(Freshness);

/// Tells what is wrong with the store.
#[derive(Message)]
#[rtype(result = "Option<String>")]
struct Complain;

/// What the store holds may have changed, or the store may not be well.
#[derive(Message)]
#[rtype(result = "()")]
struct LookAgain;

/// A reminder to look.
#[derive(Message)]
#[rtype(result = "()")]
struct Tick(u64);

/// A look ended.
#[derive(Message)]
#[rtype(result = "()")]
struct Looked(Result<Shelved, StoreShut>);

impl Librarian {
    /// A librarian of a shelf; it looks at once when started.
    pub fn new(shelf: Shelf, pace: Pace, metrics: Metrics) -> Self {
        Librarian {
            shelf: Arc::new(shelf),
            pace,
            metrics,
            condition: Condition::Shut(StoreShut { reason: "it is being opened".into() }),
            looking: false,
            stale: false,
            changed: false,
            troubles: 0,
            turn: 0,
            waiting: Vec::new(),
        }
    }

    fn look(&mut self, context: &mut Context<Self>) {
        if self.looking {
            self.stale = true;
            return;
        }
        (self.looking, self.stale) = (true, false);
        let (shelf, me) = (Arc::clone(&self.shelf), context.address());
        let before = match &self.condition {
            Condition::Open(shelved) => Some(shelved.clone()),
            Condition::Shut(_) => None,
        };
        let span = tracing::info_span!("look at the store");
        let look = async move {
            let outcome = match tokio::time::timeout(LOOK_MAX, look_at(&shelf, before)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(StoreShut {
                    reason: format!("{} did not answer within {} s", shelf.store.url, LOOK_MAX.as_secs()),
                }),
            };
            if me.send(Traced::here(Looked(outcome))).await.is_err() {
                tracing::debug!("the librarian has gone home");
            }
        };
        tokio::spawn(look.instrument(span));
    }

    /// Takes in what a look brought, and says how long until the next.
    fn take_in(&mut self, outcome: Result<Shelved, StoreShut>) -> Duration {
        let was_open = matches!(self.condition, Condition::Open(_));
        match outcome {
            Ok(shelved) => {
                if !was_open {
                    let repository = shelved.repository.id();
                    tracing::info!(store = %self.shelf.store.url, %repository, "the store is open");
                    self.metrics.store_open(true);
                }
                for damaged in &shelved.damaged {
                    tracing::warn!(damaged, "a backup cannot be listed");
                }
                self.condition = Condition::Open(shelved);
                self.troubles = 0;
                self.pace.between_looks
            }
            Err(shut) => {
                if was_open {
                    self.metrics.store_open(false);
                }
                if was_open || self.troubles == 0 {
                    tracing::warn!(store = %self.shelf.store.url, "{shut}");
                }
                self.condition = Condition::Shut(shut);
                let wait = self.pace.back_off * 2u32.saturating_pow(self.troubles.min(16));
                self.troubles += 1;
                wait.min(self.pace.back_off_max)
            }
        }
    }

    fn listed(&self) -> Listed {
        match &self.condition {
            Condition::Open(shelved) => Ok(Arc::clone(&shelved.catalogue)),
            Condition::Shut(shut) => Err(shut.clone()),
        }
    }
}

impl Actor for Librarian {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        self.look(context);
    }
}

impl Handler<Traced<Tick>> for Librarian {
    type Result = ();
    fn handle(&mut self, asked: Traced<Tick>, context: &mut Context<Self>) {
        if asked.message.0 == self.turn && !self.looking {
            self.look(context);
        }
    }
}

impl Handler<Traced<Looked>> for Librarian {
    type Result = ();
    fn handle(&mut self, asked: Traced<Looked>, context: &mut Context<Self>) {
        self.looking = false;
        let wait = self.take_in(asked.message.0);
        if self.stale && matches!(self.condition, Condition::Open(_)) {
            // Whoever waits wants to see what changed in the meantime.
            return self.look(context);
        }
        self.changed = false;
        let answer = self.listed();
        for waiter in self.waiting.drain(..) {
            // He may have gone away; then nobody misses the answer.
            let _ = waiter.send(answer.clone());
        }
        self.turn += 1;
        remind(context, wait, Tick(self.turn));
    }
}

impl Handler<Traced<LookAgain>> for Librarian {
    type Result = ();
    fn handle(&mut self, asked: Traced<LookAgain>, context: &mut Context<Self>) {
        let _in = asked.span.enter();
        self.changed = true;
        self.look(context);
    }
}

impl Handler<Traced<Borrow>> for Librarian {
    type Result = Result<Repository, StoreShut>;
    fn handle(&mut self, _: Traced<Borrow>, _: &mut Context<Self>) -> Self::Result {
        match &self.condition {
            Condition::Open(shelved) => Ok(shelved.repository.clone()),
            Condition::Shut(shut) => Err(shut.clone()),
        }
    }
}

impl Handler<Traced<Complain>> for Librarian {
    type Result = Option<String>;
    fn handle(&mut self, _: Traced<Complain>, _: &mut Context<Self>) -> Self::Result {
        match &self.condition {
            Condition::Shut(shut) => Some(shut.reason.clone()),
            Condition::Open(shelved) if shelved.damaged.is_empty() => None,
            Condition::Open(shelved) => Some(shelved.damaged.join("; ")),
        }
    }
}

impl Handler<Traced<List>> for Librarian {
    type Result = MessageResult<Traced<List>>;
    fn handle(&mut self, asked: Traced<List>, context: &mut Context<Self>) -> Self::Result {
        let _in = asked.span.enter();
        let good_enough = match &self.condition {
            Condition::Shut(shut) => return MessageResult(Err(shut.clone())),
            Condition::Open(shelved) => {
                asked.message.0 == Freshness::AtHand || (!self.looking && shelved.looked.elapsed() < FRESH)
            }
        };
        let (sender, promise) = oneshot::channel();
        if good_enough && !self.changed {
            let _asker_listens = sender.send(self.listed());
            return MessageResult(Ok(promise));
        }
        if self.waiting.len() >= WAITING_MAX {
            return MessageResult(Err(StoreShut { reason: "too many wait for its list".into() }));
        }
        self.waiting.push(sender);
        if !self.looking {
            self.look(context);
        }
        MessageResult(Ok(promise))
    }
}
