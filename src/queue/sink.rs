use super::{Error, Message, Queue, Receipt, Result, Topic};
use futures::future::BoxFuture;
use futures::{FutureExt, Sink};
use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// The most bytes that are sent in one batch, unless one message alone is larger.
const BATCH_BYTES: usize = 256 << 10;

/// A topic as a [`Sink`] of messages; made by [`Topic::sink`].
///
/// Messages are sent in the order in which they came in, in batches: while one is on its way to the disk, the next gathers.
/// So a stream that is forwarded into it goes at the speed of large batches, and one message alone does not wait.
///
/// `flush` waits until all that came in before it is durable, `close` does the same. Dropping the sink drops what has not
/// been sent. A batch that fails is an error of the next call, and [`take_failed`](TopicSink::take_failed) gives its
/// messages back; later messages go on.
///
/// ```
/// # use outgrow::queue::{DurableQueue, Message};
/// use futures::{SinkExt, StreamExt, stream};
/// # let dir = std::env::temp_dir().join(format!("outgrow-doc-sink-{}", std::process::id()));
/// # futures::executor::block_on(async {
/// # let queue = DurableQueue::open(&dir).await?;
/// let lines = queue.topic("lines");
/// let mut sink = lines.sink(1_000);
/// let mut numbers = stream::iter(0..500).map(|n| Ok(Message::new(format!("line {n}"))));
/// sink.send_all(&mut numbers).await?; // flushes, too
/// assert_eq!(sink.sent(), 500);
/// assert_eq!(queue.stats().sent, 500);
/// # queue.close().await;
/// # Ok::<(), outgrow::queue::Error>(()) }).unwrap();
/// # std::fs::remove_dir_all(&dir).unwrap();
/// ```
#[must_use = "a sink does nothing unless polled"]
pub struct TopicSink<Q> {
    topic: Topic<Q>,
    ahead: usize,
    waiting: VecDeque<Message>,
    sending: Option<Sending>,
    failed: Vec<Message>,
    sent: u64,
}

struct Sending {
    /// To be given back if they fail.
    messages: Vec<Message>,
    done: BoxFuture<'static, Result<Vec<Receipt>>>,
}

impl<Q: Queue + Clone + 'static> TopicSink<Q> {
    pub(super) fn new(topic: Topic<Q>, ahead: usize) -> TopicSink<Q> {
        TopicSink {
            topic,
            ahead: ahead.max(1),
            waiting: VecDeque::new(),
            sending: None,
            failed: Vec::new(),
            sent: 0,
        }
    }

    /// How many messages it has sent; they are durable.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// The messages of batches that failed, in their order. If the error's
    /// [`effect`](Error::effect) is unknown, they may have been sent all the same.
    #[must_use]
    pub fn take_failed(&mut self) -> Vec<Message> {
        std::mem::take(&mut self.failed)
    }

    /// Sees to the batch on its way, and begins the next one. Ready when there is none.
    fn poll_batches(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        loop {
            if let Some(sending) = &mut self.sending {
                let result = ready!(sending.done.poll_unpin(cx));
                let messages = self.sending.take().map_or_else(Vec::new, |sending| sending.messages);
                match result {
                    Ok(_receipts) => self.sent += messages.len() as u64,
                    Err(error) => {
                        self.failed.extend(messages);
                        return Poll::Ready(Err(error));
                    }
                }
            }
            if self.waiting.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let messages = batch(&mut self.waiting);
            let (topic, copies) = (self.topic.clone(), messages.clone());
            let done = async move { topic.send_all(copies).await }.boxed();
            self.sending = Some(Sending { messages, done });
        }
    }
}

/// As many messages as go in one batch.
fn batch(waiting: &mut VecDeque<Message>) -> Vec<Message> {
    let mut bytes = 0;
    let fits = waiting.iter().take_while(|message| {
        bytes += message.payload.len();
        bytes <= BATCH_BYTES
    });
    let many = fits.count().max(1);
    waiting.drain(..many).collect()
}

impl<Q: Queue + Clone + Unpin + 'static> Sink<Message> for TopicSink<Q> {
    type Error = Error;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        match this.poll_batches(cx) {
            Poll::Pending if this.waiting.len() < this.ahead => Poll::Ready(Ok(())),
            polled => polled,
        }
    }

    fn start_send(self: Pin<&mut Self>, message: Message) -> Result<()> {
        self.get_mut().waiting.push_back(message);
        Ok(())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.get_mut().poll_batches(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.poll_flush(cx)
    }
}

impl<Q: fmt::Debug> fmt::Debug for TopicSink<Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TopicSink")
            .field("topic", &self.topic)
            .field("waiting", &self.waiting.len())
            .field("sent", &self.sent)
            .field("failed", &self.failed.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_bounded_and_never_empty() {
        let sizes = [100 << 10, 100 << 10, 100 << 10, 1 << 20, 1, 2];
        let mut waiting: VecDeque<_> = sizes.map(|len| Message::new(vec![0; len])).into();
        let mut batches = Vec::new();
        while !waiting.is_empty() {
            batches.push(batch(&mut waiting).len());
        }
        assert_eq!(batches, [2, 1, 1, 2]);
    }
}
