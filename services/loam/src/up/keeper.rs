//! Keeps one process alive.
//!
//! ```text
//!              +--- died: wait 0.2 s, 0.4 s, ... 10 s ---+
//!              v                                         |
//!   start --> up --------------------------------------- +
//!              |  restart: SIGTERM, 15 s, SIGKILL, start again (whatever `launch` now says)
//!              |  end:     SIGTERM, 15 s, SIGKILL
//!              v
//!            ended
//! ```
//!
//! A keeper does not know what its process does, nor whether it is well: `board` asks.

use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use contract::Timestamp;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Child;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::child::Launch;
use super::log;

/// The first wait after a death; doubled each time.
const AGAIN_FIRST: Duration = Duration::from_millis(200);
/// The longest wait: a cause that is mended is noticed soon.
const AGAIN_MAX: Duration = Duration::from_secs(10);
/// Who lived this long did not die of his start.
const SETTLED: Duration = Duration::from_secs(30);
/// How long a process may take to end in order.
pub const END_MAX: Duration = Duration::from_secs(15);
/// Orders come from one desk and one end.
const ORDERS: usize = 4;

/// What a process is at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It runs under this id.
    Up(u32),
    /// It died or could not be started, for this reason; it will be started again.
    Down(String),
    /// It was ended.
    Ended,
}

/// A process as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// What it is at.
    pub phase: Phase,
    /// Since when.
    pub since: Timestamp,
    /// How often it was started again after it died.
    pub restarts: u32,
    /// From which executable.
    pub executable: PathBuf,
}

/// Says what is to be started, each time anew; or why that cannot be said.
pub type Plan = Box<dyn Fn() -> Result<Launch, String> + Send + Sync>;

enum Order {
    Restart(oneshot::Sender<Result<(), String>>),
    End,
}

/// Holds on to a process.
pub struct Keeper {
    /// Its name.
    pub name: String,
    view: watch::Receiver<View>,
    orders: mpsc::Sender<Order>,
    task: JoinHandle<()>,
}

/// Orders the restart of a process from elsewhere.
#[derive(Clone)]
pub struct Handle {
    view: watch::Receiver<View>,
    orders: mpsc::Sender<Order>,
}

impl Keeper {
    /// Starts to keep a process. `hurry` cuts the patience of every end short.
    pub fn start(
        name: &str,
        ourselves: PathBuf,
        log: PathBuf,
        plan: Plan,
        hurry: CancellationToken,
    ) -> Keeper {
        let first = View {
            phase: Phase::Down("not started yet".into()),
            since: chrono::Utc::now(),
            restarts: 0,
            executable: PathBuf::new(),
        };
        let (tell, view) = watch::channel(first);
        let (orders, inbox) = mpsc::channel(ORDERS);
        let keeping = Keeping { name: name.into(), ourselves, log, plan, hurry, tell, inbox };
        Keeper { name: name.into(), view, orders, task: tokio::spawn(keeping.live()) }
    }

    /// How the process is.
    pub fn view(&self) -> View {
        self.view.borrow().clone()
    }

    /// A handle for whoever may order a restart.
    pub fn handle(&self) -> Handle {
        Handle { view: self.view.clone(), orders: self.orders.clone() }
    }

    /// Ends the process in order, in bounded time.
    pub async fn end(self) {
        if self.orders.send(Order::End).await.is_err() {
            tracing::warn!(process = self.name, "its keeper is gone already");
        }
        if let Err(error) = self.task.await {
            tracing::error!(process = self.name, %error, "its keeper did not end well");
        }
    }
}

impl Handle {
    /// How the process is.
    pub fn view(&self) -> View {
        self.view.borrow().clone()
    }

    /// Ends the process in order and starts what the plan now says.
    pub async fn restart(&self) -> Result<(), String> {
        let (done, outcome) = oneshot::channel();
        let gone = || "the supervisor is ending".to_string();
        self.orders.send(Order::Restart(done)).await.map_err(|_| gone())?;
        outcome.await.map_err(|_| gone())?
    }
}

