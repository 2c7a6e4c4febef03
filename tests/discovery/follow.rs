use crate::{ids, pool, secs, set, status};
use futures::channel::mpsc;
use futures::{FutureExt, StreamExt};
use outgrow::balance::discover::{DiscoverExt, DiscoveryError, DiscoveryState, OnEmpty};
use outgrow::balance::{Endpoint, NeedsSpawner, Request};
use outgrow::env::Env;
use outgrow::sim::World;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

type Item = Result<Vec<Endpoint>, DiscoveryError>;

#[test]
fn a_bad_item_leaves_the_last_good_set_and_says_so() {
    let world = World::new(1);
    let env = world.env();
    let pool = pool(&env);
    let (say, sets) = mpsc::unbounded::<Item>();
    env.spawn(pool.follow(sets).source("registry")).detach();
    world.run_for(secs(1));
    assert_eq!(status(&pool).state, DiscoveryState::Waiting);

    say.unbounded_send(Ok(set("a b"))).unwrap();
    world.run_for(secs(10));
    assert_eq!(ids(&pool), ["a", "b"]);
    let now = status(&pool);
    assert_eq!((now.state, &*now.source), (DiscoveryState::Current, "registry"));
    assert_eq!((now.sets, now.failures, now.last_error), (1, 0, None));

    say.unbounded_send(Err(DiscoveryError::other("x".repeat(399) + "ä and more")))
        .unwrap();
    world.run_for(secs(5));
    let now = status(&pool);
    assert_eq!(ids(&pool), ["a", "b"]);
    assert_eq!(
        (now.state, now.failures, now.in_state),
        (DiscoveryState::Failing, 1, secs(5))
    );
    assert_eq!(now.age, Some(secs(15)), "of the set that the pool has");
    assert_eq!(now.last_error, Some("x".repeat(399)), "cut between characters");

    say.unbounded_send(Ok(set("b c"))).unwrap();
    world.run_for(secs(1));
    assert_eq!(ids(&pool), ["b", "c"]);
    assert_eq!(status(&pool).state, DiscoveryState::Current);

    drop(say);
    world.run_for(secs(1));
    assert_eq!(status(&pool).state, DiscoveryState::Ended);
    assert_eq!(ids(&pool), ["b", "c"], "the last set stays");
}

#[test]
fn what_belongs_to_an_endpoint_survives_the_next_set() {
    let world = World::new(1);
    let pool = pool(&world.env());
    let follow = |sets: Vec<Item>| world.run(pool.follow(futures::stream::iter(sets)));
    follow(vec![Ok(set("a"))]);
    let lease = pool.pick(&Request::new()).unwrap();
    follow(vec![Ok(set("b a"))]);
    assert_eq!(pool.status().endpoints[1].in_flight, 1);
    lease.succeed();
    assert_eq!(pool.status().endpoints[1].succeeded, 1);
}

#[test]
fn an_empty_set_is_a_choice() {
    for (choice, left, state) in [
        (OnEmpty::Keep, &["a"][..], DiscoveryState::EmptyKept),
        (OnEmpty::Apply, &[], DiscoveryState::Current),
    ] {
        let world = World::new(1);
        let env = world.env();
        let pool = pool(&env);
        let items: Vec<Item> = vec![Ok(set("a")), Ok(set(""))];
        let sets = futures::stream::iter(items).chain(futures::stream::pending());
        env.spawn(pool.follow(sets).on_empty(choice)).detach();
        world.run_for(secs(1));
        assert_eq!(ids(&pool), left);
        let now = status(&pool);
        assert_eq!((now.state, now.on_empty), (state, choice));
        assert_eq!(now.empty_kept, u64::from(choice == OnEmpty::Keep));
    }
}

#[test]
fn it_ends_with_the_last_handle_of_the_pool() {
    let world = World::new(1);
    let env = world.env();
    let pool = pool(&env);
    let (say, sets) = mpsc::unbounded::<Item>();
    let mut follow = env.spawn(pool.follow(sets));
    let (clone, picker) = (pool.clone(), pool.picker());
    drop((pool, clone));
    world.run_for(secs(1));
    assert!((&mut follow).now_or_never().is_none(), "a picker is a handle too");
    assert!(!say.is_closed());
    drop(picker);
    world.run(follow).unwrap();
    assert!(say.is_closed(), "the stream is dropped");
}

