//! What becomes of deliveries.

use super::acks::Ack;
use super::gather::{Gathered, Joined};
use super::heart::standing::{Lost, Standing};
use super::heart::state::Dying;
use super::record::SubId;
use super::shell::{Core, Shell};
use crate::env::Tick;
use crate::log::Durability;
use crate::queue::{DeliveryToken, Error, Result, Settle};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// More than the cheap clock is ever behind.
const COARSE: Duration = Duration::from_millis(100);

/// Settles a delivery, from the first poll on. It is small: there may be very many that wait for the disk.
#[must_use = "nothing is settled before the first poll"]
pub(super) struct Settling<'s, 't> {
    shell: &'s Arc<Shell>,
    token: &'t DeliveryToken,
    state: State<'s>,
}

enum State<'s> {
    Asked(Settle),
    /// In memory, and on its way to the disk.
    Acked(Gathered<'s>),
    /// On its way to the dead letters.
    Buried(BoxFuture<'s, Result<()>>),
    Done(Result<()>),
}

impl Future for Settling<'_, '_> {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let Settling { shell, token, state } = &mut *self;
        if let State::Asked(settle) = state {
            let settle = std::mem::replace(settle, Settle::Ack);
            *state = shell
                .begin(token, settle)
                .unwrap_or_else(|error| State::Done(Err(error)));
        }
        match state {
            State::Acked(gathered) => gathered.poll_unpin(cx),
            State::Buried(buried) => buried.poll_unpin(cx),
            State::Done(result) => Poll::Ready(result.clone()),
            State::Asked(_) => unreachable!("it has begun"),
        }
    }
}

impl Shell {
    pub(super) fn settle<'s, 't>(self: &'s Arc<Self>, token: &'t DeliveryToken, settle: Settle) -> Settling<'s, 't> {
        Settling {
            shell: self,
            token,
            state: State::Asked(settle),
        }
    }

    fn begin<'a>(self: &'a Arc<Self>, token: &DeliveryToken, settle: Settle) -> Result<State<'a>> {
        let (seq, generation) = (token.seq, token.generation);
        let now = || self.env.now();
        let joined = match settle {
            Settle::Ack => self.ack(token, Ack::One(seq))?,
            Settle::AckThrough => self.ack(token, Ack::Through(seq))?,
            Settle::DeadLetter { reason } => {
                let bury = |standing: &mut Standing| standing.bury(seq, generation);
                let (id, attempts) = self.change(token, now(), bury, |_, _| true)?;
                let buried = async move { self.bury(Dying { id, seq, attempts }, &reason).await };
                return Ok(State::Buried(buried.boxed()));
            }
            Settle::Retry { after } => {
                let now = now();
                let retry = |standing: &mut Standing| standing.retry(seq, generation, now + after);
                self.change(token, now, retry, |_, _| true)?;
                None
            }
            Settle::Extend { by } => {
                let now = now();
                let extend = |standing: &mut Standing| standing.extend(seq, generation, now + by);
                self.change(token, now, extend, |_, _| true)?;
                None
            }
        };
        Ok(joined.map_or(State::Done(Ok(())), |joined| State::Acked(self.gathered(joined))))
    }

    /// Settles a delivery for good; says what to wait for, if anything.
    fn ack(&self, token: &DeliveryToken, ack: Ack) -> Result<Option<Joined>> {
        let change = |standing: &mut Standing| match ack {
            Ack::One(seq) => standing.ack(seq, token.generation),
            Ack::Through(seq) => standing.ack_through(seq, token.generation),
        };
        // Done in memory first, and whatever becomes of the record: the work is done, so this process must not do it
        // again. The record keeps the next process from doing it.
        let mut joined = None;
        self.change(token, None, change, |core, id| {
            let now = || self.env.now();
            core.counts.acked += 1;
            let tidies = core.tidy_at.is_none();
            if tidies {
                core.settled(now());
            }
            match self.settings.ack_durability {
                Durability::Disk => joined = Some(core.gather(id, ack, now)),
                Durability::Os => core.untold.acked(id, ack, now),
            }
            // The first of a gathering tells the pump for all of them.
            tidies || joined.as_ref().is_none_or(|joined| joined.is_first)
        })?;
        Ok(joined)
    }

    pub(super) fn release(&self, token: &DeliveryToken) {
        // One that has lost its lease has nothing to give back.
        let release = |standing: &mut Standing| standing.release(token.seq, token.generation);
        drop(self.change(token, self.env.now(), release, |_, _| true));
    }

    /// Changes the state of a delivery that still holds its lease, and what else is `then` to change, which says whether
    /// there may be something to tell the pump.
    fn change<T>(
        &self,
        token: &DeliveryToken,
        now: impl Into<Option<Tick>>,
        change: impl FnOnce(&mut Standing) -> Result<T, Lost>,
        then: impl FnOnce(&mut Core, SubId) -> bool,
    ) -> Result<(SubId, T)> {
        let mut core = self.core.lock();
        if core.closed {
            return Err(Error::Closed);
        }
        let now = now.into();
        if now.is_some() || core.untold.gatherings.is_empty() {
            // Else it is one of several acknowledgements: the first of them has just looked, and all hear what becomes of
            // what it appends.
            self.log.check()?;
        }
        let lost = Error::LeaseLost { seq: token.seq };
        let found = core
            .state
            .of_generation(token.generation, &token.topic, &token.subscription);
        let Some((id, ends)) = found else { return Err(lost) };
        let now = now.unwrap_or_else(|| self.now_before(ends));
        let changed = core.state.settle(now, id, change);
        let pump = changed.is_err() || then(&mut core, id);
        self.nudge_both(core, id, pump);
        Ok((id, changed.map_err(|Lost| lost)?))
    }

    /// What time it is; not exactly, if that tells as well that the first of some leases has not ended.
    fn now_before(&self, ends: Option<Tick>) -> Tick {
        let coarse = self.env.coarse();
        match ends.is_some_and(|ends| ends > coarse + COARSE) {
            true => coarse,
            false => self.env.now(),
        }
    }
}
