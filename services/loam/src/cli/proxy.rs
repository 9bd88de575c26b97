//! `loam proxy`.

use contract::proxy::{ListRoutes, RouteTarget, Routes};

use super::exit::Trouble;
use super::output::{show, table};
use super::session::Session;

pub(super) async fn run(session: &Session) -> Result<(), Trouble> {
    show(session.json, &session.ask(ListRoutes {}).await?, routes)
}

fn routes(routes: &Routes) {
    println!("listening for HTTP on {}", routes.http_listener);
    let rows = routes.routes.iter().map(|row| {
        let target = match &row.target {
            RouteTarget::Address(address) => address.clone(),
            RouteTarget::Unavailable(reason) => format!("503: {reason}"),
        };
        [row.domain.to_string(), row.vm.to_string(), target]
    });
    table(["DOMAIN", "VM", "LEADS TO"], rows.collect(), "no routes; a machine's `domains` make them");
}
