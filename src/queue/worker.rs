use super::attempt::{Pauses, Tally, Work};
use super::{Delivery, Error, IntoOutcome, Job, Queue, Result, Retry, Source, WorkerCounts, WorkerProgress, trace};
use crate::env::Sleep;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

/// Handles the deliveries of a subscriber, some at a time, until it is told to stop.
///
/// - The handler gets a [`Job`] and returns what becomes of it ([`IntoOutcome`]). An error, a panic and a time limit that
///   passes are failed attempts: the job comes again after the subscriber's
///   [`backoff`](super::SubscriberBuilder::backoff), and when its attempts are used up it becomes a dead letter that says
///   what went wrong the last time.
/// - **Leases** are [kept](Delivery::keep_alive) from the moment that a delivery is taken, so a handler may take longer
///   than a lease, and nobody else handles the job meanwhile. If a lease is lost all the same (the machine slept, the queue
///   was out of reach), the handler is dropped, since somebody else may be at it by now. Work that must not be cut off
///   in the middle belongs into a task of its own.
/// - **Order**: jobs begin in the order in which they are delivered, and at most
///   [`concurrency`](Worker::concurrency) of them run; with 1, one after the other.
/// - **Errors** of the queue that can pass are waited out, 100 ms to 10 s; one that cannot ends the run.
///
/// It takes as many messages at once as it can begin, or the subscriber's
/// [`prefetch`](super::SubscriberBuilder::prefetch) if that is more. All handlers run in one task, where they take turns at
/// each await: what computes for long belongs on a thread, and more workers than one may share a subscription.
///
/// ```
/// use outgrow::queue::{DurableQueue, Job, Worker};
/// use bytes::Bytes;
/// use futures::channel::oneshot;
/// use std::sync::Mutex;
/// # let dir = std::env::temp_dir().join(format!("outgrow-doc-worker-{}", std::process::id()));
/// # futures::executor::block_on(async {
/// # let queue = DurableQueue::open(&dir).await?;
/// let mail = queue.topic("mail");
/// mail.send_all(["to Ada", "to Grace"]).await?;
///
/// let (stop, stopped) = oneshot::channel();
/// let stop = Mutex::new(Some(stop));
/// let deliver = async |job: Job<Bytes>| {
///     if job.as_ref() == b"to Grace" {
///         stop.lock().unwrap().take().map(|stop| stop.send(())); // a signal, in real life
///     }
///     Ok::<(), std::io::Error>(())
/// };
/// let worker = Worker::new(mail.subscribe("mailer").build().await?).concurrency(8);
/// let counts = worker.run(deliver, async { drop(stopped.await) }).await?;
/// assert_eq!((counts.done, counts.retried, counts.dead), (2, 0, 0));
/// # queue.close().await;
/// # Ok::<(), outgrow::queue::Error>(()) }).unwrap();
/// # std::fs::remove_dir_all(&dir).unwrap();
/// ```
#[must_use = "a worker does nothing until it is run"]
pub struct Worker<S> {
    source: S,
    concurrency: usize,
    time_limit: Duration,
    grace: Option<Duration>,
    progress: WorkerProgress,
}

impl<S: Source> Worker<S> {
    /// A worker for the deliveries of a [`Subscriber`](super::Subscriber) or a
    /// [`TypedSubscriber`](super::TypedSubscriber).
    pub fn new(source: S) -> Worker<S> {
        Worker {
            source,
            concurrency: 1,
            time_limit: Duration::from_secs(30 * 60),
            grace: None,
            progress: WorkerProgress::default(),
        }
    }

    /// How many jobs it handles at a time. Default: 1; 0 is 1.
    pub fn concurrency(mut self, jobs: usize) -> Self {
        self.concurrency = jobs.max(1);
        self
    }

