use super::World;
use crate::sync::{AtomicBool, Ordering};
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Polls after which an operation is taken for one that never ends.
const MAX_POLLS: u32 = 100_000;

/// Runs a case again and again, each time dropping one operation at another of its polls, until it gets to its end.
/// Returns the polls that the operation took to be ready.
///
/// The case is given a fresh world of `seed` and a [`Cut`]; it sets up what it needs, runs the operation in question
/// through [`Cut::run`], and then checks that what is left is sound. Each poll is cut twice: right after it, and when
/// the operation is woken for the next one, which is where a wake-up can get lost.
///
/// ```
/// use futures::channel::oneshot;
/// use outgrow::sim;
/// use std::time::Duration;
///
/// let polls = sim::drop_at_every_poll(7, |world, cut| async move {
///     let env = world.env();
///     let start = env.now();
///     match cut.run(env.sleep(Duration::from_secs(1))).await {
///         Some(()) => assert_eq!(env.now() - start, Duration::from_secs(1)),
///         None => assert!(env.now() - start <= Duration::from_secs(1)),
///     }
/// });
/// assert_eq!(polls, 2);
/// ```
///
/// # Panics
/// As the case does, with the poll in the message; and when the case runs nothing through its cut, or an operation of
/// 100,000 polls.
pub fn drop_at_every_poll<F, Fut>(seed: u64, mut case: F) -> u32
where
    F: FnMut(World, Cut) -> Fut,
    Fut: Future<Output = ()>,
{
    for polls in 0..MAX_POLLS {
        for when in [When::AfterPoll, When::BeforeNext] {
            let world = World::new(seed);
            let cut = Cut::new(polls, when);
            let run = || world.run(case(world.clone(), cut.clone()));
            if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
                panic!("with {cut:?}: {}", message(&*panic));
            }
            assert!(
                cut.state.started.load(Ordering::Relaxed),
                "the case ran nothing through its cut"
            );
            if cut.state.ended.load(Ordering::Relaxed) && when == When::BeforeNext {
                return polls;
            }
        }
    }
    panic!("an operation was not ready after {MAX_POLLS} polls");
}

/// Where one operation is dropped; made by [`drop_at_every_poll`].
#[derive(Clone)]
pub struct Cut {
    polls: u32,
    when: When,
    state: Arc<State>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    AfterPoll,
    BeforeNext,
}

#[derive(Default)]
struct State {
    started: AtomicBool,
    ended: AtomicBool,
}

impl Cut {
    fn new(polls: u32, when: When) -> Cut {
        Cut {
            polls,
            when,
            state: Arc::default(),
        }
    }

    /// Runs `future` up to the cut; `None` says that it was dropped there. To be used once in a case.
    pub fn run<F: Future>(&self, future: F) -> impl Future<Output = Option<F::Output>> {
        self.state.started.store(true, Ordering::Relaxed);
        UntilCut {
            cut: self.clone(),
            polled: 0,
            future: Some(Box::pin(future)),
        }
    }
}

impl fmt::Debug for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.when {
            When::AfterPoll => write!(f, "the operation dropped after {} polls", self.polls),
            When::BeforeNext => write!(f, "the operation dropped instead of its poll {}", self.polls + 1),
        }
    }
}

struct UntilCut<F> {
    cut: Cut,
    polled: u32,
    future: Option<Pin<Box<F>>>,
}

impl<F: Future> UntilCut<F> {
    fn cut(&mut self, when: When) -> bool {
        let cut = self.cut.when == when && self.polled == self.cut.polls;
        if cut {
            self.future = None;
        }
        cut
    }
}

impl<F: Future> Future for UntilCut<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.cut(When::BeforeNext) || (self.polled == 0 && self.cut(When::AfterPoll)) {
            return Poll::Ready(None);
        }
        let future = self.future.as_mut().expect("a future is not polled after it was ready");
        match future.as_mut().poll(cx) {
            Poll::Ready(output) => {
                self.cut.state.ended.store(true, Ordering::Relaxed);
                Poll::Ready(Some(output))
            }
            Poll::Pending => {
                self.polled += 1;
                match self.cut(When::AfterPoll) {
                    true => Poll::Ready(None),
                    false => Poll::Pending,
                }
            }
        }
    }
}

/// What a panic said.
pub(super) fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without a message")
}
