use super::ask::Unsure;
use super::look::Ask;
use super::run::{Run, own_error};
use super::seat::{Aboard, Boarded};
use super::shared::{Share, share};
use crate::cache::flight::{Failure, Outcome, Start};
use crate::cache::{Cache, LoadError};
use futures::FutureExt;
use std::future::{Future, poll_fn};
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;
use std::task::Poll;

impl<K, V, S> Cache<K, V, S>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Send + Sync + 'static,
{
    /// The values under `keys`, in their order. Those that are not there are loaded by one call of `load`, which is given
    /// them and returns pairs in any order; those that somebody loads already are waited for. `None` for a key of which it
    /// returns no pair; that is remembered for [`negative_ttl`](super::super::CacheBuilder::negative_ttl). A pair that it
    /// was not asked for is dropped.
    ///
    /// Each key has a place of its own among the loads under way: others who ask for one of them wait for it, and take the
    /// loader over when this call is dropped. `load` is called again only for a key that another call was loading, when
    /// that call panicked or failed with another type of error.
    ///
    /// ```
    /// use outgrow::cache::Cache;
    /// # futures::executor::block_on(async {
    /// let squares: Cache<u32, u32> = Cache::builder().build()?;
    /// squares.insert(2, 4);
    /// let load = |missing: Vec<u32>| {
    ///     assert_eq!(missing, [3, 7]);
    ///     async { Ok::<_, std::io::Error>(vec![(3, 9)]) }
    /// };
    /// assert_eq!(squares.get_or_load_many(&[2, 3, 7], load).await?, [Some(4), Some(9), None]);
    /// assert_eq!((squares.get(&3), squares.stats().loads), (Some(9), 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    /// As [`get_or_load`](Cache::get_or_load), if any of the keys fails; what was loaded of others is in the cache all the
    /// same. Each key that it has to wait for counts towards [`max_waiting`](super::super::CacheBuilder::max_waiting).
    ///
    /// # Panics
    /// When this call's turn at a loader panics.
    ///
    /// # Cancel safety
    /// As [`get_or_load`](Cache::get_or_load), for each key. The loader is dropped when nobody waits for any of its keys.
    pub async fn get_or_load_many<F, Fut, E>(&self, keys: &[K], mut load: F) -> Result<Vec<Option<V>>, LoadError<E>>
    where
        F: FnMut(Vec<K>) -> Fut,
        Fut: Future<Output = Result<Vec<(K, V)>, E>> + Send + 'static,
        E: Send + Sync + 'static,
    {
        let mut answers = vec![None; keys.len()];
        let mut open: Vec<usize> = (0..keys.len()).collect();
        let mut counts = true;
        while !open.is_empty() {
            let Legs { mut legs, mut behind } = self.board_many(keys, &open, counts, &mut answers)?;
            counts = false;
            self.load_together(&mut behind, &mut load);
            ride_behind(behind);
            self.load_together(&mut legs, &mut load);
            ride(&mut legs, |key| self.load_alone(key, &mut load)).await;
            open.clear();
            for leg in legs {
                let place = leg.place;
                match self.arrive(leg)? {
                    Some(answer) => answers[place] = answer,
                    None => open.push(place),
                }
            }
        }
        Ok(answers)
    }

    /// Finds answers in the cache for the keys at the `open` places, and seats in flights for the others.
    fn board_many<E>(
        &self,
        keys: &[K],
        open: &[usize],
        counts: bool,
        answers: &mut [Option<V>],
    ) -> Result<Legs<K, V, S>, LoadError<E>> {
        let inner = &self.inner;
        let in_background = inner.time.env().can_spawn_user();
        let (mut legs, mut behind) = (Vec::new(), Vec::new());
        for &place in open {
            let key = &keys[place];
            let hash = inner.hash(key);
            let leg = |aboard, present| Leg {
                place,
                key: key.clone(),
                aboard,
                share: None,
                present,
                landed: None,
            };
            match inner.board(hash, key, Ask::OPTIONAL, counts, &|_| true) {
                Boarded::Answer(answer) => answers[place] = answer,
                Boarded::Seat(aboard) => legs.push(leg(aboard, None)),
                Boarded::Due { value, stale, aboard } if in_background => {
                    behind.push(leg(aboard, None));
                    answers[place] = self.instead(hash, key, &|_| true, Some((value, stale)));
                }
                Boarded::Due { value, stale, aboard } => legs.push(leg(aboard, Some((value, stale)))),
                Boarded::Crowded { limit } => {
                    let spare = self.instead(hash, key, &|_| true, None);
                    answers[place] = Some(spare.ok_or(LoadError::Crowded { limit })?);
                }
            }
        }
        Ok(Legs { legs, behind })
    }

