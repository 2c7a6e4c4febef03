//! Prefixes, time limits and retries over a store that does as it is told.

use super::script::{Scripted, Step};
use crate::env::Env;
use crate::sim::World;
use crate::store::{
    Batch, Effect, Error, Expect, Feature, LocalStore, Position, Result, Retry, RetryPolicy, Scan, Store, StoreExt,
    Version,
};
use bytes::Bytes;
use futures::executor::block_on;
use futures::stream::{StreamExt, TryStreamExt};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

fn down() -> Error {
    Error::unavailable("the fake", Effect::None)
}

fn lost() -> Error {
    Error::unavailable("the answer", Effect::Unknown)
}

/// Runs `test` in a world of its own.
fn simulate<T>(test: impl AsyncFnOnce(Env) -> T) -> T {
    let world = World::new(1);
    let env = world.env();
    world.run(test(env))
}

async fn keys(store: &impl Store, scan: Scan) -> Vec<Bytes> {
    let entries: Vec<_> = store.scan(scan).try_collect().await.unwrap();
    entries.into_iter().map(|(key, _)| key).collect()
}

fn last_of(error: &Error) -> (&Error, u32) {
    match error {
        Error::Retried { attempts, last } => (last, *attempts),
        other => panic!("{other} is not the end of a retry"),
    }
}

#[test]
fn parts_do_not_see_each_other() {
    block_on(async {
        let store = LocalStore::in_memory();
        let users = store.clone().prefixed("user/");
        let top = store.clone().prefixed(vec![u8::MAX]);
        users.put("a", "1").await.unwrap();
        store.put("user0", "past the end").await.unwrap();
        top.put("z", "1").await.unwrap();
        assert_eq!(keys(&users, Scan::all()).await, ["a"]);
        assert_eq!(keys(&users, Scan::all().reverse()).await, ["a"]);
        assert_eq!(keys(&top, Scan::all()).await, ["z"]);
        assert_eq!(users.read(b"user/a").await.unwrap(), None);
        assert!(store.read(b"user/a").await.unwrap().is_some());
        // A follower's place in one part is not its place in another.
        let at = Position::new(1, 5);
        users.commit(Batch::new().cursor("view", at)).await.unwrap();
        assert_eq!(users.cursor("view").await.unwrap(), Some(at));
        assert_eq!(top.cursor("view").await.unwrap(), None);
        assert_eq!(store.cursor("user/view").await.unwrap(), Some(at));
        // Errors speak of the key that the caller knows.
        let conflict = users.put_if("a", "2", Expect::Absent).await.unwrap_err();
        assert!(
            matches!(conflict, Error::Conflict { ref key, .. } if key == "a"),
            "{conflict}"
        );
        let nested = store.prefixed("user").prefixed("/").retried(RetryPolicy::default());
        assert_eq!(keys(&nested, Scan::all()).await, ["a"]);
    });
}

#[test]
fn a_late_answer_is_a_timeout_that_tells_its_effect() {
    simulate(async |env| {
        let late = || Step::Stall(11 * MS);
        let store = Scripted::new(&env, [Step::Stall(9 * MS)]);
        let timed = store.clone().timed(10 * MS).env(env.clone());
        timed.put("a", "1").await.unwrap();
        let start = env.now();
        store.then([late(), late(), late()]);
        let effect = |error: Error| match error {
            Error::Timeout { effect } => effect,
            other => panic!("{other}"),
        };
        assert_eq!(effect(timed.read(b"a").await.unwrap_err()), Effect::None);
        assert_eq!(effect(timed.get_many(&["a".into()]).await.unwrap_err()), Effect::None);
        assert_eq!(effect(timed.put("a", "2").await.unwrap_err()), Effect::Unknown);
        assert_eq!(env.now() - start, 30 * MS);
        assert_eq!(timed.capability(), store.capability());
    });
}

#[test]
fn a_scan_has_the_limit_for_each_entry() {
    simulate(async |env| {
        let slow = || Step::Stall(9 * MS);
        let store = Scripted::new(&env, []);
        for key in ["a", "b", "c"] {
            store.inner().put(key, "1").await.unwrap();
        }
        let timed = store.clone().timed(10 * MS).env(env.clone());
        store.then([slow(), slow(), slow(), slow()]);
        assert_eq!(keys(&timed, Scan::all()).await, ["a", "b", "c"]);
        store.then([slow(), Step::Stall(11 * MS)]);
        let mut scan = timed.scan(Scan::all());
        assert!(scan.next().await.unwrap().is_ok());
        assert!(matches!(
            scan.next().await,
            Some(Err(Error::Timeout { effect: Effect::None }))
        ));
        assert!(scan.next().await.is_none());
    });
}

/// A scripted store and a retry around it that does not wait.
fn retried(env: &Env, steps: impl IntoIterator<Item = Step>, policy: RetryPolicy) -> (Scripted, impl Store) {
    let store = Scripted::new(env, steps);
    let policy = policy.back_off(Duration::ZERO, Duration::ZERO);
    (store.clone(), store.retried(policy).env(env.clone()))
}

