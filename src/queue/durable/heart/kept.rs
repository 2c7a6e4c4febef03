//! What a topic keeps of its messages in memory.

use super::part::Part;
use crate::queue::Priority;
use std::cmp::Ordering;
use std::collections::VecDeque;
use std::ops::Range;

/// The levels of priority.
pub(crate) const LEVELS: usize = 4;

/// What a topic keeps of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) seq: u64,
    /// Bytes of its entry.
    pub(crate) len: u32,
    pub(crate) priority: Priority,
    /// Not to be delivered before this, in milliseconds of the wall clock; 0 is at once.
    pub(crate) due: u64,
    /// Not to be delivered from this on, in milliseconds of the wall clock; 0 is never.
    pub(crate) expires: u64,
    /// A keyed hash of its key; 0 is none.
    pub(crate) key: u64,
}

impl Stored {
    /// A message with nothing asked of its delivery.
    #[cfg(test)]
    pub(crate) fn plain(seq: u64, len: u32) -> Stored {
        Stored {
            seq,
            len,
            priority: Priority::Normal,
            due: 0,
            expires: 0,
            key: 0,
        }
    }

    pub(crate) fn has_expired(&self, wall: u64) -> bool {
        self.expires != 0 && self.expires <= wall
    }
}

/// The messages of one topic, those of each priority in the order of their numbers.
#[derive(Debug)]
pub(crate) struct Kept {
    levels: [Level; LEVELS],
    pub(crate) bytes: u64,
}

/// The messages of one priority. 16 bytes of memory for a message, and 8 more for each of a due time, an end and a key
/// that it has.
///
/// They are in two parts, so that those in the middle can be swept out a few at a time: each sweep moves on what lies
/// between the parts, and nothing else has to move up.
#[derive(Debug)]
pub(crate) struct Level {
    /// What the last sweep has been over.
    front: Part,
    /// What it has not; everything, when it has been over all.
    back: Part,
    /// Messages that have gone.
    gone: u64,
}

impl Default for Kept {
    fn default() -> Kept {
        let of = |priority| Level {
            front: Part::new(priority),
            back: Part::new(priority),
            gone: 0,
        };
        Kept {
            levels: [Priority::Low, Priority::Normal, Priority::High, Priority::Urgent].map(of),
            bytes: 0,
        }
    }
}

impl Kept {
    /// Adds a message; its number is above all others.
    pub(crate) fn push(&mut self, stored: &Stored) {
        self.bytes += u64::from(stored.len);
        self.levels[stored.priority as usize].push(stored);
    }

    pub(crate) fn level(&self, level: usize) -> &Level {
        &self.levels[level]
    }

    pub(crate) fn len(&self) -> usize {
        self.levels.iter().map(Level::len).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.levels.iter().all(|level| level.len() == 0)
    }

    pub(crate) fn find(&self, seq: u64) -> Option<Stored> {
        self.levels.iter().find_map(|level| level.find(seq))
    }

    /// The first number that is `from` or higher.
    pub(crate) fn next_seq(&self, from: u64) -> Option<u64> {
        let next = |level: &Level| level.seq(level.first_from(from));
        self.levels.iter().filter_map(next).min()
    }

    /// Messages whose numbers are `from` or higher.
    pub(crate) fn count_from(&self, from: u64) -> usize {
        let count = |level: &Level| level.len() - level.first_from(from);
        self.levels.iter().map(count).sum()
    }

    #[cfg(test)]
    pub(crate) fn memory(&self) -> usize {
        let parts = self.levels.iter().flat_map(|level| [&level.front, &level.back]);
        parts.map(Part::memory).sum()
    }

    pub(crate) fn pop_front(&mut self, level: usize) {
        if let Some(len) = self.levels[level].pop_front() {
            self.bytes -= u64::from(len);
        }
    }

    /// Adds messages of which numbers above theirs are there already, in the order of their numbers. Says which of them
    /// are new.
    pub(crate) fn insert(&mut self, stored: &[Stored]) -> Vec<Stored> {
        let fresh: Vec<Stored> = stored
            .iter()
            .filter(|stored| self.find(stored.seq).is_none())
            .copied()
            .collect();
        for (level, of_level) in self.levels.iter_mut().enumerate() {
            let mine = fresh.iter().filter(|stored| stored.priority as usize == level).copied();
            of_level.insert(mine.collect());
        }
        self.bytes += fresh.iter().map(|stored| u64::from(stored.len)).sum::<u64>();
        fresh
    }

