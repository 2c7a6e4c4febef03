//! `RedisStore`.

use crate::{connect, on_tokio, server};
use bytes::Bytes;
use futures::TryStreamExt;
use outgrow::env::{Env, Rng};
use outgrow::store::suite::{self, Subject};
use outgrow::store::{
    Batch, Capability, Effect, Entry, Error, Expect, Feature, LocalStore, Position, RedisStore, Result, Retry, Scan,
    Store, StoreExt, Version,
};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

#[test]
fn it_keeps_the_contract() {
    let Some(server) = server("suite") else { return };
    let next = AtomicU64::new(0);
    on_tokio(async {
        let env = Env::tokio().unwrap();
        suite::store(async || {
            let prefix = format!("case{}/", next.fetch_add(1, Ordering::Relaxed));
            let env = env.clone();
            Subject::new(connect(&server, &prefix).await, move |by| env.sleep(by))
        })
        .await;
        let capability = connect(&server, "other/").await.capability();
        let absent = Capability::none().with(Feature::Tokens).with(Feature::Durable);
        assert_eq!(capability.missing(Capability::all()), absent);
    });
}

const KEYS: [&str; 5] = ["", "a", "a\n", "b", "\0outgrow"];

/// A batch at random, the same for both stores but for the versions that it expects, which `version` gives.
fn batch(rng: &mut Rng, version: impl Fn(&str) -> Option<Version>) -> Batch {
    let mut batch = Batch::new();
    let key = |rng: &mut Rng| KEYS[rng.below(KEYS.len() as u64) as usize];
    for _ in 0..rng.below(3) {
        let key = key(rng);
        let expect = match rng.below(4) {
            0 => Expect::Absent,
            1 => Expect::Present,
            _ => version(key).map_or(Expect::Absent, Expect::At),
        };
        batch = batch.expect(key, expect);
    }
    for _ in 0..rng.below(5) {
        let key = key(rng);
        let number = [
            "0",
            "+7",
            "-0",
            "0012",
            "9223372036854775807",
            "-9223372036854775808",
            "seven",
            "1\n",
        ];
        batch = match rng.below(10) {
            0 => batch.delete(key),
            1 | 2 => batch.put(key, number[rng.below(number.len() as u64) as usize]),
            3 => batch.put_for(key, "soon gone", Duration::ZERO),
            4 => batch.put_for(key, "7", Duration::from_secs(3600)),
            5 => batch.put_for(key, "for ages", Duration::MAX),
            6 => batch.import(
                key,
                Entry {
                    value: "40".into(),
                    version: Version(rng.below(1 << 40)),
                    expires: None,
                },
            ),
            _ => batch.add(key, rng.below(5) as i64 - 2),
        };
    }
    if rng.chance(0.1) {
        batch = batch.cursor("view", Position::new(1, rng.below(100)));
    }
    batch
}

fn outcome<T>(result: &Result<T>) -> String {
    match result {
        Ok(_) => "done".into(),
        Err(Error::Conflict { key, current }) => format!("conflict at {key:?}, present: {}", current.is_some()),
        Err(Error::Invalid { .. }) => "invalid".into(),
        Err(error) => panic!("no outcome of this test: {error}"),
    }
}

/// What a store shows, without what two stores cannot have in common.
async fn shown(store: &impl Store) -> Vec<(Bytes, Bytes, bool)> {
    let entries: Vec<_> = store.scan(Scan::all().page(2)).try_collect().await.unwrap();
    let part = |(key, entry): (Bytes, Entry)| (key, entry.value, entry.expires.is_some());
    entries.into_iter().map(part).collect()
}

#[test]
fn it_answers_as_a_store_in_memory_does() {
    let Some(server) = server("model") else { return };
    on_tokio(async {
        let (redis, memory) = (connect(&server, "model/").await, LocalStore::in_memory());
        let (mut done, mut refused) = (0, 0);
        for seed in 0..600 {
            let mut versions = Vec::new();
            for key in KEYS.map(str::as_bytes) {
                let version = |entry: Option<Entry>| entry.map(|entry| entry.version);
                versions.push((
                    version(redis.read(key).await.unwrap()),
                    version(memory.read(key).await.unwrap()),
                ));
            }
            let at = |key: &str| versions[KEYS.iter().position(|known| *known == key).unwrap()];
            let ours = redis.commit(batch(&mut Rng::seeded(seed), |key| at(key).0)).await;
            let theirs = memory.commit(batch(&mut Rng::seeded(seed), |key| at(key).1)).await;
            let told = batch(&mut Rng::seeded(seed), |key| at(key).0);
            assert_eq!(outcome(&ours), outcome(&theirs), "batch {seed}: {told:?}");
            assert_eq!(
                shown(&redis).await,
                shown(&memory).await,
                "after batch {seed}: {told:?}"
            );
            let cursors = (
                redis.cursor("view").await.unwrap(),
                memory.cursor("view").await.unwrap(),
            );
            assert_eq!(cursors.0, cursors.1, "after batch {seed}");
            let count = if ours.is_ok() { &mut done } else { &mut refused };
            *count += 1;
        }
        assert!(done > 200 && refused > 100, "{done} done, {refused} refused");
    });
}

