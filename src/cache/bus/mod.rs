//! What the caches of several processes tell each other: that something was written.

mod local;
#[cfg(feature = "redis")]
mod redis;
mod wire;

pub use local::LocalBus;
#[cfg(feature = "redis")]
pub use redis::{RedisBus, RedisBusBuilder};

use crate::env::{Rng, Tick};
use crate::store::Result;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

/// Carries [`Message`]s from each process to every process, the sender too: [`LocalBus`] within one process,
/// `RedisBus` (feature `redis`) between many.
///
/// A subscriber gets the messages in the order in which the bus took them. The bus may lose some, and need not tell:
/// senders number theirs, so a gap shows, and repeat a heartbeat, so silence does. It may not give a message that is
/// older than what it gave before as if it were new.
///
/// ```
/// use futures::StreamExt;
/// use outgrow::cache::{InvalidationBus, LocalBus, Message, Notice, Origin};
/// # futures::executor::block_on(async {
/// let bus = LocalBus::new();
/// let mut heard = bus.subscribe();
/// let message = Message::new(Origin(7), 1, Notice::Keys(vec!["user/7".into()]));
/// bus.publish(message.clone()).await?;
/// assert_eq!(heard.next().await.unwrap()?, message);
/// # Ok::<(), outgrow::store::Error>(()) }).unwrap();
/// ```
pub trait InvalidationBus: Send + Sync {
    /// Hands a message to the bus.
    ///
    /// # Errors
    /// When the bus did not take it, or may not have; [`effect`](crate::store::Error::effect) says which.
    ///
    /// # Cancel safety
    /// Dropped halfway, the message may have been taken or not.
    fn publish(&self, message: Message) -> impl Future<Output = Result<()>> + Send;

    /// What is published from some moment after the first poll on; when that has come, the subscriber's own
    /// heartbeats tell. An item that is [`Corrupt`](crate::store::Error::Corrupt) was no message, and more come after
    /// it; any other error, and the end, mean that messages may have been lost: subscribe again.
    ///
    /// # Cancel safety
    /// Dropping the stream ends the subscription.
    fn subscribe(&self) -> BoxStream<'static, Result<Message>>;
}

/// What one sender says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Message {
    /// Who says it.
    pub origin: Origin,
    /// The sender's messages are numbered from 1. One that could not be published has a number all the same.
    pub number: u64,
    /// What is said.
    pub notice: Notice,
}

/// What a [`Message`] says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// These keys may have been written.
    Keys(Vec<Bytes>),
    /// Whatever carries this tag may have been written.
    Tag(Bytes),
    /// Anything may have been written.
    Everything,
    /// The sender is there. It hears its own, and so knows that it hears.
    Heartbeat {
        /// When it was sent, by the sender's own clock: of no use to others.
        at: Tick,
    },
    /// The sender ends; it will not be missed.
    Goodbye,
}

/// Who sends: one for each cache, so that it knows its own messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin(pub u64);

impl Origin {
    /// A random one.
    #[must_use]
    pub fn random(rng: &mut Rng) -> Origin {
        Origin(rng.next_u64())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Message {
    /// The message `number` of `origin`.
    #[must_use]
    pub fn new(origin: Origin, number: u64, notice: Notice) -> Message {
        Message { origin, number, notice }
    }

    /// Its bytes, with a version and a checksum, for a bus that carries bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        wire::encode(self)
    }

    /// Reads a message back. Keys share `bytes`.
    ///
    /// # Errors
    /// [`Error::Corrupt`](crate::store::Error::Corrupt) for anything but the bytes of one message of this version.
    pub fn decode(bytes: &Bytes) -> Result<Message> {
        Ok(wire::decode(bytes)?)
    }
}

impl<B: InvalidationBus + ?Sized> InvalidationBus for Arc<B> {
    fn publish(&self, message: Message) -> impl Future<Output = Result<()>> + Send {
        (**self).publish(message)
    }

    fn subscribe(&self) -> BoxStream<'static, Result<Message>> {
        (**self).subscribe()
    }
}

/// [`InvalidationBus`] in a form that makes an object, under names of its own so that no call is ambiguous.
pub(super) trait ErasedBus: Send + Sync {
    fn erased_publish(&self, message: Message) -> BoxFuture<'_, Result<()>>;
    fn erased_subscribe(&self) -> BoxStream<'static, Result<Message>>;
}

impl<B: InvalidationBus> ErasedBus for B {
    fn erased_publish(&self, message: Message) -> BoxFuture<'_, Result<()>> {
        self.publish(message).boxed()
    }

    fn erased_subscribe(&self) -> BoxStream<'static, Result<Message>> {
        self.subscribe()
    }
}