    /// Looks at up to `many` messages of a level from number `from` on, and takes those out that are not `wanted`. Returns
    /// their numbers, and the number to go on from, if there are more. Takes time for these messages, and for those between
    /// `from` and where the last sweep ended.
    pub(crate) fn sweep(
        &mut self,
        level: usize,
        from: u64,
        many: usize,
        wanted: impl Fn(&Stored) -> bool,
    ) -> (Vec<u64>, Option<u64>) {
        let gone = self.levels[level].sweep(from, many, wanted);
        self.bytes -= gone.iter().map(|gone| u64::from(gone.len)).sum::<u64>();
        let rest = self.levels[level].seq(self.levels[level].first_from(from) + many - gone.len());
        (gone.into_iter().map(|gone| gone.seq).collect(), rest)
    }

    /// Messages of numbers in this range.
    pub(crate) fn count_in(&self, range: Range<u64>) -> usize {
        let count = |level: &Level| {
            level
                .first_from(range.end)
                .saturating_sub(level.first_from(range.start))
        };
        self.levels.iter().map(count).sum()
    }

    /// Takes a message out; whether it was there.
    pub(crate) fn remove(&mut self, seq: u64) -> bool {
        let len = self.levels.iter_mut().find_map(|level| level.remove(seq));
        self.bytes -= u64::from(len.unwrap_or(0));
        len.is_some()
    }
}

impl Level {
    fn push(&mut self, stored: &Stored) {
        self.back.push_back(stored);
    }

    fn insert(&mut self, stored: Vec<Stored>) {
        let (Some(first), Some(last)) = (stored.first(), stored.last()) else {
            return;
        };
        // Only what lies among them moves: they mostly come in order, some at a time.
        self.divide(first.seq);
        let before = self.back.first_from(last.seq);
        self.gone = self.gone.wrapping_sub(stored.len() as u64);
        let mut all: Vec<Stored> = (0..before).filter_map(|_| self.back.pop_front()).collect();
        all.extend(stored);
        all.sort_unstable_by_key(|stored| stored.seq);
        all.iter().rev().for_each(|stored| self.back.push_front(stored));
    }

    fn sweep(&mut self, from: u64, many: usize, wanted: impl Fn(&Stored) -> bool) -> Vec<Stored> {
        self.divide(from);
        let mut gone = Vec::new();
        for stored in (0..many).map_while(|_| self.back.pop_front()) {
            match wanted(&stored) {
                true => self.front.push_back(&stored),
                false => gone.push(stored),
            }
        }
        self.gone = self.gone.wrapping_add(gone.len() as u64);
        self.divide_at_an_end();
        gone
    }

    /// Has the second part begin with number `from`.
    fn divide(&mut self, from: u64) {
        if self.first_from(from) == 0 && self.front.len() > self.back.len() {
            // It is as well if all of them are in the first.
            while let Some(stored) = self.back.pop_front() {
                self.front.push_back(&stored);
            }
        }
        self.divide_at_an_end();
        while self.front.last().is_some_and(|last| last >= from)
            && let Some(stored) = self.front.pop_back()
        {
            self.back.push_front(&stored);
        }
        while self.back.first().is_some_and(|first| first < from)
            && let Some(stored) = self.back.pop_front()
        {
            self.front.push_back(&stored);
        }
    }