    /// Starts one loader for all the flights that these are the first of.
    fn load_together<F, Fut, E>(&self, legs: &mut [Leg<K, V, S>], load: &mut F)
    where
        F: FnMut(Vec<K>) -> Fut,
        Fut: Future<Output = Result<Vec<(K, V)>, E>> + Send + 'static,
        E: Send + Sync + 'static,
    {
        let mut firsts: Vec<_> = legs.iter_mut().filter(|leg| leg.aboard.is_first).collect();
        if firsts.is_empty() {
            return;
        }
        let keys: Vec<K> = firsts.iter().map(|leg| leg.key.clone()).collect();
        let shares = self.start(keys, load);
        for (leg, share) in firsts.iter_mut().zip(shares) {
            leg.share = Some(share);
        }
    }

    /// Starts a loader for a key whose flight has lost the one it had.
    fn load_alone<F, Fut, E>(&self, key: &K, load: &mut F) -> Start<V>
    where
        F: FnMut(Vec<K>) -> Fut,
        Fut: Future<Output = Result<Vec<(K, V)>, E>> + Send + 'static,
        E: Send + Sync + 'static,
    {
        let share = self.start(vec![key.clone()], load).pop();
        Start::Work(share.expect("there is a share for each key").boxed())
    }

    fn start<F, Fut, E>(&self, keys: Vec<K>, load: &mut F) -> Vec<Share<V>>
    where
        F: FnMut(Vec<K>) -> Fut,
        Fut: Future<Output = Result<Vec<(K, V)>, E>> + Send + 'static,
        E: Send + Sync + 'static,
    {
        let run = Run::begin(&self.inner, self.inner.load_due());
        let loader = load(keys.clone());
        share(&self.inner, keys, loader.map(|loaded| run.end(loaded)))
    }

    /// What came of a key; `None` if it is to be asked for again.
    fn arrive<E: Send + Sync + 'static>(&self, leg: Leg<K, V, S>) -> Result<Option<Option<V>>, LoadError<E>> {
        let landed = leg.landed.expect("a leg is settled when its flight has landed");
        match &*landed {
            Ok(value) => Ok(Some(value.clone())),
            Err(failure) => {
                let Some(error) = own_error(failure) else {
                    return Ok(None);
                };
                let spare = self.instead(leg.aboard.hash, &leg.key, &|_| true, leg.present);
                spare.map(|value| Some(Some(value))).ok_or(error)
            }
        }
    }
}

/// The flights that a call for many keys waits for, and those that go on in the background.
struct Legs<K: Hash + Eq, V, S: BuildHasher> {
    legs: Vec<Leg<K, V, S>>,
    behind: Vec<Leg<K, V, S>>,
}

/// One key of a call for many that has a seat in its flight.
struct Leg<K: Hash + Eq, V, S: BuildHasher> {
    /// Where its answer goes.
    place: usize,
    key: K,
    aboard: Aboard<K, V, S>,
    /// Its part in the loader of this call, until that is started.
    share: Option<Share<V>>,
    /// What to return if loading fails, and whether that is stale.
    present: Option<(V, bool)>,
    landed: Option<Arc<Outcome<V>>>,
}

/// Waits until all have landed; `alone` starts a loader for a key that has none.
async fn ride<K, V, S>(legs: &mut [Leg<K, V, S>], mut alone: impl FnMut(&K) -> Start<V>)
where
    K: Hash + Eq + Clone,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher,
{
    poll_fn(|cx| {
        let mut all = Poll::Ready(());
        for leg in legs.iter_mut().filter(|leg| leg.landed.is_none()) {
            let Leg { key, aboard, share, .. } = leg;
            let start = |_| match share.take() {
                Some(share) => Start::Work(share.boxed()),
                None => alone(key),
            };
            match aboard.poll(cx, Ask::OPTIONAL, || key.clone(), start) {
                Poll::Ready(outcome) => leg.landed = Some(outcome),
                Poll::Pending => all = Poll::Pending,
            }
        }
        all
    })
    .await;
}

/// Loads in the background, in flights that have just begun.
fn ride_behind<K, V, S>(mut legs: Vec<Leg<K, V, S>>)
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Send + Sync + 'static,
{
    let Some(first) = legs.first() else { return };
    let env = first.aboard.inner.time.env().clone();
    let unsure: Vec<_> = legs.iter().map(|leg| Unsure::new(&leg.aboard)).collect();
    let task = env.spawn_user(async move {
        ride(&mut legs, |_| Start::Done(Err(Failure::Lost))).await;
        unsure.into_iter().for_each(Unsure::end);
    });
    // Nobody waits for it: what it loads is found in the cache.
    task.expect("who loads in the background has seen that there is a runtime")
        .detach();
}
