use super::{Error, LEASE, MOMENT, Queue, SOON, Subject, text};
use crate::queue::{DEAD_ATTEMPTS, DEAD_REASON, DEAD_SEQ, DEAD_SUBSCRIPTION, DEAD_TOPIC, Feature, Message};
use futures::join;

pub(super) async fn leases_end<Q: Queue + Clone + Unpin + 'static>(subject: Subject<Q>) {
    let from = subject.subscribe("t", "s").await;
    subject.send("t", &["a", "b"]).await;
    let late = subject.next(&from).await;
    let (again, ()) = join!(
        async {
            let b = subject.next(&from).await;
            assert_eq!(text(&b), "b", "the first is leased");
            // Not dropped: queues differ in which of two that became free comes first.
            b.ack().await.expect("an acknowledgement works");
            subject.advance(2 * LEASE).await;
            subject.next(&from).await
        },
        async {}
    );
    assert_eq!((again.seq(), again.attempt()), (late.seq(), 2));
    let seq = late.seq();
    assert_eq!(late.ack().await, Err(Error::LeaseLost { seq }));
    again.ack().await.expect("this one holds the lease");
}

pub(super) async fn dropped_deliveries_come_back<Q: Queue + Clone + Unpin + 'static>(subject: Subject<Q>) {
    let from = subject.subscribe("t", "s").await;
    subject.send("t", &["a", "b"]).await;
    let dropped = subject.next(&from).await;
    let other = subject.next(&from).await;
    drop(dropped);
    let again = subject.take(&from, 1, MOMENT).await;
    assert_eq!(again.len(), 1, "it comes at once, and wakes who waits");
    assert_eq!((text(&again[0]), again[0].attempt()), ("a".into(), 2));
    other.ack().await.expect("an acknowledgement works");
}

pub(super) async fn retries_wait<Q: Queue + Clone + Unpin + 'static>(subject: Subject<Q>) {
    if !subject.queue.capability().has(Feature::DelayedRetry) {
        return;
    }
    let from = subject.subscribe("t", "s").await;
    subject.send("t", &["a", "b"]).await;
    let failed = subject.next(&from).await;
    failed.retry_in(LEASE).await.expect("it can be retried");
    assert_eq!(text(&subject.next(&from).await), "b", "others do not wait for it");
    assert_eq!(subject.drain(&from).await, ["b"]);
    let again = subject.take(&from, 1, SOON).await;
    assert_eq!((text(&again[0]), again[0].attempt()), ("a".into(), 2));
}

pub(super) async fn leases_can_be_extended<Q: Queue + Clone + Unpin + 'static>(subject: Subject<Q>) {
    let from = subject.subscribe("t", "s").await;
    subject.send("t", &["a"]).await;
    let mut slow = subject.next(&from).await;
    let extended = slow.extend(3 * LEASE).await;
    if !subject.queue.capability().has(Feature::Extend) {
        assert_eq!(extended, Err(Error::Unsupported(Feature::Extend)));
        return;
    }
    extended.expect("a lease can be extended");
    subject.advance(2 * LEASE).await;
    subject.is_empty(&from).await;
    slow.ack().await.expect("it still holds the lease");
    subject.advance(2 * LEASE).await;
    subject.is_empty(&from).await;
}

pub(super) async fn dead_letters_say_why<Q: Queue + Clone + Unpin + 'static>(subject: Subject<Q>) {
    let from = subject.subscribe("t", "s").await;
    let dead = subject.subscribe("t.dead", "undertaker").await;
    let message = Message::new("a").key("k").header("trace", "1");
    let sent = subject.topic("t").send(message).await.expect("a send works");
    subject
        .next(&from)
        .await
        .dead_letter("no such user")
        .await
        .expect("it can be given up");
    let letter = subject.next(&dead).await;
    let says = |name| {
        letter
            .message()
            .get(name)
            .map(|value| String::from_utf8_lossy(&value).into_owned())
    };
    assert_eq!(text(&letter), "a");
    assert_eq!(letter.key().map(|key| &key[..]), Some(&b"k"[..]));
    assert_eq!(says("trace").as_deref(), Some("1"));
    assert_eq!(says(DEAD_REASON).as_deref(), Some("no such user"));
    assert_eq!(says(DEAD_TOPIC).as_deref(), Some("t"));
    assert_eq!(says(DEAD_SUBSCRIPTION).as_deref(), Some("s"));
    assert_eq!(says(DEAD_SEQ), Some(sent.seq.to_string()));
    assert_eq!(says(DEAD_ATTEMPTS).as_deref(), Some("1"));
    subject.is_empty(&from).await;
}

pub(super) async fn attempts_are_bounded<Q: Queue + Clone + Unpin + 'static>(subject: Subject<Q>) {
    let mut from = subject.wanted("t", "s");
    from.max_attempts = 2;
    subject
        .queue
        .subscribe(&from)
        .await
        .expect("a subscription can be made");
    let dead = subject.subscribe("t.dead", "undertaker").await;
    subject.send("t", &["dropped", "late", "fine"]).await;
    drop(subject.next(&from).await);
    drop(subject.next(&from).await);
    let letter = subject.next(&dead).await;
    assert_eq!(text(&letter), "dropped");
    letter.ack().await.expect("an acknowledgement works");
    for attempt in 1..=2 {
        let late = subject.next(&from).await;
        assert_eq!((text(&late), late.attempt()), ("late".into(), attempt));
        subject.advance(2 * LEASE).await;
    }
    assert_eq!(text(&subject.next(&dead).await), "late");
    assert_eq!(subject.drain(&from).await, ["fine"]);
}

pub(super) async fn settled_is_settled<Q: Queue + Clone + Unpin + 'static>(subject: Subject<Q>) {
    let from = subject.subscribe("t", "s").await;
    subject.send("t", &["a"]).await;
    let held = subject.next(&from).await;
    let (token, seq) = (held.token().clone(), held.seq());
    held.ack().await.expect("an acknowledgement works");
    let settle = crate::queue::Settle::Ack;
    assert_eq!(
        subject.queue.settle(&token, settle).await,
        Err(Error::LeaseLost { seq })
    );
    subject.queue.release(&token);
    subject.advance(2 * LEASE).await;
    subject.is_empty(&from).await;
}
