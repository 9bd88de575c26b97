//! The health of a service: asked of it over the bus, made of its parts at that moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bus::{Bus, ErrorReply, Server};
use contract::HostName;
use contract::message::NeverRefused;
use contract::operation::{CheckHealth, Health, PartHealth};

use crate::start::BoxFuture;

/// How long a check of one part may take.
const CHECK_MAX: Duration = Duration::from_secs(3);

/// Checks one part that a service depends on and returns what is wrong with it, if anything is.
pub type PartCheck = Arc<dyn Fn() -> BoxFuture<Option<String>> + Send + Sync>;

/// Anybody may ask how the service is, of any instance or of the one on our host.
pub(crate) fn serve_health(
    server: &mut Server,
    host: &HostName,
    template: Health,
    parts: Vec<(&'static str, PartCheck)>,
) {
    let parts = Arc::new(parts);
    let answer = move || check_parts(Arc::clone(&parts), template.clone());
    let here = answer.clone();
    server.on::<CheckHealth, _, _>(move |_| answer());
    server.on_host::<CheckHealth, _, _>(host, move |_| here());
}

async fn check_parts(
    parts: Arc<Vec<(&'static str, PartCheck)>>,
    mut health: Health,
) -> Result<Health, ErrorReply<NeverRefused>> {
    for (part, check) in parts.iter() {
        let problem = match tokio::time::timeout(CHECK_MAX, check()).await {
            Ok(problem) => problem,
            Err(_) => Some(format!("no answer within {} s", CHECK_MAX.as_secs())),
        };
        health.parts.push(PartHealth { part: (*part).into(), problem });
    }
    Ok(health)
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
