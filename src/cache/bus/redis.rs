use super::{InvalidationBus, Message};
use crate::env::Env;
use crate::store::redis::link::Link;
use crate::store::{Effect, Result};
use crate::sync::Mutex;
use bytes::Bytes;
use futures::channel::mpsc;
use futures::future::ready;
use futures::stream::{self, BoxStream, StreamExt};
use redis::aio::MultiplexedConnection;
use redis::{PushInfo, PushKind, Value, cmd};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How far behind a subscriber may be.
const CAPACITY: usize = 4_096;

/// An [`InvalidationBus`] between processes, over the channels of a Redis server (feature `redis`). A clone is a
/// handle to the same.
///
/// Redis gives each message once to whoever listens at that moment, and keeps none: what is published while a
/// connection is down is lost to it. Its own heartbeats tell a cache that. Where the bus is on the server that also
/// keeps the entries, a process that can write them can also tell of it, as a rule.
///
/// Each subscription has a connection of its own; messages are published over another. A subscriber that falls about
/// 4,096 messages behind has its stream ended. What is no message of this version or fails its checksum is refused,
/// as an item of the stream.
///
/// ```no_run
/// use outgrow::cache::{RedisBus, Tiered};
/// use outgrow::store::RedisStore;
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let url = "redis://127.0.0.1/";
/// let bus = RedisBus::builder(url).channel("app:changes").connect().await?;
/// let users = Tiered::builder(RedisStore::builder(url).prefix("app:").connect().await?).bus(bus).build().await?;
/// # users.close().await;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct RedisBus {
    link: Link,
    channel: Arc<str>,
}

/// Builds a [`RedisBus`]; see each option for its default.
#[must_use]
pub struct RedisBusBuilder {
    url: String,
    channel: String,
    timeout: Duration,
    env: Option<Env>,
}

impl RedisBus {
    /// Starts building a bus on the server at `url`, such as `redis://user:password@host:6379/`.
    pub fn builder(url: impl Into<String>) -> RedisBusBuilder {
        RedisBusBuilder {
            url: url.into(),
            channel: "outgrow:invalidations".into(),
            timeout: Duration::from_secs(1),
            env: None,
        }
    }
}

impl RedisBusBuilder {
    /// The channel. All caches before one store use the same; others use another. Channels are the server's, whatever
    /// the database. Default: `outgrow:invalidations`.
    pub fn channel(mut self, channel: impl Into<String>) -> Self {
        self.channel = channel.into();
        self
    }

    /// How long connecting, subscribing and publishing may each take at most. Default: 1 second.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The world it lives in; its tasks must run on a tokio runtime. Default: [`Env::default`].
    pub fn env(mut self, env: Env) -> Self {
        self.env = Some(env);
        self
    }

    /// Connects.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::store::Error::Invalid) for an address that is none, credentials that the server refuses, or an environment without
    /// tokio; [`Unavailable`](crate::store::Error::Unavailable) or
    /// [`Timeout`](crate::store::Error::Timeout) when nobody answers.
    ///
    /// # Cancel safety
    /// Dropped halfway, it leaves nothing behind.
    pub async fn connect(self) -> Result<RedisBus> {
        let link = Link::new(&self.url, self.env.unwrap_or_default(), self.timeout)?;
        link.call(&cmd("PING"), Effect::None).await?;
        Ok(RedisBus {
            link,
            channel: self.channel.into(),
        })
    }
}

impl InvalidationBus for RedisBus {
    async fn publish(&self, message: Message) -> Result<()> {
        let mut command = cmd("PUBLISH");
        command.arg(&*self.channel).arg(&message.encode()[..]);
        self.link.call(&command, Effect::Unknown).await.map(drop)
    }

    fn subscribe(&self) -> BoxStream<'static, Result<Message>> {
        let opened = stream::once(open(self.link.clone(), Arc::clone(&self.channel)));
        let messages = opened.flat_map(|opened| match opened {
            Ok((payloads, connection)) => {
                let decode = move |payload: Bytes| {
                    // The subscription lasts as long as its connection.
                    let _held = &connection;
                    Message::decode(&payload)
                };
                payloads.map(decode).left_stream()
            }
            Err(error) => stream::once(ready(Err(error))).right_stream(),
        });
        messages.boxed()
    }
}

/// Subscribes. The stream ends when the connection does, and when nobody takes what comes.
async fn open(link: Link, channel: Arc<str>) -> Result<(mpsc::Receiver<Bytes>, MultiplexedConnection)> {
    let (send, receive) = mpsc::channel(CAPACITY);
    let inbox = Mutex::new(Some(send));
    let mut connection = link.dedicated(move |info| pushed(&inbox, info)).await?;
    let subscribed = link.within(async { connection.subscribe(&*channel).await });
    subscribed.await?;
    Ok((receive, connection))
}

/// Puts what the server pushed into the inbox, or closes it where something is or may be lost.
fn pushed(inbox: &Mutex<Option<mpsc::Sender<Bytes>>>, info: PushInfo) {
    let mut inbox = inbox.lock();
    let taken = match (info.kind, info.data.into_iter().nth(1)) {
        (PushKind::Message, Some(Value::BulkString(payload))) => inbox
            .as_mut()
            .is_some_and(|inbox| inbox.try_send(payload.into()).is_ok()),
        (PushKind::Disconnection | PushKind::Unsubscribe, _) => false,
        _ => true,
    };
    if !taken {
        *inbox = None;
    }
}

impl fmt::Debug for RedisBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBus")
            .field("channel", &self.channel)
            .field("link", &self.link)
            .finish()
    }
}

impl fmt::Debug for RedisBusBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The address may hold a password.
        f.debug_struct("RedisBusBuilder")
            .field("channel", &self.channel)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(kind: PushKind, data: &[&'static str]) -> PushInfo {
        let data = data.iter().map(|text| Value::BulkString((*text).into())).collect();
        PushInfo { kind, data }
    }

    #[test]
    fn an_inbox_that_overflows_or_loses_its_connection_is_closed() {
        let (send, receive) = mpsc::channel(CAPACITY);
        let inbox = Mutex::new(Some(send));
        for _ in 0..2 * CAPACITY {
            pushed(&inbox, push(PushKind::Subscribe, &["channel"]));
            pushed(&inbox, push(PushKind::Message, &["channel", "payload"]));
        }
        let held = futures::executor::block_on(receive.collect::<Vec<_>>());
        assert_eq!((held.len(), &held[0][..]), (CAPACITY + 1, &b"payload"[..]));

        let (send, mut receive) = mpsc::channel(CAPACITY);
        let inbox = Mutex::new(Some(send));
        pushed(&inbox, push(PushKind::Message, &["channel", "payload"]));
        pushed(&inbox, push(PushKind::Disconnection, &[]));
        pushed(&inbox, push(PushKind::Message, &["channel", "too late"]));
        let next = |receive: &mut mpsc::Receiver<Bytes>| futures::executor::block_on(receive.next());
        assert_eq!(next(&mut receive).as_deref(), Some(&b"payload"[..]));
        assert_eq!(next(&mut receive), None);
    }
}