#[test]
fn reads_are_tried_again_and_then_given_up() {
    simulate(async |env| {
        let (store, db) = retried(&env, [Step::Fail(down()), Step::Fail(lost())], RetryPolicy::default());
        assert_eq!(db.read(b"a").await.unwrap(), None);
        assert_eq!(store.calls(), 3);
        store.then([
            Step::Fail(lost()),
            Step::Fail(down()),
            Step::Fail(down()),
            Step::Fail(down()),
        ]);
        let error = db.get_many(&["a".into()]).await.unwrap_err();
        assert_eq!(store.calls(), 3);
        // A read has no effect, so it is the last error that counts.
        assert!(
            matches!(
                last_of(&error),
                (
                    Error::Unavailable {
                        effect: Effect::None,
                        ..
                    },
                    3
                )
            ),
            "{error}"
        );
        assert_eq!(error.retry(), Retry::Exhausted);
        store.then([]);
        assert!(db.read(b"a").await.is_ok());
        for never in [Error::corrupt("x"), Error::Unsupported(Feature::Scans), Error::Poisoned] {
            let _one_left_of_the_script = store.calls();
            store.then([Step::Fail(never.clone())]);
            assert_eq!(db.read(b"a").await.unwrap_err().to_string(), never.to_string());
            assert_eq!(store.calls(), 1);
        }
    });
}

#[test]
fn a_scan_goes_on_after_what_it_gave() {
    simulate(async |env| {
        let (store, db) = retried(&env, [], RetryPolicy::default());
        for key in ["a", "b", "c", "d", "e"] {
            store.inner().put(key, "1").await.unwrap();
        }
        // Twice before each entry: more failures than attempts, but never in a row.
        let twice = || [Step::Fail(down()), Step::Fail(down()), Step::Work];
        store.then((0..5).flat_map(|_| twice()));
        assert_eq!(keys(&db, Scan::all()).await, ["a", "b", "c", "d", "e"]);
        store.then((0..3).flat_map(|_| twice()));
        assert_eq!(keys(&db, Scan::all().reverse().limit(3)).await, ["e", "d", "c"]);
        store.then([Step::Work, Step::Fail(down()), Step::Fail(down()), Step::Fail(down())]);
        let answer: Vec<Result<_>> = db.scan(Scan::all()).collect().await;
        assert!(
            matches!(&answer[..], [Ok(_), Err(Error::Retried { attempts: 3, .. })]),
            "{answer:?}"
        );
    });
}

#[test]
fn writes_without_effect_are_tried_again() {
    simulate(async |env| {
        let steps = [Step::Fail(down()), Step::Fail(Error::Timeout { effect: Effect::None })];
        let (store, db) = retried(&env, steps, RetryPolicy::default());
        db.add("n", 1).await.unwrap();
        assert_eq!(&store.inner().read(b"n").await.unwrap().unwrap().value[..], b"1");
        // An error that speaks for itself does so, also after a retry.
        store.then([Step::Fail(down())]);
        let conflict = db.put_if("n", "2", Expect::Absent).await.unwrap_err();
        assert!(matches!(conflict, Error::Conflict { .. }), "{conflict}");
    });
}

#[test]
fn writes_of_unknown_effect_are_tried_again_only_if_they_cannot_happen_twice() {
    simulate(async |env| {
        let written = LocalStore::in_memory().put("x", "1").await.unwrap().version;
        let entry = crate::store::Entry {
            value: "1".into(),
            version: written,
            expires: None,
        };
        let at = Expect::At(written);
        let new = Batch::new;
        let once = [
            new().expect("x", at).put("x", "2"),
            new().expect("x", at).add("x", 1),
            new().expect("x", at).delete("x"),
            new().put("x", "2").expect("y", Expect::Absent).put("y", "2"),
            new().expect("x", Expect::Present).delete("x"),
        ];
        let twice = [
            new().put("x", "2"),
            new().add("x", 1),
            new().delete("x"),
            new().expect("x", Expect::Present).add("x", 1),
            new().expect("y", Expect::Absent).put("x", "2"),
            new().expect("y", Expect::Absent).put_for("y", "2", MS),
            new().expect("y", Expect::Absent).put("y", "2").delete("y"),
            new().expect("x", at).import("x", entry),
        ];
        for (batch, expected) in once
            .map(|batch| (batch, 2))
            .into_iter()
            .chain(twice.map(|batch| (batch, 1)))
        {
            let (store, db) = retried(&env, [Step::Fail(lost())], RetryPolicy::default());
            assert_eq!(store.inner().put("x", "1").await.unwrap().version, written);
            let answer = db.commit(batch.clone()).await;
            assert_eq!(store.calls(), expected, "{batch:?}");
            match answer {
                Ok(_) => assert_eq!(expected, 2),
                // Nobody retried it, so whoever can may.
                Err(error) => assert_eq!((error.retry(), error.effect()), (Retry::May, Effect::Unknown)),
            }
        }
    });
}

