//! What the log is to be told soon: acknowledgements, and deliveries.

use super::acks::{Ack, Acks};
use super::gather::Gathering;
use super::record::SubId;
use super::shell::{Effect, InFlight, Shell};
use crate::env::Tick;
use crate::log::LogError;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long something stays in memory before the log is told.
const SOON: Duration = Duration::from_millis(5);
/// How many acknowledgements there may be in a subscription before the log gets them at once.
const AT_ONCE: usize = 4_096;

/// What the log has not been told yet.
#[derive(Debug, Default)]
pub(super) struct Untold {
    /// Acknowledgements that nobody waits for.
    acks: Acks,
    /// Acknowledgements that somebody waits for.
    pub(super) gatherings: Vec<Gathering>,
    /// Deliveries.
    pub(super) given: BTreeMap<SubId, Vec<u64>>,
    /// When to tell.
    pub(super) at: Option<Tick>,
    /// What has a lower number was there when the queue was opened.
    pub(super) opened_at: u64,
}

impl Untold {
    pub(super) fn is_empty(&self) -> bool {
        self.acks.is_empty() && self.gatherings.is_empty() && self.given.is_empty()
    }

    /// There is something to tell.
    pub(super) fn due(&mut self, now: Tick) {
        self.at.get_or_insert(now + SOON);
    }

    /// A message was acknowledged, and nobody waits until the log knows.
    pub(super) fn acked(&mut self, id: SubId, ack: Ack, now: impl FnOnce() -> Tick) {
        if self.acks.add(id, ack) >= AT_ONCE {
            self.at = Some(now());
        } else if self.at.is_none() {
            self.due(now());
        }
    }

    /// The log could not be told of acknowledgements. That is tried again at `later`.
    pub(super) fn again(&mut self, acks: Acks, later: Tick) {
        self.acks.add_all(acks);
        // Whoever waits for others must not wait for this.
        let before = self.at.filter(|at| *at < later && !self.gatherings.is_empty());
        self.at = Some(before.unwrap_or(later));
    }
}

impl Shell {
    /// Tells all.
    pub(super) async fn write_untold(self: &Arc<Self>) -> Vec<InFlight> {
        // First what forgets when to tell: whatever has come before that is told now.
        let mut appends = Vec::from_iter(self.write_acks().await);
        self.write_given().await;
        let gatherings = |untold: &Untold| untold.gatherings.iter().map(|open| Arc::clone(&open.fate)).collect();
        let fates: Vec<_> = gatherings(&self.core.lock().untold);
        for fate in fates {
            appends.extend(self.write_gathering(&fate).await);
        }
        appends
    }

    /// Gives the log the acknowledgements that wait in memory.
    async fn write_acks(self: &Arc<Self>) -> Option<InFlight> {
        loop {
            let room = {
                let mut core = self.core.lock();
                let acks = std::mem::take(&mut core.untold.acks);
                core.untold.at = None;
                if acks.is_empty() {
                    return None;
                }
                match self.append_effect(&mut core, &acks.entries(), Effect::Acked(acks.clone())) {
                    Ok(append) => return Some(append),
                    Err(LogError::Busy { len, .. }) => {
                        core.tell_again(acks, self.env.now());
                        len
                    }
                    Err(LogError::TooLarge { .. }) => {
                        let (some, rest) = acks.halves();
                        core.tell_again(rest, self.env.now());
                        let append = self.append_effect(&mut core, &some.entries(), Effect::Acked(some));
                        return append.ok();
                    }
                    // They hold in this process, and there will be no other chance to write them.
                    Err(_) => return None,
                }
            };
            self.log.room(room).await;
        }
    }
}
