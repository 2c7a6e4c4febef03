use crate::env::{Env, Tick};
use crate::store::{Effect, Error, Result};
use crate::sync::Mutex;
use futures::channel::oneshot;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Where writes come in: it holds up those to keys that are moving, and knows when those let in before have ended.
pub(super) struct Gate<P> {
    state: Mutex<State<P>>,
}

struct State<P> {
    /// Where the keys are moving to, while they are.
    moving: Option<P>,
    /// Moves begun so far.
    moves: u64,
    /// Writes that are under way, by the moves begun before they came in.
    inside: BTreeMap<u64, usize>,
    waiting: Vec<oneshot::Sender<()>>,
    /// Who waits until all are out that came in before the last move.
    mover: Option<oneshot::Sender<()>>,
    /// The map on disk may be another than the one in memory.
    poisoned: bool,
}

/// A write that was let in; it is out when this is dropped.
pub(super) struct Pass<'a, P> {
    gate: &'a Gate<P>,
    moves: u64,
}

/// Holds up the writes to moving keys until it is dropped.
pub(super) struct Closed<P> {
    gate: Arc<Gate<P>>,
    /// Whether nobody knows which map is on disk: dropped like this, it refuses every write from then on.
    pub(super) in_doubt: bool,
}

/// How many writes wait at most.
const MOST_WAITING: usize = 10_000;

impl<P> Gate<P> {
    pub(super) fn new() -> Gate<P> {
        let state = State {
            moving: None,
            moves: 0,
            inside: BTreeMap::new(),
            waiting: Vec::new(),
            mover: None,
            poisoned: false,
        };
        Gate {
            state: Mutex::new(state),
        }
    }

    /// Lets a write in, at once or when nothing that `moves` speaks of moves any more.
    pub(super) async fn enter(
        &self,
        env: &Env,
        limit: Duration,
        moves: impl Fn(&P) -> bool + Send,
    ) -> Result<Pass<'_, P>> {
        let mut deadline: Option<Tick> = None;
        loop {
            let wait = {
                let mut state = self.state.lock();
                if state.poisoned {
                    return Err(Error::Poisoned);
                }
                if !state.moving.as_ref().is_some_and(&moves) {
                    let moves = state.moves;
                    *state.inside.entry(moves).or_default() += 1;
                    return Ok(Pass { gate: self, moves });
                }
                let (send, wait) = oneshot::channel();
                if state.waiting.len() >= MOST_WAITING {
                    state.waiting.retain(|waiting| !waiting.is_canceled());
                }
                if state.waiting.len() >= MOST_WAITING {
                    let what = format!("{MOST_WAITING} writes wait for keys that move to another shard");
                    return Err(Error::Full { what });
                }
                state.waiting.push(send);
                wait
            };
            let deadline = *deadline.get_or_insert_with(|| env.now() + limit);
            if env.timeout(deadline - env.now(), wait).await.is_err() {
                return Err(Error::unavailable(
                    "the key is moving to another shard: try again later",
                    Effect::None,
                ));
            }
        }
    }

    /// Holds up writes to the keys that move to `next`, and waits until those let in before are out.
    ///
    /// # Cancel safety
    /// Dropping the future lets the writes go on.
    pub(super) async fn close(self: &Arc<Self>, next: P) -> Closed<P> {
        let closed = Closed {
            gate: Arc::clone(self),
            in_doubt: false,
        };
        let (send, out) = oneshot::channel();
        {
            let mut state = self.state.lock();
            state.moving = Some(next);
            state.moves += 1;
            state.mover = Some(send);
            state.tell_mover();
        }
        // An error means that the sender is gone, and it goes only by being used.
        let _told = out.await;
        closed
    }

    /// Whether it refuses every write.
    pub(super) fn is_poisoned(&self) -> bool {
        self.state.lock().poisoned
    }
}

