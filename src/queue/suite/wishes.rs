//! What a sender may wish for a message, and a subscriber for a subscription. Not every queue can do all of it.

use super::{Delivery, LEASE, Queue, SOON, Subject, text};
use crate::queue::{Error, Feature, Message, Priority, Receipt, Result, Settle, Start};
use futures::{FutureExt, join};
use std::collections::BTreeMap;

/// Sends, unless the queue lacks what the messages need.
async fn send<Q: Queue + Clone + Unpin + 'static>(
    subject: &Subject<Q>,
    feature: Feature,
    messages: Vec<Message>,
) -> Option<Vec<Receipt>> {
    let sent = subject.topic("t").send_all(messages).await;
    subject.has(feature, sent)
}

pub(super) async fn delays_are_waited_for<Q: Queue + Clone + Unpin + 'static>(subject: Subject<Q>) {
    let from = subject.subscribe("t", "s").await;
    let late = vec![Message::new("late").deliver_in(LEASE)];
    if send(&subject, Feature::DelayedMessages, late).await.is_none() {
        return subject.is_empty(&from).await;
    }
    subject.send("t", &["now"]).await;
    assert_eq!(subject.drain(&from).await, ["now"], "nobody waits for what is delayed");
    let late = subject.next(&from).await;
    assert_eq!((text(&late), late.attempt()), ("late".into(), 1));
    late.ack().await.expect("an acknowledgement works");
}

pub(super) async fn times_are_waited_for<Q: Queue + Clone + Unpin + 'static>(subject: Subject<Q>) {
    let from = subject.subscribe("t", "s").await;
    subject.send("t", &["clock"]).await;
    let mut raw = subject.queue.receive(&from, 1, SOON).await.expect("a receive works");
    let clock = raw.pop().expect("a message comes");
    let now = clock.enqueued_at;
    let clock = Delivery::new(subject.queue.clone(), clock);
    clock.ack().await.expect("an acknowledgement works");
    let at = |text, at| vec![Message::new(text).deliver_at(at)];
    let late = at("late", now + LEASE);
    if send(&subject, Feature::DelayedMessages, late).await.is_none() {
        return;
    }
    send(&subject, Feature::DelayedMessages, at("past", now)).await;
    assert_eq!(subject.drain(&from).await, ["past"], "it comes at once");
    assert_eq!(text(&subject.next(&from).await), "late");
}

pub(super) async fn what_has_expired_is_not_delivered<Q: Queue + Clone + Unpin + 'static>(subject: Subject<Q>) {
    let from = subject.subscribe("t", "s").await;
    let messages = vec![
        Message::new("short").ttl(LEASE),
        Message::new("long").ttl(100 * LEASE),
        Message::new("for ever"),
    ];
    if send(&subject, Feature::TimeToLive, messages).await.is_none() {
        return subject.is_empty(&from).await;
    }
    subject.advance(2 * LEASE).await;
    assert_eq!(subject.drain(&from).await, ["long", "for ever"]);
    subject.is_empty(&from).await;
}

pub(super) async fn priorities_come_first_and_starve_nobody<Q: Queue + Clone + Unpin + 'static>(subject: Subject<Q>) {
    let levels = [Priority::Low, Priority::Normal, Priority::High, Priority::Urgent];
    let from = subject.subscribe("t", "s").await;
    let one = |n: usize| levels.map(|level| Message::new(format!("{level:?} {n:02}")).priority(level));
    let messages = (0..40).flat_map(one).collect();
    if send(&subject, Feature::Priorities, messages).await.is_none() {
        return subject.is_empty(&from).await;
    }
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut first = BTreeMap::new();
    for n in 0..160 {
        let next = subject.next(&from).await;
        let said = text(&next);
        let level = said.split(' ').next().unwrap_or_default().to_owned();
        if n < 32 {
            *first.entry(level.clone()).or_insert(0) += 1;
        }
        all.entry(level).or_default().push(said);
        next.ack().await.expect("an acknowledgement works");
    }
    assert!(
        all.values().all(|level| level.is_sorted()),
        "each level in its order: {all:?}"
    );
    let counts = levels.map(|level| first.get(&format!("{level:?}")).copied().unwrap_or(0));
    assert!(
        counts.is_sorted() && counts[3] > counts[0],
        "the higher the more: {counts:?}"
    );
    assert!(counts[0] > 0, "the lowest is not starved: {counts:?}");
    subject.is_empty(&from).await;
}

pub(super) async fn ordered_keys_come_one_by_one<Q: Queue + Clone + Unpin + 'static>(subject: Subject<Q>) {
    let mut from = subject.wanted("t", "s");
    from.ordered = true;
    let made = subject.queue.subscribe(&from).await;
    if subject.has(Feature::OrderedKeys, made).is_none() {
        return;
    }
    let keyed = ["a1", "a2", "b1", "a3"].map(|text| Message::new(text).key(&text.as_bytes()[..1]));
    let sent = subject.topic("t").send_all(keyed).await;
    sent.expect("a send works");
    subject.send("t", &["free"]).await;
    let mut held = subject.take(&from, 10, SOON).await;
    held.extend(subject.take(&from, 10, super::MOMENT).await);
    let texts: Vec<_> = held.iter().map(text).collect();
    assert_eq!(texts, ["a1", "b1", "free"], "one of each key, and whatever has none");
    // The next one comes with the acknowledgement, not before, and wakes whoever waits.
    let first = held.remove(0);
    let (a2, acked) = join!(subject.next(&from), first.ack());
    acked.expect("an acknowledgement works");
    assert_eq!(text(&a2), "a2");
    drop(a2);
    let again = subject.next(&from).await;
    assert_eq!(
        (text(&again), again.attempt()),
        ("a2".into(), 2),
        "before the one behind it"
    );
    again.ack().await.expect("an acknowledgement works");
    assert_eq!(subject.drain(&from).await, ["a3"]);
}

