//! Futures that are dropped at every poll: nothing acknowledged is lost, and nothing is leased to nobody.

use super::{LEASE, SECOND, open, subscribe};
use futures::{SinkExt, join};
use outgrow::env::Env;
use outgrow::queue::{DurableQueue, Message, SubscriptionStats};
use outgrow::sim::drop_at_every_poll;

/// What another consumer gets soon: before any lease could end.
async fn soon(env: &Env, queue: &DurableQueue) -> Vec<(String, u32)> {
    let mut jobs = subscribe(&queue.topic("t")).lease(60 * SECOND).build().await.unwrap();
    let mut all = Vec::new();
    while let Ok(Some(job)) = env.timeout(SECOND, jobs.next()).await {
        let job = job.unwrap();
        all.push((String::from_utf8(job.payload().to_vec()).unwrap(), job.attempt()));
        job.ack().await.unwrap();
    }
    let stats = queue.stats().topics["t"].subscriptions["s"];
    let mut left = stats;
    left.redelivered = 0;
    assert_eq!(left, SubscriptionStats::default(), "nothing is stuck");
    all
}

#[test]
fn a_send_is_done_or_not() {
    let polls = drop_at_every_poll(61, |world, cut| async move {
        let env = world.env();
        let queue = open(&env).await;
        let topic = queue.topic("t");
        subscribe(&topic).build().await.unwrap();
        topic.send("before").await.unwrap();
        let sent = cut.run(topic.send("x")).await;
        topic.send("after").await.unwrap();
        let names: Vec<_> = soon(&env, &queue).await.into_iter().map(|(name, _)| name).collect();
        match sent {
            Some(receipt) => {
                receipt.unwrap();
                assert_eq!(names, ["before", "x", "after"]);
            }
            None => assert!(
                names == ["before", "x", "after"] || names == ["before", "after"],
                "{names:?}"
            ),
        }
        queue.close().await;
        let queue = open(&env).await;
        assert_eq!(soon(&env, &queue).await, [], "what was acknowledged stays so");
    });
    assert!(polls >= 1);
}

#[test]
fn a_sink_that_is_dropped_has_sent_from_the_front() {
    drop_at_every_poll(62, |world, cut| async move {
        let env = world.env();
        let queue = open(&env).await;
        let topic = queue.topic("t");
        subscribe(&topic).build().await.unwrap();
        let mut sink = topic.sink(3);
        let feeding = async {
            for n in 0..8 {
                sink.feed(Message::new(format!("{n}"))).await.unwrap();
            }
            sink.close().await.unwrap();
        };
        let fed = cut.run(feeding).await;
        let promised = sink.sent() as usize;
        drop(sink);
        env.sleep(SECOND).await;
        let names: Vec<_> = soon(&env, &queue).await.into_iter().map(|(name, _)| name).collect();
        let all: Vec<_> = (0..8).map(|n| format!("{n}")).collect();
        assert_eq!(names, all[..names.len()]);
        assert!(
            names.len() >= promised && (fed.is_none() || names.len() == 8),
            "{names:?}"
        );
    });
}

#[test]
fn a_next_leaves_nothing_leased() {
    // With what comes later, and with what is there; from memory, and from disk.
    for (late, cache) in [(true, 0), (true, 1 << 20), (false, 0), (false, 1 << 20)] {
        drop_at_every_poll(63, |world, cut| async move {
            let env = world.env();
            let queue = DurableQueue::builder().env(env.clone()).cache_bytes(cache);
            let queue = queue.open("q").await.unwrap();
            let topic = queue.topic("t");
            let mut jobs = subscribe(&topic).lease(60 * SECOND).prefetch(2).build().await.unwrap();
            let send = async {
                if late {
                    env.sleep(SECOND).await;
                }
                topic.send_all(["a", "b", "c"]).await.unwrap();
            };
            if !late {
                topic.send_all(["a", "b", "c"]).await.unwrap();
            }
            let next = cut.run(jobs.next());
            let got = match late {
                true => join!(next, send).0,
                false => next.await,
            };
            // The subscriber lives on, and nobody polls it.
            match got {
                Some(job) => {
                    job.unwrap().unwrap().ack().await.unwrap();
                    drop(jobs);
                    assert_eq!(soon(&env, &queue).await, [("b".into(), 2), ("c".into(), 1)]);
                }
                None => {
                    let all = [("a".into(), 1), ("b".into(), 1), ("c".into(), 1)];
                    assert_eq!(soon(&env, &queue).await, all);
                }
            }
        });
    }
}

#[test]
fn a_subscriber_that_is_polled_no_more_keeps_no_wake() {
    drop_at_every_poll(64, |world, cut| async move {
        let env = world.env();
        let queue = open(&env).await;
        let topic = queue.topic("t");
        let mut idle = subscribe(&topic).build().await.unwrap();
        let mut other = subscribe(&topic).build().await.unwrap();
        // The idle one waits first, and would be the first to be woken.
        let mut waiting = std::pin::pin!(cut.run(idle.next()));
        let first = futures::poll!(&mut waiting);
        if first.is_ready() {
            topic.send("a").await.unwrap();
            let start = env.now();
            other.next().await.unwrap().unwrap().ack().await.unwrap();
            assert!(env.now() - start < SECOND);
            return;
        }
        let send = async {
            env.sleep(SECOND).await;
            topic.send_all(["a", "b"]).await.unwrap();
            env.now()
        };
        let second = async {
            let job = other.next().await.unwrap().unwrap();
            let at = env.now();
            job.ack().await.unwrap();
            at
        };
        let (_, got, sent) = join!(waiting, second, send);
        assert!(got - sent < SECOND);
    });
}

#[test]
fn an_ack_is_done_or_given_back() {
    for keep in [false, true] {
        let polls = drop_at_every_poll(65, |world, cut| async move {
            let env = world.env();
            let queue = open(&env).await;
            let topic = queue.topic("t");
            let mut jobs = subscribe(&topic).build().await.unwrap();
            topic.send_all(["a", "b"]).await.unwrap();
            let mut job = jobs.next().await.unwrap().unwrap();
            if keep {
                job.keep_alive();
                env.sleep(5 * LEASE).await;
            }
            drop(jobs);
            let acked = cut.run(job.ack()).await;
            let left = soon(&env, &queue).await;
            let back = left == [("a".into(), 2), ("b".into(), 1)] || left == [("b".into(), 1), ("a".into(), 2)];
            let gone = left == [("b".into(), 1)];
            match acked {
                Some(result) => {
                    result.unwrap();
                    assert!(gone, "{left:?}");
                }
                None => assert!(back || gone, "{left:?}"),
            }
        });
        assert!(polls >= 1);
    }
}
