//! What all connections of a front share.

use std::sync::{Mutex, PoisonError};

use arc_swap::ArcSwap;
use proxy_domain::RouteTable;
use proxy_domain::retry::RetryBudget;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::admission::Admission;
use super::metrics::Metrics;
use super::pool::Pool;
use super::settings::Settings;
use super::tunnels::Tunnels;

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) settings: Settings,
    /// Read once a request, swapped whole.
    pub(super) table: ArcSwap<RouteTable>,
    pub(super) pool: Pool,
    pub(super) budget: Mutex<RetryBudget>,
    pub(super) admission: Admission,
    pub(super) tunnels: Tunnels,
    pub(super) metrics: Metrics,
    /// The listener, every client connection and every tunnel.
    pub(super) tasks: TaskTracker,
    /// Where tasks run, whoever asks for them.
    pub(super) runtime: Handle,
    /// Accept nothing new, finish what is under way.
    pub(super) stop: CancellationToken,
    /// End now.
    pub(super) cut: CancellationToken,
}

impl Shared {
    pub(super) fn new(settings: Settings) -> Self {
        let metrics = Metrics::new();
        Self {
            table: ArcSwap::default(),
            pool: Pool::new(&settings),
            budget: Mutex::default(),
            admission: Admission::new(&settings.limits, metrics.clone()),
            tunnels: Tunnels::default(),
            metrics,
            tasks: TaskTracker::new(),
            runtime: Handle::current(),
            stop: CancellationToken::new(),
            cut: CancellationToken::new(),
            settings,
        }
    }

    /// Takes the price of a retry from the budget; false when there is none left.
    pub(super) fn pay_for_retry(&self) -> bool {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
