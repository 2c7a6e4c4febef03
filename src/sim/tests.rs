use super::*;
use crate::env::{Env, OpenMode};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

/// Tasks that sleep, draw and write, so that every kind of event occurs.
async fn busy(env: Env) {
    let tasks: Vec<_> = (0..20_u64)
        .map(|n| {
            let env2 = env.clone();
            env.spawn(async move {
                let mut rng = env2.rng("busy");
                let name = format!("f{n}");
                let file = env2.disk().open(Path::new(&name), OpenMode::New).await?;
                for i in 0..20 {
                    env2.sleep(Duration::from_micros(rng.below(1_000))).await;
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
    world.run(busy(world.env()));
    world.trace()
}

#[test]
fn one_seed_gives_one_trace_and_another_seed_another() {
    let first = trace_of(1);
    assert!(first.events > 1_000, "{} events", first.events);
    assert_eq!(first.lines, trace_of(1).lines);
    assert_eq!(first, trace_of(1));
    assert_ne!(first.digest, trace_of(2).digest);
}

#[test]
fn time_jumps_to_the_next_timer() {
    let world = World::new(1);
    let env = world.env();
    world.run(async {
        futures::join!(env.sleep(30 * MS), env.sleep(10 * MS), env.sleep(20 * MS));
    });
    assert_eq!(world.now().as_nanos(), 30_000_000);
    world.run_for(MS);
    assert_eq!(world.now().as_nanos(), 31_000_000);
}

#[test]
#[should_panic(expected = "deadlock at 0.005000000s with seed 9")]
fn a_deadlock_is_named() {
    let world = World::new(9);
    let env = world.env();
    env.spawn(std::future::pending::<()>()).detach();
    world.run(async {
        env.sleep(5 * MS).await;
        std::future::pending::<()>().await;
    });
}

#[test]
fn a_crash_drops_tasks_and_what_was_not_synced_at_most() {
    let world = World::new(3);
    let machine = world.machine("n1");
    let env = machine.env();
    let held = Arc::new(());
    let guard = Arc::clone(&held);
    env.spawn(async move {
        let _guard = guard;
        std::future::pending::<()>().await;
    })
    .detach();
    world.run_for(MS);
    assert_eq!(Arc::strong_count(&held), 2);
    machine.crash();
    assert_eq!(Arc::strong_count(&held), 1);

    // The old environment is refused, the new one works.
    world.run(async {
        assert!(env.disk().list(Path::new("")).await.is_err());
        assert!(env.spawn(async {}).await.is_err());
        assert!(machine.env().disk().list(Path::new("")).await.is_ok());
    });
}
