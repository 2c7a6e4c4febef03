use super::{InvalidationBus, Message};
use crate::store::Result;
use crate::sync::Mutex;
use futures::channel::mpsc;
use futures::stream::{BoxStream, StreamExt};
use std::fmt;
use std::future::{Future, ready};
use std::sync::Arc;

/// How far behind a subscriber may be.
const CAPACITY: usize = 1_024;

/// An [`InvalidationBus`] within one process: for several caches over one store, and for tests. A clone is a handle to
/// the same bus.
///
/// Nothing waits. A subscriber that falls about 1,024 messages behind has its stream ended, after what it already has.
#[derive(Clone, Default)]
pub struct LocalBus {
    subscribers: Arc<Mutex<Vec<mpsc::Sender<Message>>>>,
}

impl LocalBus {
    /// A bus with nobody on it.
    #[must_use]
    pub fn new() -> LocalBus {
        LocalBus::default()
    }
}

impl InvalidationBus for LocalBus {
    /// # Errors
    /// None: what a subscriber lost, the end of its stream tells it.
    fn publish(&self, message: Message) -> impl Future<Output = Result<()>> + Send {
        // Under the lock, so that all hear the same order. Whoever is full or gone leaves.
        self.subscribers
            .lock()
            .retain_mut(|subscriber| subscriber.try_send(message.clone()).is_ok());
        ready(Ok(()))
    }

    /// Hears what is published after this call.
    fn subscribe(&self) -> BoxStream<'static, Result<Message>> {
        let (send, receive) = mpsc::channel(CAPACITY);
        self.subscribers.lock().push(send);
        receive.map(Ok).boxed()
    }
}

impl fmt::Debug for LocalBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalBus")
            .field("subscribers", &self.subscribers.lock().len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Notice, Origin};
    use super::*;
    use futures::FutureExt;
    use futures::executor::block_on;

    fn message(number: u64) -> Message {
        Message::new(Origin(1), number, Notice::Everything)
    }

    fn publish(bus: &LocalBus, number: u64) {
        let published = bus.publish(message(number)).now_or_never();
        published.expect("nothing waits").expect("nothing fails");
    }

    #[test]
    fn everyone_hears_everything_from_when_they_came() {
        let bus = LocalBus::new();
        let mut first = bus.subscribe();
        publish(&bus, 1);
        let mut second = bus.subscribe();
        publish(&bus, 2);
        let next = |heard: &mut BoxStream<'static, Result<Message>>| block_on(heard.next()).unwrap().unwrap().number;
        assert_eq!((next(&mut first), next(&mut first), next(&mut second)), (1, 2, 2));
        drop(first);
        publish(&bus, 3);
        assert_eq!(format!("{bus:?}"), "LocalBus { subscribers: 1 }");
    }

    #[test]
    fn who_falls_behind_is_told() {
        let bus = LocalBus::new();
        let slow = bus.subscribe();
        for number in 0..3_000 {
            publish(&bus, number);
        }
        let heard: Vec<_> = block_on(slow.collect());
        assert!((1_024..1_100).contains(&heard.len()), "{}", heard.len());
        let numbers = heard.iter().map(|message| message.as_ref().unwrap().number);
        assert!(numbers.eq(0..heard.len() as u64), "without a gap, up to the end");
    }
}
