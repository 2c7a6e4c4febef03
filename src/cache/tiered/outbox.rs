use crate::cache::bus::Notice;
use crate::sync::{Mutex, Waiters};
use bytes::Bytes;
use std::collections::VecDeque;

/// The most keys that wait; more, and others are told that anything may have been written.
const MAX_WAITING: usize = 65_536;
/// The most keys, and about the most bytes, of one message.
const MAX_KEYS: usize = 1_000;
const MAX_BYTES: usize = 64 << 10;

/// What others have to be told, in order, until it was said.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    state: Mutex<State>,
    news: Waiters,
    said: Waiters,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Bytes>,
    /// Everything, said before whatever else waits.
    everything: bool,
    /// How many were ever put in, and how many of those were said or given up.
    put: u64,
    said: u64,
    closed: bool,
}

/// The place of what was put in last: reached when that was said.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place(u64);

/// What to say next, and the place that is reached with it.
#[derive(Debug)]
pub(super) struct Next {
    pub(super) notice: Notice,
    place: Place,
}

impl Outbox {
    /// Puts keys in, and says where they stand.
    pub(super) fn put(&self, keys: &[Bytes]) -> Place {
        let mut state = self.state.lock();
        state.put += keys.len() as u64;
        if state.waiting.len() + keys.len() > MAX_WAITING {
            state.waiting.clear();
            state.everything = true;
        } else if !state.everything {
            state.waiting.extend(keys.iter().cloned());
        }
        let place = Place(state.put);
        drop(state);
        self.news.wake(1);
        place
    }

    /// Everything may have been written.
    pub(super) fn put_everything(&self) -> Place {
        let mut state = self.state.lock();
        state.put += 1;
        state.waiting.clear();
        state.everything = true;
        let place = Place(state.put);
        drop(state);
        self.news.wake(1);
        place
    }

    /// Takes out what to say next.
    pub(super) fn take(&self) -> Option<Next> {
        let mut state = self.state.lock();
        let notice = if std::mem::take(&mut state.everything) {
            Notice::Everything
        } else {
            let mut bytes = 0;
            let fits = |key: &&Bytes| {
                let fits = bytes < MAX_BYTES;
                bytes += key.len();
                fits
            };
            let count = state.waiting.iter().take(MAX_KEYS).take_while(fits).count();
            if count == 0 {
                return None;
            }
            Notice::Keys(state.waiting.drain(..count).collect())
        };
        let place = Place(state.put - state.waiting.len() as u64);
        Some(Next { notice, place })
    }

    /// Waits for something to say, or for the end.
    pub(super) async fn news(&self) {
        self.news
            .wait(|| {
                let state = self.state.lock();
                (state.everything || !state.waiting.is_empty()).then_some(())
            })
            .await;
    }

    /// Notes that `next` was said, or that it cannot be.
    pub(super) fn done(&self, next: &Next) {
        self.state.lock().said = next.place.0;
        self.said.wake_all();
    }

    /// Waits until what was put in up to `place` was said.
    pub(super) async fn reached(&self, place: Place) {
        self.said
            .wait(|| {
                let state = self.state.lock();
                (state.closed || state.said >= place.0).then_some(())
            })
            .await;
    }

    /// Nobody says anything any more.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.said.wake_all();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn keys(range: std::ops::Range<usize>) -> Vec<Bytes> {
        range.map(|n| Bytes::from(n.to_string())).collect()
    }

    #[test]
    fn what_waits_is_said_together_and_in_order() {
        let outbox = Outbox::default();
        assert!(outbox.take().is_none() && outbox.news().now_or_never().is_none());
        let first = outbox.put(&keys(0..900));
        let second = outbox.put(&keys(900..1_500));
        assert!(outbox.news().now_or_never().is_some());
        let next = outbox.take().unwrap();
        assert_eq!(next.notice, Notice::Keys(keys(0..1_000)));
        assert!(outbox.reached(first).now_or_never().is_none());
        outbox.done(&next);
        assert!(outbox.reached(first).now_or_never().is_some());
        assert!(outbox.reached(second).now_or_never().is_none());
        let next = outbox.take().unwrap();
        assert_eq!(next.notice, Notice::Keys(keys(1_000..1_500)));
        outbox.done(&next);
        assert!(outbox.reached(second).now_or_never().is_some());
    }

    #[test]
    fn long_keys_make_short_messages() {
        let outbox = Outbox::default();
        let long = Bytes::from(vec![0; MAX_BYTES]);
        outbox.put(&[long.clone(), "a".into(), long]);
        let mut counts = Vec::new();
        while let Some(next) = outbox.take() {
            let Notice::Keys(keys) = next.notice else { panic!() };
            counts.push(keys.len());
        }
        assert_eq!(counts, [1, 2]);
    }

    #[test]
    fn too_much_becomes_everything() {
        let outbox = Outbox::default();
        outbox.put(&keys(0..MAX_WAITING));
        let place = outbox.put(&keys(0..1));
        let after = outbox.put(&keys(0..2));
        let next = outbox.take().unwrap();
        assert_eq!(next.notice, Notice::Everything);
        outbox.done(&next);
        assert!(outbox.reached(place).now_or_never().is_some() && outbox.reached(after).now_or_never().is_some());
        assert!(outbox.take().is_none());

        outbox.put(&keys(0..2));
        let place = outbox.put_everything();
        assert_eq!(outbox.take().unwrap().notice, Notice::Everything);
        assert!(outbox.take().is_none());
        assert!(outbox.reached(place).now_or_never().is_none());
        outbox.close();
        assert!(
            outbox.reached(place).now_or_never().is_some(),
            "nobody waits for what will not be said"
        );
    }
}
