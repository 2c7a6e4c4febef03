use crate::sync::{AtomicU32, AtomicU64, Ordering, fence};

/// Slots are numbered by so many bits.
pub(super) const SLOT_BITS: u32 = 20;
/// The most slots of one index. The last number means none.
pub(super) const MAX_SLOTS: u32 = (1 << SLOT_BITS) - 1;

/// A field: a slot's number plus one, or zero in an empty place, and whether the place is in the second bucket.
const FIELD_BITS: usize = SLOT_BITS as usize + 1;
const FIELD: u64 = (1 << FIELD_BITS) - 1;
const SLOT: u64 = MAX_SLOTS as u64;
const ALIEN: u64 = 1 << SLOT_BITS;
/// Three fields fill a lane.
const FIELDS: usize = 3;

/// Places in a bucket.
const PLACES: usize = 16;
const TAG_LANES: usize = 2;
const FIELD_LANES: usize = 6;
/// Behind the last field: how many entries of this bucket are in their second.
const ALIENS: usize = PLACES;
/// How full an index of the planned size is, in percent: more would save little and look into second buckets more.
const LOAD_PERCENT: usize = 85;

/// Slots by the hash of their key: read without a lock, written by one at a time. A handle to the buckets.
///
/// A bucket is a cache line: sixteen places, each with a byte of its key's hash, by which a look compares all at once, and
/// a slot. Each hash has two buckets; the second follows from the first and that byte, so that an entry can be moved
/// without its key (Fan, Andersen, Kaminsky and Mitzenmacher, CoNEXT 2014). An entry goes into its second bucket only
/// when the first is full, and the first counts how many did: a look that finds nothing reads one line where the count
/// is zero. At the planned load an entry takes 4.7 bytes.
#[derive(Clone, Copy)]
pub(super) struct Index<'a> {
    buckets: &'a [Bucket],
    /// Odd while entries are being moved between buckets. A reader that found nothing meanwhile looks again.
    moves: &'a AtomicU32,
}

/// Two lanes of sixteen tags, and six of three fields each.
#[repr(align(64))]
pub(super) struct Bucket {
    tags: [AtomicU64; TAG_LANES],
    fields: [AtomicU64; FIELD_LANES],
}

/// Where a hash belongs.
#[derive(Clone, Copy)]
struct Home {
    bucket: usize,
    tag: u8,
}

/// Where a slot stands in the index, until something else is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot {
    bucket: usize,
    place: usize,
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

    /// The slot under `hash` that `is_it` says yes to, which is asked of every slot with the same byte of hash, and where
    /// it stands. Finds what was there all the time; never waits for a writer but while it moves entries.
    #[inline]
    pub(super) fn find(self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<(u32, Spot)> {
        let home = self.home(hash);
        loop {
            let moves = self.moves.load(Ordering::Acquire);
            let bucket = &self.buckets[home.bucket];
            if let Some((slot, place)) = bucket.find(home.tag, &mut is_it) {
                let bucket = home.bucket;
                return Some((slot, Spot { bucket, place }));
            }
            if bucket.field(ALIENS) > 0 {
                let second = self.other(home);
                if let Some((slot, place)) = self.buckets[second].find(home.tag, &mut is_it) {
                    return Some((slot, Spot { bucket: second, place }));
                }
            }
            // An entry may have passed from one bucket to the other between the two looks.
            fence(Ordering::Acquire);
            if moves.is_multiple_of(2) && self.moves.load(Ordering::Relaxed) == moves {
                return None;
            }
            std::hint::spin_loop();
        }
    }

    /// Puts a slot in that is not in. False when there is no room for it, and the buckets have to be more.
    pub(super) fn insert(self, hash: u64, slot: u32) -> bool {
        let home = self.home(hash);
        if self.put(home, slot) {
            return true;
        }
        self.moves.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::Release);
        let made_room = self.make_room(home.bucket) || self.make_room(self.other(home));
        self.moves.fetch_add(1, Ordering::Release);
        made_room && self.put(home, slot)
    }

    /// Names `new` where another slot stands.
    pub(super) fn replace(self, spot: Spot, new: u32) {
        let bucket = &self.buckets[spot.bucket];
        bucket.set_field(spot.place, bucket.field(spot.place) & ALIEN | u64::from(new + 1));
    }

    /// Takes out what stands at `spot`, which was put in under `hash`.
    pub(super) fn remove(self, hash: u64, spot: Spot) {
        let bucket = &self.buckets[spot.bucket];
        let was = bucket.field(spot.place);
        bucket.set_tag(spot.place, 0);
        bucket.set_field(spot.place, 0);
        if was & ALIEN != 0 {
            self.buckets[self.home(hash).bucket].count_aliens(-1);
        }
    }

    /// Where a slot stands that is in under `hash`.
    pub(super) fn locate(self, hash: u64, slot: u32) -> Spot {
        let found = self.find(hash, |found| found == slot);
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

    fn put(self, home: Home, slot: u32) -> bool {
        let field = u64::from(slot + 1);
        let first = &self.buckets[home.bucket];
        if let Some(empty) = first.empty() {
            first.set(empty, field, home.tag);
            return true;
        }
        let second = &self.buckets[self.other(home)];
        let Some(empty) = second.empty() else { return false };
        first.count_aliens(1);
        second.set(empty, field | ALIEN, home.tag);
        true
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
            let moved = from.field(place);
            if moved & ALIEN == 0 {
                from.count_aliens(1);
            } else {
                to.count_aliens(-1);
            }
            to.set(empty, moved ^ ALIEN, home.tag);
            from.set_tag(place, 0);
            from.set_field(place, 0);
            true
        })
    }
}

