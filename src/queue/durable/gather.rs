//! Acknowledgements that return when they are on disk: those that come together go there together, as one entry.
//!
//! The first of a gathering lets other tasks go first, and appends what has come by then. The pump does that in its place
//! when its future is dropped, and also when nobody polls that: whoever waits with it must not wait for that.

use super::acks::{Ack, Acks};
use super::fate::{Fate, Seat};
use super::record::SubId;
use super::shell::{Core, Effect, InFlight, Shell};
use crate::env::{Tick, give_way, may_work_here};
use crate::log::LogError;
use crate::queue::{Error, Result};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// The most acknowledgements of one gathering: what they take fits into an append, however many subscriptions they are of.
const MOST: usize = 4_096;

/// Acknowledgements on their way into the log, and what becomes of them.
#[derive(Debug)]
pub(super) struct Gathering {
    acks: Acks,
    len: usize,
    pub(super) fate: Arc<Fate>,
}

/// A place in a gathering.
#[must_use]
pub(super) struct Joined {
    seat: Seat,
    pub(super) is_first: bool,
}

/// Waits for what becomes of a gathering. It is small, since there are many of them.
pub(super) struct Gathered<'a> {
    seat: Seat,
    /// Of the first.
    writing: Option<BoxFuture<'a, ()>>,
}

impl Future for Gathered<'_> {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        loop {
            // The first sits first, and so hears first: whoever waits for many in their order need not keep what the others
            // have heard.
            let heard = self.seat.poll_unpin(cx);
            let Some(writing) = self.writing.as_mut().filter(|_| heard.is_pending()) else {
                return heard;
            };
            ready!(writing.poll_unpin(cx));
            self.writing = None;
        }
    }
}

impl Core {
    /// A message was acknowledged, and somebody waits until the log knows.
    pub(super) fn gather(&mut self, id: SubId, ack: Ack, now: impl FnOnce() -> Tick) -> Joined {
        let open = self.untold.gatherings.last_mut().filter(|open| open.len < MOST);
        if let Some(open) = open {
            open.len += 1;
            open.acks.add(id, ack);
            return Joined {
                seat: open.fate.wait(),
                is_first: false,
            };
        }
        let mut new = Gathering {
            acks: Acks::default(),
            len: 1,
            fate: Arc::default(),
        };
        new.acks.add(id, ack);
        let seat = new.fate.wait();
        self.untold.gatherings.push(new);
        self.untold.due(now());
        Joined { seat, is_first: true }
    }

    fn take_gathering(&mut self, fate: &Arc<Fate>) -> Option<Gathering> {
        let is_it = |gathering: &Gathering| Arc::ptr_eq(&gathering.fate, fate);
        let at = self.untold.gatherings.iter().position(is_it)?;
        Some(self.untold.gatherings.remove(at))
    }
}

impl Shell {
    /// Waits until an acknowledgement is in the log and on disk.
    ///
    /// # Cancel safety
    /// Dropped, it takes nothing back, and the others of its gathering hear what becomes of theirs.
    pub(super) fn gathered(self: &Arc<Self>, joined: Joined) -> Gathered<'_> {
        let Joined { seat, is_first } = joined;
        let write = || self.write_as_first(Arc::clone(seat.fate())).boxed();
        let writing = is_first.then(write);
        Gathered { seat, writing }
    }

    async fn write_as_first(self: &Arc<Self>, fate: Arc<Fate>) {
        let fate = &fate;
        let _first = First { shell: self, fate };
        // A thread that has nothing else to do has nothing to wait for.
        if !may_work_here() {
            give_way().await;
        }
        if let Some(append) = self.write_gathering(fate).await {
            // It is told as everybody's fate.
            drop(append.done().await);
        }
    }

    /// Appends a gathering, unless somebody has. Whoever is in it hears it when it fails.
    pub(super) async fn write_gathering(self: &Arc<Self>, fate: &Arc<Fate>) -> Option<InFlight> {
        loop {
            let room = {
                let mut core = self.core.lock();
                let gathering = core.take_gathering(fate)?;
                let effect = Effect::Acked(gathering.acks.clone());
                match self.append_effect(&mut core, &gathering.acks.entries(), effect) {
                    Ok(append) => {
                        core.follow(&append, gathering.fate);
                        return Some(append);
                    }
                    Err(LogError::Busy { len, .. }) => {
                        core.untold.gatherings.push(gathering);
                        len
                    }
                    Err(error) => {
                        fate.tell(Err(Error::from(error)));
                        drop(core);
                        fate.wake();
                        return None;
                    }
                }
            };
            self.log.room(room).await;
        }
    }
}

/// The one that is to append a gathering; when it goes away, the pump does.
struct First<'a> {
    shell: &'a Shell,
    fate: &'a Arc<Fate>,
}

impl Drop for First<'_> {
    fn drop(&mut self) {
        let mut core = self.shell.core.lock();
        let is_it = |open: &Gathering| Arc::ptr_eq(&open.fate, self.fate);
        if core.untold.gatherings.iter().any(is_it) {
            core.untold.at = Some(self.shell.env.now());
            self.shell.tell(core, None);
        }
    }
}
