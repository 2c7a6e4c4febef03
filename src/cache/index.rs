use super::lanes::equal;
use crate::sync::{AtomicU16, AtomicU32, AtomicU64, Ordering, fence, spin_loop};

/// The most slots of one index: their numbers fit into two bytes, and leave some for none and for what else is numbered
/// with them.
pub(super) const MAX_SLOTS: u32 = 64_512;

/// Places in a bucket.
const PLACES: usize = 20;
const TAG_LANES: usize = 3;
/// The byte behind the last tag counts how many entries of this bucket are in their second.
const ALIENS: usize = PLACES;
/// The bits behind it say which places hold entries that are in their second bucket.
const ALIEN: usize = (ALIENS + 1 - 2 * 8) * 8;
/// All places, as a set of bits.
const ALL: u32 = (1 << PLACES) - 1;

/// How full an index of the planned size is, in percent: more would save little and look into second buckets more.
const LOAD_PERCENT: usize = 72;

/// Slots by the hash of their key: read without a lock, written by one at a time. A handle to the buckets.
///
/// A bucket is a cache line: twenty places, each with a byte of its key's hash, by which a look compares all at once, and
/// the two bytes of a slot. Each hash has two buckets; the second follows from the first and that byte, so that an entry
/// can be moved without its key (Fan, Andersen, Kaminsky and Mitzenmacher, CoNEXT 2014). An entry goes into its second
/// bucket only when the first is full, and the first counts how many did: a look that finds nothing reads one line where
/// the count is zero. At the planned load an entry takes 4.5 bytes.
#[derive(Clone, Copy)]
pub(super) struct Index<'a> {
    buckets: &'a [Bucket],
    /// Odd while entries are being moved between buckets. A reader that found nothing meanwhile looks again.
    moves: &'a AtomicU32,
}

/// Three lanes of tags and what is counted, and a slot for each tag.
#[repr(align(64))]
pub(super) struct Bucket {
    tags: [AtomicU64; TAG_LANES],
    slots: [AtomicU16; PLACES],
}

/// Where a hash belongs.
#[derive(Clone, Copy, Debug)]
struct Home {
    bucket: usize,
    tag: u8,
}

/// That a look at one bucket has not seen a hash, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unseen {
    moves: u32,
}

/// Where a slot stands in the index, until something else is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot {
    bucket: usize,
    place: usize,
}

/// An empty place for a hash, until something else is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vacancy {
    home: Home,
    spot: Spot,
}

/// How many buckets so many entries need; they take some more.
pub(super) fn buckets_for(entries: usize) -> usize {
    (entries * 100).div_ceil(PLACES * LOAD_PERCENT).max(1)
}

/// How many entries these buckets were planned for.
pub(super) fn planned(buckets: &[Bucket]) -> usize {
    buckets.len() * PLACES * LOAD_PERCENT / 100
}