#[test]
fn the_next_source_takes_over() {
    let world = World::new(1);
    let env = world.env();
    let pool = pool(&env);
    let (first_say, sets) = mpsc::unbounded::<Item>();
    let first = env.spawn(pool.follow(sets).source("first"));
    first_say.unbounded_send(Ok(set("a"))).unwrap();
    world.run_for(secs(1));

    let (second_say, sets) = mpsc::unbounded::<Item>();
    let second = pool.follow(sets).source("second");
    world.run_for(secs(1));
    assert_eq!(status(&pool).source, "first", "what is not polled has not begun");
    env.spawn(second).detach();
    world.run(first).unwrap();
    let now = status(&pool);
    assert_eq!(
        (&*now.source, now.state),
        ("second", DiscoveryState::Waiting),
        "the end of the first is not its"
    );
    assert!(first_say.is_closed());
    second_say.unbounded_send(Ok(set("b"))).unwrap();
    world.run_for(secs(1));
    assert_eq!(ids(&pool), ["b"]);
}

#[test]
fn dropping_the_follower_ends_it_and_leaves_the_set() {
    let world = World::new(1);
    let pool = pool(&world.env());
    let (say, sets) = mpsc::unbounded::<Item>();
    let mut follow = Box::pin(pool.follow(sets));
    say.unbounded_send(Ok(set("a"))).unwrap();
    assert!(follow.as_mut().now_or_never().is_none());
    assert_eq!(status(&pool).state, DiscoveryState::Current);
    drop(follow);
    assert_eq!(status(&pool).state, DiscoveryState::Ended);
    assert_eq!(ids(&pool), ["a"]);
}

#[test]
fn it_is_spawned_on_the_users_runtime_or_not_at_all() {
    let pool = pool(&Env::system());
    let sets = || futures::stream::iter([Ok(set("a"))]);
    assert_eq!(pool.follow(sets()).spawn().err(), Some(NeedsSpawner));
    assert_eq!(pool.status().discovery, None);

    let world = World::new(1);
    let runtime = world.env();
    let env = Env::builder()
        .spawner(move |future| runtime.spawn(future).detach())
        .build();
    let pool = crate::pool(&env);
    world.run(pool.follow(sets()).spawn().unwrap()).unwrap();
    assert_eq!(ids(&pool), ["a"]);
}

/// A client whose making is counted.
#[derive(Clone, Debug)]
struct Client(u32);

#[test]
fn targets_are_made_once_and_kept_while_their_endpoint_stays() {
    let made = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&made);
    let make = move |endpoint: &Endpoint| match &**endpoint.id() {
        "bad" => Err("cannot be reached"),
        _ => Ok(Client(count.fetch_add(1, Relaxed))),
    };
    let items: Vec<Item> = ["a b", "b c", "b bad", "c b", "a b"].map(|names| Ok(set(names))).into();
    let stream = futures::stream::iter(items).targets(make);
    let numbers: Vec<_> = futures::executor::block_on_stream(Box::pin(stream))
        .map(|item| {
            let numbers = |set: Vec<Endpoint<Client>>| set.iter().map(|e| e.target.0).collect::<Vec<_>>();
            item.map(numbers).map_err(|error| error.to_string())
        })
        .collect();
    let bad = Err("cannot be reached".to_owned());
    assert_eq!(
        numbers,
        [Ok(vec![0, 1]), Ok(vec![1, 2]), bad, Ok(vec![2, 1]), Ok(vec![3, 1])]
    );
    assert_eq!(made.load(Relaxed), 4);
}

#[test]
fn a_target_is_made_anew_when_what_it_was_made_from_changes() {
    let items = [80, 80, 81].map(|port| Ok(vec![Endpoint::new("a").target(port)]));
    let mut made = 0;
    let stream = futures::stream::iter(items).targets(move |endpoint: &Endpoint<u16>| {
        made += 1;
        Ok::<_, DiscoveryError>((endpoint.target, made))
    });
    let made: Vec<_> = futures::executor::block_on_stream(Box::pin(stream))
        .map(|item| item.unwrap()[0].target)
        .collect();
    assert_eq!(made, [(80, 1), (80, 1), (81, 2)]);
}
