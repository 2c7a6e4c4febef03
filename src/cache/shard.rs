use super::budget::Size;
use super::policy::{Entries, EvictionOrder};
use super::slab::{Locked, Moved, Slab, Slot, View};
use super::wheel::Wheel;
use super::word::NEVER;
use crate::sync::pins::Pin;
use std::cell::Cell;
use std::hash::{BuildHasher, Hash};

/// One part of a cache: its entries, and under its lock what decides about them.
pub(super) type Shard<K, V> = Slab<K, V, State>;

/// A shard whose lock is held.
pub(super) type LockedShard<'a, K, V> = Locked<'a, K, V, State>;

/// What decides about the entries of one shard. Plain data: whoever holds it gives the time. What every write looks at
/// comes first.
#[repr(C)]
pub(super) struct State {
    /// How many loads are under way for keys that live here; while there are none, a write need not look for them.
    pub(super) loading: usize,
    /// The slots still to be looked at for entries that a tag's end has made invalid.
    sweep: Sweep,
    /// The deadlines of what expires; made when the first such entry comes.
    wheel: Option<Box<Wheel>>,
    pub(super) numbers: Numbers,
    pub(super) order: Box<dyn EvictionOrder>,
    /// What each slot weighs; empty where weight has no limit.
    weights: Vec<u64>,
    weighted: bool,
    /// For how many entries its memory should be planned, when that is much less than it is planned for.
    pub(super) too_large_for: Option<usize>,
}

/// The numbers by which the policy knows the entries: an entry keeps its own when it is written anew and gets another slot.
/// Two bytes each.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    slots: Vec<u16>,
    free: Vec<u16>,
}

impl Numbers {
    /// A number that no entry has.
    pub(super) fn take(&mut self) -> u16 {
        self.free.pop().unwrap_or_else(|| {
            if self.slots.len() == self.slots.capacity() {
                self.slots.reserve_exact(8 + self.slots.len() / 16);
            }
            self.slots.push(0);
            (self.slots.len() - 1) as u16
        })
    }

    /// Notes where the entry with this number is.
    pub(super) fn set(&mut self, number: u16, slot: u32) {
        self.slots[usize::from(number)] = slot as u16;
    }

    pub(super) fn slot(&self, number: u32) -> u32 {
        let slot = self.slots.get(number as usize);
        u32::from(*slot.expect("a policy names entries by the numbers that it was given"))
    }

    fn give_back(&mut self, number: u16) {
        self.free.push(number);
    }
}

/// A walk through the slots, a few with each write.
#[derive(Debug, Default)]
struct Sweep {
    /// How many invalidations it accounts for.
    seen: u64,
    next: u32,
    left: u32,
}

impl State {
    pub(super) fn new(order: Box<dyn EvictionOrder>, weighted: bool) -> State {
        State {
            order,
            numbers: Numbers {
                slots: Vec::new(),
                free: Vec::with_capacity(512),
            },
            wheel: None,
            weights: Vec::new(),
            weighted,
            loading: 0,
            sweep: Sweep::default(),
            too_large_for: None,
        }
    }

    /// Whether a write has nothing to see to but its own entry: nothing expires, nothing is being loaded, and no tag has
    /// ended, of `seen` times that any has, for which entries are still to be looked at.
    #[inline]
    pub(super) fn is_quiet(&self, seen: u64) -> bool {
        self.loading == 0 && !self.has_deadlines() && self.sweep.seen == seen && self.sweep.left == 0
    }

    /// Whether any entry expires, so that a write needs the time.
    pub(super) fn has_deadlines(&self) -> bool {
        self.wheel.as_ref().is_some_and(|wheel| !wheel.is_empty())
    }

    /// The first moment at which anything may expire.
    pub(super) fn next_due(&self) -> Option<u64> {
        self.wheel.as_ref()?.next_due_ms()
    }

