#![allow(
    unsafe_code,
    reason = "a value that is read without a lock while another takes its place has no safe form"
)]

//! Entries in slots that never move, found by key without a lock, written under one.
//!
//! A slot passes through three states. It is *live* while the index names it. Then it is *retired*: nobody finds it
//! any more, and those who had found it read on under their pins. When the last of them has gone it is *free*, its pair
//! is dropped, and it may be filled anew. Only the holder of the lock moves a slot from one state to the next, and an
//! update is a new slot under the old name, never a write into a live one.

use super::arena::{self, Part};
use super::extra::Extra;
use super::index::{self, Index, MAX_SLOTS, Spot, Unseen, Vacancy};
use super::word::{Kind, Reading, Word};
use crate::sync::pins::{self, Pin};
use crate::sync::{AtomicU32, CachePadded, Mutex, MutexGuard, Ordering, Published};
use hashbrown::Equivalent;
use std::mem::{MaybeUninit, needs_drop};

mod map;
mod relocate;
mod retired;
mod slot;
use map::{Map, planned_slots};
pub(super) use relocate::{Moved, Relocated};
use retired::Retired;
use slot::Pair;
pub(super) use slot::{Dead, New, Slot};

/// Retired slots that readers may hold back in a shard, beside an eighth of its entries.
const HELD: usize = 512;
/// The index gets no more buckets than so many times the entries need: beyond, it is their hashes that are too much alike.
const CROWDED: usize = 8;
/// A shard of fewer entries may have as many buckets as one of so many.
const FEW: usize = 64;

/// Slots in a chunk beyond those that were planned for, and in a column of extras.
const CHUNK: usize = 256;

/// One part of a cache: readers look up in it without a lock, and its lock guards `state` beside the entries. A cache
/// line, which holds all that they need of it, so that those of many shards fit into the processor's nearest memory.
#[repr(align(64))]
pub(super) struct Slab<K, V, X> {
    map: Published<Map<K, V>>,
    /// See [`Index`].
    moves: AtomicU32,
    writer: Box<CachePadded<Mutex<Writer<X>>>>,
}

/// What every write looks at comes first, to be on few cache lines.
#[repr(C)]
struct Writer<X> {
    retired: Retired,
    len: usize,
    /// Retired slots from which on the epoch is pushed to move.
    patience: u32,
    /// Changes when slots get other numbers.
    layout: u32,
    state: X,
    free: Vec<u16>,
    /// Whether any entry ever had an extra.
    has_extras: bool,
}

/// A slot, and its number.
type Numbered<'a, K, V> = (u32, &'a Slot<K, V>);

/// That a short look has not seen a key, and where it looked.
pub(super) struct NotYet<'a, K, V> {
    map: &'a Map<K, V>,
    unseen: Unseen,
}

impl<K, V> Clone for NotYet<'_, K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> Copy for NotYet<'_, K, V> {}

/// Why there is no slot for an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoSlot {
    /// Readers hold back too many retired ones.
    Held,
    /// All that can be numbered are live.
    Full,
}

impl<K, V, X> Slab<K, V, X> {
    /// Slabs, each planned for so many entries, or for a number that shows later, which push the epoch when so many have
    /// been retired.
    pub(super) fn several(
        planned: Option<usize>,
        patience: usize,
        states: Vec<X>,
    ) -> impl Iterator<Item = Slab<K, V, X>> {
        let slots = planned_slots(planned, patience);
        let spare = planned.map_or(patience, |entries| entries / 16);
        let buckets = index::buckets_for(planned.unwrap_or(16));
        let buckets = arena::buckets(states.len(), buckets);
        let slots = arena::uninit(states.len(), slots);
        let parts = buckets.zip(slots);
        parts.zip(states).map(move |((buckets, planned), state)| Slab {
            map: Published::new(Map::new(buckets, planned)),
            moves: AtomicU32::new(0),
            writer: Box::new(CachePadded::new(Mutex::new(Writer {
                // Room for what comes and goes at all times, so that no write has to take some.
                free: Vec::with_capacity(spare),
                retired: Retired::for_some(patience),
                len: 0,
                patience: patience as u32,
                layout: 0,
                state,
                has_extras: false,
            }))),
        })
    }

    /// Memory for the planned slots of all these slabs, for [`exchange`](Locked::exchange).
    pub(super) fn fresh_slots(
        slabs: &[Slab<K, V, X>],
    ) -> impl Iterator<Item = Part<MaybeUninit<Slot<K, V>>>> + use<K, V, X> {
        let planned = slabs
            .first()
            .map_or(0, |slab| slab.map.load(&pins::pin()).planned.len());
        arena::uninit(slabs.len(), planned)
    }

