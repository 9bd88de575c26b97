//! The registry's seeds.

use actix::fut::wrap_future;
use actix::{ActorFutureExt, AtomicResponse, Context, Handler};
use actor::Traced;
use bus::Declined;
use contract::SeedName;
use contract::provisioner::{AddSeedRefused, RemoveSeedRefused, Seed};
use provisioner_domain::SeedRecord;

use super::messages::{ExpectSeed, KeepSeed, RemoveSeedRecord, UnexpectSeed};
use super::{Changed, Registry, at_once, table_down};

impl Registry {
    fn keep_seed<T: 'static, R: 'static>(&self, record: SeedRecord, answer: T) -> Changed<T, R> {
        if self.inventory.seed(record.name()) == Some(&record) {
            return at_once(Ok(answer));
        }
        let over = self.seed_revisions.get(record.name()).copied().unwrap_or(0);
        let table = self.seeds.clone();
        let work = async move {
            let written = table.update(record.name().as_str(), &record, over).await;
            written.map(|revision| (record, revision))
        };
        AtomicResponse::new(Box::pin(wrap_future::<_, Self>(work).map(|outcome, this, _| match outcome {
            Ok((record, revision)) => {
                this.seed_revisions.insert(record.name().clone(), revision);
                this.inventory.put_seed(record);
                Ok(answer)
            }
            Err(error) => Err(table_down(&error)),
        })))
    }

    fn drop_seed<T: 'static, R: 'static>(&self, name: SeedName, answer: T) -> Changed<T, R> {
        let over = self.seed_revisions.get(&name).copied().unwrap_or(0);
        let table = self.seeds.clone();
        let work = async move { table.remove(name.as_str(), over).await.map(|()| name) };
        AtomicResponse::new(Box::pin(wrap_future::<_, Self>(work).map(|outcome, this, _| match outcome {
            Ok(name) => {
                this.seed_revisions.remove(&name);
                this.inventory.forget_seed(&name);
                Ok(answer)
            }
            Err(error) => Err(table_down(&error)),
        })))
    }
}

impl Handler<Traced<ExpectSeed>> for Registry {
    type Result = Changed<Option<SeedRecord>, AddSeedRefused>;
    fn handle(&mut self, asked: Traced<ExpectSeed>, _: &mut Context<Self>) -> Self::Result {
        let _in = asked.span.enter();
        let ExpectSeed { name, sha256, by } = asked.message;
        match self.inventory.add_seed(&name, &sha256, &by) {
            Err(refusal) => at_once(Err(Declined::Refused(refusal))),
            Ok(None) => at_once(Ok(None)),
            Ok(Some(record)) => self.keep_seed(record.clone(), Some(record)),
        }
    }
}

impl Handler<Traced<KeepSeed>> for Registry {
    type Result = Changed<SeedRecord, AddSeedRefused>;
    fn handle(&mut self, asked: Traced<KeepSeed>, _: &mut Context<Self>) -> Self::Result {
        let _in = asked.span.enter();
        let KeepSeed(record) = asked.message;
        self.keep_seed(record.clone(), record)
    }
}

impl Handler<Traced<UnexpectSeed>> for Registry {
    type Result = Changed<(), AddSeedRefused>;
    fn handle(&mut self, asked: Traced<UnexpectSeed>, _: &mut Context<Self>) -> Self::Result {
        let _in = asked.span.enter();
        let UnexpectSeed { name, by } = asked.message;
        match self.inventory.seed(&name) {
            Some(SeedRecord::Importing { by: owner, .. } | SeedRecord::Here { by: owner, .. })
                if *owner == by =>
            {
                self.drop_seed(name, ())
            }
            _ => at_once(Ok(())),
        }
    }
}

impl Handler<Traced<RemoveSeedRecord>> for Registry {
    type Result = Changed<(Seed, bool), RemoveSeedRefused>;
    fn handle(&mut self, asked: Traced<RemoveSeedRecord>, _: &mut Context<Self>) -> Self::Result {
        let _in = asked.span.enter();
        let RemoveSeedRecord(name) = asked.message;
        match self.inventory.remove_seed(&name) {
            Err(refusal) => at_once(Err(Declined::Refused(refusal))),
            Ok(seed) => {
                let mut after = self.inventory.clone();
                after.forget_seed(&name);
                let needed = after.needs_image(&seed.sha256);
                self.drop_seed(name, (seed, needed))
            }
        }
    }
}
