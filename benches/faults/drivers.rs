//! What is compared, behind one trait; each as its own documentation opens it after a crash.

use futures::executor::block_on;
use outgrow::queue::{Delivery, DurableQueue, Queue, Subscription, Topic};
use std::path::Path;
use std::time::Duration;

/// An open store.
pub(crate) trait Driver {
    /// Sends, and returns when the message is as durable as it gets.
    fn send(&mut self, payload: &[u8]) -> Result<(), String>;

    /// Takes the oldest message away for good; none where that is not for the caller to do.
    fn remove(&mut self) -> Option<Result<(), String>>;
}

/// What is found in a store when it is read.
#[derive(Debug)]
pub(crate) enum Found {
    /// A message.
    Message(Vec<u8>),
    /// That something is wrong, in the store's own words.
    Report(String),
}

/// Where what is found goes.
pub(crate) type Tell<'a> = &'a mut dyn FnMut(Found);

/// A store by name.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) open: fn(&Path) -> Result<Box<dyn Driver>, String>,
    /// Opens it and reads everything; an error is one that the store reports.
    pub(crate) read: fn(&Path, Tell<'_>) -> Result<(), String>,
}

/// Ours, and the peers where the bench was built with them.
pub(crate) fn all() -> Vec<Kind> {
    #[allow(unused_mut, reason = "only with peers there is more")]
    let mut all = vec![Kind {
        name: "ours",
        open: ours,
        read: read_ours,
    }];
    #[cfg(peers)]
    all.extend(super::peers::all());
    all
}

struct Ours {
    queue: DurableQueue,
    topic: Topic<DurableQueue>,
    from: Subscription,
}

fn open_ours(dir: &Path) -> Result<Ours, String> {
    block_on(async {
        let queue = DurableQueue::open(dir.join("ours")).await?;
        let mut from = Subscription::new("t", "s");
        from.max_in_flight = 65_536;
        from.max_attempts = u32::MAX;
        queue.subscribe(&from).await?;
        let topic = queue.topic("t");
        Ok(Ours { queue, topic, from })
    })
    .map_err(|error: outgrow::queue::Error| error.to_string())
}

fn ours(dir: &Path) -> Result<Box<dyn Driver>, String> {
    Ok(Box::new(open_ours(dir)?))
}

fn read_ours(dir: &Path, found: Tell<'_>) -> Result<(), String> {
    let Ours { queue, from, .. } = open_ours(dir)?;
    let opened = queue.opened();
    for lost in &opened.lost {
        found(Found::Report(format!("numbers {:?}: {}", lost.seqs, lost.why)));
    }
    for damaged in &opened.damaged {
        found(Found::Report(format!("damaged {damaged}")));
    }
    loop {
        let some = block_on(queue.receive(&from, 1_000, Duration::from_millis(100)));
        let some = some.map_err(|error| error.to_string())?;
        if some.is_empty() {
            match queue.stats().lost {
                0 => {}
                lost => found(Found::Report(format!("{lost} found damaged when they were read"))),
            }
            return Ok(());
        }
        // Not given back: the lease keeps them from coming again.
        some.into_iter()
            .for_each(|raw| found(Found::Message(raw.message.payload.to_vec())));
    }
}

impl Driver for Ours {
    fn send(&mut self, payload: &[u8]) -> Result<(), String> {
        let sent = block_on(self.topic.send(payload.to_vec()));
        sent.map(drop).map_err(|error| error.to_string())
    }

    fn remove(&mut self) -> Option<Result<(), String>> {
        let some = block_on(self.queue.receive(&self.from, 1, Duration::from_secs(1)));
        let acked = some.and_then(|some| match some.into_iter().next() {
            Some(raw) => block_on(Delivery::new(self.queue.clone(), raw).ack()),
            None => Ok(()),
        });
        Some(acked.map_err(|error| error.to_string()))
    }
}