    /// The entry under `key`, which lives as long as the pin does. Takes no lock, and writes nothing.
    #[inline]
    pub(super) fn find<'a, Q>(&'a self, hash: u64, key: &Q, pin: &'a Pin) -> Option<Numbered<'a, K, V>>
    where
        Q: Equivalent<K> + ?Sized,
    {
        let (slot, entry, _) = self.find_spot(hash, key, pin)?;
        Some((slot, entry))
    }

    #[inline]
    fn find_spot<'a, Q>(&'a self, hash: u64, key: &Q, pin: &'a Pin) -> Option<(u32, &'a Slot<K, V>, Spot)>
    where
        Q: Equivalent<K> + ?Sized,
    {
        let map = self.map.load(pin);
        let is_it = |slot| self.is_it(map, slot, key, pin);
        let ((slot, entry), spot) = map.index(&self.moves).find(hash, is_it)?;
        Some((slot, entry, spot))
    }

    /// As [`find`](Slab::find), but only where nearly all entries are; others are to be looked for further.
    #[inline(always)]
    pub(super) fn glance<'a, Q>(
        &'a self,
        hash: u64,
        key: &Q,
        pin: &'a Pin,
    ) -> Result<Numbered<'a, K, V>, NotYet<'a, K, V>>
    where
        Q: Equivalent<K> + ?Sized,
    {
        let map = self.map.load(pin);
        let is_it = |slot| {
            let place = map.place(slot)?;
            // SAFETY: as in `is_it`.
            let found = unsafe { place.assume_init_ref() };
            // SAFETY: as in `is_it`.
            key.equivalent(unsafe { &found.pair().key }).then_some((slot, found))
        };
        match map.index(&self.moves).glance(hash, is_it) {
            Ok((found, _)) => Ok(found),
            Err(unseen) => Err(NotYet { map, unseen }),
        }
    }

    /// Goes on where [`glance`](Slab::glance) has seen nothing.
    #[inline]
    pub(super) fn find_further<'a, Q>(
        &'a self,
        hash: u64,
        key: &Q,
        not_yet: NotYet<'a, K, V>,
        pin: &'a Pin,
    ) -> Option<Numbered<'a, K, V>>
    where
        Q: Equivalent<K> + ?Sized,
    {
        let NotYet { map, unseen } = not_yet;
        // A slot that the map has not is in a later one, which was there before it was named.
        if !std::ptr::eq(map, self.map.load(pin)) {
            return self.find(hash, key, pin);
        }
        let is_it = |slot| self.is_it(map, slot, key, pin);
        let (found, _) = map.index(&self.moves).find_further(hash, unseen, is_it)?;
        Some(found)
    }

    /// What is in a slot that the index of `map` has just named, if it is under `key`.
    #[inline(always)]
    fn is_it<'a, Q>(&'a self, map: &'a Map<K, V>, slot: u32, key: &Q, pin: &'a Pin) -> Option<Numbered<'a, K, V>>
    where
        Q: Equivalent<K> + ?Sized,
    {
        // SAFETY: the index named the slot after `pin` was taken, so it was live then and is not freed while the pin
        // lives; its word and its pair were in place before it was named (the index publishes with Release). A slot
        // beyond this map was named in a later one; see `slot_named`.
        let found = unsafe { self.slot_named(map, slot, pin) };
        // SAFETY: as above.
        key.equivalent(unsafe { &found.pair().key }).then_some((slot, found))
    }

    /// # Safety
    /// The slot was named by the index of `map` after `pin` was taken.
    #[inline]
    unsafe fn slot_named<'a>(&'a self, map: &'a Map<K, V>, slot: u32, pin: &'a Pin) -> &'a Slot<K, V> {
        // The buckets outlive the map when only slots are added, so they may name a slot of a later map.
        let place = map.place(slot).or_else(|| self.map.load(pin).place(slot));
        let place = place.expect("a named slot has a place");
        // SAFETY: a named slot has been used, so it is initialised.
        unsafe { place.assume_init_ref() }
    }

    /// The entry at `slot` while it is live.
    #[inline]
    pub(super) fn at<'a>(&'a self, slot: u32, pin: &'a Pin) -> Option<&'a Slot<K, V>> {
        let map = self.map.load(pin);
        if slot >= map.used.load(Ordering::Acquire) {
            return None;
        }
        let place = map.place(slot)?;
        // SAFETY: it has been used, so its word is initialised; `used` was raised after that (Release).
        let slot = unsafe { place.assume_init_ref() };
        slot.word.read().is_live().then_some(slot)
    }

    /// Every live entry, in no useful order. What is written meanwhile may be there or not.
    pub(super) fn live<'a>(&'a self, pin: &'a Pin) -> impl Iterator<Item = Numbered<'a, K, V>> {
        let used = self.map.load(pin).used.load(Ordering::Acquire);
        (0..used).filter_map(|slot| Some((slot, self.at(slot, pin)?)))
    }

    /// The extra of an entry that has one.
    pub(super) fn extra<'a>(&'a self, slot: u32, read: Reading, pin: &'a Pin) -> Option<&'a Extra> {
        if !read.kind().extra {
            return None;
        }
        let map = self.map.load(pin);
        // SAFETY: `read` comes from an entry that the caller found under its pin, and says that the extra was set before
        // the entry was published; it stays until the slot is freed, which the pin holds back.
        unsafe { (*map.extra(slot).get()).as_deref() }
    }

    /// Asks the processor to have a slot at hand soon. It does not matter whether there is one.
    #[inline]
    fn prefetch(&self, slot: u32, pin: &Pin) {
        #[cfg(target_arch = "x86_64")]
        if let Some(place) = self.map.load(pin).planned.get(slot as usize) {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: a hint about memory that is there; it changes nothing.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(place.as_ptr().cast()) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (slot, pin);
    }

    /// Takes the lock.
    #[inline]
    pub(super) fn lock(&self) -> Locked<'_, K, V, X> {
        let mut writer = self.writer.lock();
        writer.retired.stamp_after_lock();
        Locked { slab: self, writer }
    }

    /// Takes the oldest retired slot, if it is free by now.
    #[inline]
    fn reclaim(&self, writer: &mut Writer<X>, push: bool, dead: &mut Option<Dead<K, V>>, pin: &Pin) -> Option<u32> {
        let slot = writer.retired.next_free(push)?;
        if needs_drop::<(K, V)>() || writer.has_extras {
            // SAFETY: the slot was retired before it was stamped, and its stamp says that every pin that could have found it
            // is gone; the caller holds the lock.
            *dead = unsafe { self.map.load(pin).take(slot) };
        }
        Some(slot)
    }
}

