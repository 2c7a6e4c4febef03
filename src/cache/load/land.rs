use super::look::Ask;
use crate::cache::Rejected;
use crate::cache::flight::{Ended, Flight, Loaded};
use crate::cache::inner::Inner;
use crate::cache::write::Gone;
use crate::sync::pin;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

impl<K: Hash + Eq, V: Clone, S: BuildHasher> Inner<K, V, S> {
    /// Ends a flight: stores its value, unless the key was written in the meantime.
    pub(super) fn land(&self, flight: &Arc<Flight<V>>, hash: u64, ask: Ask, key: impl Fn() -> K, ended: &Ended<V>) {
        let pin = pin();
        let loaded = ended.as_ref().ok().filter(|_| ask.keeps);
        // To remember that there is no value takes an entry; to know it takes one out.
        let kept = |loaded: &&Loaded<V>| loaded.value.is_some() || self.settings.negative_ttl.is_some();
        let mut incoming = loaded
            .filter(kept)
            .map(|loaded| self.incoming(key(), loaded.value.clone(), &loaded.options));
        let removes = loaded.is_some() && incoming.is_none();
        let mut gone = Gone::new();
        let mut part = self.flights.hold(hash);
        let landed = part.take(hash, flight);
        let mut stores = false;
        if let Some((key, _)) = &landed {
            match ended {
                Ok(_) => part.pauses().end(hash),
                Err(_) if self.settings.serves_while_loads_fail() => {
                    part.pauses().begin(hash, self.time.read(), self.settings.refresh_pause);
                }
                Err(_) => {}
            }
            let mut locked = self.shard(hash).lock();
            locked.state().loading -= 1;
            if removes {
                self.remove_in(locked, hash, key, |_| true, &pin, &mut gone);
            } else {
                drop(locked);
                stores = incoming.is_some();
            }
            if stores {
                // Without a slot, whoever asks next loads it again.
                let _put = self.put(&mut incoming, |_, _| true, &pin, &mut gone);
            }
        }
        drop(part);
        drop(landed);
        gone.tell(self.listener.as_ref());
        if stores && incoming.is_some() {
            self.reject(incoming, Rejected::HeldBack);
        }
    }
}
