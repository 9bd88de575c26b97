//! The health of a service: made of its parts at the moment that somebody asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bus::{Bus, ErrorReply, Server};
use contract::HostName;
use contract::health::{CheckHealth, Health, PartHealth};
use contract::message::NeverRefused;

use crate::start::BoxFuture;

/// How long a check of one part may take.
const CHECK_MAX: Duration = Duration::from_secs(3);

/// Checks one part that a service depends on and returns what is wrong with it, if anything is.
pub type PartCheck = Arc<dyn Fn() -> BoxFuture<Option<String>> + Send + Sync>;

/// The health of a service, checked each time that somebody asks. Cloning is cheap.
#[derive(Clone)]
pub(crate) struct HealthChecks {
    template: Health,
    parts: Arc<Vec<(&'static str, PartCheck)>>,
}

impl HealthChecks {
    pub(crate) fn new(template: Health, parts: Vec<(&'static str, PartCheck)>) -> HealthChecks {
        HealthChecks { template, parts: Arc::new(parts) }
    }

    /// Anybody may ask how the service is, of any instance or of the one on our host.
    pub(crate) fn serve(&self, server: &mut Server, host: &HostName) {
        let (anywhere, here) = (self.clone(), self.clone());
        server.on::<CheckHealth, _, _>(move |_| {
            let checks = anywhere.clone();
            async move { Ok::<_, ErrorReply<NeverRefused>>(checks.check().await) }
        });
        server.on_host::<CheckHealth, _, _>(host, move |_| {
            let checks = here.clone();
            async move { Ok(checks.check().await) }
        });
    }

    /// Checks every part.
    pub(crate) async fn check(self) -> Health {
        let mut health = self.template;
        for (part, check) in self.parts.iter() {
            let problem = match tokio::time::timeout(CHECK_MAX, check()).await {
                Ok(problem) => problem,
                Err(_) => Some(format!("no answer within {} s", CHECK_MAX.as_secs())),
            };
            health.parts.push(PartHealth { part: (*part).into(), problem });
        }
        health
    }
}

/// Rows that are named in health; of more, the number.
const ROWS_SHOWN_MAX: usize = 10;

/// Rows that cannot be read are set aside; the service goes on without them.
pub(crate) fn check_rows(bus: &Bus) -> PartCheck {
    let bus = bus.clone();
    Arc::new(move || {
        let rows = bus.unreadable_rows();
        let shown = rows.iter().take(ROWS_SHOWN_MAX);
        let mut named: Vec<String> =
            shown.map(|row| format!("{}.{} cannot be read: {}", row.table, row.key, row.reason)).collect();
        if rows.len() > ROWS_SHOWN_MAX {
            named.push(format!("{} more", rows.len() - ROWS_SHOWN_MAX));
        }
        Box::pin(std::future::ready((!named.is_empty()).then(|| named.join("; "))))
    })
}

/// A service whose unfinished operations are not being driven yet is not healthy.
pub(crate) fn check_resumed(resumed: &Arc<AtomicBool>) -> PartCheck {
    let resumed = Arc::clone(resumed);
    Arc::new(move || {
        let problem = "unfinished operations are not resumed yet";
        let resumed = resumed.load(Ordering::Relaxed);
        Box::pin(std::future::ready((!resumed).then(|| problem.to_string())))
    })
}

/// A service that is not connected to the bus answers nobody.
pub(crate) fn check_bus(bus: Bus) -> PartCheck {
    Arc::new(move || {
        let problem = "there is no connection";
        Box::pin(std::future::ready((!bus.is_connected()).then(|| problem.to_string())))
    })
}
