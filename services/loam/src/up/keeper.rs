//! Keeps one process running.
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
//! A keeper does not know what its process does, nor whether it is healthy: `status_view` asks.

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

use super::child::LaunchSpec;
use super::log;

/// The first wait after a process died; doubled each time.
const RESTART_FIRST: Duration = Duration::from_millis(200);
/// The longest wait: a repaired cause is noticed soon.
const RESTART_MAX: Duration = Duration::from_secs(10);
/// A process that ran this long did not die of its start: the next wait is short again.
const STABLE_AFTER: Duration = Duration::from_secs(30);
/// How long a process may take to end after SIGTERM.
pub const END_MAX: Duration = Duration::from_secs(15);
/// Orders come from the handlers and from the shutdown.
const ORDERS: usize = 4;

/// Whether a process runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProcessState {
    /// It runs under this id.
    Up(u32),
    /// It died or could not be started, for this reason; it will be started again.
    Down(String),
    /// It was ended by us.
    Stopped,
}

/// The state of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessStatus {
    /// Whether it runs.
    pub state: ProcessState,
    /// When `state` last changed.
    pub since: Timestamp,
    /// How often it was restarted after it died.
    pub restarts: u32,
    /// The executable it runs from.
    pub executable: PathBuf,
}

/// Decides at each start what is started, or why nothing can be.
pub type Plan = Box<dyn Fn() -> Result<LaunchSpec, String> + Send + Sync>;

enum Order {
    Restart(oneshot::Sender<Result<(), String>>),
    End,
}

/// Keeps a process running.
pub struct Keeper {
    /// Its name.
    pub name: String,
    status: watch::Receiver<ProcessStatus>,
    orders: mpsc::Sender<Order>,
    task: JoinHandle<()>,
}

/// Reads the state of a process and restarts it.
#[derive(Clone)]
pub struct Handle {
    status: watch::Receiver<ProcessStatus>,
    orders: mpsc::Sender<Order>,
}

impl Keeper {
    /// Starts a process and keeps it running. `force` kills it at once where it would be given time to end.
    pub fn start(
        name: &str,
        self_exe: PathBuf,
        log: PathBuf,
        plan: Plan,
        force: CancellationToken,
    ) -> Keeper {
        let first = ProcessStatus {
            state: ProcessState::Down("not started yet".into()),
            since: chrono::Utc::now(),
            restarts: 0,
            executable: PathBuf::new(),
        };
        let (sender, status) = watch::channel(first);
        let (orders, inbox) = mpsc::channel(ORDERS);
        let (name, log_from) = (name.to_string(), 0);
        let task = KeeperTask { name: name.clone(), self_exe, log, log_from, plan, force, sender, inbox };
        Keeper { name, status, orders, task: tokio::spawn(task.run()) }
    }

    /// The state of the process.
    pub fn status(&self) -> ProcessStatus {
        self.status.borrow().clone()
    }

    /// A handle for whoever may order a restart.
    pub fn handle(&self) -> Handle {
        Handle { status: self.status.clone(), orders: self.orders.clone() }
    }

    /// Ends the process in order, in bounded time.
    pub async fn end(self) {
        if self.orders.send(Order::End).await.is_err() {
            tracing::warn!(process = self.name, "its keeper has ended already");
        }
        if let Err(error) = self.task.await {
            tracing::error!(process = self.name, %error, "its keeper failed");
        }
    }
}

impl Handle {
    /// The state of the process.
    pub fn status(&self) -> ProcessStatus {
        self.status.borrow().clone()
    }

    /// The state of the process once it has changed; nothing where its keeper has ended.
    pub async fn changed(&mut self) -> Option<ProcessStatus> {
        self.status.changed().await.ok()?;
        Some(self.status.borrow_and_update().clone())
    }

    /// Ends the process in order and starts what the plan now says.
    pub async fn restart(&self) -> Result<(), String> {
        let (done, outcome) = oneshot::channel();
        let gone = || "the supervisor is ending".to_string();
        self.orders.send(Order::Restart(done)).await.map_err(|_| gone())?;
        outcome.await.map_err(|_| gone())?
    }
}

