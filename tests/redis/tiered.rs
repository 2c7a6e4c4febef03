//! `Tiered` and `RedisBus`: two processes' worth of handles over one server.

use crate::server::Server;
use crate::{connect, on_tokio, server};
use futures::StreamExt;
use outgrow::cache::{InvalidationBus, Message, Notice, Origin, RedisBus, Tiered, TieredStats};
use outgrow::env::{Env, Tick};
use outgrow::store::{Effect, Error, RedisStore, Store, StoreExt};
use std::time::{Duration, Instant};

const MS: Duration = Duration::from_millis(1);
/// Longer than a busy machine stalls, short enough to wait for.
const HEARTBEAT: Duration = Duration::from_millis(1_500);
const PATIENCE: Duration = Duration::from_secs(20);

async fn bus(server: &Server) -> RedisBus {
    let bus = RedisBus::builder(server.url()).channel("changes").timeout(HEARTBEAT);
    bus.connect().await.unwrap()
}

/// A process: connections, bus and cache of its own.
async fn process(server: &Server) -> Tiered<RedisStore> {
    let builder = Tiered::builder(connect(server, "t/").await).bus(bus(server).await);
    builder.heartbeat(HEARTBEAT).build().await.unwrap()
}

/// Waits until `condition` holds.
async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let (env, start) = (Env::system(), Instant::now());
    while !condition().await {
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        env.sleep(5 * MS).await;
    }
}

async fn until_stats(tiered: &Tiered<RedisStore>, what: &str, holds: impl Fn(&TieredStats) -> bool) {
    until(what, async || holds(&tiered.stats())).await;
}

async fn value(store: &impl Store, key: &str) -> Option<bytes::Bytes> {
    store.get(key.as_bytes()).await.unwrap().map(|entry| entry.value)
}

#[test]
fn what_one_process_changes_the_other_drops() {
    let Some(server) = server("two") else { return };
    on_tokio(async {
        let (here, there) = (process(&server).await, process(&server).await);
        for (tiered, name) in [(&here, "here"), (&there, "there")] {
            until_stats(tiered, name, |stats| stats.hearing && stats.peers == 1).await;
        }
        here.put("a", "1").await.unwrap();
        until_stats(&there, "told of the first", |stats| stats.invalidations_heard == 1).await;
        for _ in 0..3 {
            assert_eq!(value(&there, "a").await.as_deref(), Some(&b"1"[..]));
        }
        assert!(there.stats().cache.hits >= 1, "{:?}", there.stats());
        here.put("a", "2").await.unwrap();
        until_stats(&there, "told of the second", |stats| stats.invalidations_heard == 2).await;
        assert_eq!(value(&there, "a").await.as_deref(), Some(&b"2"[..]));
        // Who ends is not missed, nor is what it did not say.
        here.close().await;
        until_stats(&there, "the goodbye", |stats| stats.peers == 0).await;
        assert_eq!(there.stats().unsent, 0);
        there.close().await;
    });
}

#[test]
fn a_killed_server_empties_the_cache_and_a_new_one_heals() {
    let Some(mut server) = server("heals") else { return };
    on_tokio(async {
        let (here, there) = (process(&server).await, process(&server).await);
        until_stats(&there, "it hears", |stats| stats.hearing).await;
        here.put("a", "1").await.unwrap();
        until("the value there", async || value(&there, "a").await.is_some()).await;

        server.kill();
        let killed = Instant::now();
        until_stats(&there, "silence", |stats| !stats.hearing).await;
        // The end of its connection tells it at once, and the clock would, after a heartbeat.
        assert!(killed.elapsed() < HEARTBEAT * 3, "{:?}", killed.elapsed());
        until_stats(&there, "emptied", |stats| stats.cache.entries == 0).await;
        assert!(there.stats().missed_heartbeats >= 1);
        let read = there.get(b"a").await.unwrap_err();
        assert!(
            matches!(read, Error::Unavailable { .. } | Error::Timeout { .. }),
            "{read}"
        );
        let write = here.put("a", "2").await.unwrap_err();
        assert!(
            matches!(write, Error::Unavailable { .. } | Error::Timeout { .. }),
            "{write}"
        );
        assert!(there.stats().bypassed >= 1);

        // The new server has lost everything, and nobody remembers it.
        server.restart();
        for (tiered, name) in [(&here, "here"), (&there, "there")] {
            until_stats(tiered, name, |stats| stats.hearing && stats.peers == 1).await;
        }
        assert_eq!(value(&there, "a").await, None);
        here.put("a", "3").await.unwrap();
        until("the new value there", async || {
            value(&there, "a").await.as_deref() == Some(&b"3"[..])
        })
        .await;
        here.close().await;
        there.close().await;
    });
}

