//! How many events a second does the simulator carry on one core?
//!
//! `cargo bench --bench sim`. The aims: 5 million timers a second with 100 tasks that each sleep in a loop, and 2
//! million a second with 100,000 tasks that each wait for a timer at a random time.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use outgrow::env::OpenMode;
use outgrow::sim::World;
use std::path::Path;
use std::time::Duration;

/// Timers fired in one measured run.
const EVENTS: u64 = 1_000_000;
/// The shortest sleep, in nanoseconds.
const SHORTEST: u64 = 1_000;

/// A world of tasks that sleep for ever, each time for up to `spread` nanoseconds more than the shortest.
fn sleepers(tasks: u64, spread: u64) -> World {
    let world = World::new(1);
    let env = world.env();
    for _ in 0..tasks {
        let mine = env.clone();
        let mut rng = env.rng("sleeper");
        let sleeper = async move {
            loop {
                mine.sleep(Duration::from_nanos(SHORTEST + rng.below(spread))).await;
            }
        };
        env.spawn(sleeper).detach();
    }
    world
}

fn timers(c: &mut Criterion) {
    let mut group = c.benchmark_group("sim timers");
    group.sample_size(10).measurement_time(Duration::from_secs(10));
    for (tasks, spread) in [(100, 1), (100, 1_000_000), (100_000, 1_000_000_000)] {
        let world = sleepers(tasks, spread);
        let mean = SHORTEST + spread / 2;
        let stretch = Duration::from_nanos(EVENTS * mean / tasks);
        world.run_for(stretch);
        // Each timer is two events of the trace: it fires, and its task is polled.
        let before = world.trace().events;
        world.run_for(stretch);
        group.throughput(Throughput::Elements((world.trace().events - before) / 2));
        let id = BenchmarkId::new(format!("{tasks} tasks"), format!("over {spread} ns"));
        group.bench_function(id, |b| b.iter(|| world.run_for(stretch)));
    }
    group.finish();
}

fn disk(c: &mut Criterion) {
    let mut group = c.benchmark_group("sim disk");
    let world = World::new(1);
    let env = world.env();
    let file = world.run(env.disk().open(Path::new("f"), OpenMode::New));
    let file = file.expect("a disk without faults opens a file");
    group.throughput(Throughput::Elements(2));
    group.bench_function("write 100 bytes and sync", |b| {
        let mut offset = 0;
        b.iter(|| {
            offset = (offset + 100) % (1 << 20);
            let both = async {
                file.write_at(&[7; 100], offset).await?;
                file.sync_data().await
            };
            world.run(both).expect("a disk without faults takes a write");
        });
    });
    group.finish();
}

criterion_group!(benches, timers, disk);
criterion_main!(benches);