impl<'a> Index<'a> {
    #[inline]
    pub(super) fn new(buckets: &'a [Bucket], moves: &'a AtomicU32) -> Index<'a> {
        Index { buckets, moves }
    }

    /// What `is_it` makes of the slot under `hash`, being asked of every slot with the same byte of hash, and where that
    /// stands. Finds what was there all the time; never waits for a writer but while it moves entries.
    #[inline]
    pub(super) fn find<T>(self, hash: u64, is_it: impl Fn(u32) -> Option<T>) -> Option<(T, Spot)> {
        match self.glance(hash, &is_it) {
            Ok(found) => Some(found),
            Err(unseen) => self.find_further(hash, unseen, is_it),
        }
    }

    /// As [`find`](Index::find), in the first bucket alone, where nearly all are. What is not seen there is to be looked
    /// for further.
    #[inline(always)]
    pub(super) fn glance<T>(self, hash: u64, is_it: impl Fn(u32) -> Option<T>) -> Result<(T, Spot), Unseen> {
        let home = self.home(hash);
        let moves = self.moves.load(Ordering::Acquire);
        let bucket = home.bucket;
        let found = self.buckets[bucket].find(home.tag, &is_it);
        found.map_or(Err(Unseen { moves }), |(found, place)| {
            Ok((found, Spot { bucket, place }))
        })
    }

    /// Goes on where [`glance`](Index::glance) has seen nothing.
    #[inline]
    pub(super) fn find_further<T>(
        self,
        hash: u64,
        unseen: Unseen,
        is_it: impl Fn(u32) -> Option<T>,
    ) -> Option<(T, Spot)> {
        let home = self.home(hash);
        if self.buckets[home.bucket].aliens() > 0 {
            let other = self.find_in(self.other(home), home.tag, &is_it);
            if other.is_some() {
                return other;
            }
        }
        // An entry may have passed from one bucket to the other between the looks at them.
        if self.is_still(unseen.moves) {
            return None;
        }
        self.find_among_moves(home, is_it)
    }

    #[inline(always)]
    fn find_in<T>(self, bucket: usize, tag: u8, is_it: &impl Fn(u32) -> Option<T>) -> Option<(T, Spot)> {
        let (found, place) = self.buckets[bucket].find(tag, is_it)?;
        Some((found, Spot { bucket, place }))
    }

    /// Whether no entry was moved since `moves` was read.
    #[inline]
    fn is_still(self, moves: u32) -> bool {
        fence(Ordering::Acquire);
        moves.is_multiple_of(2) && self.moves.load(Ordering::Relaxed) == moves
    }

    #[cold]
    fn find_among_moves<T>(self, home: Home, is_it: impl Fn(u32) -> Option<T>) -> Option<(T, Spot)> {
        loop {
            let moves = self.moves.load(Ordering::Acquire);
            for bucket in [home.bucket, self.other(home)] {
                let found = self.find_in(bucket, home.tag, &is_it);
                if found.is_some() {
                    return found;
                }
            }
            if self.is_still(moves) {
                return None;
            }
            spin_loop();
        }
    }

    /// A place for a hash. None when there is no room for it, and the buckets have to be more.
    pub(super) fn vacancy(self, hash: u64) -> Option<Vacancy> {
        let home = self.home(hash);
        let empty = self.empty(home);
        if empty.is_some() {
            return empty;
        }
        self.moves.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::Release);
        let made_room = self.make_room(home.bucket) || self.make_room(self.other(home));
        self.moves.fetch_add(1, Ordering::Release);
        self.empty(home).filter(|_| made_room)
    }

    /// Puts a slot in that is not in.
    pub(super) fn insert(self, Vacancy { home, spot }: Vacancy, slot: u32) {
        let is_alien = spot.bucket != home.bucket;
        if is_alien {
            self.buckets[home.bucket].count_aliens(1);
        }
        self.buckets[spot.bucket].set(spot.place, slot, home.tag, is_alien);
    }

    /// Some slot in the bucket of a hash for which there is no [`vacancy`](Index::vacancy).
    pub(super) fn in_the_way(self, hash: u64) -> u32 {
        self.buckets[self.home(hash).bucket].slot(0)
    }

    /// Names `new` where another slot stands.
    pub(super) fn replace(self, spot: Spot, new: u32) {
        self.buckets[spot.bucket].set_slot(spot.place, new);
    }

    /// Takes out what stands at `spot`, which was put in under `hash`.
    pub(super) fn remove(self, hash: u64, spot: Spot) {
        let bucket = &self.buckets[spot.bucket];
        if bucket.is_alien(spot.place) {
            self.buckets[self.home(hash).bucket].count_aliens(-1);
        }
        bucket.clear(spot.place);
    }

    /// Where a slot stands that is in under `hash`.
    pub(super) fn locate(self, hash: u64, slot: u32) -> Spot {
        let found = self.find(hash, |found| (found == slot).then_some(()));
        found
            .expect("a slot in use is in the index, under the hash of its key")
            .1
    }

    #[inline]
    fn home(self, hash: u64) -> Home {
        Home {
            bucket: scale(hash >> 32, self.buckets.len()),
            // No tag is zero, so an empty place matches none.
            tag: ((hash >> TAG_FROM) as u8).max(1),
        }
    }

    /// The other bucket of what has this tag: of the second one the first.
    #[inline]
    fn other(self, home: Home) -> usize {
        let buckets = self.buckets.len();
        let sum = scale(u64::from(u32::from(home.tag).wrapping_mul(0x9e37_79b1)), buckets);
        if sum >= home.bucket {
            sum - home.bucket
        } else {
            sum + buckets - home.bucket
        }
    }

    fn empty(self, home: Home) -> Option<Vacancy> {
        let empty = |bucket: usize| Some((bucket, self.buckets[bucket].empty()?));
        let (bucket, place) = empty(home.bucket).or_else(|| empty(self.other(home)))?;
        let spot = Spot { bucket, place };
        Some(Vacancy { home, spot })
    }

    /// Moves one entry of a full bucket to its other bucket, if that of any has room. Readers look again meanwhile.
    #[cold]
    fn make_room(self, full: usize) -> bool {
        let from = &self.buckets[full];
        (0..PLACES).any(|place| {
            let home = Home {
                bucket: full,
                tag: from.tag(place),
            };
            let other = self.other(home);
            let to = &self.buckets[other];
            let Some(empty) = to.empty().filter(|_| other != full) else {
                return false;
            };
            let returns = from.is_alien(place);
            if returns {
                to.count_aliens(-1);
            } else {
                from.count_aliens(1);
            }
            to.set(empty, from.slot(place), home.tag, !returns);
            from.clear(place);
            true
        })
    }
}

