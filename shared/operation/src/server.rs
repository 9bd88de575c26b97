//! Answers the requests about a service's operations: list, get, cancel.

use bus::{Call, Declined, Server};
use contract::message::{Failure, NoRefusal};
use contract::operation::{CancelOperation, GetOperation, ListOperations, OperationReport, UnknownOperation};

use crate::engine::Engine;

impl Engine {
    /// Adds the endpoints about operations to a service's server.
    pub fn serve(&self, server: &mut Server) {
        let engine = self.clone();
        server.on(move |call| engine.clone().answer_list(call));
        let engine = self.clone();
        server.on(move |call| engine.clone().answer_get(call));
        let engine = self.clone();
        server.on(move |call| engine.clone().answer_cancel(call));
    }

    async fn answer_list(
        self,
        call: Call<ListOperations>,
    ) -> Result<Vec<OperationReport>, Declined<NoRefusal>> {
        let listed = self.list(call.request.unfinished_only).await;
        let mut reports = listed.map_err(|error| Failure::unavailable(&error))?;
        // Outputs of hundreds of operations would not fit into one message.
        reports.iter_mut().for_each(|report| report.output = None);
        Ok(reports)
    }

    async fn answer_get(
        self,
        call: Call<GetOperation>,
    ) -> Result<OperationReport, Declined<UnknownOperation>> {
        let id = call.request.id;
        match self.find(&id).await {
            Ok(Some(report)) => Ok(report),
            Ok(None) => Err(Declined::Refused(UnknownOperation { id })),
            Err(error) => Err(Failure::unavailable(&error).into()),
        }
    }

    async fn answer_cancel(
        self,
        call: Call<CancelOperation>,
    ) -> Result<OperationReport, Declined<UnknownOperation>> {
        let Call { request: CancelOperation { id }, caller, message_id } = call;
        self.cancel(&id);
        self.answer_get(Call { request: GetOperation { id }, caller, message_id }).await
    }
}