    /// Notes an entry that was put in at `slot`.
    pub(super) fn note(&mut self, slot: u32, deadline: u64, weight: u64, now: u64) {
        if deadline != NEVER {
            let wheel = self.wheel.get_or_insert_with(|| Box::new(Wheel::new(now)));
            wheel.schedule(slot, deadline);
        }
        if self.weighted {
            let at = slot as usize;
            if at >= self.weights.len() {
                self.weights.reserve_exact((at + 1 - self.weights.len()).max(at / 8));
                self.weights.resize(at + 1, 0);
            }
            self.weights[at] = weight;
        }
    }

    /// Notes that the entry at `slot` leaves, and says what it took of the budget.
    pub(super) fn note_gone(&mut self, slot: u32) -> Size {
        if let Some(wheel) = &mut self.wheel {
            wheel.cancel(slot);
        }
        Size {
            count: 1,
            weight: self.weight(slot),
        }
    }

    /// Notes that entries have other slots, all of them below `slots`.
    pub(super) fn renumber(&mut self, moves: &[Moved], slots: u32) {
        for moved in moves.iter().copied() {
            let Moved { old, new, deadline, .. } = moved;
            self.numbers.set(moved.number, new);
            if let Some(wheel) = &mut self.wheel {
                wheel.cancel(old);
                if deadline != NEVER {
                    wheel.schedule(new, deadline);
                }
            }
            if self.weighted {
                let weight = self.weight(old);
                if new as usize >= self.weights.len() {
                    self.weights.resize(new as usize + 1, 0);
                }
                self.weights[new as usize] = weight;
            }
        }
        if let Some(wheel) = &mut self.wheel {
            wheel.shrink(slots);
        }
        self.weights.truncate(slots as usize);
        self.weights.shrink_to_fit();
        // Whatever was to be looked at may be anywhere now.
        self.sweep.next = 0;
        if self.sweep.left > 0 {
            self.sweep.left = slots;
        }
    }

    /// What the entry at `slot` weighs.
    pub(super) fn weight(&self, slot: u32) -> u64 {
        self.weights.get(slot as usize).copied().unwrap_or(0)
    }
}

/// The entries of a shard as a policy sees them.
struct Look<'a, K, V, S> {
    numbers: &'a Numbers,
    entries: View<'a, K, V, State>,
    hasher: &'a S,
    /// The last hash that was asked for, and of which entry.
    asked: Cell<Option<(u32, u64)>>,
}

/// Who leaves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Victim {
    pub(super) slot: u32,
    /// The hash of its key, where it is known.
    hash: Option<u64>,
}

impl<K, V, S> Look<'_, K, V, S> {
    fn entry(&self, number: u32) -> &Slot<K, V> {
        self.entries.at(self.numbers.slot(number))
    }
}

impl<K: Hash, V, S: BuildHasher> Entries for Look<'_, K, V, S> {
    fn mark(&self, number: u32) -> u8 {
        self.entry(number).word.read().mark()
    }

    fn set_mark(&self, number: u32, mark: u8) {
        self.entry(number).word.set_mark(mark);
    }

    fn hash(&self, number: u32) -> u64 {
        let hash = hash_of(self.hasher, self.entry(number).key());
        self.asked.set(Some((number, hash)));
        hash
    }

    fn is_next(&self, number: u32) {
        if let Some(slot) = self.numbers.slots.get(number as usize) {
            self.entries.prefetch(u32::from(*slot));
        }
    }
}

/// Two to the 64th over the golden ratio.
const STIR: u64 = 0x9e37_79b9_7f4a_7c15;

/// The hash of a key: what the hasher gives, stirred once more, since each part of it serves another purpose.
#[inline]
pub(super) fn hash_of<Q: Hash + ?Sized>(hasher: &impl BuildHasher, key: &Q) -> u64 {
    let product = u128::from(hasher.hash_one(key) ^ STIR) * u128::from(STIR);
    (product >> 64) as u64 ^ product as u64
}