#[cfg(test)]
impl<K, V, X> Slab<K, V, X> {
    /// The memory of the planned slots, if it is still there.
    pub(super) fn memory(&self) -> std::sync::Weak<[MaybeUninit<Slot<K, V>>]> {
        self.map.load(&pins::pin()).planned.piece()
    }
}

/// A slab whose lock is held.
pub(super) struct Locked<'a, K, V, X> {
    slab: &'a Slab<K, V, X>,
    writer: MutexGuard<'a, Writer<X>>,
}

/// An entry that the holder of the lock found under a key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Located {
    pub(super) slot: u32,
    spot: Spot,
}

impl<'a, K, V, X> Locked<'a, K, V, X> {
    pub(super) fn slab(&self) -> &'a Slab<K, V, X> {
        self.slab
    }

    pub(super) fn state(&mut self) -> &mut X {
        &mut self.writer.state
    }

    /// How many entries are live.
    pub(super) fn len(&self) -> usize {
        self.writer.len
    }

    /// How many retired entries are held back.
    pub(super) fn held(&self) -> usize {
        self.writer.retired.len()
    }

    /// Slots that have been used: all live ones have smaller numbers.
    pub(super) fn used(&self, pin: &Pin) -> u32 {
        self.slab.map.load(pin).used.load(Ordering::Relaxed)
    }

    /// The entry under `key`.
    #[inline]
    pub(super) fn find<Q: Equivalent<K> + ?Sized>(&self, hash: u64, key: &Q, pin: &Pin) -> Option<Located> {
        let (located, _) = self.find_entry(hash, key, pin)?;
        Some(located)
    }

    /// The entry under `key`, and what it is.
    #[inline]
    pub(super) fn find_entry<'p, Q>(&self, hash: u64, key: &Q, pin: &'p Pin) -> Option<(Located, &'p Slot<K, V>)>
    where
        Q: Equivalent<K> + ?Sized,
        'a: 'p,
    {
        let (slot, entry, spot) = self.slab.find_spot(hash, key, pin)?;
        Some((Located { slot, spot }, entry))
    }

    /// A live entry; it lives as long as the pin does, the lock or not.
    pub(super) fn at<'p>(&self, slot: u32, pin: &'p Pin) -> &'p Slot<K, V>
    where
        'a: 'p,
    {
        self.slab.at(slot, pin).expect("the slot is live")
    }

    /// The state, and a view of the entries beside it.
    pub(super) fn split<'s>(&'s mut self, pin: &'s Pin) -> (&'s mut X, View<'s, K, V, X>) {
        let view = View { slab: self.slab, pin };
        (&mut self.writer.state, view)
    }

    /// Sees to it that the slot which is likely to be filled next is at hand by then.
    #[inline]
    pub(super) fn prefetch(&self, pin: &Pin) {
        if let Some(slot) = self.writer.retired.oldest() {
            self.slab.prefetch(slot, pin);
        }
    }

    /// Finds a free slot, and puts what was in it into `dead`. It is the caller's to fill.
    #[inline]
    pub(super) fn take_slot(&mut self, dead: &mut Option<Dead<K, V>>, pin: &Pin) -> Result<u32, NoSlot> {
        let writer = &mut *self.writer;
        let push = writer.retired.len() >= writer.patience as usize;
        if let Some(slot) = self.slab.reclaim(writer, push, dead, pin) {
            return Ok(slot);
        }
        if let Some(slot) = writer.free.pop() {
            return Ok(u32::from(slot));
        }
        // Beyond this the memory that readers hold back would not be bounded.
        if writer.retired.len() > HELD + writer.len / 8 {
            return Err(NoSlot::Held);
        }
        self.use_another(pin).ok_or(NoSlot::Full)
    }

    /// Takes back a slot from [`take_slot`](Locked::take_slot) that was not filled.
    pub(super) fn put_back(&mut self, slot: u32) {
        self.writer.free.push(slot as u16);
    }

    /// Takes a slot into use that never was; none when all that can be numbered are.
    fn use_another(&mut self, pin: &Pin) -> Option<u32> {
        let slot = self.used(pin);
        if slot == MAX_SLOTS {
            return None;
        }
        let mut map = self.slab.map.load(pin);
        if map.place(slot).is_none() {
            self.slab.map.store(map.with(None, Some(map::new_chunk())));
            map = self.slab.map.load(pin);
        }
        let place = map.place(slot).expect("the map has grown");
        let place = place.as_ptr().cast_mut();
        // SAFETY: the slot has never been used, so nobody reads it before `used` is raised, and only the holder of the lock
        // raises that; its memory may be written through a shared reference, since a slot is made of cells.
        unsafe { (&raw mut (*place).word).write(Word::default()) };
        map.used.store(slot + 1, Ordering::Release);
        Some(slot)
    }

    /// A place in the index for a new key. Where too many keys have hashes that are alike, and all buckets that there may
    /// be are no use, it names the slot of one that has to go. `hash_of` hashes a key as `hash` was.
    pub(super) fn vacancy(&mut self, hash: u64, pin: &Pin, hash_of: &impl Fn(&K) -> u64) -> Result<Vacancy, u32> {
        let index = self.slab.map.load(pin).index(&self.slab.moves);
        match index.vacancy(hash) {
            Some(vacancy) => Ok(vacancy),
            None => self.grow(hash, pin, hash_of).ok_or_else(|| index.in_the_way(hash)),
        }
    }

    /// Fills a slot from [`take_slot`](Locked::take_slot) and names it, in the place of another, which is then retired, or
    /// in one of its own.
    #[inline(always)]
    pub(super) fn fill(&mut self, slot: u32, new: New<K, V>, place_of: Result<Located, Vacancy>, pin: &Pin) {
        let map = self.slab.map.load(pin);
        // SAFETY: `take_slot` gave it, so it has been used.
        let place = unsafe { map.used(slot) };
        let kind = Kind {
            absent: new.value.is_none(),
            extra: new.extra.is_some(),
            idle: new.idle,
        };
        let pair = Pair {
            key: new.key,
            value: new.value.map_or(MaybeUninit::uninit(), MaybeUninit::new),
        };
        // SAFETY: `take_slot` gave the slot to the caller, so it is free: nobody reads it, and nothing in it is lost.
        unsafe { (*place.pair.get()).write(pair) };
        if new.extra.is_some() {
            self.writer.has_extras = true;
            // SAFETY: as for the pair.
            unsafe { *map.extra(slot).get() = new.extra };
        }
        place.word.publish(new.deadline, new.mark, kind, new.number);
        let index = map.index(&self.slab.moves);
        match place_of {
            Ok(old) => {
                index.replace(old.spot, slot);
                // SAFETY: it is live, so it has been used.
                self.retire(old.slot, unsafe { map.used(old.slot) });
            }
            Err(vacancy) => index.insert(vacancy, slot),
        }
        self.writer.len += 1;
    }

    /// Takes a live entry out of the index, retires it, and says by which number the policy knew it.
    pub(super) fn unlink(&mut self, slot: u32, hash: u64, pin: &Pin) -> u32 {
        let map = self.slab.map.load(pin);
        let index = map.index(&self.slab.moves);
        index.remove(hash, index.locate(hash, slot));
        // SAFETY: it is live, so it has been used.
        let entry = unsafe { map.used(slot) };
        self.retire(slot, entry);
        entry.word.read().number()
    }

    #[inline]
    fn retire(&mut self, slot: u32, entry: &Slot<K, V>) {
        entry.word.retire();
        self.writer.retired.push(slot);
        self.writer.len -= 1;
    }

    /// Gives the memory of all slots back, if none is in use, for memory that nobody has touched. Takes no pin, which would
    /// hold it back.
    pub(super) fn exchange(&mut self, planned: Part<MaybeUninit<Slot<K, V>>>) {
        let writer = &mut *self.writer;
        if writer.len > 0 || writer.retired.len() > 0 {
            return;
        }
        writer.free = Vec::new();
        writer.retired = Retired::default();
        // The buckets are new ones too: those who still have the old map must not find names of new slots in them.
        let buckets = self.slab.map.load(&pins::pin()).buckets.len();
        let buckets = arena::buckets(1, buckets).next();
        self.slab
            .map
            .store(Map::new(buckets.expect("one part was asked for"), planned));
    }

    /// Frees one slot that nobody can read any more; what was in it is given back if it has to be dropped. With `push` it
    /// tries to move the epoch on first.
    pub(super) fn reclaim(&mut self, push: bool, pin: &Pin) -> Option<Option<Dead<K, V>>> {
        let mut dead = None;
        let slot = self.slab.reclaim(&mut self.writer, push, &mut dead, pin)?;
        self.writer.free.push(slot as u16);
        Some(dead)
    }

    /// Gives the index more buckets, until there is a place for a hash. None when so many as there may be are not enough.
    #[cold]
    fn grow(&mut self, hash: u64, pin: &Pin, hash_of: &impl Fn(&K) -> u64) -> Option<Vacancy> {
        let map = self.slab.map.load(pin);
        let mut entries = index::planned(map.buckets.all()).max(self.writer.len);
        while entries < CROWDED * self.writer.len.max(FEW) {
            entries += entries.max(16);
            let mut buckets = arena::buckets(1, index::buckets_for(entries));
            let buckets = buckets.next().expect("one part was asked for");
            let moves = AtomicU32::new(0);
            let index = Index::new(buckets.all(), &moves);
            let mut live = self.slab.live(pin);
            let all = live.try_for_each(|(slot, entry)| {
                index.insert(index.vacancy(hash_of(entry.key()))?, slot);
                Some(())
            });
            if let Some(vacancy) = all.and_then(|()| index.vacancy(hash)) {
                self.slab.map.store(map.with(Some(buckets), None));
                return Some(vacancy);
            }
        }
        None
    }
}

