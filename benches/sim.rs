//! How many timer events a second does the simulator carry on one core?
//!
//! `cargo bench --bench sim`. The aims: 5 million a second with 100 tasks that each sleep in a loop, and 2 million a
//! second with 100,000 tasks that each wait for a timer at a random time.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use outgrow::sim::World;
use std::time::Duration;

/// Runs `tasks` tasks until `events` timers have fired; delays come from `delay`.
fn sleepers(tasks: u64, events: u64, spread: u64) -> u64 {
    let world = World::new(1);
    let env = world.env();
    let each = events / tasks;
    let all: Vec<_> = (0..tasks)
        .map(|_| {
            let mine = env.clone();
            let mut rng = env.rng("sleeper");
            env.spawn(async move {
                for _ in 0..each {
                    mine.sleep(Duration::from_nanos(1_000 + rng.below(spread))).await;
                }
            })
        })
        .collect();
    world.run(async {
        for task in all {
            task.await.expect("a sleeper does not panic");
        }
    });
    world.trace().events
}

fn timers(c: &mut Criterion) {
    let mut group = c.benchmark_group("sim");
    group.sample_size(10).measurement_time(Duration::from_secs(5));
    for (tasks, events, spread) in [
        (100, 1_000_000, 1),
        (100, 1_000_000, 1_000_000),
        (100_000, 2_000_000, 1_000_000_000),
    ] {
        group.throughput(Throughput::Elements(events));
        let id = BenchmarkId::new(format!("timers over {spread} ns"), tasks);
        group.bench_function(id, |b| b.iter(|| sleepers(tasks, events, spread)));
    }
    group.finish();
}

criterion_group!(benches, timers);
criterion_main!(benches);
