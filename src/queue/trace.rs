//! Spans of what a queue does, under the feature `tracing`; nothing without it. Each is entered whenever its future is
//! polled, so it lasts from the first poll to the end, and what the future logs is within it.

use super::{DeliveryToken, Settle};
use std::future::Future;

/// Sending messages to a topic.
pub(super) fn send<F: Future>(topic: &str, messages: usize, sending: F) -> impl Future<Output = F::Output> + use<F> {
    #[cfg(feature = "tracing")]
    return tracing::Instrument::instrument(sending, tracing::info_span!("queue.send", topic, messages));
    #[cfg(not(feature = "tracing"))]
    {
        let _ = (topic, messages);
        sending
    }
}

/// Receiving messages, the wait for them included.
pub(super) fn receive<F: Future>(
    topic: &str,
    subscription: &str,
    receiving: F,
) -> impl Future<Output = F::Output> + use<F> {
    #[cfg(feature = "tracing")]
    return tracing::Instrument::instrument(receiving, tracing::debug_span!("queue.receive", topic, subscription));
    #[cfg(not(feature = "tracing"))]
    {
        let _ = (topic, subscription);
        receiving
    }
}

/// Settling a delivery.
pub(super) fn settle<F: Future>(
    token: &DeliveryToken,
    settle: &Settle,
    settling: F,
) -> impl Future<Output = F::Output> + use<F> {
    #[cfg(feature = "tracing")]
    {
        let (topic, subscription, seq) = (&*token.topic, &*token.subscription, token.seq);
        let span = tracing::debug_span!("queue.settle", topic, subscription, seq, how = name(settle));
        tracing::Instrument::instrument(settling, span)
    }
    #[cfg(not(feature = "tracing"))]
    {
        let _ = (token, settle);
        settling
    }
}

/// A worker's handler at work on one delivery.
pub(super) fn handle<F: Future>(
    token: &DeliveryToken,
    attempt: u32,
    handling: F,
) -> impl Future<Output = F::Output> + use<F> {
    #[cfg(feature = "tracing")]
    {
        let (topic, subscription, seq) = (&*token.topic, &*token.subscription, token.seq);
        let span = tracing::info_span!("queue.handle", topic, subscription, seq, attempt);
        tracing::Instrument::instrument(handling, span)
    }
    #[cfg(not(feature = "tracing"))]
    {
        let _ = (token, attempt);
        handling
    }
}

/// An attempt that failed, within its worker's span.
pub(super) fn failed(token: &DeliveryToken, attempt: u32, reason: &str) {
    #[cfg(feature = "tracing")]
    tracing::warn!(
        topic = &*token.topic,
        seq = token.seq,
        attempt,
        reason,
        "an attempt failed"
    );
    #[cfg(not(feature = "tracing"))]
    let _ = (token, attempt, reason);
}

/// A worker that could not receive, and tries again.
pub(super) fn stalled(error: &super::Error) {
    #[cfg(feature = "tracing")]
    tracing::warn!(%error, "a worker cannot receive, and tries again");
    #[cfg(not(feature = "tracing"))]
    let _ = error;
}

#[cfg(feature = "tracing")]
fn name(settle: &Settle) -> &'static str {
    match settle {
        Settle::Ack => "ack",
        Settle::AckThrough => "ack_through",
        Settle::Retry { .. } => "retry",
        Settle::Extend { .. } => "extend",
        Settle::DeadLetter { .. } => "dead_letter",
    }
}
