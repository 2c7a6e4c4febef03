use super::{Message, Queue, Receipt, Result, SubscriberBuilder};
use std::sync::Arc;

/// A topic of a [`Queue`]: where messages are sent and subscribed to. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Topic<Q> {
    queue: Q,
    name: Arc<str>,
}

impl<Q: Queue + Clone + 'static> Topic<Q> {
    /// The topic `name` of `queue`.
    pub fn new(queue: Q, name: &str) -> Topic<Q> {
        Topic {
            queue,
            name: name.into(),
        }
    }

    /// The queue.
    #[must_use]
    pub fn queue(&self) -> &Q {
        &self.queue
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sends a message; it is durable when this returns.
    ///
    /// # Errors
    /// As [`Queue::send`]; [`Error::effect`](super::Error::effect) says whether it may have been sent all the same.
    ///
    /// # Cancel safety
    /// Dropping the future leaves open whether the message is sent.
    pub async fn send(&self, message: impl Into<Message>) -> Result<Receipt> {
        let receipts = self.queue.send(&self.name, vec![message.into()]).await?;
        Ok(receipts
            .into_iter()
            .next()
            .expect("broken invariant: a receipt for each message"))
    }

    /// Sends messages in one call, which for many is much cheaper than one by one: with
    /// [`Feature::AtomicBatches`](super::Feature::AtomicBatches) as a whole or not at all.
    ///
    /// # Errors
    /// As [`send`](Topic::send).
    ///
    /// # Cancel safety
    /// As [`send`](Topic::send).
    pub async fn send_all<M: Into<Message>>(&self, messages: impl IntoIterator<Item = M>) -> Result<Vec<Receipt>> {
        let messages = messages.into_iter().map(Into::into).collect();
        self.queue.send(&self.name, messages).await
    }

    /// Subscribes under `name`, which is durable: the next subscriber of that name goes on where this one stops.
    pub fn subscribe(&self, name: &str) -> SubscriberBuilder<Q> {
        SubscriberBuilder::new(self.queue.clone(), &self.name, name)
    }
}