    /// How long one attempt may take. Then its handler is dropped, and the attempt has failed. Without a limit a handler
    /// that hangs would hold its job for ever. Default: 30 minutes.
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = limit;
        self
    }

    /// How long handlers may go on after the shutdown. Then they are dropped, and their jobs given back, with the attempt
    /// counted. Default: as long as they take.
    pub fn grace(mut self, limit: Duration) -> Self {
        self.grace = Some(limit);
        self
    }

    /// A handle to what it has done so far, which lives on when the worker runs.
    #[must_use]
    pub fn progress(&self) -> WorkerProgress {
        self.progress.clone()
    }

    /// Handles jobs until `shutdown` is ready or the queue is closed. Then it takes nothing more, gives back what it has
    /// taken and not begun, waits for the handlers that run, and returns what it has done.
    ///
    /// What was taken ahead by a prefetch and is given back has used up an attempt; without a prefetch nothing is.
    ///
    /// # Errors
    /// What the queue said, when it cannot pass; what runs is waited for first. [`progress`](Worker::progress) still tells
    /// what was done.
    ///
    /// # Cancel safety
    /// Dropping the future drops the handlers that run and gives everything back.
    pub async fn run<H, F>(self, handler: H, shutdown: impl Future<Output = ()>) -> Result<WorkerCounts>
    where
        H: Fn(Job<S::Value>) -> F,
        F: Future<Output: IntoOutcome>,
    {
        let Worker {
            mut source, progress, ..
        } = self;
        let subscriber = source.subscriber();
        subscriber.keep_all_alive();
        let env = subscriber.env().clone();
        let work = Work {
            max_attempts: subscriber.subscription().max_attempts,
            time_limit: self.time_limit,
            env: env.clone(),
        };
        let mut run = Run {
            shutdown: pin!(shutdown),
            concurrency: self.concurrency,
            running: FuturesUnordered::new(),
            source,
            pause: None,
            limit: None,
            stopping: false,
        };
        let mut pauses = Pauses::new(&env, Duration::from_millis(100), Duration::from_secs(10));
        let mut failed = None;
        let mut turns: u32 = 0;
        loop {
            turns = turns.wrapping_add(1);
            if turns.is_multiple_of(TURNS) {
                breathe().await;
            }
            match poll_fn(|cx| run.poll(cx)).await {
                Event::Delivered(mut delivery) => {
                    pauses.over();
                    let attempt = run.source.open(&delivery).map(|value| {
                        let job = Job::new(&mut delivery, value, work.max_attempts);
                        AssertUnwindSafe(async { handler(job).await.into_outcome() })
                    });
                    run.running.push(work.on(delivery, attempt));
                }
                Event::Ended(tally) => progress.count(tally),
                Event::Failed(error) if error.retry() != Retry::Never => {
                    trace::stalled(&error);
                    run.pause = Some(env.sleep(pauses.next()));
                }
                event @ (Event::Failed(_) | Event::Closed | Event::Shutdown) => {
                    if let Event::Failed(error) = event {
                        failed = Some(error);
                    }
                    progress.returned(run.stop());
                    run.limit = self.grace.map(|grace| env.sleep(grace));
                }
                Event::OutOfTime => {
                    progress.returned(run.running.len());
                    break;
                }
                Event::Finished => break,
            }
        }
        match failed {
            Some(error) => Err(error),
            None => Ok(progress.counts()),
        }
    }
}

impl<S> fmt::Debug for Worker<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("concurrency", &self.concurrency)
            .field("time_limit", &self.time_limit)
            .field("grace", &self.grace)
            .field("counts", &self.progress.counts())
            .finish_non_exhaustive()
    }
}

/// A run that goes on.
struct Run<'a, S, W, D> {
    source: S,
    running: FuturesUnordered<W>,
    concurrency: usize,
    shutdown: Pin<&'a mut D>,
    /// Until when the queue is left alone.
    pause: Option<Sleep>,
    /// Until when handlers may go on.
    limit: Option<Sleep>,
    stopping: bool,
}

#[expect(clippy::large_enum_variant, reason = "there is one at a time")]
enum Event<Q: Queue> {
    Delivered(Delivery<Q>),
    Ended(Tally),
    Failed(Error),
    Closed,
    Shutdown,
    OutOfTime,
    /// It was to stop, and nothing runs any more.
    Finished,
}

impl<S: Source, W: Future<Output = Tally>, D: Future<Output = ()>> Run<'_, S, W, D> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event<S::Queue>> {
        if !self.stopping && self.shutdown.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Event::Shutdown);
        }
        if let Some(limit) = &mut self.limit
            && limit.poll_unpin(cx).is_ready()
        {
            return Poll::Ready(Event::OutOfTime);
        }
        match self.running.poll_next_unpin(cx) {
            Poll::Ready(Some(tally)) => return Poll::Ready(Event::Ended(tally)),
            Poll::Ready(None) if self.stopping => return Poll::Ready(Event::Finished),
            _ if self.stopping => return Poll::Pending,
            Poll::Ready(None) | Poll::Pending => {}
        }
        self.poll_next(cx)
    }

    /// Takes the next delivery if there is room for it.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Event<S::Queue>> {
        let room = self.concurrency - self.running.len();
        if room == 0 {
            return Poll::Pending;
        }
        if let Some(pause) = &mut self.pause {
            std::task::ready!(pause.poll_unpin(cx));
            self.pause = None;
        }
        self.source
            .subscriber()
            .poll_with_room(room, cx)
            .map(|next| match next {
                Some(Ok(delivery)) => Event::Delivered(delivery),
                Some(Err(error)) => Event::Failed(error),
                None => Event::Closed,
            })
    }

    /// Takes nothing more; returns how many deliveries it has given back.
    fn stop(&mut self) -> usize {
        self.stopping = true;
        self.source.subscriber().give_back()
    }
}

/// Lets the other tasks of the thread have their turn.
async fn breathe() {
    let mut breathed = false;
    poll_fn(|cx| match std::mem::replace(&mut breathed, true) {
        true => Poll::Ready(()),
        false => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await;
}

/// Events without a wait after which other tasks get their turn.
const TURNS: u32 = 64;