impl<P> State<P> {
    fn tell_mover(&mut self) {
        let out = self
            .inside
            .first_key_value()
            .is_none_or(|(oldest, _)| *oldest >= self.moves);
        if out && let Some(mover) = self.mover.take() {
            // The mover may have been dropped meanwhile.
            let _told = mover.send(());
        }
    }
}

impl<P> Drop for Pass<'_, P> {
    fn drop(&mut self) {
        let mut state = self.gate.state.lock();
        if let Some(inside) = state.inside.get_mut(&self.moves) {
            *inside -= 1;
            if *inside == 0 {
                state.inside.remove(&self.moves);
                state.tell_mover();
            }
        }
    }
}

impl<P> Drop for Closed<P> {
    fn drop(&mut self) {
        let mut state = self.gate.state.lock();
        state.poisoned |= self.in_doubt;
        state.moving = None;
        state.mover = None;
        for waiting in state.waiting.drain(..) {
            // One that gave up is gone.
            let _woken = waiting.send(());
        }
    }
}

impl<P> fmt::Debug for Gate<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        f.debug_struct("Gate")
            .field("moving", &state.moving.is_some())
            .field("inside", &state.inside)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use futures::executor::block_on;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_move_waits_for_writes_before_it_and_holds_up_those_after() {
        let (gate, env) = (Arc::new(Gate::<u32>::new()), Env::system());
        let before = block_on(gate.enter(&env, LONG, |_| true)).unwrap();
        let mut close = Box::pin(gate.close(7));
        assert!(close.as_mut().now_or_never().is_none());
        let beside = block_on(gate.enter(&env, LONG, |next| *next != 7)).unwrap();
        let mut held = Box::pin(gate.enter(&env, LONG, |next| *next == 7));
        assert!(held.as_mut().now_or_never().is_none());
        drop(before);
        let closed = close.now_or_never().expect("what came in beside does not move");
        assert!(held.as_mut().now_or_never().is_none());
        drop(closed);
        assert!(held.now_or_never().expect("the move is over").is_ok());
        drop(beside);
    }

    #[test]
    fn a_write_gives_up_waiting_without_an_effect() {
        let (gate, env) = (Arc::new(Gate::<u32>::new()), Env::system());
        let _closed = block_on(gate.close(7));
        let refused = block_on(gate.enter(&env, Duration::from_millis(5), |_| true))
            .err()
            .unwrap();
        assert_eq!(refused.effect(), Effect::None);
    }

    #[test]
    fn only_so_many_writes_wait_and_a_move_in_doubt_ends_them_all() {
        let (gate, env) = (Arc::new(Gate::<u32>::new()), Env::system());
        let mut closed = block_on(gate.close(7));
        let wait = || Box::pin(gate.enter(&env, LONG, |_| true));
        let mut waiting: Vec<_> = (0..MOST_WAITING).map(|_| wait()).collect();
        assert!(waiting.iter_mut().all(|wait| wait.as_mut().now_or_never().is_none()));
        assert!(matches!(wait().now_or_never(), Some(Err(Error::Full { .. }))));
        // Whoever gives up makes room.
        waiting.pop();
        assert!(wait().now_or_never().is_none());
        closed.in_doubt = true;
        drop(closed);
        assert!(matches!(waiting.remove(0).now_or_never(), Some(Err(Error::Poisoned))));
        assert!(matches!(
            block_on(gate.enter(&env, LONG, |_| false)),
            Err(Error::Poisoned)
        ));
    }

    #[test]
    fn a_move_that_is_dropped_while_it_waits_is_over() {
        let (gate, env) = (Arc::new(Gate::<u32>::new()), Env::system());
        let before = block_on(gate.enter(&env, LONG, |_| true)).unwrap();
        assert!(gate.close(7).now_or_never().is_none());
        let after = block_on(gate.enter(&env, LONG, |_| true)).unwrap();
        // The next move still waits for both.
        let mut close = Box::pin(gate.close(8));
        assert!(close.as_mut().now_or_never().is_none());
        drop(before);
        assert!(close.as_mut().now_or_never().is_none());
        drop(after);
        assert!(close.now_or_never().is_some());
    }
}