    /// If all of them are in the first part, they are in the second.
    fn divide_at_an_end(&mut self) {
        if self.back.len() == 0 {
            std::mem::swap(&mut self.front, &mut self.back);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.front.len() + self.back.len()
    }

    /// Whether no message has a due time, an end or a key.
    pub(crate) fn is_plain(&self) -> bool {
        self.front.is_plain() && self.back.is_plain()
    }

    pub(crate) fn get(&self, index: usize) -> Option<Stored> {
        match index.checked_sub(self.front.len()) {
            None => self.front.get(index),
            Some(index) => self.back.get(index),
        }
    }

    pub(crate) fn find(&self, seq: u64) -> Option<Stored> {
        let part = match self.is_in_front(seq) {
            true => &self.front,
            false => &self.back,
        };
        part.get(part.find(seq)?)
    }

    /// The number of the message at `index`.
    pub(crate) fn seq(&self, index: usize) -> Option<u64> {
        match index.checked_sub(self.front.len()) {
            None => self.front.seq(index),
            Some(index) => self.back.seq(index),
        }
    }

    /// Where the messages from number `from` on begin.
    pub(crate) fn first_from(&self, from: u64) -> usize {
        match self.is_in_front(from) {
            true => self.front.first_from(from),
            false => self.front.len() + self.back.first_from(from),
        }
    }

    /// Whether the message of this number, or the next, is in the first part.
    fn is_in_front(&self, seq: u64) -> bool {
        self.front.last().is_some_and(|last| seq <= last)
    }

    /// The same, when its [place](Level::place) is probably `guess`.
    pub(crate) fn first_from_near(&self, from: u64, guess: u64) -> usize {
        let guess = guess.wrapping_sub(self.gone) as usize;
        let before = guess.checked_sub(1).map_or(Some(0), |before| self.seq(before));
        let is_right = before.is_some_and(|before| before < from) && self.seq(guess).is_none_or(|seq| seq >= from);
        if is_right && from > 0 {
            guess
        } else {
            self.first_from(from)
        }
    }

    /// A name for an index that holds while messages before it go and others come behind.
    pub(crate) fn place(&self, index: usize) -> u64 {
        self.gone.wrapping_add(index as u64)
    }

    fn pop_front(&mut self) -> Option<u32> {
        let gone = self.front.pop_front().or_else(|| self.back.pop_front())?;
        self.gone = self.gone.wrapping_add(1);
        Some(gone.len)
    }

    fn remove(&mut self, seq: u64) -> Option<u32> {
        if self.seq(0) == Some(seq) {
            return self.pop_front();
        }
        let part = match self.is_in_front(seq) {
            true => &mut self.front,
            false => &mut self.back,
        };
        let len = part.remove(seq)?;
        self.gone = self.gone.wrapping_add(1);
        self.divide_at_an_end();
        Some(len)
    }
}

/// Where the entry of number `seq` is among sorted ones, or where it would be. Numbers are spread evenly most of the time,
/// so a few guesses by proportion come before halving, which in a large queue misses the cache at every step.
pub(crate) fn search<T>(queue: &VecDeque<T>, seq: u64, of: impl Fn(&T) -> u64) -> Result<usize, usize> {
    let Some(apart) = queue.front().and_then(|first| seq.checked_sub(of(first))) else {
        return Err(0);
    };
    // Without a gap it is as far from the first as the numbers are apart.
    let at = usize::try_from(apart).ok();
    if let Some(at) = at.filter(|at| queue.get(*at).is_some_and(|entry| of(entry) == seq)) {
        return Ok(at);
    }
    let (mut low, mut high) = (0, queue.len());
    for guesses in 0.. {
        if low == high {
            return Err(low);
        }
        let at = if guesses < GUESSES && high - low > FEW {
            let (first, last) = (of(&queue[low]), of(&queue[high - 1]));
            let (apart, span) = (seq.saturating_sub(first), (last - first).max(1));
            low + proportion(apart, span, high - 1 - low)
        } else {
            low + (high - low) / 2
        };
        match of(&queue[at]).cmp(&seq) {
            Ordering::Equal => return Ok(at),
            Ordering::Less => low = at + 1,
            Ordering::Greater => high = at,
        }
    }
    unreachable!("the range gets smaller each time")
}

/// As much of `len` as `part` is of `whole`, and not more than `len`.
fn proportion(part: u64, whole: u64, len: usize) -> usize {
    let product = part.checked_mul(len as u64);
    let of_len = product.map_or_else(
        || (u128::from(part) * len as u128 / u128::from(whole)) as usize,
        |product| (product / whole) as usize,
    );
    of_len.min(len)
}

/// Guesses by proportion, and the range in which they are not worth it.
const GUESSES: usize = 4;
const FEW: usize = 16;

/// Gives memory back when less than a quarter of it is in use.
pub(crate) fn shrink<T>(queue: &mut VecDeque<T>) {
    if queue.capacity() > SMALL && queue.len() < queue.capacity() / 4 {
        queue.shrink_to(queue.len() * 2);
    }
}

/// Up to so many entries, memory is not worth giving back.
pub(crate) const SMALL: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stored() -> impl Strategy<Value = Stored> {
        let word = || prop_oneof![Just(0), any::<u64>()];
        let priority = prop_oneof![Just(Priority::Normal), Just(Priority::Urgent)];
        (0..1_u32 << 27, priority, word(), word(), word()).prop_map(|(len, priority, due, expires, key)| Stored {
            seq: 0,
            len,
            priority,
            due,
            expires,
            key,
        })
    }

