use super::OnEmpty;
use crate::env::Tick;
use std::time::Duration;

/// What a pool's discovery has done, and how it is; part of [`Pool::status`](crate::balance::Pool::status).
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct DiscoveryStatus {
    /// The name that was given to the source.
    pub source: String,
    /// How it is.
    pub state: DiscoveryState,
    /// How long it has been so: while it is failing, since the first failure in a row.
    pub in_state: Duration,
    /// How long ago the set that the pool has was applied; none before the first.
    pub age: Option<Duration>,
    /// Sets applied.
    pub sets: u64,
    /// Items that were errors.
    pub failures: u64,
    /// Empty sets that were not applied.
    pub empty_kept: u64,
    /// What happens to an empty set.
    pub on_empty: OnEmpty,
    /// What the last error said, cut after 400 bytes; it stays after the recovery.
    pub last_error: Option<String>,
}

/// How a pool's discovery is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub enum DiscoveryState {
    /// The source has said nothing yet.
    Waiting,
    /// The pool has what the source said last.
    Current,
    /// The last item was an error; the pool keeps what it had.
    Failing,
    /// The last set was empty; the pool keeps what it had.
    EmptyKept,
    /// Nobody follows a source any more: the stream has ended, or the future was dropped.
    Ended,
}

/// What the follower of a pool writes down. Pure: time is an argument.
#[derive(Default)]
pub(in crate::balance) struct Journal {
    entry: Option<Entry>,
}

struct Entry {
    source: String,
    state: DiscoveryState,
    since: Tick,
    applied: Option<Tick>,
    sets: u64,
    failures: u64,
    empty_kept: u64,
    on_empty: OnEmpty,
    last_error: Option<String>,
}

impl Journal {
    pub(super) fn begin(&mut self, source: String, on_empty: OnEmpty, now: Tick) {
        self.entry = Some(Entry {
            source,
            state: DiscoveryState::Waiting,
            since: now,
            applied: None,
            sets: 0,
            failures: 0,
            empty_kept: 0,
            on_empty,
            last_error: None,
        });
    }

    pub(super) fn applied(&mut self, now: Tick) {
        self.enter(DiscoveryState::Current, now, |entry| {
            entry.sets += 1;
            entry.applied = Some(now);
        });
    }

    pub(super) fn failed(&mut self, error: String, now: Tick) {
        self.enter(DiscoveryState::Failing, now, |entry| {
            entry.failures += 1;
            entry.last_error = Some(error);
        });
    }

    pub(super) fn kept_for_empty(&mut self, now: Tick) {
        self.enter(DiscoveryState::EmptyKept, now, |entry| entry.empty_kept += 1);
    }

    pub(super) fn ended(&mut self, now: Tick) {
        self.enter(DiscoveryState::Ended, now, |_| ());
    }

    fn enter(&mut self, state: DiscoveryState, now: Tick, note: impl FnOnce(&mut Entry)) {
        let Some(entry) = &mut self.entry else { return };
        note(entry);
        if entry.state != state {
            entry.state = state;
            entry.since = now;
        }
    }

    pub(in crate::balance) fn status(&self, now: Tick) -> Option<DiscoveryStatus> {
        let entry = self.entry.as_ref()?;
        Some(DiscoveryStatus {
            source: entry.source.clone(),
            state: entry.state,
            in_state: now - entry.since,
            age: entry.applied.map(|applied| now - applied),
            sets: entry.sets,
            failures: entry.failures,
            empty_kept: entry.empty_kept,
            on_empty: entry.on_empty,
            last_error: entry.last_error.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Tick {
        Tick::ZERO + Duration::from_secs(secs)
    }

    #[test]
    fn a_row_of_failures_is_as_old_as_its_first_and_the_set_as_its_application() {
        let mut journal = Journal::default();
        assert_eq!(journal.status(at(0)), None);
        journal.begin("dns".into(), OnEmpty::Keep, at(0));
        journal.applied(at(1));
        journal.failed("one".into(), at(10));
        journal.failed("two".into(), at(20));
        let status = journal.status(at(25)).unwrap();
        assert_eq!(status.state, DiscoveryState::Failing);
        assert_eq!(status.in_state, Duration::from_secs(15));
        assert_eq!(status.age, Some(Duration::from_secs(24)));
        assert_eq!((status.sets, status.failures), (1, 2));
        assert_eq!(status.last_error.as_deref(), Some("two"));

        journal.applied(at(30));
        let status = journal.status(at(31)).unwrap();
        assert_eq!(status.state, DiscoveryState::Current);
        assert_eq!(status.in_state, Duration::from_secs(1));
        assert_eq!(status.last_error.as_deref(), Some("two"), "it stays to be read");
    }

    #[test]
    fn another_source_begins_anew() {
        let mut journal = Journal::default();
        journal.begin("a".into(), OnEmpty::Keep, at(0));
        journal.applied(at(1));
        journal.begin("b".into(), OnEmpty::Apply, at(2));
        let status = journal.status(at(2)).unwrap();
        assert_eq!((&*status.source, status.sets, status.age), ("b", 0, None));
        assert_eq!(status.on_empty, OnEmpty::Apply);
    }
}
