//! `loam proxy`.

use contract::proxy::{ListRoutes, RouteTarget, Routes};

use super::exit::CliError;
use super::output::{Text, cut, show, whole};
use super::session::Session;

pub(super) async fn run(session: &Session) -> Result<(), CliError> {
    show(session.json, &session.request(ListRoutes {}).await?, routes)
}

fn routes(routes: &Routes, text: &mut Text) {
    text.line(format_args!("listening for HTTP on {}", routes.http_listener));
    let rows = routes.routes.iter().map(|row| {
        let target = match &row.target {
            RouteTarget::Address(address) => address.clone(),
            RouteTarget::Unavailable(reason) => format!("503: {reason}"),
            RouteTarget::Unknown(target) => target.to_string(),
        };
        [row.domain.to_string(), row.vm.to_string(), target]
    });
    let head = [whole("DOMAIN NAME"), whole("VM"), cut("TARGET")];
    text.table(head, rows.collect(), "no routes; `domains` in a VM's definition make them");
}