#[test]
fn versions_past_what_scripts_can_count_stay_exact() {
    let Some(server) = server("versions") else { return };
    on_tokio(async {
        let store = connect(&server, "v/").await;
        for version in [
            1 << 53,
            (1 << 53) + 1,
            9_999_999_999_999_999,
            99_999_999_999_999_999,
            1 << 63,
        ] {
            let entry = Entry {
                value: "old".into(),
                version: Version(version),
                expires: None,
            };
            let receipt = store.commit(Batch::new().import("a", entry.clone())).await.unwrap();
            assert_eq!(receipt.version, Version(version));
            assert_eq!(store.read(b"a").await.unwrap(), Some(entry));
            let stale = store.put_if("a", "new", Expect::At(Version(version - 1))).await;
            assert!(matches!(stale, Err(Error::Conflict { current: Some(at), .. }) if at == Version(version)));
            let next = store.put_if("a", "new", Expect::At(Version(version))).await.unwrap();
            assert_eq!(next.version, Version(version + 1));
        }
    });
}

#[test]
fn a_server_that_is_killed_gives_typed_errors_and_versions_go_on() {
    let Some(mut server) = server("killed") else { return };
    on_tokio(async {
        let store = connect(&server, "k/").await;
        let before = store.put("a", "1").await.unwrap().version;
        server.kill();
        let mut last = None;
        for _ in 0..3 {
            let error = store.put("a", "2").await.unwrap_err();
            assert_eq!(error.retry(), Retry::May, "{error}");
            assert!(matches!(error, Error::Unavailable { .. }), "{error}");
            last = Some(error);
        }
        // By now it knows that nobody is there, so nothing was sent.
        assert_eq!(last.unwrap().effect(), Effect::None);
        assert!(matches!(store.read(b"a").await, Err(Error::Unavailable { .. })));
        assert!(store.scan(Scan::all()).try_next().await.is_err());

        // It comes back empty, without its counter and its scripts; no version is given twice.
        server.restart();
        Env::system().sleep(100 * MS).await;
        assert_eq!(store.read(b"a").await.unwrap(), None);
        assert!(store.put("a", "3").await.unwrap().version > before);

        // While nobody asks, the end of a connection is noticed all the same.
        server.restart();
        Env::system().sleep(100 * MS).await;
        store.put("a", "4").await.unwrap();
    });
}

#[test]
fn a_server_that_hangs_gives_timeouts() {
    let Some(server) = server("hangs") else { return };
    on_tokio(async {
        let builder = RedisStore::builder(server.url()).timeout(300 * MS);
        let store = builder.connect().await.unwrap();
        store.put("a", "1").await.unwrap();
        server.pause();
        let (read, write) = futures::join!(store.read(b"a"), store.put("a", "2"));
        let effect = |error: Error| match error {
            Error::Timeout { effect } => effect,
            other => panic!("{other}"),
        };
        assert_eq!(
            (effect(read.unwrap_err()), effect(write.unwrap_err())),
            (Effect::None, Effect::Unknown)
        );
        // A connection that cannot be made in time has sent nothing.
        assert_eq!(effect(store.put("a", "3").await.unwrap_err()), Effect::None);
        server.resume();
        Env::system().sleep(100 * MS).await;
        let found = store.read(b"a").await.unwrap().unwrap();
        assert!(found.value == "1" || found.value == "2", "{found:?}");
        assert!(store.connects() > 1);
    });
}