#[test]
fn what_follows_an_unknown_effect_does_not_hide_it() {
    simulate(async |env| {
        let afterwards = [Step::Work, Step::Fail(down()), Step::Fail(Error::Poisoned)];
        for step in afterwards {
            // The first attempt does its work, so the second meets what the first wrote.
            let first = Step::WorkAndFail(lost());
            let policy = RetryPolicy::default().attempts(2);
            let (store, db) = retried(&env, [first, step.clone()], policy);
            let error = db.put_if("a", "1", Expect::Absent).await.unwrap_err();
            assert_eq!(store.calls(), 2);
            assert!(
                matches!(
                    last_of(&error),
                    (
                        Error::Unavailable {
                            effect: Effect::Unknown,
                            ..
                        },
                        2
                    )
                ),
                "{error}"
            );
            assert_eq!(
                (error.retry(), error.effect()),
                (Retry::Exhausted, Effect::Unknown),
                "after {step:?}"
            );
            assert_eq!(store.inner().read(b"a").await.unwrap().unwrap().version, Version(1));
        }
    });
}

#[test]
fn retries_do_not_multiply() {
    simulate(async |env| {
        let store = Scripted::new(&env, (0..20).map(|_| Step::Fail(down())));
        let policy = RetryPolicy::default().attempts(4).back_off(MS, MS);
        let nested = store
            .clone()
            .retried(policy)
            .env(env.clone())
            .retried(policy)
            .env(env.clone());
        let error = nested.read(b"a").await.unwrap_err();
        assert_eq!(store.calls(), 4);
        assert!(matches!(last_of(&error), (Error::Unavailable { .. }, 4)), "{error}");
    });
}

#[test]
fn the_budget_bounds_the_load_of_all_calls_together() {
    simulate(async |env| {
        let store = Scripted::new(&env, (0..1_000).map(|_| Step::Fail(down())));
        let policy = RetryPolicy::default()
            .attempts(10)
            .budget(10, 5)
            .back_off(Duration::ZERO, Duration::ZERO);
        let db = store.clone().retried(policy).env(env.clone());
        let clone = db.clone();
        for call in 0..100 {
            let db = if call % 2 == 0 { &db } else { &clone };
            let error = db.read(b"a").await.unwrap_err();
            assert_eq!(
                error.retry(),
                Retry::Exhausted,
                "a retry further out would spend what this one saves"
            );
        }
        // A hundred calls, five retries in reserve, and one for every ten calls.
        assert_eq!(store.calls(), 100 + 5 + 9);
        for policy in [policy.budget(0, 0), policy.attempts(0), policy.attempts(1)] {
            let db = store.clone().retried(policy).env(env.clone());
            assert!(db.read(b"a").await.is_err());
            assert_eq!(store.calls(), 1);
        }
    });
}

#[test]
fn waits_grow_and_spread_and_heed_the_time_that_is_known() {
    let total = |seed, errors: Vec<Error>| {
        let world = World::new(seed);
        let env = world.env();
        world.run(async {
            let store = Scripted::new(&env, errors.into_iter().map(Step::Fail));
            let policy = RetryPolicy::default().attempts(9).back_off(10 * MS, 40 * MS);
            let start = env.now();
            store.retried(policy).env(env.clone()).read(b"a").await.unwrap();
            env.now() - start
        })
    };
    let waits: Vec<_> = (0..200).map(|seed| total(seed, vec![down(); 5])).collect();
    // Five waits below 10, 20, 40, 40 and 40 ms: 75 ms in the mean, with a deviation of 21 ms, 1.5 ms for the mean.
    let mean = waits.iter().sum::<Duration>() / 200;
    assert!(mean.abs_diff(75 * MS) < 9 * MS, "{mean:?}");
    assert!(waits.iter().all(|wait| *wait <= 150 * MS));
    assert!(waits.iter().max() > waits.iter().min());
    let behind = |eta| Error::Behind {
        need: Position::new(1, 9),
        best: Position::new(1, 8),
        eta: Some(eta),
    };
    assert!(total(1, vec![behind(30 * MS)]) >= 30 * MS);
    assert!(total(1, vec![behind(60 * 60 * 1_000 * MS)]) <= 41 * MS);
}

#[test]
fn each_attempt_has_the_whole_time_limit() {
    simulate(async |env| {
        let store = Scripted::new(&env, [Step::Stall(60 * 1_000 * MS), Step::Stall(9 * MS)]);
        let policy = RetryPolicy::default().back_off(Duration::ZERO, Duration::ZERO);
        let db = store
            .clone()
            .timed(10 * MS)
            .env(env.clone())
            .retried(policy)
            .env(env.clone());
        let start = env.now();
        assert_eq!(db.read(b"a").await.unwrap(), None);
        assert_eq!(env.now() - start, 19 * MS);
    });
}
