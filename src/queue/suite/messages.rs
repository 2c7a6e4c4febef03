use super::{Error, MOMENT, Message, Queue, Result, SOON, Subject};
use crate::queue::Feature;
use bytes::Bytes;
use futures::join;
use std::time::Duration;

pub(super) async fn come_in_order<Q: Queue + Clone + Unpin + 'static>(subject: Subject<Q>) {
    let from = subject.subscribe("t", "s").await;
    let first = subject.send("t", &["a", "b"]).await;
    let second = subject.send("t", &["c"]).await;
    let seqs = [first, second].concat();
    assert!(seqs.is_sorted_by(|a, b| a < b), "numbers grow: {seqs:?}");
    let next = subject.next(&from).await;
    assert_eq!((next.seq(), next.attempt()), (seqs[0], 1));
    next.ack().await.expect("an acknowledgement works");
    assert_eq!(subject.drain(&from).await, ["b", "c"]);
    subject.is_empty(&from).await;
    assert!(subject.send("t", &[]).await.is_empty(), "nothing can be sent, too");
}

pub(super) async fn keep_all_their_parts<Q: Queue + Clone + Unpin + 'static>(subject: Subject<Q>) {
    let from = subject.subscribe("t", "s").await;
    let long = Bytes::from(vec![7; 300_000]);
    let message = Message::new(long)
        .key("user-7")
        .header("trace", "1")
        .header("", vec![0, 255]);
    for message in [message, Message::new("")] {
        subject.topic("t").send(message.clone()).await.expect("a send works");
        let got = subject.next(&from).await;
        assert!(*got.message() == message, "what was sent: {:?}", got.message());
        got.ack().await.expect("an acknowledgement works");
    }
}

pub(super) async fn too_large_is_refused_whole<Q: Queue + Clone + Unpin + 'static>(subject: Subject<Q>) {
    if !subject.queue.capability().has(Feature::AtomicBatches) {
        return;
    }
    let from = subject.subscribe("t", "s").await;
    let huge = Message::new(vec![0; 64 << 20]);
    let refused = subject.topic("t").send_all([Message::new("small"), huge]).await;
    assert!(matches!(refused, Err(Error::TooLarge { .. })), "{refused:?}");
    subject.is_empty(&from).await;
}

pub(super) async fn sends_wake_consumers<Q: Queue + Clone + Unpin + 'static>(subject: Subject<Q>) {
    let from = subject.subscribe("t", "s").await;
    let later = async {
        subject.advance(MOMENT).await;
        subject.send("t", &["x", "y"]).await;
    };
    let (one, other, ()) = join!(subject.next(&from), subject.next(&from), later);
    assert_ne!(one.seq(), other.seq());
}

pub(super) async fn waiting_ends<Q: Queue + Clone + Unpin + 'static>(subject: Subject<Q>) {
    let from = subject.subscribe("t", "s").await;
    for wait in [Duration::ZERO, MOMENT] {
        let none = subject.take(&from, 5, wait).await;
        assert!(none.is_empty());
    }
    subject.send("t", &["x"]).await;
    assert_eq!(subject.take(&from, 5, SOON).await.len(), 1, "it does not wait for five");
}

pub(super) async fn topics_are_apart<Q: Queue + Clone + Unpin + 'static>(subject: Subject<Q>) {
    let a = subject.subscribe("a", "s").await;
    let b = subject.subscribe("b", "s").await;
    subject.send("a", &["1", "2"]).await;
    subject.send("b", &["3"]).await;
    subject.send("a", &["4"]).await;
    assert_eq!(subject.drain(&b).await, ["3"]);
    assert_eq!(subject.drain(&a).await, ["1", "2", "4"]);
    let stats: Result<_> = subject.queue.stats().await;
    let backlog = |topic: &crate::queue::TopicStats| topic.subscriptions.values().map(|s| s.backlog).sum::<usize>();
    let backlogs: usize = stats.expect("stats can be had").topics.values().map(backlog).sum();
    assert_eq!(backlogs, 0);
}
