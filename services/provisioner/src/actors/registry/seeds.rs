//! The registry's handlers about seeds.

use actix::fut::wrap_future;
use actix::{ActorFutureExt, AtomicResponse, Context, Handler};
use actor::Traced;
use bus::Declined;
use contract::SeedName;
use contract::provisioner::{AddSeedRefused, RemoveSeedRefused, Seed};
use provisioner_domain::SeedRecord;

use super::messages::{AnnounceSeed, RemoveSeedRecord, StoreSeed, WithdrawSeed};
use super::{Changed, Registry, at_once, unavailable};

impl Registry {
    fn write_row<T: 'static, R: 'static>(&self, record: SeedRecord, answer: T) -> Changed<T, R> {
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
            Err(error) => Err(unavailable(&error)),
        })))
    }

    fn remove_row<T: 'static, R: 'static>(&self, name: SeedName, answer: T) -> Changed<T, R> {
        let over = self.seed_revisions.get(&name).copied().unwrap_or(0);
        let table = self.seeds.clone();
        let work = async move { table.remove(name.as_str(), over).await.map(|()| name) };
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

impl Handler<Traced<AnnounceSeed>> for Registry {
    type Result = Changed<Option<SeedRecord>, AddSeedRefused>;
    fn handle(&mut self, received: Traced<AnnounceSeed>, _: &mut Context<Self>) -> Self::Result {
        let _in = received.span.enter();
        let AnnounceSeed { name, sha256, by } = received.message;
        match self.inventory.add_seed(&name, &sha256, &by) {
            Err(refusal) => at_once(Err(Declined::Refused(refusal))),
            Ok(None) => at_once(Ok(None)),
            Ok(Some(record)) => self.write_row(record.clone(), Some(record)),
        }
    }
}

impl Handler<Traced<StoreSeed>> for Registry {
    type Result = Changed<SeedRecord, AddSeedRefused>;
    fn handle(&mut self, received: Traced<StoreSeed>, _: &mut Context<Self>) -> Self::Result {
        let _in = received.span.enter();
        let StoreSeed(record) = received.message;
        self.write_row(record.clone(), record)
    }
}

impl Handler<Traced<WithdrawSeed>> for Registry {
    type Result = Changed<(), AddSeedRefused>;
    fn handle(&mut self, received: Traced<WithdrawSeed>, _: &mut Context<Self>) -> Self::Result {
        let _in = received.span.enter();
        let WithdrawSeed { name, by } = received.message;
        match self.inventory.seed(&name) {
            Some(SeedRecord::Importing { by: owner, .. } | SeedRecord::Imported { by: owner, .. })
                if *owner == by =>
            {
                self.remove_row(name, ())
            }
            _ => at_once(Ok(())),
        }
    }
}

impl Handler<Traced<RemoveSeedRecord>> for Registry {
    type Result = Changed<(Seed, bool), RemoveSeedRefused>;
    fn handle(&mut self, received: Traced<RemoveSeedRecord>, _: &mut Context<Self>) -> Self::Result {
        let _in = received.span.enter();
        let RemoveSeedRecord(name) = received.message;
        match self.inventory.remove_seed(&name) {
            Err(refusal) => at_once(Err(Declined::Refused(refusal))),
            Ok(seed) => {
                let mut after = self.inventory.clone();
                after.forget_seed(&name);
                let needed = after.needs_image(&seed.sha256);
                self.remove_row(name, (seed, needed))
            }
        }
    }
}