struct Keeping {
    name: String,
    ourselves: PathBuf,
    log: PathBuf,
    plan: Plan,
    hurry: CancellationToken,
    tell: watch::Sender<View>,
    inbox: mpsc::Receiver<Order>,
}

enum Next {
    Again,
    End,
}

impl Keeping {
    async fn live(mut self) {
        let mut wait = AGAIN_FIRST;
        let mut waiting: Option<oneshot::Sender<Result<(), String>>> = None;
        loop {
            let started = Instant::now();
            let outcome = self.launch();
            if let Some(asker) = waiting.take() {
                // An asker who left wanted no answer.
                drop(asker.send(outcome.as_ref().map(|_| ()).map_err(Clone::clone)));
            }
            let why = match outcome {
                Err(why) => why,
                Ok(mut child) => {
                    tokio::select! {
                        status = child.wait() => self.last_words(status),
                        order = self.inbox.recv() => {
                            self.stop(&mut child).await;
                            match order {
                                Some(Order::Restart(asker)) => { waiting = Some(asker); continue; }
                                Some(Order::End) | None => return self.ended(),
                            }
                        }
                    }
                }
            };
            if started.elapsed() >= SETTLED {
                wait = AGAIN_FIRST;
            }
            tracing::warn!(
                process = self.name,
                why,
                "it is down; starting it again in {} ms",
                wait.as_millis()
            );
            self.show(|view| {
                view.restarts += 1;
                view.phase = Phase::Down(why);
            });
            match self.rest(wait, &mut waiting).await {
                Next::Again => wait = (wait * 2).min(AGAIN_MAX),
                Next::End => return self.ended(),
            }
        }
    }

    fn launch(&mut self) -> Result<Child, String> {
        let launch = (self.plan)()?;
        let failed = |error: std::io::Error| format!("starting {}: {error}", launch.program.display());
        let log = log::open(&self.log).map_err(failed)?;
        let child = launch.start(&self.ourselves, log).map_err(failed)?;
        let pid = child.id().expect("a child that was not waited for has an id");
        tracing::info!(process = self.name, pid, executable = %launch.program.display(), "started");
        self.show(|view| {
            view.phase = Phase::Up(pid);
            view.executable = launch.program;
        });
        Ok(child)
    }

    async fn rest(
        &mut self,
        wait: Duration,
        waiting: &mut Option<oneshot::Sender<Result<(), String>>>,
    ) -> Next {
        tokio::select! {
            () = tokio::time::sleep(wait) => Next::Again,
            order = self.inbox.recv() => match order {
                Some(Order::Restart(asker)) => { *waiting = Some(asker); Next::Again }
                Some(Order::End) | None => Next::End,
            },
        }
    }

    async fn stop(&self, child: &mut Child) {
        if let Some(pid) = child.id()
            && let Err(errno) = kill(Pid::from_raw(pid as i32), Signal::SIGTERM)
        {
            tracing::debug!(process = self.name, %errno, "it was gone already");
        }
        tokio::select! {
            ended = child.wait() => tracing::info!(process = self.name, ?ended, "ended"),
            () = self.patience() => {
                tracing::warn!(process = self.name, "it does not end; killing it");
                if let Err(error) = child.kill().await {
                    tracing::error!(process = self.name, %error, "it could not be killed");
                }
            }
        }
    }

    async fn patience(&self) {
        tokio::select! {
            () = tokio::time::sleep(END_MAX) => {}
            () = self.hurry.cancelled() => {}
        }
    }

    fn last_words(&self, status: std::io::Result<ExitStatus>) -> String {
        let how = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        match log::last_line(&self.log) {
            Some(words) => format!("{how}: {words}"),
            None => how,
        }
    }

    fn ended(&mut self) {
        self.show(|view| view.phase = Phase::Ended);
    }

    fn show(&self, change: impl FnOnce(&mut View)) {
        self.tell.send_modify(|view| {
            change(view);
            view.since = chrono::Utc::now();
        });
    }
}
