//! Answers the requests about a service's operations: list, get, cancel. Every instance of the service can read all rows;
//! how far a step is, and how to cancel it, only the host knows that drives it: it is asked.

use bus::{ErrorReply, IncomingRequest, Server};
use contract::HostName;
use contract::message::{Failure, FailureKind, NeverRefused};
use contract::operation::{
    CancelOperation, GetOperation, GetScriptOutput, ListOperations, OperationReport, ScriptOutput,
    UnknownOperation,
};

use crate::engine::Engine;

type Answer = Result<OperationReport, ErrorReply<UnknownOperation>>;

impl Engine {
    /// Adds the endpoints about operations to a service's server.
    pub fn serve(&self, server: &mut Server) {
        let engine = self.clone();
        server.on(move |call| engine.clone().answer_list(call));
        let engine = self.clone();
        server.on(move |call| engine.clone().route_get(call));
        let engine = self.clone();
        server.on_forwarded(self.host(), move |call| engine.clone().answer_get(call));
        let engine = self.clone();
        server.on(move |call| engine.clone().route_cancel(call));
        let engine = self.clone();
        server.on_forwarded(self.host(), move |call| engine.clone().answer_cancel(call));
        let engine = self.clone();
        server.on(move |call| engine.clone().answer_script_output(call));
    }

    async fn answer_list(
        self,
        call: IncomingRequest<ListOperations>,
    ) -> Result<Vec<OperationReport>, ErrorReply<NeverRefused>> {
        let listed = self.list(&call.request).await;
        let mut reports = listed.map_err(|error| error.to_failure())?;
        // Outputs of hundreds of operations would not fit into one message.
        reports.iter_mut().for_each(|report| report.output = None);
        Ok(reports)
    }

    /// The host that drives an operation, where that is another.
    fn driver(&self, report: &OperationReport) -> Option<HostName> {
        (!report.state.is_final() && report.host != *self.host()).then(|| report.host.clone())
    }

    async fn route_get(self, call: IncomingRequest<GetOperation>) -> Answer {
        let mut report = self.clone().answer_get(call.clone()).await?;
        let Some(host) = self.driver(&report) else { return Ok(report) };
        match self.forward(&host, call).await {
            Ok(report) => Ok(report),
            Err(ErrorReply::Refused(refused)) => Err(ErrorReply::Refused(refused)),
            Err(ErrorReply::Failed(_)) => {
                report.waiting_for = Some(format!("host {host}, which does not answer"));
                Ok(report)
            }
        }
    }

    async fn answer_get(self, call: IncomingRequest<GetOperation>) -> Answer {
        let id = call.request.id;
        match self.find(&id).await {
            Ok(Some(report)) => Ok(report),
            Ok(None) => Err(ErrorReply::Refused(UnknownOperation { id })),
            Err(error) => Err(error.to_failure().into()),
        }
    }

    async fn answer_script_output(
        self,
        call: IncomingRequest<GetScriptOutput>,
    ) -> Result<Vec<ScriptOutput>, ErrorReply<UnknownOperation>> {
        let GetScriptOutput { id } = call.request;
        let row = self.shared.table.get(id.as_str()).await.map_err(|error| error.to_failure())?;
        let Some(record) = row.map(|row| row.value) else {
            return Err(ErrorReply::Refused(UnknownOperation { id }));
        };
        if !call.caller.may_see_secrets() && !record.asked_by().is_same_as(&call.caller) {
            let message =
                "what scripts wrote is shown to the operator, and to whoever asked for the operation";
            return Err(Failure { kind: FailureKind::NotAllowed, message: message.into() }.into());
        }
        self.scripts(&record).map_err(|error| {
            let message = format!("what the scripts of operation {id} wrote does not decrypt: {error}");
            Failure { kind: FailureKind::Unavailable, message }.into()
        })
    }

    async fn route_cancel(self, call: IncomingRequest<CancelOperation>) -> Answer {
        if let Ok(Some(report)) = self.find(&call.request.id).await
            && let Some(host) = self.driver(&report)
        {
            return self.forward(&host, call).await;
        }
        self.answer_cancel(call).await
    }

    async fn answer_cancel(self, call: IncomingRequest<CancelOperation>) -> Answer {
        let IncomingRequest { request: CancelOperation { id }, caller, on_behalf_of, message_id } = call;
        tracing::info!(operation = %id, %caller, "cancellation requested");
        self.cancel(&id);
        let request = GetOperation { id };
        self.answer_get(IncomingRequest { request, caller, on_behalf_of, message_id }).await
    }
}
