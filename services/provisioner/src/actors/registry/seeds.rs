//! The registry's handlers about seeds.

use actix::fut::wrap_future;
use actix::{ActorFutureExt, AtomicResponse, Context, Handler};
use actor::TracedMessage;
use bus::ErrorReply;
use contract::SeedName;
use contract::message::{Failure, FailureKind};
use contract::provisioner::{AddSeedRefused, RemoveSeedRefused, Seed};
use provisioner_domain::SeedImageRecord;

use super::messages::{
    BeginSeedImageImport, PutSeedImageRecord, RemoveSeedImageImport, RemoveSeedImageRecord,
};
use super::{Changed, Registry, at_once, unavailable};

impl Registry {
    pub(super) fn seed_key(&self, name: &SeedName) -> String {
        format!("{}.{name}", self.host)
    }

    fn write_row<T: 'static, R: 'static>(&self, record: SeedImageRecord, answer: T) -> Changed<T, R> {
        if self.inventory.seed(record.name()) == Some(&record) {
            return at_once(Ok(answer));
        }
        let over = self.seed_revisions.get(record.name()).copied().unwrap_or(0);
        let (table, key) = (self.seeds.clone(), self.seed_key(record.name()));
        let work = async move {
            let written = table.update_owned(&key, &record, over).await;
            written.map(|revision| (record, revision))
        };
        AtomicResponse::new(Box::pin(wrap_future::<_, Self>(work).map(|outcome, this, _| match outcome {
            Ok((record, revision)) => {
                this.seed_revisions.insert(record.name().clone(), revision);
                this.inventory.put_seed(record);
                Ok(answer)
            }
            Err(error) => Err(unavailable(&error)),
        })))
    }

    fn remove_row<T: 'static, R: 'static>(&self, name: SeedName, answer: T) -> Changed<T, R> {
        let over = self.seed_revisions.get(&name).copied().unwrap_or(0);
        let (table, key) = (self.seeds.clone(), self.seed_key(&name));
        let work = async move { table.remove(&key, over).await.map(|()| name) };
        AtomicResponse::new(Box::pin(wrap_future::<_, Self>(work).map(|outcome, this, _| match outcome {
            Ok(name) => {
                this.seed_revisions.remove(&name);
                this.inventory.forget_seed(&name);
                Ok(answer)
            }
            Err(error) => Err(unavailable(&error)),
        })))
    }
}

/// Why nothing is done about a seed whose row cannot be read.
fn unreadable(seed: &SeedName) -> Failure {
    let message = format!(
        "the row of seed {seed} cannot be read by this version and is left as it is; `loam status` says why"
    );
    Failure { kind: FailureKind::Internal, message }
}

impl Handler<TracedMessage<BeginSeedImageImport>> for Registry {
    type Result = Changed<Option<SeedImageRecord>, AddSeedRefused>;
    fn handle(
        &mut self,
        received: TracedMessage<BeginSeedImageImport>,
        _: &mut Context<Self>,
    ) -> Self::Result {
        let _in = received.span.enter();
        let BeginSeedImageImport { name, sha256, by } = received.message;
        if self.inventory.is_seed_unreadable(&name) {
            return at_once(Err(unreadable(&name).into()));
        }
        match self.inventory.add_seed(&name, &sha256, &by) {
            Err(refusal) => at_once(Err(ErrorReply::Refused(refusal))),
            Ok(None) => at_once(Ok(None)),
            Ok(Some(record)) => self.write_row(record.clone(), Some(record)),
        }
    }
}

impl Handler<TracedMessage<PutSeedImageRecord>> for Registry {
    type Result = Changed<SeedImageRecord, AddSeedRefused>;
    fn handle(&mut self, received: TracedMessage<PutSeedImageRecord>, _: &mut Context<Self>) -> Self::Result {
        let _in = received.span.enter();
        let PutSeedImageRecord(record) = received.message;
        self.write_row(record.clone(), record)
    }
}

impl Handler<TracedMessage<RemoveSeedImageImport>> for Registry {
    type Result = Changed<(), AddSeedRefused>;
    fn handle(
        &mut self,
        received: TracedMessage<RemoveSeedImageImport>,
        _: &mut Context<Self>,
    ) -> Self::Result {
        let _in = received.span.enter();
        let RemoveSeedImageImport { name, by } = received.message;
        match self.inventory.seed(&name) {
            Some(
                SeedImageRecord::Importing { by: owner, .. } | SeedImageRecord::Imported { by: owner, .. },
            ) if *owner == by => self.remove_row(name, ()),
            _ => at_once(Ok(())),
        }
    }
}

impl Handler<TracedMessage<RemoveSeedImageRecord>> for Registry {
    type Result = Changed<(Seed, bool), RemoveSeedRefused>;
    fn handle(
        &mut self,
        received: TracedMessage<RemoveSeedImageRecord>,
        _: &mut Context<Self>,
    ) -> Self::Result {
        let _in = received.span.enter();
        let RemoveSeedImageRecord(name) = received.message;
        if self.inventory.is_seed_unreadable(&name) {
            return at_once(Err(unreadable(&name).into()));
        }
        match self.inventory.remove_seed(&name) {
            Err(refusal) => at_once(Err(ErrorReply::Refused(refusal))),
            Ok(seed) => {
                let mut after = self.inventory.clone();
                after.forget_seed(&name);
                let needed = after.needs_image(&seed.sha256);
                self.remove_row(name, (seed, needed))
            }
        }
    }
}
