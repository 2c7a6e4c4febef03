use super::Shared;
use super::keeper::Keeper;
use crate::env::Task;
use crate::store::{Feed, Follower, Store};
use crate::sync::Mutex;
use futures::StreamExt;
use futures::channel::oneshot;
use futures::future::{Either, select};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// How long a feed that broke before it said anything is left alone.
const RETRY: Duration = Duration::from_millis(100);

/// The task that follows the feed. It stops when told to, and when this is dropped.
#[derive(Debug)]
pub(super) struct Following {
    stop: Mutex<Option<oneshot::Sender<()>>>,
    task: Mutex<Option<Task<()>>>,
}

impl Following {
    /// Starts the task that follows the feed of the store below, and waits until it has once tried to.
    pub(super) async fn start<S: Store + Feed + 'static>(shared: &Arc<Shared<S>>) -> Following {
        // A store that announces commits before they return gets its keys dropped by then. Of one that does not, the
        // watch tells, and this process's own commits are dropped by their caller.
        let keeper: Arc<dyn Follower> = Arc::clone(&shared.keeper) as _;
        drop(shared.store.attach(Arc::downgrade(&keeper)));
        let (stop, stopped) = oneshot::channel();
        let (tried, first) = oneshot::channel();
        let task = shared.env.spawn(follow(Arc::clone(shared), stopped, tried));
        let following = Following {
            stop: Mutex::new(Some(stop)),
            task: Mutex::new(Some(task)),
        };
        // It fails only if the executor is gone; then nothing is followed, and reads go to the store below.
        let _tried = first.await;
        following
    }

    /// Stops the task and waits for its end.
    pub(super) async fn close(&self) {
        drop(self.stop.lock().take());
        let task = self.task.lock().take();
        if let Some(task) = task {
            // One that is gone without a result has ended as well.
            let _ended = task.await;
        }
    }
}

/// Follows the feed until told to stop. A break empties the cache, and following starts anew at the newest position.
async fn follow<S: Store + Feed>(shared: Arc<Shared<S>>, mut stop: oneshot::Receiver<()>, tried: oneshot::Sender<()>) {
    let _ended_in_any_case = EndOnDrop(&shared.keeper);
    let mut tried = Some(tried);
    loop {
        let heard = match watch(&shared, &mut stop, &mut tried).await {
            End::Stopped => return,
            End::Broke { heard } => heard,
        };
        shared.keeper.end();
        shared.keeper.count_break();
        if !heard && let Either::Left(_) = select(&mut stop, shared.env.sleep(RETRY)).await {
            return;
        }
    }
}

/// How one watch of the feed ended.
enum End {
    Stopped,
    Broke { heard: bool },
}

/// Watches the feed from its newest position until it breaks.
async fn watch<S: Store + Feed>(
    shared: &Shared<S>,
    stop: &mut oneshot::Receiver<()>,
    tried: &mut Option<oneshot::Sender<()>>,
) -> End {
    let from = shared.store.position();
    let mut feed = shared.store.watch(from);
    // A feed that fails at once was never followed, not even for a moment.
    let mut next = futures::poll!(feed.next());
    if !matches!(next, Poll::Ready(None | Some(Err(_)))) {
        shared.keeper.begin(from);
    }
    if let Some(tried) = tried.take() {
        // Whoever built the store may have lost patience.
        let _sent = tried.send(());
    }
    let mut heard = false;
    loop {
        match next {
            Poll::Pending => {}
            Poll::Ready(Some(Ok((at, record)))) => {
                shared.keeper.hear(at, &record);
                heard = true;
            }
            Poll::Ready(Some(Err(_)) | None) => return End::Broke { heard },
        }
        next = match select(&mut *stop, feed.next()).await {
            Either::Left(_) => return End::Stopped,
            Either::Right((item, _)) => Poll::Ready(item),
        };
    }
}

/// However the task ends (told to, by a panic of the store's, with its executor): what is not followed is not trusted.
struct EndOnDrop<'a>(&'a Keeper);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}
