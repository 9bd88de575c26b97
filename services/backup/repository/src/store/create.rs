//! Writing an object only when none of that name exists: the commit primitive.

use std::time::{Duration, Instant};

use bytes::Bytes;
use object_store::path::Path;
use object_store::{PutMode, PutOptions, PutPayload};
use tracing::instrument;

use super::{Store, StoreError};

/// Attempts at a creation that failed and left no object, and the first pause between them; each pause is twice the one
/// before.
const ATTEMPTS_MAX: u32 = 5;
const PAUSE_FIRST: Duration = Duration::from_millis(100);

/// What a create-if-absent found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CreateOutcome {
    /// The object is ours.
    New,
    /// Another process has written it before.
    AlreadyThere,
}

impl Store {
    /// Writes an object only when none of that name exists: the commit primitive. An attempt that
    /// succeeded and whose answer was lost counts as success: `body` must be one that no other process can have written.
    pub(crate) async fn create(&self, name: &Path, body: Bytes) -> Result<CreateOutcome, StoreError> {
        self.create_with(name, body, PutOptions { mode: PutMode::Create, ..PutOptions::default() }).await
    }

    /// As [`Store::create`], under Object Lock, where the repository has one.
    pub(crate) async fn create_locked(&self, name: &Path, body: Bytes) -> Result<CreateOutcome, StoreError> {
        self.create_with(name, body, self.locked(PutMode::Create)).await
    }

    #[instrument(name = "store create", skip_all, fields(otel.kind = "client", object = %name))]
    async fn create_with(
        &self,
        name: &Path,
        body: Bytes,
        options: PutOptions,
    ) -> Result<CreateOutcome, StoreError> {
        if self.is_dry_run {
            return match self.head(name).await {
                Ok(_) => Ok(CreateOutcome::AlreadyThere),
                Err(StoreError::NotFound { .. }) => Ok(CreateOutcome::New),
                Err(error) => Err(error),
            };
        }
        let (began, mut attempts) = (Instant::now(), 1);
        loop {
            let outcome = self.create_once(name, body.clone(), options.clone()).await;
            if !matches!(outcome, Ok(CreateOutcome::AlreadyThere) | Err(StoreError::Failed { .. })) {
                return outcome;
            }
            match self.get(name).await {
                Ok(found) if found == body => return Ok(CreateOutcome::New),
                Ok(_) => return Ok(CreateOutcome::AlreadyThere),
                // It did not arrive, or has not yet. Clients do not retry such a request by themselves.
                Err(StoreError::NotFound { .. })
                    if attempts < ATTEMPTS_MAX && began.elapsed() < self.deadline =>
                {
                    tokio::time::sleep(PAUSE_FIRST * 2_u32.pow(attempts - 1)).await;
                    attempts += 1;
                }
                Err(_) => return outcome,
            }
        }
    }

    async fn create_once(
        &self,
        name: &Path,
        body: Bytes,
        options: PutOptions,
    ) -> Result<CreateOutcome, StoreError> {
        let put = self.objects.put_opts(name, PutPayload::from(body), options);
        match self.bounded("create", name, put).await {
            Ok(_) => Ok(CreateOutcome::New),
            Err(StoreError::Failed {
                source: object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. },
                ..
            }) => Ok(CreateOutcome::AlreadyThere),
            Err(error) => Err(error),
        }
    }
}