#[test]
fn a_server_that_hangs_is_not_trusted() {
    let Some(server) = server("silent") else { return };
    on_tokio(async {
        let tiered = process(&server).await;
        tiered.put("a", "1").await.unwrap();
        until("a hit", async || {
            let hits = tiered.stats().cache.hits;
            value(&tiered, "a").await.is_some() && tiered.stats().cache.hits > hits
        })
        .await;
        // No connection ends, so only the heartbeat tells.
        server.pause();
        let paused = Instant::now();
        until_stats(&tiered, "silence", |stats| !stats.hearing && stats.cache.entries == 0).await;
        assert!(paused.elapsed() > HEARTBEAT / 4, "{:?}", paused.elapsed());
        server.resume();
        until_stats(&tiered, "hearing again", |stats| stats.hearing).await;
        assert_eq!(value(&tiered, "a").await.as_deref(), Some(&b"1"[..]));
        tiered.close().await;
    });
}

#[test]
fn the_bus_carries_messages_and_refuses_garbage() {
    let Some(mut server) = server("bus") else { return };
    on_tokio(async {
        let bus = bus(&server).await;
        let mut heard = bus.subscribe();
        let notices = [
            Notice::Keys(vec!["a\r\n\0".into(), "".into(), vec![0xff; 70_000].into()]),
            Notice::Tag("org:7".into()),
            Notice::Everything,
            Notice::Heartbeat {
                at: Tick::from_nanos(7),
            },
            Notice::Goodbye,
        ];
        let numbered = notices.into_iter().zip(1..);
        let messages: Vec<_> = numbered
            .map(|(notice, number)| Message::new(Origin(u64::MAX), number, notice))
            .collect();
        let first = {
            // The subscription takes hold at some time after its first poll.
            let publish = async {
                loop {
                    bus.publish(messages[0].clone()).await.unwrap();
                    Env::system().sleep(5 * MS).await;
                }
            };
            match futures::future::select(heard.next(), std::pin::pin!(publish)).await {
                futures::future::Either::Left((item, _)) => item.unwrap().unwrap(),
                futures::future::Either::Right(_) => unreachable!("it publishes for ever"),
            }
        };
        assert_eq!(first, messages[0]);
        for message in &messages[1..] {
            bus.publish(message.clone()).await.unwrap();
        }
        server.tell("PUBLISH changes nonsense");
        server.tell("PUBLISH elsewhere nonsense");
        bus.publish(messages[2].clone()).await.unwrap();
        let mut items = Vec::new();
        while items.len() < messages.len() + 1 {
            let item = heard.next().await.unwrap();
            if !matches!(&item, Ok(message) if *message == messages[0]) {
                items.push(item);
            }
        }
        let sent = items.iter().map(|item| item.as_ref().ok());
        let expected: Vec<_> = messages[1..]
            .iter()
            .map(Some)
            .chain([None, Some(&messages[2])])
            .collect();
        assert_eq!(sent.collect::<Vec<_>>(), expected);
        assert!(matches!(&items[messages.len() - 1], Err(Error::Corrupt { .. })));

        // The stream ends with the connection; a publish then says that nothing was sent, or may have been.
        server.kill();
        assert!(heard.next().await.is_none());
        let publish = bus.publish(messages[0].clone()).await.unwrap_err();
        assert!(matches!(publish, Error::Unavailable { .. }), "{publish}");
        let refused = bus.subscribe().next().await.unwrap().unwrap_err();
        assert!(
            matches!(
                &refused,
                Error::Unavailable {
                    effect: Effect::None,
                    ..
                }
            ),
            "{refused}"
        );
        assert!(RedisBus::builder(server.url()).connect().await.is_err());
    });
}