/// The tag is taken from this bit of the hash on; the bits below choose the shard, the upper half the bucket.
const TAG_FROM: u32 = 20;

/// Brings 32 bits to `0..n` (Lemire, 2019).
#[inline]
fn scale(bits: u64, n: usize) -> usize {
    ((bits * n as u64) >> 32) as usize
}

#[cfg(outgrow_loom)]
#[allow(dead_code, reason = "only a model checker's atomics have to be made one by one")]
impl Bucket {
    pub(super) fn new() -> Bucket {
        Bucket {
            tags: std::array::from_fn(|_| AtomicU64::new(0)),
            slots: std::array::from_fn(|_| AtomicU16::new(0)),
        }
    }
}

impl Bucket {
    /// The places where the tag is `tag`.
    #[inline(always)]
    fn matches(&self, tag: u8) -> u32 {
        equal(&self.tags, tag) & ALL
    }

    #[inline(always)]
    fn find<T>(&self, tag: u8, is_it: &impl Fn(u32) -> Option<T>) -> Option<(T, usize)> {
        let mut matches = self.matches(tag);
        while matches != 0 {
            let place = matches.trailing_zeros() as usize;
            // If another has been put there since the tags were read, it is that one's slot.
            if let Some(found) = is_it(self.slot(place)) {
                return Some((found, place));
            }
            matches &= matches - 1;
        }
        None
    }

    /// The slot at a place; of an empty one, that of the last who was there.
    #[inline]
    fn slot(&self, place: usize) -> u32 {
        u32::from(self.slots[place].load(Ordering::Acquire))
    }

    fn set_slot(&self, place: usize, slot: u32) {
        self.slots[place].store(slot as u16, Ordering::Release);
    }

    fn byte(&self, at: usize) -> u8 {
        (self.tags[at / 8].load(Ordering::Acquire) >> (at % 8 * 8)) as u8
    }

    fn set_byte(&self, at: usize, byte: u8) {
        let shift = at % 8 * 8;
        put_bits(&self.tags[at / 8], 0xff << shift, u64::from(byte) << shift);
    }

    fn tag(&self, place: usize) -> u8 {
        self.byte(place)
    }

    #[inline]
    fn aliens(&self) -> u8 {
        self.byte(ALIENS)
    }

    /// Once there are more than a byte can count, it is not known any more when the last has gone.
    fn count_aliens(&self, by: i8) {
        if self.aliens() < u8::MAX {
            self.set_byte(ALIENS, self.aliens().wrapping_add_signed(by));
        }
    }

    fn is_alien(&self, place: usize) -> bool {
        self.tags[TAG_LANES - 1].load(Ordering::Relaxed) >> (ALIEN + place) & 1 != 0
    }

    /// Fills a place. The slot first: whoever sees the tag finds it there.
    fn set(&self, place: usize, slot: u32, tag: u8, alien: bool) {
        self.set_slot(place, slot);
        if alien {
            let bit = 1 << (ALIEN + place);
            put_bits(&self.tags[TAG_LANES - 1], bit, bit);
        }
        self.set_byte(place, tag);
    }

    /// Empties a place. The slot's number stays: a reader who saw the tag may be about to look there, and is pinned.
    fn clear(&self, place: usize) {
        self.set_byte(place, 0);
        put_bits(&self.tags[TAG_LANES - 1], 1 << (ALIEN + place), 0);
    }

    fn empty(&self) -> Option<usize> {
        let empty = self.matches(0);
        (empty != 0).then(|| empty.trailing_zeros() as usize)
    }
}