#[test]
fn what_it_cannot_work_with_is_refused() {
    let Some(server) = server("refused") else { return };
    on_tokio(async {
        let store = connect(&server, "r/").await;
        // Another program's bytes.
        server.tell("SET r/e:a Ada");
        assert!(matches!(store.read(b"a").await, Err(Error::Corrupt { .. })));
        let add = store.add("a", 1).await;
        assert!(
            matches!(&add, Err(Error::Corrupt { what }) if what.contains("\"a\"")),
            "{add:?}"
        );
        let expect = store.put_if("a", "1", Expect::Absent).await;
        assert!(matches!(expect, Err(Error::Corrupt { .. })), "{expect:?}");
        store.put("a", "1").await.unwrap();

        // Scripts that the server forgot are told anew.
        server.tell("SCRIPT FLUSH");
        store.put("a", "2").await.unwrap();
        let found: Vec<_> = store.scan(Scan::all()).try_collect().await.unwrap();
        assert_eq!(found.len(), 1);

        // A server that is full says so, and does nothing by halves.
        server.tell("CONFIG SET maxmemory 1");
        let full = store
            .commit(Batch::new().put("b", "1").put("c", "1"))
            .await
            .unwrap_err();
        assert!(
            matches!(full, Error::Full { .. }) && full.effect() == Effect::None,
            "{full}"
        );
        assert_eq!(store.get_many(&["b".into(), "c".into()]).await.unwrap(), [None, None]);

        // One that would throw entries away is not even begun with.
        server.tell("CONFIG SET maxmemory 100mb");
        server.tell("CONFIG SET maxmemory-policy allkeys-lru");
        let evicts = RedisStore::builder(server.url()).connect().await.unwrap_err();
        assert!(
            matches!(&evicts, Error::Invalid { what } if what.contains("allkeys-lru")),
            "{evicts}"
        );
        server.tell("CONFIG SET maxmemory-policy noeviction");

        // One that does not say is believed, and what it forbids is an error that no retry helps.
        server.tell("ACL SETUSER guest on >guest ~* &* +@all -info -mget");
        let guest = RedisStore::builder(server.url().replace("//", "//guest:guest@")).prefix("r/");
        let guest = guest.connect().await.unwrap();
        assert!(guest.read(b"a").await.unwrap().is_some());
        let forbidden = guest.get_many(&["a".into()]).await.unwrap_err();
        assert!(matches!(forbidden, Error::Invalid { .. }), "{forbidden}");

        server.tell("CONFIG SET requirepass secret");
        let stranger = RedisStore::builder(server.url()).connect().await.unwrap_err();
        assert!(matches!(stranger, Error::Invalid { .. }), "{stranger}");
        let url = server.url().replace("//", "//:secret@");
        RedisStore::builder(url).connect().await.unwrap();
        let nonsense = RedisStore::builder("http://127.0.0.1/").connect().await.unwrap_err();
        assert!(matches!(nonsense, Error::Invalid { .. }), "{nonsense}");
    });
    // Without tokio it says so.
    let builder = RedisStore::builder(server.url()).env(Env::system());
    let refused = futures::executor::block_on(builder.connect()).unwrap_err();
    assert!(
        matches!(&refused, Error::Invalid { what } if what.contains("tokio")),
        "{refused}"
    );
}

#[test]
fn what_expired_leaves_the_index_and_large_values_make_short_pages() {
    let Some(server) = server("index") else { return };
    on_tokio(async {
        let store = connect(&server, "i/").await;
        for i in 0..12 {
            store.put_for(format!("short{i}"), "1", MS).await.unwrap();
        }
        Env::system().sleep(50 * MS).await;
        for _ in 0..2 {
            store.put("long", "1").await.unwrap();
        }
        assert_eq!(server.tell("ZCARD i/index"), ":1\r\n");
        assert_eq!(server.tell("ZCARD i/expiries"), ":0\r\n");
        assert_eq!(server.tell("EXISTS i/scratch"), ":0\r\n");

        let large = Bytes::from(vec![7; 3 << 20]);
        for key in ["a", "b", "c", "d"] {
            store.put(key, large.clone()).await.unwrap();
        }
        let found: Vec<_> = store.scan(Scan::all()).try_collect().await.unwrap();
        let keys: Vec<_> = found.iter().map(|(key, _)| &key[..]).collect();
        assert_eq!(keys, [&b"a"[..], b"b", b"c", b"d", b"long"]);
        // Stores with other prefixes see nothing of it.
        let other: Vec<_> = connect(&server, "j/")
            .await
            .scan(Scan::all())
            .try_collect()
            .await
            .unwrap();
        assert_eq!(other, []);
    });
}
