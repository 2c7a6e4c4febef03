//! Deliveries of which the log does not know yet.
//!
//! A crash may forget that there were attempts which the log has not heard of. So it hears at once of those that may be
//! about to crash the process again: of messages that were there when the queue was opened, and of every attempt but the
//! first. Of the others it hears soon, and never of those that are settled by then, which most are.

use super::record::{Record, SubId};
use super::shell::{Core, Room, Shell};
use crate::env::Tick;
use crate::log::{Durability, Entry, LogError};

/// The most deliveries of one record, and how many of a subscription the log hears of without delay.
const MOST: usize = 10_000;

impl Core {
    /// Messages have been delivered. Returns what the log has to hear at once.
    pub(super) fn given(&mut self, id: SubId, mut attempts: Vec<(u64, u32)>, now: Tick) -> Vec<(u64, u32)> {
        let opened_at = self.untold.opened_at;
        let may_wait = |(seq, attempt): &(u64, u32)| *attempt == 1 && *seq >= opened_at;
        if attempts.iter().any(may_wait) {
            let given = self.untold.given.entry(id).or_default();
            given.extend(attempts.iter().filter(|given| may_wait(given)).map(|(seq, _)| seq));
            attempts.retain(|given| !may_wait(given));
            if given.len() >= MOST {
                self.untold.at = Some(now);
            }
            self.untold.due(now);
        }
        attempts
    }
}

impl Shell {
    /// Tells the log of the deliveries that are not settled. Nobody waits for that.
    pub(super) async fn write_given(&self) {
        loop {
            match self.try_write_given() {
                Ok(true) => {}
                Ok(false) => return,
                Err(LogError::Busy { len, .. }) => self.log.room(len).await,
                // It is forgotten, as in a crash.
                Err(_) => {}
            }
        }
    }

    /// Tells it of some; says whether there were any.
    fn try_write_given(&self) -> Result<bool, LogError> {
        let mut core = self.core.lock();
        let Some((id, mut seqs)) = core.untold.given.pop_first() else {
            return Ok(false);
        };
        if seqs.len() > MOST {
            core.untold.given.insert(id, seqs.split_off(MOST));
        }
        let standing = core.state.subscriptions.get(&id);
        let tries = |seq: &u64| Some((*seq, standing?.tries(*seq)?));
        let attempts = seqs.iter().filter_map(tries);
        let attempts: Vec<_> = attempts.filter(|(_, tries)| *tries > 0).collect();
        if attempts.is_empty() {
            return Ok(true);
        }
        // Under the same lock: what is settled later is to be later in the log.
        let entry: [Entry; 1] = [Record::Delivered { id, attempts }.encode().into()];
        let append = self.append_locked(&mut core, &entry[..], Durability::Os, Room::Common);
        if let Err(LogError::Busy { .. }) = append {
            core.untold.given.entry(id).or_default().extend(seqs);
        }
        drop(core);
        append.map(|_on_its_way| true)
    }
}

#[cfg(all(test, feature = "sim"))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use crate::queue::durable::testing::{SECOND, next, open, subscribe};
    use crate::queue::{Queue, Subscription, dead_letters};
    use crate::sim::{Machine, World};
    use std::time::Duration;

    const MILLI: Duration = Duration::from_millis(1);

    /// Gets the only message, and is killed a millisecond later. Says which attempt it was, if there was one.
    async fn die_of_it(machine: &Machine) -> Option<u32> {
        let env = machine.env();
        let queue = open(&env).await;
        let mut from = Subscription::new("t", "s");
        from.max_attempts = 3;
        queue.subscribe(&from).await.unwrap();
        let got = queue.receive(&from, 1, SECOND).await.unwrap();
        env.sleep(MILLI).await;
        machine.kill();
        got.first().map(|raw| raw.attempt)
    }

    #[test]
    fn a_message_that_kills_whoever_gets_it_is_buried() {
        let world = World::new(1);
        let machine = world.machine("node");
        world.run(async {
            let queue = open(&machine.env()).await;
            let from = subscribe(&queue, "t", "s").await;
            queue.topic("t").send("poison").await.unwrap();
            assert_eq!(queue.receive(&from, 1, SECOND).await.unwrap().len(), 1);
            machine.env().sleep(MILLI).await;
            machine.kill();
            let mut attempts = Vec::new();
            while let Some(attempt) = die_of_it(&machine).await {
                attempts.push(attempt);
            }
            assert_eq!(attempts, [1, 2, 3], "the one of the life that sent it is forgotten");
            let queue = open(&machine.env()).await;
            let dead = subscribe(&queue, &dead_letters("t"), "s").await;
            assert_eq!(next(&queue, &dead).await.unwrap().payload(), "poison");
        });
    }

    #[test]
    fn the_log_hears_soon_of_what_is_not_settled_and_never_of_what_is() {
        let world = World::new(2);
        let machine = world.machine("node");
        world.run(async {
            let env = machine.env();
            let queue = open(&env).await;
            let from = subscribe(&queue, "t", "s").await;
            queue.topic("t").send_all(["done", "given back", "held"]).await.unwrap();
            let before = queue.shell().log.range().end;
            next(&queue, &from).await.unwrap().ack().await.unwrap();
            env.sleep(SECOND).await;
            assert_eq!(queue.shell().log.range().end - before, 1, "only of the acknowledgement");
            drop(next(&queue, &from).await.unwrap());
            env.sleep(SECOND).await;
            let held = queue.receive(&from, 2, SECOND).await.unwrap();
            assert_eq!(held.iter().map(|raw| raw.attempt).collect::<Vec<_>>(), [2, 1]);
            env.sleep(10 * MILLI).await;
            machine.kill();
            let queue = open(&machine.env()).await;
            let again = queue.receive(&from, 3, SECOND).await.unwrap();
            let attempts: Vec<_> = again.iter().map(|raw| (raw.token.seq, raw.attempt)).collect();
            assert_eq!(attempts, [(held[0].token.seq, 3), (held[1].token.seq, 2)]);
        });
    }
}