    proptest! {
        /// Against a list of what was put in; after each step everything is looked up.
        #[test]
        fn what_is_kept_is_found_as_it_was(steps in prop::collection::vec((stored(), 0..7_usize, 0..8_usize), 1..60)) {
            let (mut kept, mut list) = (Kept::default(), Vec::new());
            for (seq, (stored, what, at)) in (1..).zip(steps) {
                let stored = Stored { seq: seq * 2, ..stored };
                kept.push(&stored);
                list.push(stored);
                let of_level = |stored: &Stored| stored.priority as usize == at % LEVELS;
                match what {
                    0 => {
                        kept.pop_front(at % LEVELS);
                        let first = list.iter().position(of_level);
                        first.map(|first| list.remove(first));
                    }
                    1 if at < list.len() => {
                        let gone = list.remove(at);
                        prop_assert!(kept.remove(gone.seq));
                        prop_assert!(!kept.remove(gone.seq));
                    }
                    2 => {
                        let (from, many) = (at as u64 * 4, at * 3);
                        let level = at % LEVELS;
                        let looked_at: Vec<u64> = list
                            .iter()
                            .filter(|stored| of_level(stored) && stored.seq >= from)
                            .map(|stored| stored.seq)
                            .collect();
                        let is_gone = |seq: u64| looked_at.iter().take(many).any(|known| *known == seq) && seq.is_multiple_of(3);
                        let (gone, rest) = kept.sweep(level, from, many, |stored| !stored.seq.is_multiple_of(3));
                        let expected: Vec<_> = looked_at.iter().copied().filter(|seq| is_gone(*seq)).collect();
                        prop_assert_eq!(gone, expected);
                        prop_assert_eq!(rest, looked_at.get(many).copied());
                        list.retain(|stored| !is_gone(stored.seq));
                    }
                    3 => {
                        // Some that have gone, some that are there, and some that never were.
                        let from = 1 + u64::from(stored.len) % (seq * 2);
                        let new: Vec<_> = (from..seq * 2).step_by(at + 1).map(|seq| Stored { seq, ..stored }).collect();
                        let fresh = kept.insert(&new);
                        let is_new = |stored: &&Stored| list.iter().all(|known| known.seq != stored.seq);
                        let expected: Vec<_> = new.iter().filter(is_new).copied().collect();
                        prop_assert_eq!(&fresh, &expected);
                        list.extend(expected);
                        list.sort_by_key(|stored| stored.seq);
                    }
                    _ => {}
                }
                prop_assert_eq!(kept.len(), list.len());
                prop_assert_eq!(kept.is_empty(), list.is_empty());
                prop_assert_eq!(kept.bytes, list.iter().map(|stored| u64::from(stored.len)).sum::<u64>());
                for seq in 0..=seq * 2 + 1 {
                    let known = list.iter().find(|stored| stored.seq == seq).copied();
                    prop_assert_eq!(kept.find(seq), known);
                    let next = list.iter().map(|stored| stored.seq).find(|known| *known >= seq);
                    prop_assert_eq!(kept.next_seq(seq), next);
                    let level = kept.level(at % LEVELS);
                    for guess in 0..4 {
                        prop_assert_eq!(level.first_from_near(seq, guess), level.first_from(seq));
                    }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn a_search_finds_what_halving_finds(
            mut seqs in prop::collection::vec(prop_oneof![0..400_u64, any::<u64>()], 0..200),
            wanted in prop_oneof![0..400_u64, any::<u64>()],
        ) {
            seqs.sort_unstable();
            seqs.dedup();
            let queue = VecDeque::from(seqs);
            for seq in queue.iter().copied().chain([wanted, 0, u64::MAX]) {
                prop_assert_eq!(search(&queue, seq, |seq| *seq), queue.binary_search(&seq));
            }
        }
    }

    /// Opening finds the copies of messages so: a frame of them at a time, mostly in order, before what is not copied.
    #[test]
    fn what_is_put_in_a_little_at_a_time_moves_little_else() {
        let mut kept = Kept::default();
        (100_000..200_000).for_each(|seq| kept.push(&Stored::plain(seq, 1)));
        let new: Vec<_> = (0..100_000).map(|seq| Stored::plain(seq, 1)).collect();
        new.chunks(100).for_each(|some| drop(kept.insert(some)));
        assert_eq!(kept.len(), 200_000);
        let level = kept.level(Priority::Normal as usize);
        let puts = level.front.puts + level.back.puts;
        assert!(puts <= 3 * 200_000, "{puts}");
    }
}