impl<K, V> LockedShard<'_, K, V> {
    /// The slots of all entries, each once, what is most worth keeping first: those that the policy does not name come
    /// last.
    pub(super) fn ranked(&mut self, pin: &Pin) -> Vec<u32> {
        let mut seen = vec![false; self.used(pin) as usize];
        let State { order, numbers, .. } = self.state();
        let mut ranked: Vec<u32> = order.hottest().into_iter().map(|number| numbers.slot(number)).collect();
        let slab = self.slab();
        let is_new = |slot: &u32| slab.at(*slot, pin).is_some() && !std::mem::replace(&mut seen[*slot as usize], true);
        ranked.retain(is_new);
        let others = slab
            .live(pin)
            .map(|(slot, _)| slot)
            .filter(|slot| !seen[*slot as usize]);
        ranked.extend(others);
        ranked
    }
}

impl<K: Hash, V> LockedShard<'_, K, V> {
    /// Lets the policy choose who leaves. There is at least one entry.
    pub(super) fn choose(&mut self, hasher: &impl BuildHasher, pin: &Pin) -> Victim {
        let (state, entries) = self.split(pin);
        let State { order, numbers, .. } = state;
        let look = Look {
            numbers,
            entries,
            hasher,
            asked: Cell::new(None),
        };
        let victim = order.victim(&look);
        let asked = look.asked.get().filter(|(number, _)| *number == victim);
        Victim {
            slot: numbers.slot(victim),
            hash: asked.map(|(_, hash)| hash),
        }
    }

    /// Takes out a victim, of which the policy knows already, and says what it took of the budget.
    pub(super) fn drop_out(&mut self, victim: Victim, hasher: &impl BuildHasher, pin: &Pin) -> Size {
        let Victim { slot, hash } = victim;
        let hash = hash.unwrap_or_else(|| hash_of(hasher, self.at(slot, pin).key()));
        self.let_go(slot, hash, pin)
    }

    fn let_go(&mut self, slot: u32, hash: u64, pin: &Pin) -> Size {
        let number = self.unlink(slot, hash, pin);
        self.state().numbers.give_back(number as u16);
        self.state().note_gone(slot)
    }

    /// Takes out the entry at `slot`.
    pub(super) fn remove(&mut self, slot: u32, hasher: &impl BuildHasher, pin: &Pin) -> Size {
        let entry = self.at(slot, pin);
        let number = entry.word.read().number();
        // The key's code first, then the policy's: if either panics, the entry is still there, and counted.
        let hash = hash_of(hasher, entry.key());
        self.state().order.forget(number);
        self.let_go(slot, hash, pin)
    }

    /// An entry whose deadline is not after `now`. Looks at as many as `budget` says, which it counts down.
    pub(super) fn next_expired(&mut self, now: u64, budget: &mut usize, pin: &Pin) -> Option<u32> {
        let (state, entries) = self.split(pin);
        let wheel = state.wheel.as_mut()?;
        wheel.next_expired(now, budget, |slot| entries.at(slot).word.read().deadline())
    }

    /// Whether nothing is left to look at after tags were invalidated, `seen` times so far.
    pub(super) fn is_swept(&mut self, seen: u64) -> bool {
        let sweep = &self.state().sweep;
        sweep.seen == seen && sweep.left == 0
    }

    /// The next few slots to look at after tags were invalidated, `seen` times so far.
    pub(super) fn sweep(&mut self, seen: u64, at_most: u32, pin: &Pin) -> impl Iterator<Item = u32> + use<K, V> {
        let used = self.used(pin);
        let sweep = &mut self.state().sweep;
        if sweep.seen != seen {
            sweep.seen = seen;
            sweep.left = used;
        }
        // There may be fewer slots by now than when it began.
        let left = sweep.left.min(used);
        let steps = left.min(at_most);
        let first = sweep.next;
        sweep.left = left - steps;
        sweep.next = if used == 0 { 0 } else { (first + steps) % used };
        (first..first + steps).map(move |slot| slot % used.max(1))
    }
}
