use super::look::Ask;
use crate::cache::Rejected;
use crate::cache::flight::{Ended, Flight, Loaded};
use crate::cache::inner::Inner;
use crate::cache::patience::Patience;
use crate::cache::write::{Gone, Incoming};
use crate::sync::pin;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

impl<K: Hash + Eq, V: Clone, S: BuildHasher> Inner<K, V, S> {
    /// Ends a flight: stores its value, unless the key was written in the meantime. As an insert it waits a little for
    /// readers that hold memory back; until then the flight is under way.
    pub(super) fn land(&self, flight: &Arc<Flight<V>>, hash: u64, ask: Ask, key: impl Fn() -> K, ended: &Ended<V>) {
        let loaded = ended.as_ref().ok().filter(|_| ask.keeps);
        // To remember that there is no value takes an entry; to know it takes one out.
        let kept = |loaded: &&Loaded<V>| loaded.value.is_some() || self.settings.negative_ttl.is_some();
        let mut incoming = loaded
            .filter(kept)
            .map(|loaded| self.incoming(key(), loaded.value.clone(), &loaded.options));
        let removes = loaded.is_some() && incoming.is_none();
        let mut patience = Patience::new();
        loop {
            let landed = self.try_to_land(flight, hash, removes, &mut incoming, ended.is_ok());
            // Without a slot it is not stored, and whoever asks next loads it again.
            match landed {
                Landed::Yes | Landed::Detached => return,
                Landed::NoSlot if patience.wait() => {}
                Landed::NoSlot => break,
            }
        }
        self.take_down(flight, hash);
        self.reject(incoming, Rejected::HeldBack);
    }

    fn try_to_land(
        &self,
        flight: &Arc<Flight<V>>,
        hash: u64,
        removes: bool,
        incoming: &mut Option<Incoming<K, V>>,
        succeeded: bool,
    ) -> Landed {
        let pin = pin();
        let mut gone = Gone::new();
        let mut part = self.flights.hold(hash);
        if !part.has(hash, flight) {
            return Landed::Detached;
        }
        let stores = incoming.is_some();
        if stores {
            let _put = self.put(incoming, |_, _| true, &pin, &mut gone);
        }
        let mut taken = None;
        if incoming.is_none() {
            taken = part.take(hash, flight);
            if succeeded {
                part.pauses().end(hash);
            } else if self.settings.serves_while_loads_fail() {
                part.pauses().begin(hash, self.time.read(), self.settings.refresh_pause);
            }
            let mut locked = self.shard(hash).lock();
            locked.state().loading -= 1;
            if let Some((key, _)) = taken.as_ref().filter(|_| removes) {
                self.remove_in(locked, hash, key, |_| true, &pin, &mut gone);
            }
        }
        drop(part);
        gone.tell(self.listener.as_ref());
        match taken {
            Some(_) => Landed::Yes,
            None => Landed::NoSlot,
        }
    }
}

impl<K: Hash + Eq, V, S: BuildHasher> Inner<K, V, S> {
    /// Ends a flight that stores nothing.
    pub(super) fn take_down(&self, flight: &Arc<Flight<V>>, hash: u64) {
        let mut part = self.flights.hold(hash);
        let taken = part.take(hash, flight);
        if taken.is_some() {
            self.shard(hash).lock().state().loading -= 1;
        }
        drop(part);
        drop(taken);
    }
}

/// What came of trying to land.
enum Landed {
    Yes,
    /// The key was written in the meantime.
    Detached,
    /// There is no slot for the value now.
    NoSlot,
}