/// The entries of a locked slab, to look at beside its state.
pub(super) struct View<'a, K, V, X> {
    slab: &'a Slab<K, V, X>,
    pin: &'a Pin,
}

impl<'a, K, V, X> View<'a, K, V, X> {
    /// A live entry.
    ///
    /// # Panics
    /// When it is not live.
    #[inline]
    pub(super) fn at(&self, slot: u32) -> &'a Slot<K, V> {
        let found = self.slab.at(slot, self.pin);
        found.expect("a policy names entries that it was given and that have not left")
    }

    /// Sees to it that a slot is at hand when it is looked at.
    #[inline]
    pub(super) fn prefetch(&self, slot: u32) {
        self.slab.prefetch(slot, self.pin);
    }
}

impl<K, V, X> Drop for Slab<K, V, X> {
    fn drop(&mut self) {
        let pin = pins::pin();
        let map = self.map.load(&pin);
        let live = self.live(&pin).map(|(slot, _)| slot);
        let retired = std::mem::take(&mut self.writer.lock().retired);
        for slot in live.chain(retired.slots()) {
            // SAFETY: `&mut self` proves that no reference to an entry is left, since each borrows the slab; each slot is
            // live or retired, never both, and is named once.
            drop(unsafe { map.take(slot) });
        }
    }
}
