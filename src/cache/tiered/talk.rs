//! The two tasks at the bus: one listens, one speaks.

use super::front::Front;
use crate::cache::bus::{Message, Notice};
use crate::env::{Task, Tick};
use crate::store::Error;
use crate::sync::Mutex;
use futures::StreamExt;
use futures::channel::oneshot;
use futures::future::{Either, select};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

/// How long a bus whose subscription ended is left alone.
const RETRY: Duration = Duration::from_millis(100);
/// Heartbeats sent in the time within which one has to be heard.
const BEATS: u32 = 3;

/// The two tasks. They stop when told to, and when this is dropped.
#[derive(Debug)]
pub(super) struct Talking {
    listening: Job,
    speaking: Job,
}

#[derive(Debug)]
struct Job {
    stop: Mutex<Option<oneshot::Sender<()>>>,
    task: Mutex<Option<Task<()>>>,
}

impl Talking {
    /// Starts the tasks.
    pub(super) fn start(front: &Arc<Front>) -> Talking {
        Talking {
            listening: Job::start(|stop| front.env.spawn(listen(Listens(Arc::clone(front)), stop))),
            speaking: Job::start(|stop| front.env.spawn(speak(Speaks(Arc::clone(front)), stop))),
        }
    }

    /// Stops the tasks and waits for their end. What waits to be said is said first.
    pub(super) async fn close(&self) {
        self.speaking.end().await;
        self.listening.end().await;
    }
}

impl Job {
    fn start(spawn: impl FnOnce(oneshot::Receiver<()>) -> Task<()>) -> Job {
        let (stop, stopped) = oneshot::channel();
        Job {
            stop: Mutex::new(Some(stop)),
            task: Mutex::new(Some(spawn(stopped))),
        }
    }

    async fn end(&self) {
        drop(self.stop.lock().take());
        let task = self.task.lock().take();
        if let Some(task) = task {
            // One that is gone without a result has ended as well.
            let _ended = task.await;
        }
    }
}

/// Held by the task that listens: however that ends, even before it began, nothing cached is used any more.
struct Listens(Arc<Front>);

impl Drop for Listens {
    fn drop(&mut self) {
        self.0.ended();
        self.0.deafen();
    }
}

/// Held by the task that speaks: however that ends, nobody waits for what will not be said.
struct Speaks(Arc<Front>);

impl Drop for Speaks {
    fn drop(&mut self) {
        self.0.mute();
    }
}

/// Listens until told to stop. What ends is subscribed to anew.
async fn listen(front: Listens, mut stop: oneshot::Receiver<()>) {
    let front = &*front.0;
    while let Ended::Broke = subscription(front, &mut stop).await {
        front.ended();
        if let Either::Left(_) = select(&mut stop, front.env.sleep(RETRY)).await {
            return;
        }
    }
}

enum Ended {
    Stopped,
    Broke,
}

/// One subscription, until it ends, or was silent for so long that another may be better.
async fn subscription(front: &Front, stop: &mut oneshot::Receiver<()>) -> Ended {
    front.subscribed();
    let mut messages = front.bus.erased_subscribe();
    let mut give_up = front.env.now() + front.limit * 2;
    loop {
        let next = front.check();
        let now = front.env.now();
        if front.is_hearing() {
            give_up = now + front.limit * 2;
        } else if now >= give_up {
            return Ended::Broke;
        }
        let waits = select(messages.next(), front.env.sleep_until(next.min(give_up)));
        match select(&mut *stop, waits).await {
            Either::Left(_) => return Ended::Stopped,
            Either::Right((Either::Right(_), _)) => {}
            Either::Right((Either::Left((item, _)), _)) => match item {
                Some(Ok(message)) => front.hear(&message),
                Some(Err(Error::Corrupt { .. })) => front.counters.garbage.add(1),
                Some(Err(_)) | None => return Ended::Broke,
            },
        }
    }
}

/// Says what others have to be told, and that this one is there, until told to stop; then the rest, and a goodbye.
async fn speak(front: Speaks, mut stop: oneshot::Receiver<()>) {
    let front = &*front.0;
    let mut voice = Voice {
        front,
        number: 0,
        beat: front.env.now(),
    };
    loop {
        let news = pin!(front.outbox.news());
        let waits = select(news, front.env.sleep_until(voice.beat));
        if let Either::Left(_) = select(&mut stop, waits).await {
            break;
        }
        voice.say_one().await;
    }
    let rest = async {
        while voice.say_waiting().await {}
        voice.say(Notice::Goodbye).await;
    };
    // Who hears neither it nor its goodbye will miss it.
    let _late = front.env.timeout(front.limit, rest).await;
}

/// The one that numbers messages.
struct Voice<'a> {
    front: &'a Front,
    number: u64,
    /// When the next heartbeat is due.
    beat: Tick,
}

impl Voice<'_> {
    /// Says the one thing that is due first.
    async fn say_one(&mut self) {
        let now = self.front.env.now();
        if now >= self.beat {
            self.beat = now + self.front.limit / BEATS;
            self.say(Notice::Heartbeat { at: now }).await;
        } else {
            self.say_waiting().await;
        }
    }

    /// Says what waits first; false when nothing does.
    async fn say_waiting(&mut self) -> bool {
        let Some(next) = self.front.outbox.take() else {
            return false;
        };
        self.say(next.notice.clone()).await;
        self.front.outbox.done(&next);
        true
    }

    async fn say(&mut self, notice: Notice) {
        let counters = &self.front.counters;
        let keys = if let Notice::Keys(keys) = &notice {
            keys.len()
        } else {
            0
        };
        self.number += 1;
        let message = Message::new(self.front.me, self.number, notice);
        let publish = self.front.bus.erased_publish(message);
        match self.front.env.timeout(self.front.limit, publish).await {
            Ok(Ok(())) => counters.sent.add(keys as u64),
            // It has its number, so others see that something is missing when they hear the next.
            Ok(Err(_)) | Err(_) => counters.unsent.add(1),
        }
    }
}
