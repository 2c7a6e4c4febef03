use super::{Error, Queue, Subject, text};
use crate::queue::{Start, Subscription};
use futures::join;
use std::time::Duration;

pub(super) async fn subscriptions_each_get_all<Q: Queue + Clone + Unpin + 'static>(subject: Subject<Q>) {
    let one = subject.subscribe("t", "one").await;
    let two = subject.subscribe("t", "two").await;
    subject.send("t", &["a", "b", "c"]).await;
    assert_eq!(subject.drain(&one).await, ["a", "b", "c"]);
    subject.send("t", &["d"]).await;
    assert_eq!(subject.drain(&two).await, ["a", "b", "c", "d"]);
    assert_eq!(subject.drain(&one).await, ["d"]);
}

pub(super) async fn consumers_compete<Q: Queue + Clone + Unpin + 'static>(subject: Subject<Q>) {
    let from = subject.subscribe("t", "s").await;
    subject.send("t", &["a", "b", "c", "d"]).await;
    let (some, others) = join!(subject.drain(&from), subject.drain(&from));
    let mut all = [some, others].concat();
    all.sort();
    assert_eq!(all, ["a", "b", "c", "d"], "each of them once");
}

pub(super) async fn subscriptions_start_where_they_say<Q: Queue + Clone + Unpin + 'static>(subject: Subject<Q>) {
    subject.send("t", &["old"]).await;
    let mut now = subject.wanted("t", "now");
    now.start = Start::Now;
    subject.queue.subscribe(&now).await.expect("a subscription can be made");
    let first = subject.subscribe("t", "first").await;
    subject.send("t", &["new"]).await;
    assert_eq!(subject.drain(&now).await, ["new"]);
    assert_eq!(subject.drain(&first).await, ["old", "new"]);
    // A subscription that exists goes on where it stands, whatever its next subscriber says.
    now.start = Start::First;
    subject.queue.subscribe(&now).await.expect("it exists");
    subject.is_empty(&now).await;
}

pub(super) async fn flight_is_bounded<Q: Queue + Clone + Unpin + 'static>(subject: Subject<Q>) {
    let mut from = subject.wanted("t", "s");
    from.max_in_flight = 2;
    subject
        .queue
        .subscribe(&from)
        .await
        .expect("a subscription can be made");
    subject.send("t", &["a", "b", "c"]).await;
    let first = subject.next(&from).await;
    let second = subject.next(&from).await;
    subject.is_empty(&from).await;
    let (third, acked) = join!(subject.next(&from), first.ack());
    acked.expect("an acknowledgement works");
    assert_eq!((text(&second), text(&third)), ("b".into(), "c".into()));
}

pub(super) async fn streams_deliver<Q: Queue + Clone + Unpin + 'static>(subject: Subject<Q>) {
    let mut jobs = subject
        .builder("t", "s")
        .prefetch(2)
        .build()
        .await
        .expect("it subscribes");
    subject.send("t", &["a", "b", "c"]).await;
    for expected in ["a", "b", "c"] {
        let job = jobs.next().await.expect("the queue is open").expect("it delivers");
        assert_eq!(text(&job), expected);
        job.ack().await.expect("an acknowledgement works");
    }
    subject.send("t", &["d", "e"]).await;
    let d = jobs.next().await.expect("the queue is open").expect("it delivers");
    drop(jobs);
    // What the stream had taken ahead is free again.
    let from = subject.wanted("t", "s");
    let e = subject.next(&from).await;
    assert_eq!((text(&d), text(&e)), ("d".into(), "e".into()));
}

pub(super) async fn nonsense_is_refused<Q: Queue + Clone + Unpin + 'static>(subject: Subject<Q>) {
    let nobody = Subscription::new("t", "nobody");
    let refused = subject.queue.receive(&nobody, 1, Duration::ZERO).await;
    assert!(matches!(refused, Err(Error::NoSubscription { .. })), "{refused:?}");
    let long = "x".repeat(1 << 16);
    let nonsense = [
        subject.builder("t", "").build().await,
        subject.builder("", "s").build().await,
        subject.builder("t", &long).build().await,
        subject.builder("t", "s").max_attempts(0).build().await,
        subject.builder("t", "s").max_in_flight(0).build().await,
        subject.builder("t", "s").lease(Duration::ZERO).build().await,
    ];
    for refused in nonsense {
        assert!(matches!(refused, Err(Error::Invalid { .. })), "{refused:?}");
    }
    let refused = subject.topic("").send("x").await;
    assert!(matches!(refused, Err(Error::Invalid { .. })), "{refused:?}");
}
