use crate::env::Tick;
use hashbrown::HashTable;
use std::time::Duration;

/// How many keys may be paused at once. With so many failing, no other is tried in the background either.
const MOST: usize = 4096;

/// Keys whose load failed a moment ago, so that for a while what is there is served without trying again. A key is told
/// by its hash: one that shares it waits with it. 16 bytes for each.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    until: HashTable<(u64, Tick)>,
    /// Before this none of them ends, so that a full table is not searched for such.
    first_end: Tick,
}

impl Pauses {
    /// Notes that the load of a key failed at `now`.
    pub(super) fn begin(&mut self, hash: u64, now: Tick, pause: Duration) {
        if pause.is_zero() {
            return;
        }
        let is_full = self.is_full(now);
        let until = now + pause;
        if let Some(known) = self.until.find_mut(hash, |(paused, _)| *paused == hash) {
            known.1 = until;
        } else if !is_full {
            self.until.insert_unique(hash, (hash, until), |(hash, _)| *hash);
        }
    }

    /// Notes that the load of a key succeeded.
    pub(super) fn end(&mut self, hash: u64) {
        if let Ok(known) = self.until.find_entry(hash, |(paused, _)| *paused == hash) {
            known.remove();
        }
    }

    /// Whether a key is not to be tried at `now`.
    pub(super) fn is_paused(&mut self, hash: u64, now: Tick) -> bool {
        let is_full = self.is_full(now);
        let known = self.until.find(hash, |(paused, _)| *paused == hash);
        known.map_or(is_full, |(_, until)| *until > now)
    }

    /// Whether there is no room for another at `now`; makes room if it can.
    fn is_full(&mut self, now: Tick) -> bool {
        if self.until.len() >= MOST && self.first_end <= now {
            let mut first_end = Tick::MAX;
            self.until.retain(|(_, until)| {
                let lasts = *until > now;
                if lasts {
                    first_end = first_end.min(*until);
                }
                lasts
            });
            self.first_end = first_end;
        }
        self.until.len() >= MOST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_paused_for_its_time() {
        let mut pauses = Pauses::default();
        let pause = Duration::from_nanos(10);
        let at = Tick::from_nanos;
        pauses.begin(7, at(100), pause);
        assert!(pauses.is_paused(7, at(109)) && !pauses.is_paused(7, at(110)) && !pauses.is_paused(8, at(100)));
        pauses.begin(7, at(105), pause);
        assert!(pauses.is_paused(7, at(114)));
        pauses.end(7);
        assert!(!pauses.is_paused(7, at(106)));
        pauses.begin(7, at(105), Duration::ZERO);
        assert!(!pauses.is_paused(7, at(105)));
    }

    #[test]
    fn they_are_bounded_and_when_full_pause_all() {
        let mut pauses = Pauses::default();
        let (now, later) = (Tick::from_nanos(100), Tick::from_nanos(200));
        (0..2 * MOST as u64).for_each(|key| pauses.begin(key, now, later - now));
        assert_eq!(pauses.until.len(), MOST);
        assert!(pauses.is_paused(u64::MAX, now) && pauses.first_end == later);
        assert!(!pauses.is_paused(u64::MAX, later));
        assert_eq!(pauses.until.len(), 0);
    }
}