/// Only the one writer stores, so nothing comes between its load and its store.
fn put_bits(lane: &AtomicU64, mask: u64, bits: u64) {
    lane.store(lane.load(Ordering::Relaxed) & !mask | bits, Ordering::Release);
}

#[cfg(all(test, not(outgrow_loom)))]
mod tests {
    use super::*;
    use crate::env::Rng;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn part(entries: usize) -> crate::cache::arena::Part<Bucket> {
        let mut part = crate::cache::arena::buckets(1, buckets_for(entries));
        part.next().expect("one part was asked for")
    }

    fn put(index: Index<'_>, hash: u64, slot: u32) -> bool {
        let vacancy = index.vacancy(hash);
        vacancy.map(|vacancy| index.insert(vacancy, slot)).is_some()
    }

    #[test]
    fn none_is_lost_where_all_belong_in_one_bucket() {
        let (part, moves) = (part(4_000), AtomicU32::new(0));
        let index = Index::new(part.all(), &moves);
        let hashes: Vec<u64> = (0..1_000_u64).map(|n| 7 << 60 | (n % 256) << TAG_FROM).collect();
        let all = || (0..).zip(&hashes);
        assert!(all().all(|(slot, hash)| put(index, *hash, slot)));
        assert_eq!(part.all()[index.home(hashes[0]).bucket].aliens(), u8::MAX);
        for (slot, hash) in all() {
            index.remove(*hash, index.locate(*hash, slot));
            let next = (slot + 1) as usize;
            assert!(
                hashes
                    .get(next)
                    .is_none_or(|hash| index.locate(*hash, slot + 1).bucket < part.len())
            );
        }
    }

    #[test]
    fn it_takes_what_it_was_planned_for_and_more() {
        for entries in [1, 10, 100, 1_000, 20_000, 60_000] {
            let (part, moves) = (part(entries), AtomicU32::new(0));
            let buckets = part.all();
            let index = Index::new(buckets, &moves);
            let mut rng = Rng::seeded(entries as u64);
            let hashes: Vec<u64> = (0..entries).map(|_| rng.next_u64()).collect();
            for (slot, hash) in hashes.iter().enumerate() {
                assert!(put(index, *hash, slot as u32), "{slot} of {entries}");
            }
            for (slot, hash) in hashes.iter().enumerate() {
                assert_eq!(
                    index
                        .find(*hash, |found| (found == slot as u32).then_some(found))
                        .map(|(slot, _)| slot),
                    Some(slot as u32)
                );
            }
            assert!(size_of_val(buckets) <= entries * 45 / 10 + 64);
        }
    }

    proptest! {
        /// Hashes of few different bits crowd the buckets, so that words are moved about.
        #[test]
        fn is_a_map_from_hash_to_slot(
            entries in 1_usize..60,
            ops in prop::collection::vec((0_u64..4, 0_u64..3, 0_u32..120, 0_u8..4), 1..500),
        ) {
            let (part, moves) = (part(entries), AtomicU32::new(0));
            let buckets = part.all();
            let index = Index::new(buckets, &moves);
            let mut model: BTreeMap<u32, u64> = BTreeMap::new();
            for (high, tag, slot, what) in ops {
                match (what, model.get(&slot).copied()) {
                    (0, Some(hash)) => {
                        index.remove(hash, index.locate(hash, slot));
                        model.remove(&slot);
                    }
                    (1, Some(hash)) if !model.contains_key(&(slot + 200)) => {
                        index.replace(index.locate(hash, slot), slot + 200);
                        model.remove(&slot);
                        model.insert(slot + 200, hash);
                    }
                    (_, None) => {
                        let hash = high << 62 | tag << TAG_FROM;
                        if put(index, hash, slot) {
                            model.insert(slot, hash);
                        } else {
                            prop_assert!(model.len() >= PLACES);
                        }
                    }
                    _ => {}
                }
                for (slot, hash) in &model {
                    prop_assert_eq!(index.find(*hash, |found| (found == *slot).then_some(found)).map(|(slot, _)| slot), Some(*slot));
                }
            }
            for (slot, hash) in model {
                index.remove(hash, index.locate(hash, slot));
            }
            let mut lanes = buckets.iter().flat_map(|bucket| &bucket.tags);
            prop_assert!(lanes.all(|lane| lane.load(Ordering::Relaxed) == 0));
        }
    }
}
