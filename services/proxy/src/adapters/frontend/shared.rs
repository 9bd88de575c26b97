//! What all connections of a frontend share.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use proxy_domain::RouteTable;
use proxy_domain::retry::RetryBudget;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection_limit::ConnectionLimiter;
use super::pool::UpstreamPool;
use super::settings::Settings;
use super::tunnels::Tunnels;
use crate::metrics::Metrics;

#[derive(Debug)]
pub(super) struct FrontendShared {
    pub(super) settings: Settings,
    /// Read once per request, swapped whole.
    pub(super) table: Arc<ArcSwap<RouteTable>>,
    pub(super) pool: UpstreamPool,
    pub(super) retry_budget: Mutex<RetryBudget>,
    pub(super) limiter: ConnectionLimiter,
    pub(super) tunnels: Arc<Tunnels>,
    pub(super) metrics: Metrics,
    /// The listener, every client connection and every tunnel.
    pub(super) tasks: TaskTracker,
    /// Accept nothing new, finish what has begun.
    pub(super) stop: CancellationToken,
    /// End now.
    pub(super) abort: CancellationToken,
}

impl FrontendShared {
    pub(super) fn new(settings: Settings) -> Self {
        let metrics = Metrics::new();
        let table = Arc::<ArcSwap<RouteTable>>::default();
        let abort = CancellationToken::new();
        let drain = settings.timeouts.tunnel_without_route;
        Self {
            tunnels: Tunnels::new(table.clone(), drain, abort.clone(), metrics.clone()),
            table,
            pool: UpstreamPool::new(&settings),
            retry_budget: Mutex::default(),
            limiter: ConnectionLimiter::new(&settings.limits, metrics.clone()),
            metrics,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            abort,
            settings,
        }
    }

    /// Withdraws one retry from the budget; false when the budget is used up.
    pub(super) fn withdraw_retry(&self) -> bool {
        self.retry_budget.lock().unwrap_or_else(PoisonError::into_inner).withdraw()
    }
}