pub(super) async fn repetitions_are_told<Q: Queue + Clone + Unpin + 'static>(subject: Subject<Q>) {
    let from = subject.subscribe("t", "s").await;
    let other = subject.subscribe("other", "s").await;
    let named = |text: &'static str, id: &'static str| Message::new(text).dedup_id(id);
    let Some(first) = send(&subject, Feature::Deduplication, vec![named("a", "1")]).await else {
        return subject.is_empty(&from).await;
    };
    assert!(!first[0].duplicate);
    let batch = vec![
        named("again", "1"),
        named("b", "2"),
        named("twin", "2"),
        "plain".into(),
        "plain".into(),
    ];
    let second = send(&subject, Feature::Deduplication, batch)
        .await
        .expect("it is supported");
    assert_eq!(second[0], Receipt::duplicate(first[0].seq));
    assert_eq!(second[2], Receipt::duplicate(second[1].seq));
    let fresh: Vec<_> = [1, 3, 4].into_iter().map(|at: usize| second[at].duplicate).collect();
    assert_eq!(fresh, [false; 3]);
    assert_eq!(subject.drain(&from).await, ["a", "b", "plain", "plain"]);
    // Having been dealt with does not make it new.
    let third = send(&subject, Feature::Deduplication, vec![named("late", "1")]).await;
    assert_eq!(third, Some(vec![Receipt::duplicate(first[0].seq)]));
    subject.is_empty(&from).await;
    let elsewhere = subject
        .topic("other")
        .send(named("x", "1"))
        .await
        .expect("a send works");
    assert!(!elsewhere.duplicate, "an id is its topic's own");
    assert_eq!(subject.drain(&other).await, ["x"]);
}

pub(super) async fn repetitions_at_once_are_told<Q: Queue + Clone + Unpin + 'static>(subject: Subject<Q>) {
    if !subject.queue.capability().has(Feature::Deduplication) {
        return;
    }
    let from = subject.subscribe("t", "s").await;
    let topic = subject.topic("t");
    let once = || topic.send(Message::new("x").dedup_id("1")).boxed();
    let sent: Vec<Result<Receipt>> = futures::future::join_all([once(), once(), once()]).await;
    let sent: Vec<Receipt> = sent.into_iter().map(|sent| sent.expect("a send works")).collect();
    assert_eq!(sent.iter().filter(|receipt| !receipt.duplicate).count(), 1, "{sent:?}");
    assert!(sent.iter().all(|receipt| receipt.seq == sent[0].seq), "{sent:?}");
    assert_eq!(subject.drain(&from).await, ["x"]);
}

pub(super) async fn acknowledging_through_settles_all_before<Q: Queue + Clone + Unpin + 'static>(subject: Subject<Q>) {
    let from = subject.subscribe("t", "s").await;
    subject.send("t", &["a", "b", "c", "d"]).await;
    let mut held = subject.take(&from, 3, SOON).await;
    while held.len() < 3 {
        held.push(subject.next(&from).await);
    }
    let done = subject.queue.settle(held[1].token(), Settle::AckThrough).await;
    if subject.has(Feature::AckThrough, done).is_none() {
        for held in held {
            held.ack().await.expect("it is still held");
        }
        return;
    }
    let seq = held[0].seq();
    let first = held.remove(0).ack().await;
    assert_eq!(first, Err(Error::LeaseLost { seq }), "it is settled already");
    drop(held.remove(0));
    drop(held);
    assert_eq!(
        subject.drain(&from).await,
        ["c", "d"],
        "what comes after is not settled"
    );
    subject.advance(2 * LEASE).await;
    subject.is_empty(&from).await;
}

pub(super) async fn subscriptions_can_begin_anywhere<Q: Queue + Clone + Unpin + 'static>(subject: Subject<Q>) {
    let all = subject.subscribe("t", "all").await;
    let seqs = subject.send("t", &["a", "b"]).await;
    subject.advance(LEASE).await;
    subject.send("t", &["c"]).await;
    let mut from = subject.wanted("t", "number");
    from.start = Start::Seq(seqs[1]);
    let made = subject.queue.subscribe(&from).await;
    if subject.has(Feature::Replay, made).is_none() {
        return;
    }
    assert_eq!(subject.drain(&from).await, ["b", "c"]);
    let mut raw = Vec::new();
    while raw.len() < 3 {
        let some = subject.queue.receive(&all, 3, SOON).await;
        raw.extend(some.expect("a receive works"));
    }
    for (number, start, expected) in [(0, 0, 3), (2, 2, 1)] {
        let mut from = subject.wanted("t", &format!("time {number}"));
        from.start = Start::Time(raw[start].enqueued_at);
        subject
            .queue
            .subscribe(&from)
            .await
            .expect("a subscription can be made");
        let got = subject.drain(&from).await;
        assert_eq!(got, ["a", "b", "c"][3 - expected..], "from the time of number {number}");
    }
}