struct KeeperTask {
    name: String,
    self_exe: PathBuf,
    log: PathBuf,
    /// Where the log of this run of the process begins.
    log_from: u64,
    plan: Plan,
    force: CancellationToken,
    sender: watch::Sender<ProcessStatus>,
    inbox: mpsc::Receiver<Order>,
}

enum Next {
    Start,
    End,
}

impl KeeperTask {
    async fn run(mut self) {
        let mut wait = RESTART_FIRST;
        let mut waiting: Option<oneshot::Sender<Result<(), String>>> = None;
        loop {
            let started = Instant::now();
            let outcome = self.launch();
            if let Some(done) = waiting.take() {
                // A caller that is gone needs no answer.
                drop(done.send(outcome.as_ref().map(|_| ()).map_err(Clone::clone)));
            }
            let why = match outcome {
                Err(why) => why,
                Ok(mut child) => {
                    tokio::select! {
                        status = child.wait() => self.death_reason(status),
                        order = self.inbox.recv() => {
                            self.stop(&mut child).await;
                            match order {
                                Some(Order::Restart(done)) => { waiting = Some(done); continue; }
                                Some(Order::End) | None => return self.ended(),
                            }
                        }
                    }
                }
            };
            if started.elapsed() >= STABLE_AFTER {
                wait = RESTART_FIRST;
            }
            tracing::warn!(
                process = self.name,
                why,
                "the process died; restarting it in {} ms",
                wait.as_millis()
            );
            self.change(|status| {
                status.restarts += 1;
                status.state = ProcessState::Down(why);
            });
            match self.wait_to_restart(wait, &mut waiting).await {
                Next::Start => wait = (wait * 2).min(RESTART_MAX),
                Next::End => return self.ended(),
            }
        }
    }

    fn launch(&mut self) -> Result<Child, String> {
        let launch = (self.plan)()?;
        let failed = |error: std::io::Error| format!("starting {}: {error}", launch.program.display());
        let log = log::open(&self.log).map_err(failed)?;
        self.log_from = log.metadata().map_err(failed)?.len();
        let child = launch.start(&self.self_exe, log).map_err(failed)?;
        let pid = child.id().expect("a child that was not waited for has an id");
        tracing::info!(process = self.name, pid, executable = %launch.program.display(), "started");
        self.change(|status| {
            status.state = ProcessState::Up(pid);
            status.executable = launch.program;
        });
        Ok(child)
    }

    async fn wait_to_restart(
        &mut self,
        wait: Duration,
        waiting: &mut Option<oneshot::Sender<Result<(), String>>>,
    ) -> Next {
        tokio::select! {
            () = tokio::time::sleep(wait) => Next::Start,
            order = self.inbox.recv() => match order {
                Some(Order::Restart(done)) => { *waiting = Some(done); Next::Start }
                Some(Order::End) | None => Next::End,
            },
        }
    }

    async fn stop(&self, child: &mut Child) {
        if let Some(pid) = child.id()
            && let Err(errno) = kill(Pid::from_raw(pid as i32), Signal::SIGTERM)
        {
            tracing::debug!(process = self.name, %errno, "it had ended already");
        }
        tokio::select! {
            ended = child.wait() => tracing::info!(process = self.name, ?ended, "ended"),
            () = self.grace_period() => {
                tracing::warn!(process = self.name, "it did not end in time; killing it");
                if let Err(error) = child.kill().await {
                    tracing::error!(process = self.name, %error, "it could not be killed");
                }
            }
        }
    }

    async fn grace_period(&self) {
        tokio::select! {
            () = tokio::time::sleep(END_MAX) => {}
            () = self.force.cancelled() => {}
        }
    }

    fn death_reason(&self, status: std::io::Result<ExitStatus>) -> String {
        let how = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        match log::last_error(&self.log, self.log_from) {
            Some(error) => format!("{how}: {error}"),
            None => how,
        }
    }

    fn ended(&mut self) {
        self.change(|status| status.state = ProcessState::Stopped);
    }

    fn change(&self, change: impl FnOnce(&mut ProcessStatus)) {
        self.sender.send_modify(|status| {
            change(status);
            status.since = chrono::Utc::now();
        });
    }
}
