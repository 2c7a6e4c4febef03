use super::cut::message;
use super::*;
use crate::env::{Env, OpenMode, Sleep, give_way};
use futures::FutureExt;
use futures::future::poll_fn;
use std::collections::BTreeSet;
use std::future::pending;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

/// What `world` says when it panics on running `future`.
fn panic_of(world: &World, future: impl Future) -> String {
    let panic = catch_unwind(AssertUnwindSafe(|| drop(world.run(future)))).unwrap_err();
    message(&*panic).to_owned()
}

/// Tasks that sleep, draw and write, so that every kind of event occurs.
async fn busy(env: Env) {
    let tasks: Vec<_> = (0..20_u64)
        .map(|n| {
            let mine = env.clone();
            env.spawn(async move {
                let mut rng = mine.rng("busy");
                let name = format!("f{n}");
                let file = mine.disk().open(Path::new(&name), OpenMode::New).await?;
                for i in 0..20 {
                    mine.sleep(Duration::from_micros(rng.below(1_000))).await;
                    file.write_at(&rng.next_u64().to_le_bytes(), i * 8).await?;
                }
                file.sync_data().await
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
}

fn trace_of(seed: u64) -> Trace {
    let world = World::new(seed);
    world.record(true);
    world.machine("main").set_faults(Faults {
        stall: 0.1,
        stall_for: MS,
        ..Faults::default()
    });
    world.run(busy(world.env()));
    world.machine("main").crash();
    world.note("the end");
    world.trace()
}

#[test]
fn one_seed_gives_one_trace_and_another_seed_another() {
    for seed in 0..10 {
        let (first, second) = (trace_of(seed), trace_of(seed));
        assert!(first.events > 1_000, "{} events", first.events);
        assert_eq!(first.lines, second.lines);
        assert_eq!(first, second);
        assert_ne!(first.digest, trace_of(seed + 10).digest);
    }
}

#[test]
fn the_trace_tells_every_kind_of_event() {
    let lines = trace_of(1).lines.join("\n");
    for part in [
        "poll main/task 1",
        "timer",
        "main: Write \"f0\" 8 bytes: ok",
        "fault: stall x 1",
        "the end",
    ] {
        assert!(lines.contains(part), "no {part:?}");
    }
    let quiet = World::new(1);
    quiet.note("unheard");
    assert!(quiet.trace().lines.is_empty());
    assert_eq!(quiet.trace().events, 1);
}

#[test]
fn timers_fire_in_order_and_time_jumps_between() {
    let world = World::new(1);
    let env = world.env();
    let fired = Arc::new(Mutex::new(Vec::new()));
    for millis in [30, 10, 20, 10, 0, 40] {
        let (fired, env2) = (Arc::clone(&fired), env.clone());
        env.spawn(async move {
            env2.sleep(millis * MS).await;
            fired.lock().unwrap().push((millis, env2.now().as_nanos()));
        })
        .detach();
    }
    world.run_for(35 * MS);
    let fired = fired.lock().unwrap().clone();
    let at = [0, 10, 10, 20, 30].map(|millis| (millis, u64::from(millis) * 1_000_000));
    assert_eq!(fired, at, "the one at 40 ms is still to come");
    assert_eq!(world.now().as_nanos(), 35_000_000);
}

#[test]
fn tasks_that_are_always_ready_share_alike() {
    let world = World::new(1);
    let env = world.env();
    let turns: Arc<[AtomicU64; 10]> = Arc::default();
    for n in 0..10 {
        let turns = Arc::clone(&turns);
        env.spawn(async move {
            loop {
                turns[n].fetch_add(1, Ordering::Relaxed);
                give_way().await;
            }
        })
        .detach();
    }
    world.run(async {
        for _ in 0..10_000 {
            give_way().await;
        }
    });
    // While the root has 10,000 turns each of the others has as many, give or take six deviations of 141.
    let turns: Vec<_> = turns.iter().map(|n| n.load(Ordering::Relaxed)).collect();
    assert!(turns.iter().all(|n| (9_150..10_850).contains(n)), "{turns:?}");
}

#[test]
fn seeds_explore_every_order_of_ready_tasks() {
    let orders: BTreeSet<_> = (0..100)
        .map(|seed| {
            let world = World::new(seed);
            let order = Arc::new(Mutex::new(String::new()));
            for name in ["a", "b", "c"] {
                let order = Arc::clone(&order);
                world
                    .env()
                    .spawn(async move { order.lock().unwrap().push_str(name) })
                    .detach();
            }
            world.run_for(MS);
            order.lock().unwrap().clone()
        })
        .collect();
    assert_eq!(orders.len(), 6, "{orders:?}");
}

#[test]
fn a_deadlock_names_who_waits() {
    let world = World::new(9);
    let env = world.machine("n1").env();
    env.spawn(pending::<()>()).detach();
    env.spawn_dedicated("committer", pending::<()>()).unwrap().detach();
    let panic = panic_of(&world, async {
        env.sleep(5 * MS).await;
        pending::<()>().await;
    });
    assert!(panic.starts_with("deadlock at 0.005000000s with seed 9"), "{panic}");
    assert!(panic.contains("2 tasks: [n1/task 1, n1/committer]"), "{panic}");
    // The world is still in order.
    world.run_for(MS);
}

#[test]
fn a_world_that_runs_in_circles_is_stopped() {
    let world = World::new(1);
    let panic = panic_of(&world, async {
        loop {
            give_way().await;
        }
    });
    assert!(panic.starts_with("the world runs in circles"), "{panic}");
}

#[test]
fn a_run_inside_a_run_is_refused() {
    let world = World::new(1);
    let panic = panic_of(&world, async { world.run_for(MS) });
    assert!(panic.starts_with("a world runs already"), "{panic}");
    world.run_for(MS);
}

#[test]
fn a_panic_ends_its_task_alone() {
    let world = World::new(1);
    let env = world.env();
    let failed = env.spawn(async { panic!("on purpose") });
    let fine = env.spawn(async { 7 });
    assert!(world.run(failed).is_err());
    assert_eq!(world.run(fine), Ok(7));
}

/// Counts its drops, and tries to go on after death.
struct Guard(Env, Arc<AtomicU64>);

impl Drop for Guard {
    fn drop(&mut self) {
        let count = Arc::clone(&self.1);
        self.0
            .spawn(async move { count.fetch_add(1_000, Ordering::Relaxed) })
            .detach();
        self.1.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn tasks_of_the_dead_are_dropped_and_their_world_refuses() {
    for how in [Machine::crash, Machine::kill] {
        let world = World::new(3);
        let machine = world.machine("n1");
        let (env, drops) = (machine.env(), Arc::new(AtomicU64::new(0)));
        for n in 0..5_u32 {
            let guard = Guard(env.clone(), Arc::clone(&drops));
            let env = env.clone();
            env.clone()
                .spawn(async move {
                    let _guard = guard;
                    env.sleep(n * MS).await;
                    pending::<()>().await;
                })
                .detach();
        }
        let other = world.machine("n2").env().spawn(async { "alive" });
        world.run_for(2 * MS);
        how(&machine);
        assert_eq!(
            drops.load(Ordering::Relaxed),
            5,
            "destructors run, and what they spawn does not"
        );

        assert_eq!(world.run(other), Ok("alive"), "another machine goes on");
        world.run(async {
            assert!(env.spawn(async {}).await.is_err());
            assert!(env.spawn_dedicated("late", async {}).unwrap().await.is_err());
            assert!(env.spawn_blocking(async {}).await.is_err());
            let refused = env.disk().list(Path::new("")).await.unwrap_err();
            assert_eq!(refused.to_string(), "the machine n1 is down");
            assert!(machine.env().disk().list(Path::new("")).await.is_ok());
            assert_eq!(machine.env().spawn(async { 1 }).await, Ok(1));
        });
        assert_eq!(drops.load(Ordering::Relaxed), 5);
    }
}

#[test]
fn a_task_may_end_its_own_machine() {
    let world = World::new(1);
    let machine = world.machine("n1");
    let (env, drops) = (machine.env(), Arc::new(AtomicU64::new(0)));
    let guard = Guard(env.clone(), Arc::clone(&drops));
    let own = machine.clone();
    let task = env.spawn(async move {
        let _guard = guard;
        own.crash();
        pending::<()>().await;
    });
    assert!(world.run(task).is_err());
    assert_eq!(drops.load(Ordering::Relaxed), 1);
}

#[test]
fn the_end_of_the_world_drops_its_tasks() {
    let drops = Arc::new(AtomicU64::new(0));
    let world = World::new(1);
    let (env, machine) = (world.env(), world.machine("n1"));
    let guard = Guard(env.clone(), Arc::clone(&drops));
    env.spawn(async move {
        let _guard = guard;
        pending::<()>().await;
    })
    .detach();
    world.run_for(MS);
    drop(world);
    assert_eq!(drops.load(Ordering::Relaxed), 1);
    assert_eq!(Arc::strong_count(&drops), 1, "nothing is left that holds it");
    // Handles that remain do no harm.
    machine.crash();
    assert!(machine.env().spawn(async {}).now_or_never().unwrap().is_err());
}

#[test]
fn slots_are_used_again() {
    let world = World::new(1);
    let env = world.env();
    world.run(async {
        for round in 0..10_000_u64 {
            let tasks: Vec<_> = (0..100).map(|n| env.spawn(async move { round + n })).collect();
            for (n, task) in (0..).zip(tasks) {
                assert_eq!(task.await, Ok(round + n));
            }
            env.sleep(MS).await;
        }
    });
    assert!(
        world.executor().slots() <= 101,
        "{} slots for a million tasks",
        world.executor().slots()
    );
}

#[test]
#[allow(clippy::disallowed_methods, reason = "a real thread is the subject")]
fn a_waker_may_be_called_from_another_thread_and_after_its_task() {
    let world = World::new(1);
    let waker = Arc::new(Mutex::new(None));
    let kept = Arc::clone(&waker);
    let task = world.env().spawn(poll_fn(move |cx| {
        match kept.lock().unwrap().replace(cx.waker().clone()) {
            None => Poll::Pending,
            Some(_) => Poll::Ready("woken"),
        }
    }));
    world.run_for(MS);
    let waker = waker.lock().unwrap().clone().unwrap();
    let threads = waker.clone();
    std::thread::spawn(move || (0..1_000).for_each(|_| threads.wake_by_ref()))
        .join()
        .unwrap();
    assert_eq!(world.run(task), Ok("woken"));

    // Whoever has the slot now is not disturbed.
    let polls = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&polls);
    world
        .env()
        .spawn(poll_fn::<(), _>(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            Poll::Pending
        }))
        .detach();
    world.run_for(MS);
    waker.wake();
    world.run_for(MS);
    assert_eq!(polls.load(Ordering::Relaxed), 1);
}

#[test]
fn a_sleep_that_outlives_its_task_still_wakes() {
    let world = World::new(1);
    let env = world.env();
    let slot: Arc<Mutex<Option<Sleep>>> = Arc::new(Mutex::new(Some(env.sleep(5 * MS))));
    // One task polls it first, and ends; whatever waits for that timer must not wait for ever.
    let (first, env2) = (Arc::clone(&slot), env.clone());
    world
        .run(env.spawn(async move {
            let polled = poll_fn(|cx| Poll::Ready(first.lock().unwrap().as_mut().unwrap().poll_unpin(cx))).await;
            assert!(polled.is_pending());
            drop(env2);
        }))
        .unwrap();
    world.run(poll_fn(|_| match world.now().as_nanos() {
        0 => Poll::Pending,
        _ => Poll::Ready(()),
    }));
    assert_eq!(world.now().as_nanos(), 5_000_000);
    let sleep = slot.lock().unwrap().take().unwrap();
    world.run(sleep);
}

#[test]
fn timeouts_by_the_million_leave_nothing_behind() {
    let world = World::new(1);
    let env = world.env();
    world.run(async {
        for _ in 0..200_000 {
            let kept = env
                .timeout(Duration::from_secs(60), env.sleep(Duration::from_nanos(10)))
                .await;
            assert!(kept.is_ok());
        }
    });
    assert_eq!(world.now().as_nanos(), 2_000_000, "no forgotten timer fires");
}

#[test]
fn each_machine_has_its_own_wall_clock() {
    let world = World::new(1);
    let (a, b) = (world.machine("a"), world.machine("b"));
    let start = a.env().wall();
    assert_eq!(start.as_millis(), 1_767_225_600_000, "2026-01-01");
    world.run_for(Duration::from_secs(2));
    a.skew_wall(-500);
    assert_eq!(a.env().wall() - start, Duration::from_millis(1_500));
    assert_eq!(b.env().wall() - start, Duration::from_millis(2_000));
    a.skew_wall(i64::MIN);
    assert_eq!(a.env().wall().as_millis(), 0, "the clock stops at the start of 1970");
    assert_eq!(world.faults().get(FaultKind::ClockSkew), 2);
}

#[test]
fn random_streams_follow_from_the_seed() {
    let draws = |seed| {
        let world = World::new(seed);
        let n1 = world.machine("n1");
        let mut all = vec![world.rng("x").next_u64(), world.rng("x").next_u64()];
        all.extend([
            n1.env().rng("x").next_u64(),
            world.machine("n2").env().rng("x").next_u64(),
        ]);
        n1.kill();
        all.push(n1.env().rng("x").next_u64());
        all
    };
    assert_eq!(draws(1), draws(1));
    let all: BTreeSet<_> = [draws(1), draws(2)].concat().into_iter().collect();
    assert_eq!(all.len(), 10, "no two streams are alike");
}

#[test]
fn an_operation_is_dropped_at_every_poll() {
    let mut cuts = 0;
    let polls = drop_at_every_poll(1, |world, cut| {
        cuts += 1;
        async move {
            let env = world.env();
            let steps = AtomicU64::new(0);
            let done = cut.run(async {
                for _ in 0..3 {
                    env.sleep(MS).await;
                    steps.fetch_add(1, Ordering::Relaxed);
                }
            });
            let done = done.await.is_some();
            assert_eq!(done, steps.load(Ordering::Relaxed) == 3);
        }
    });
    assert_eq!(polls, 4);
    assert_eq!(cuts, 10, "twice each of no poll, one, two, three, and all");
}

#[test]
fn a_failing_cut_says_where() {
    let case = |world: World, cut: Cut| async move {
        let start = world.now();
        cut.run(world.env().sleep(MS)).await;
        assert_eq!(world.now() - start, MS, "too early");
    };
    let panic = catch_unwind(|| drop_at_every_poll(1, case)).unwrap_err();
    let panic = message(&*panic);
    assert!(
        panic.starts_with("with the operation dropped after 0 polls: "),
        "{panic}"
    );
    assert!(panic.contains("too early"), "{panic}");
}
