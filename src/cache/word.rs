use crate::sync::{AtomicU64, Ordering};

/// A deadline that never comes.
pub(super) const NEVER: u64 = LATEST;

/// Milliseconds since the cache was built: 34 years of them.
const LATEST: u64 = (1 << 40) - 1;
const NUMBER: u64 = (1 << MARK_SHIFT) - 1;
const MARK_SHIFT: u32 = 16;
const MARK_ONE: u64 = 1 << MARK_SHIFT;
/// The highest mark.
pub(super) const MARK_MAX: u8 = 15;
const MARK: u64 = (MARK_MAX as u64) << MARK_SHIFT;
const DEADLINE_SHIFT: u32 = 20;
const DEADLINE: u64 = LATEST << DEADLINE_SHIFT;
// Each of these is set in the common case, so that all of them, a deadline that never comes and a high mark are seen by one
// comparison.
const SLIDES_NOT: u64 = 1 << 60;
const NO_EXTRA: u64 = 1 << 61;
const PRESENT: u64 = 1 << 62;
const LIVE: u64 = 1 << 63;

/// What is kept beside an entry and read with it: when it expires, how often it was asked for lately, what it is, and the
/// number by which its policy knows it, which stays the same when the entry is written anew.
/// Eight bytes. Readers change the mark and, where it slides, the deadline; all else is the writer's.
#[derive(Debug, Default)]
pub(super) struct Word(AtomicU64);

/// A word as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reading(u64);

/// What an entry is, beside its pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Kind {
    /// Its key is known to have no value.
    pub(super) absent: bool,
    /// It has tags, or deadlines that the word does not hold.
    pub(super) extra: bool,
    /// Its deadline slides when it is asked for.
    pub(super) idle: bool,
}

/// What a word is not below when a hit changes nothing about its entry, since the mark is not below `mark`, and when there
/// is nothing to look at but the value: it is live, has one, and never expires.
pub(super) fn settled(mark: u8) -> u64 {
    LIVE | PRESENT | NO_EXTRA | SLIDES_NOT | DEADLINE | u64::from(mark) << MARK_SHIFT
}

/// A bound that no word reaches: no entry has the last number.
pub(super) const NEVER_SETTLED: u64 = u64::MAX;

impl Word {
    #[inline]
    pub(super) fn read(&self) -> Reading {
        Reading(self.0.load(Ordering::Acquire))
    }

    /// Makes an entry live that is in place.
    pub(super) fn publish(&self, deadline: u64, mark: u8, kind: Kind, number: u16) {
        let unless = |not: bool, flag: u64| if not { 0 } else { flag };
        let flags = unless(kind.absent, PRESENT) | unless(kind.extra, NO_EXTRA) | unless(kind.idle, SLIDES_NOT);
        let deadline = deadline.min(NEVER) << DEADLINE_SHIFT;
        let word = LIVE | flags | deadline | u64::from(mark) << MARK_SHIFT | u64::from(number);
        self.0.store(word, Ordering::Release);
    }

    /// Ends an entry; those who have it may still read it.
    pub(super) fn retire(&self) {
        // Whatever readers change in between may be lost: it is of no use any more.
        let word = self.0.load(Ordering::Relaxed);
        self.0.store(word & !LIVE, Ordering::Release);
    }

    /// As [`retire`](Word::retire), for an entry that may become live again: nothing that readers change is lost.
    pub(super) fn hide(&self) {
        self.0.fetch_and(!LIVE, Ordering::Release);
    }

    /// Makes an entry live again that was hidden and is still in place.
    pub(super) fn revive(&self) {
        self.0.fetch_or(LIVE, Ordering::Release);
    }

    /// Counts a hit on what was read, whose mark is not the last. Of several at once one counts.
    #[cold]
    pub(super) fn count(&self, was: Reading) {
        let one_more = was.0 + MARK_ONE;
        // It is a hint: whoever came in between has counted, or has moved the deadline.
        let _counted = self
            .0
            .compare_exchange(was.0, one_more, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Sets the mark.
    pub(super) fn set_mark(&self, mark: u8) {
        let mark = u64::from(mark.min(MARK_MAX)) << MARK_SHIFT;
        self.change(|word| word & !MARK | mark);
    }

    /// Moves the deadline of a live entry.
    pub(super) fn set_deadline(&self, deadline: u64) {
        self.change(|word| word & !DEADLINE | deadline.min(NEVER) << DEADLINE_SHIFT);
    }

    fn change(&self, change: impl Fn(u64) -> u64) {
        let change = |word| (word & LIVE != 0).then(|| change(word));
        // One that is retired in the meantime stays as it is.
        let _changed = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change);
    }
}

impl Reading {
    #[inline]
    pub(super) fn is_live(self) -> bool {
        self.0 & LIVE != 0
    }

    /// True for an entry with a value that never expires and has nothing else to look at.
    #[inline]
    pub(super) fn is_plain(self) -> bool {
        self.0 >= settled(0)
    }

    /// Whether it is not below a bound from [`settled`].
    #[inline]
    pub(super) fn reaches(self, settled: u64) -> bool {
        self.0 >= settled
    }

    /// As [`reaches`](Reading::reaches), but for the deadline.
    #[inline]
    pub(super) fn reaches_but_for_time(self, settled: u64) -> bool {
        self.0 | DEADLINE >= settled
    }

    #[inline]
    pub(super) fn deadline(self) -> u64 {
        (self.0 & DEADLINE) >> DEADLINE_SHIFT
    }

    #[inline]
    pub(super) fn mark(self) -> u8 {
        (self.0 >> MARK_SHIFT) as u8 & MARK_MAX
    }

    #[inline]
    pub(super) fn number(self) -> u32 {
        (self.0 & NUMBER) as u32
    }

    #[inline]
    pub(super) fn kind(self) -> Kind {
        Kind {
            absent: self.0 & PRESENT == 0,
            extra: self.0 & NO_EXTRA == 0,
            idle: self.0 & SLIDES_NOT == 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_parts_do_not_touch_each_other() {
        let word = Word::default();
        assert!(!word.read().is_live());
        let kind = Kind {
            absent: false,
            extra: true,
            idle: true,
        };
        word.publish(77, 2, kind, 65_535);
        word.count(word.read());
        let read = word.read();
        assert_eq!(
            (read.deadline(), read.mark(), read.kind(), read.is_live()),
            (77, 3, kind, true)
        );
        word.set_deadline(u64::MAX);
        word.set_mark(255);
        let read = word.read();
        assert_eq!((read.deadline(), read.mark(), read.kind()), (NEVER, MARK_MAX, kind));
        assert_eq!((read.number(), read.is_live()), (65_535, true));
        word.hide();
        word.set_mark(1);
        assert_eq!((word.read().mark(), word.read().is_live()), (MARK_MAX, false));
        word.revive();
        assert!(word.read().is_live());
        word.retire();
        assert!(!word.read().is_live());
        word.revive();
        assert!(word.read().is_live() && !word.read().is_plain());
        word.publish(NEVER, 0, Kind::default(), 0);
        assert!(word.read().is_plain());
    }
}
