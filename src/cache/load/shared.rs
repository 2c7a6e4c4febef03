use crate::cache::flight::{Ended, Failure, Flight, Loaded, Seat, Start, Work};
use crate::cache::inner::Inner;
use crate::sync::Mutex;
use futures::FutureExt;
use hashbrown::HashTable;
use std::future::Future;
use std::hash::{BuildHasher, Hash};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// One loader of several keys: a flight whose passengers are the flights of those keys, so that whoever drives one of
/// them drives it.
struct Shared<V> {
    flight: Flight<Found<V>>,
    loader: Mutex<Option<Work<Found<V>>>>,
}

/// What was found of each key.
type Found<V> = Vec<Option<V>>;

/// One key's part in a loader of several.
pub(super) struct Share<V> {
    shared: Arc<Shared<V>>,
    seat: Seat,
    place: usize,
}

/// Shares of `loader`, one for each of `keys`.
pub(super) fn share<K, V, S, L>(inner: &Arc<Inner<K, V, S>>, keys: Vec<K>, loader: L) -> Vec<Share<V>>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Send + Sync + 'static,
    L: Future<Output = Result<Vec<(K, V)>, Failure>> + Send + 'static,
{
    let (flight, first) = Flight::new(None);
    let places = 0..keys.len();
    let inner = Arc::clone(inner);
    let loader = loader
        .map(move |pairs| Ok(Loaded::from(in_order(&inner, &keys, pairs?))))
        .boxed();
    let loader = Mutex::new(Some(loader));
    let shared = Arc::new(Shared { flight, loader });
    let share = |place| Share {
        seat: if place == 0 {
            first
        } else {
            shared.flight.board().expect("its first passenger is aboard")
        },
        shared: Arc::clone(&shared),
        place,
    };
    places.map(share).collect()
}

/// The values of `pairs` in the order of `keys`.
fn in_order<K: Hash + Eq, V, S: BuildHasher>(inner: &Inner<K, V, S>, keys: &[K], pairs: Vec<(K, V)>) -> Found<V> {
    let mut places = HashTable::with_capacity(keys.len());
    for (place, key) in keys.iter().enumerate() {
        places.insert_unique(inner.hash(key), place, |place| inner.hash(&keys[*place]));
    }
    let mut found: Found<V> = keys.iter().map(|_| None).collect();
    for (key, value) in pairs {
        if let Some(place) = places.find(inner.hash(&key), |place| keys[*place] == key) {
            found[*place] = Some(value);
        }
    }
    found
}

impl<V: Clone> Future for Share<V> {
    type Output = Ended<V>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ended<V>> {
        let Shared { flight, loader } = &*self.shared;
        let start = || {
            let loader = loader.lock().take();
            // Without one it was started, and panicked.
            loader.map_or_else(|| Start::Done(Err(Failure::Lost)), Start::Work)
        };
        let share = |found: &Found<V>| Loaded::optional(found.get(self.place).cloned().flatten());
        flight
            .poll(self.seat, cx, None, start, |_| ())
            .map(|outcome| match &*outcome {
                Ok(found) => Ok(found.as_ref().map_or_else(|| Loaded::optional(None), share)),
                Err(failure) => Err(failure.clone()),
            })
    }
}

impl<V> Drop for Share<V> {
    fn drop(&mut self) {
        self.shared.flight.leave(self.seat);
    }
}
