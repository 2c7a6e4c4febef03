#![allow(
    unsafe_code,
    reason = "memory that is not initialised before it is used has no safe form"
)]

//! Where a slab's slots are, and how they are found.

use super::super::arena::Part;
use super::super::extra::Extra;
use super::super::index::{Bucket, Index, MAX_SLOTS};
use super::{CHUNK, Dead, Slot};
use crate::sync::{AtomicU32, OnceLock};
use std::cell::UnsafeCell;
use std::mem::{MaybeUninit, needs_drop};
use std::sync::Arc;

/// The extras of a column's entries; made when the first entry there needs one.
type Extras = OnceLock<Box<[ExtraCell]>>;

/// The extra of one slot: set while the slot is live or retired and its word says so.
struct ExtraCell(UnsafeCell<Option<Box<Extra>>>);

// SAFETY: as for `Slot`: readers share it under a pin, the holder of the lock changes it while no reader can have it.
unsafe impl Sync for ExtraCell {}

/// Where slots and their names are. Replaced when it has to grow; all its parts are shared with the one before.
#[repr(C, align(64))]
pub(super) struct Map<K, V> {
    pub(super) buckets: Part<Bucket>,
    /// The slots that were planned for.
    pub(super) planned: Part<MaybeUninit<Slot<K, V>>>,
    /// Those beyond, in chunks of one size.
    pub(super) further: Vec<Chunk<K, V>>,
    /// Slots below this number have been used, and so have a word.
    pub(super) used: Arc<AtomicU32>,
    extras: Vec<Arc<Extras>>,
}

/// Slots, of which those are initialised that have been used.
pub(super) type Chunk<K, V> = Arc<[MaybeUninit<Slot<K, V>>; CHUNK]>;

/// Slots of which none has been used.
pub(super) fn new_chunk<K, V>() -> Chunk<K, V> {
    // SAFETY: an array of what need not be initialised is initialised as it is.
    unsafe { Arc::<[MaybeUninit<Slot<K, V>>; CHUNK]>::new_uninit().assume_init() }
}

/// How many slots are planned for so many entries.
pub(super) fn planned_slots(planned: Option<usize>, patience: usize) -> usize {
    // A share of a hashed spread is about the root of the entries more or less.
    let slots = planned.map_or(0, |entries| entries + 2 * patience + 5 * entries.isqrt() / 2);
    slots.min(MAX_SLOTS as usize)
}

impl<K, V> Map<K, V> {
    pub(super) fn new(buckets: Part<Bucket>, planned: Part<MaybeUninit<Slot<K, V>>>) -> Map<K, V> {
        Map {
            extras: (0..planned.len().div_ceil(CHUNK)).map(|_| Arc::default()).collect(),
            further: Vec::new(),
            used: Arc::default(),
            buckets,
            planned,
        }
    }

    #[inline]
    pub(super) fn index<'a>(&'a self, moves: &'a AtomicU32) -> Index<'a> {
        Index::new(self.buckets.all(), moves)
    }

    #[inline]
    pub(super) fn place(&self, slot: u32) -> Option<&MaybeUninit<Slot<K, V>>> {
        let slot = slot as usize;
        if let Some(place) = self.planned.get(slot) {
            return Some(place);
        }
        self.place_beyond(slot)
    }

    #[inline]
    pub(super) fn place_beyond(&self, slot: usize) -> Option<&MaybeUninit<Slot<K, V>>> {
        let beyond = slot - self.planned.len();
        self.further.get(beyond / CHUNK).map(|chunk| &chunk[beyond % CHUNK])
    }

    pub(super) fn extra(&self, slot: u32) -> &UnsafeCell<Option<Box<Extra>>> {
        let (column, row) = (slot as usize / CHUNK, slot as usize % CHUNK);
        let cells = self.extras[column].get_or_init(|| (0..CHUNK).map(|_| ExtraCell(UnsafeCell::new(None))).collect());
        &cells[row].0
    }

    /// The same map with other buckets, or with more slots.
    pub(super) fn with(&self, buckets: Option<Part<Bucket>>, more: Option<Chunk<K, V>>) -> Map<K, V> {
        let slots = self.planned.len() + (self.further.len() + usize::from(more.is_some())) * CHUNK;
        let mut extras = self.extras.clone();
        extras.resize_with(slots.div_ceil(CHUNK), Arc::default);
        Map {
            buckets: buckets.unwrap_or_else(|| self.buckets.clone()),
            planned: self.planned.clone(),
            used: Arc::clone(&self.used),
            further: self.further.iter().cloned().chain(more).collect(),
            extras,
        }
    }

    /// A slot that has been used.
    ///
    /// # Safety
    /// It has been used.
    pub(super) unsafe fn used(&self, slot: u32) -> &Slot<K, V> {
        let place = self.place(slot).expect("a slot in use has a place");
        // SAFETY: the caller's promise.
        unsafe { place.assume_init_ref() }
    }

    /// Takes out what was in a slot, and leaves it free. Nothing where nothing has to be dropped.
    ///
    /// # Safety
    /// The slot is retired, no pin that could have found it is left, and the caller holds the lock or the whole slab.
    pub(super) unsafe fn take(&self, slot: u32) -> Option<Dead<K, V>> {
        // SAFETY: a retired slot has been used.
        let entry = unsafe { self.used(slot) };
        let kind = entry.word.read().kind();
        if !needs_drop::<(K, V)>() && !kind.extra {
            return None;
        }
        // SAFETY: nobody else has the slot, by the caller's promise; it is retired, so its pair is initialised, and it is
        // not read again before it is filled anew, since it becomes free.
        let pair = unsafe { (*entry.pair.get()).assume_init_read() };
        // SAFETY: the value is initialised unless its kind is absent.
        let value = (!kind.absent).then(|| unsafe { pair.value.assume_init() });
        // SAFETY: as for the pair.
        let extra = kind.extra.then(|| unsafe { (*self.extra(slot).get()).take() });
        Some((pair.key, value, extra.flatten()))
    }
}