/// The tag is taken from this bit of the hash on; the bits below choose the shard, the upper half the bucket.
const TAG_FROM: u32 = 13;

/// Brings 32 bits to `0..n` (Lemire, 2019).
#[inline]
fn scale(bits: u64, n: usize) -> usize {
    (bits * n as u64 >> 32) as usize
}

const LOW: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = LOW << 7;

/// The top bits of the bytes of `lane` that are zero, and perhaps of some above one that is.
#[inline]
fn zeros(lane: u64) -> u64 {
    lane.wrapping_sub(LOW) & !lane & HIGH
}

impl Bucket {
    #[inline]
    fn find(&self, tag: u8, is_it: &mut impl FnMut(u32) -> bool) -> Option<(u32, usize)> {
        let all = u64::from(tag) * LOW;
        for (lane, tags) in self.tags.iter().enumerate() {
            let mut matches = zeros(tags.load(Ordering::Acquire) ^ all);
            while matches != 0 {
                let place = lane * 8 + matches.trailing_zeros() as usize / 8;
                let slot = self.field(place) & SLOT;
                // A place that only looks like a match may be empty, or be about to be filled.
                if slot != 0 && is_it(slot as u32 - 1) {
                    return Some((slot as u32 - 1, place));
                }
                matches &= matches - 1;
            }
        }
        None
    }

    #[inline]
    fn field(&self, place: usize) -> u64 {
        self.fields[place / FIELDS].load(Ordering::Acquire) >> (place % FIELDS * FIELD_BITS) & FIELD
    }

    /// Only the one writer stores, so nothing comes between its load and its store.
    fn set_field(&self, place: usize, value: u64) {
        let shift = place % FIELDS * FIELD_BITS;
        put_bits(&self.fields[place / FIELDS], FIELD << shift, value << shift);
    }

    fn tag(&self, place: usize) -> u8 {
        (self.tags[place / 8].load(Ordering::Relaxed) >> (place % 8 * 8)) as u8
    }

    fn set_tag(&self, place: usize, tag: u8) {
        let shift = place % 8 * 8;
        put_bits(&self.tags[place / 8], 0xff << shift, u64::from(tag) << shift);
    }

    /// The field first: whoever sees the tag finds it in place.
    fn set(&self, place: usize, field: u64, tag: u8) {
        self.set_field(place, field);
        self.set_tag(place, tag);
    }

    fn count_aliens(&self, by: i64) {
        self.set_field(ALIENS, self.field(ALIENS).wrapping_add_signed(by));
    }

    fn empty(&self) -> Option<usize> {
        (0..).zip(&self.tags).find_map(|(lane, tags)| {
            let empty = zeros(tags.load(Ordering::Relaxed));
            (empty != 0).then(|| lane * 8 + empty.trailing_zeros() as usize / 8)
        })
    }
}

fn put_bits(lane: &AtomicU64, mask: u64, bits: u64) {
    lane.store(lane.load(Ordering::Relaxed) & !mask | bits, Ordering::Release);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Rng;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn part(entries: usize) -> crate::cache::arena::Part<Bucket> {
        crate::cache::arena::buckets(1, buckets_for(entries)).next().unwrap()
    }

    #[test]
    fn it_takes_what_it_was_planned_for_and_more() {
        for entries in [1, 10, 100, 1_000, 20_000, 150_000] {
            let (part, moves) = (part(entries), AtomicU32::new(0));
            let buckets = part.all();
            let index = Index::new(buckets, &moves);
            let mut rng = Rng::seeded(entries as u64);
            let hashes: Vec<u64> = (0..entries).map(|_| rng.next_u64()).collect();
            for (slot, hash) in hashes.iter().enumerate() {
                assert!(index.insert(*hash, slot as u32), "{slot} of {entries}");
            }
            for (slot, hash) in hashes.iter().enumerate() {
                assert_eq!(
                    index.find(*hash, |found| found == slot as u32).map(|(slot, _)| slot),
                    Some(slot as u32)
                );
            }
            assert!(std::mem::size_of_val(buckets) <= entries * 48 / 10 + 64);
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
                        if index.insert(hash, slot) {
                            model.insert(slot, hash);
                        } else {
                            prop_assert!(model.len() >= PLACES);
                        }
                    }
                    _ => {}
                }
                for (slot, hash) in &model {
                    prop_assert_eq!(index.find(*hash, |found| found == *slot).map(|(slot, _)| slot), Some(*slot));
                }
            }
            for (slot, hash) in model {
                index.remove(hash, index.locate(hash, slot));
            }
            prop_assert!(buckets.iter().all(|bucket| (0..=PLACES).all(|place| bucket.field(place) == 0)));
        }
    }
}
