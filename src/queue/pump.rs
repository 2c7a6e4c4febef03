//! The background task of the durable queue: it ends leases, buries what has used up its attempts, sees appends through
//! whose callers went away, and frees space.

use super::record::{Record, SubId};
use super::shell::Shell;
use super::state::Dying;
use crate::env::{Env, Tick};
use crate::log::{Append, LogError};
use bytes::Bytes;
use futures::future::{Either, join_all, pending, select};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

/// Dead letters on their way at once.
const BURIED_AT_ONCE: usize = 64;
/// The most bytes of one append of standings.
const CHUNK: usize = 512 << 10;
/// How long after a failure the pump tries again to free space.
const TIDY_AGAIN: Duration = Duration::from_secs(1);

enum Chore {
    Stop,
    /// Something will be due earlier than expected.
    Rearm,
    Finish(Vec<(u64, Append)>),
    Bury(Vec<Dying>),
}

/// Works until the queue is closed.
pub(super) async fn run(shell: Arc<Shell>) {
    loop {
        let until = shell.next_due();
        let chore = pin!(shell.pump.wait(|| shell.chore()));
        match select(chore, pin!(due(&shell.env, until))).await {
            Either::Left((Chore::Stop, _)) => return,
            Either::Left((Chore::Rearm, _)) => {}
            Either::Left((Chore::Finish(appends), _)) => {
                let finish = appends.into_iter().map(|(id, append)| shell.finish(id, append));
                join_all(finish).await;
            }
            Either::Left((Chore::Bury(dying), _)) => {
                for some in dying.chunks(BURIED_AT_ONCE) {
                    // One that fails waits and comes again.
                    let bury = some.iter().map(|dying| shell.bury(*dying, "its attempts are used up"));
                    join_all(bury).await;
                }
            }
            Either::Right(_) => shell.due().await,
        }
    }
}

async fn due(env: &Env, until: Option<Tick>) {
    match until {
        Some(until) => env.sleep_until(until).await,
        None => pending().await,
    }
}

impl Shell {
    fn next_due(&self) -> Option<Tick> {
        let mut core = self.core.lock();
        let next = core.next_due(&self.env);
        core.pump_until = next;
        core.rearm = false;
        next
    }

    fn chore(&self) -> Option<Chore> {
        let mut core = self.core.lock();
        if core.closed {
            return Some(Chore::Stop);
        }
        if !core.orphans.is_empty() {
            return Some(Chore::Finish(std::mem::take(&mut core.orphans)));
        }
        if core.state.has_dying() {
            return Some(Chore::Bury(core.state.dying()));
        }
        std::mem::take(&mut core.rearm).then_some(Chore::Rearm)
    }

    async fn finish(&self, id: u64, append: Append) {
        let done = append.await.is_ok();
        self.complete(id, done);
    }

    /// A timer has fired.
    async fn due(&self) {
        let now = self.env.now();
        let (freed, tidy): (Vec<(SubId, usize)>, bool) = {
            let mut core = self.core.lock();
            let freed = core.state.expire(now, self.env.wall());
            let tidy = core.tidy_at.is_some_and(|at| at <= now);
            core.tidy_at = core.tidy_at.filter(|_| !tidy);
            (freed, tidy)
        };
        self.tell(self.core.lock(), freed);
        if tidy && self.tidy().await.is_err() {
            self.core.lock().tidy_at.get_or_insert(self.env.now() + TIDY_AGAIN);
        }
    }

    /// Frees the segments that nobody needs. What their records said of subscriptions is written anew first.
    async fn tidy(&self) -> Result<(), LogError> {
        let (appends, oldest) = {
            let mut core = self.core.lock();
            core.state.trim(|_| false);
            let mut next = self.log.range().end;
            core.forget_failed(next, self.env.now());
            let end = core.settled_end(self.log.durable());
            let oldest = core.state.oldest(end);
            let first_time = !std::mem::replace(&mut core.stood, true);
            if !first_time && !self.log.frees(oldest) {
                return Ok(());
            }
            // Under the lock: what comes later in the log must also be later than what these say, and they are true only
            // if all that is pending comes to be.
            let mut appends = Vec::new();
            for chunk in chunks(core.standings().iter().map(Record::encode).collect()) {
                let append = self.log.append_at(next, chunk)?.ok_or(LogError::Full)?;
                next = append.seqs().end;
                appends.push(append);
            }
            (appends, oldest)
        };
        let first = appends.first().map_or(u64::MAX, |append| append.seqs().start);
        for append in appends {
            append.await?;
        }
        self.log.release_before(oldest.min(first)).await
    }
}

/// Splits entries into appends of a bounded size.
fn chunks(entries: Vec<Bytes>) -> Vec<Vec<Bytes>> {
    let mut chunks: Vec<Vec<Bytes>> = Vec::new();
    let mut size = CHUNK;
    for entry in entries {
        if size + entry.len() > CHUNK {
            chunks.push(Vec::new());
            size = 0;
        }
        size += entry.len() + 8;
        chunks.last_mut().expect("one was just pushed").push(entry);
    }
    chunks
}
