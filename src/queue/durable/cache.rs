use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};

/// What each run of entries takes beside its bytes, about, and each entry of it but the last.
const OVERHEAD: usize = 96;
const EACH: usize = size_of::<usize>();
/// Of the bound, one part in so many is for entries read from disk.
const READ_PART: usize = 4;

/// Entries of the log by their number, within a bound of bytes: the recent ones, and those last read from disk. Of each
/// the one put in first goes first; recent ones that were sent together go together.
#[derive(Debug)]
pub(super) struct Cache {
    /// In the order of their numbers.
    recent: VecDeque<Run>,
    recent_bytes: usize,
    read: BTreeMap<u64, Bytes>,
    read_order: VecDeque<u64>,
    read_bytes: usize,
    limit: usize,
}

/// Entries of consecutive numbers.
#[derive(Debug)]
struct Run {
    first: u64,
    /// One behind the other.
    bytes: Bytes,
    /// Where each of them ends, but the last.
    ends: Vec<usize>,
}

impl Run {
    fn get(&self, seq: u64) -> Option<Bytes> {
        let at = usize::try_from(seq.checked_sub(self.first)?).ok()?;
        let start = at
            .checked_sub(1)
            .map_or(Some(0), |before| self.ends.get(before).copied())?;
        let end = self.ends.get(at).copied().unwrap_or(self.bytes.len());
        Some(self.bytes.slice(start..end))
    }

    fn last(&self) -> u64 {
        self.first + self.ends.len() as u64
    }

    fn size(&self) -> usize {
        self.bytes.len() + self.ends.len() * EACH + OVERHEAD
    }
}

impl Cache {
    pub(super) fn new(limit: usize) -> Cache {
        Cache {
            recent: VecDeque::new(),
            recent_bytes: 0,
            read: BTreeMap::new(),
            read_order: VecDeque::new(),
            read_bytes: 0,
            limit,
        }
    }

    pub(super) fn get(&self, seq: u64) -> Option<Bytes> {
        self.get_near(seq, &mut 0)
    }

    /// The same for one of many in order: `near` is where the one before was found.
    pub(super) fn get_near(&self, seq: u64, near: &mut usize) -> Option<Bytes> {
        let is_near = |run: &&Run| run.first <= seq && seq <= run.last();
        if let Some(run) = self.recent.get(*near).filter(is_near) {
            return run.get(seq);
        }
        let after = self.recent.partition_point(|run| run.first <= seq);
        let run = after.checked_sub(1).and_then(|at| self.recent.get(at));
        *near = after.saturating_sub(1);
        run.and_then(|run| run.get(seq))
            .or_else(|| self.read.get(&seq).cloned())
    }

    /// Puts in an entry that is durable, so that it never changes again.
    pub(super) fn put(&mut self, seq: u64, entry: Bytes) {
        self.put_all(seq, entry, Vec::new());
    }

    /// The same of entries with consecutive numbers from `first` on, which lie one behind the other; each ends at one of
    /// `ends`, but the last at the end.
    pub(super) fn put_all(&mut self, first: u64, bytes: Bytes, ends: Vec<usize>) {
        let run = Run { first, bytes, ends };
        let newest = self.recent.back().map(Run::last);
        if run.size() > self.limit || newest.is_some_and(|newest| first <= newest) {
            let each = (first..=run.last()).filter_map(|seq| Some((seq, run.get(seq)?)));
            // Copies, since one of them would keep all the others.
            return each.for_each(|(seq, entry)| match run.ends.is_empty() {
                true => self.put_read(seq, entry),
                false => self.put_read(seq, Bytes::copy_from_slice(&entry)),
            });
        }
        self.recent_bytes += run.size();
        self.recent.push_back(run);
        while self.recent_bytes > self.limit - self.limit / READ_PART
            && let Some(gone) = self.recent.pop_front()
        {
            self.recent_bytes -= gone.size();
        }
    }

    fn put_read(&mut self, seq: u64, entry: Bytes) {
        let (size, limit) = (size(&entry), self.limit / READ_PART);
        if size > limit || self.get(seq).is_some() {
            return;
        }
        self.read_bytes += size;
        self.read.insert(seq, entry);
        self.read_order.push_back(seq);
        while self.read_bytes > limit
            && let Some(oldest) = self.read_order.pop_front()
        {
            let gone = self.read.remove(&oldest);
            self.read_bytes -= gone.map_or(0, |gone| self::size(&gone));
        }
    }
}

fn size(entry: &Bytes) -> usize {
    entry.len() + OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bounds_hold_and_what_is_found_is_right(puts in prop::collection::vec((0..60_u64, 0..200_usize), 1..200)) {
            let limit = 8 * (OVERHEAD + 100);
            let mut cache = Cache::new(limit);
            let mut all = BTreeMap::new();
            for (seq, len) in puts {
                // What is durable never changes.
                let entry = all.entry(seq).or_insert_with(|| Bytes::from(vec![seq as u8; len])).clone();
                cache.put(seq, entry);
                let held = cache.recent.iter().map(Run::size).sum::<usize>();
                let read = cache.read.values().map(size).sum::<usize>();
                prop_assert_eq!((held, read), (cache.recent_bytes, cache.read_bytes));
                prop_assert!(held + read <= limit);
                prop_assert_eq!(cache.read.len(), cache.read_order.len());
                for (seq, entry) in &all {
                    let found = cache.get(*seq);
                    prop_assert!(found.is_none_or(|found| found == *entry));
                }
            }
        }
    }

    #[test]
    fn the_latest_are_kept_and_the_first_in_goes_first() {
        let entry = |len| Bytes::from(vec![0; len]);
        let mut cache = Cache::new(4 * (OVERHEAD + 10));
        for seq in 0..5 {
            cache.put(seq, entry(10));
        }
        let kept: Vec<_> = (0..5).filter(|seq| cache.get(*seq).is_some()).collect();
        assert_eq!(kept, [2, 3, 4]);
        cache.put(1, entry(10));
        cache.put(0, entry(10));
        let kept: Vec<_> = (0..5).filter(|seq| cache.get(*seq).is_some()).collect();
        assert_eq!(kept, [0, 2, 3, 4], "old ones do not drive out recent ones");
        cache.put(9, entry(10_000));
        assert_eq!(cache.get(9), None);
        assert_eq!(cache.get(4).unwrap().len(), 10);
    }
}
