//! What does it cost to find a key's shard, and does it grow with the shards? Peer: hashring.
#![allow(missing_docs, reason = "a program, not a library")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use outgrow::shard::{HashRing, Partitioner, ShardRouter, SlotTable};
use std::hint::black_box;

const SIZES: [usize; 3] = [10, 100, 1_000];
/// Keys in turn, so that no lookup is the one before it.
const KEYS: usize = 4_096;

fn keys() -> Vec<String> {
    (0..KEYS).map(|n| format!("user/{n:08}")).collect()
}

fn name(shard: usize) -> String {
    format!("10.0.{}.{}:5432", shard / 256, shard % 256)
}

fn filled<P: Partitioner>(mut partitioner: P, shards: usize) -> P {
    (0..shards).for_each(|shard| partitioner.add(&name(shard), 1));
    partitioner
}

/// The partitioner alone.
fn lookups<P: Partitioner>(criterion: &mut Criterion, kind: &str, empty: fn() -> P) {
    let keys = keys();
    for size in SIZES {
        let mut group = criterion.benchmark_group(format!("shard/{kind}/{size}"));
        group.throughput(Throughput::Elements(1));
        let partitioner = filled(empty(), size);
        let mut keys_in_turn = keys.iter().cycle();
        group.bench_function("ours", |b| {
            b.iter(|| partitioner.route(black_box(keys_in_turn.next().map_or(b"", |key| key.as_bytes()))));
        });
        #[cfg(peers)]
        peers::hashring(&mut group, size, &keys);
    }
}

fn partitioners(criterion: &mut Criterion) {
    lookups(criterion, "slot_table", || SlotTable::new(16_384));
    lookups(criterion, "hash_ring", HashRing::new);
}

/// With the router around it, which may be changed meanwhile: a snapshot, the lookup, and a handle to the shard.
fn routers(criterion: &mut Criterion) {
    let keys = keys();
    for size in SIZES {
        let mut group = criterion.benchmark_group(format!("shard/router/{size}"));
        group.throughput(Throughput::Elements(1));
        let builder = ShardRouter::builder(SlotTable::new(16_384));
        let shards = (0..size).fold(builder, |builder, shard| builder.shard(name(shard), shard));
        let router = shards.build().expect("names of their own");
        let mut keys_in_turn = keys.iter().cycle();
        group.bench_function("ours", |b| {
            b.iter(|| router.route(black_box(keys_in_turn.next().map_or(b"", |key| key.as_bytes()))));
        });
    }
}

criterion_group!(benches, partitioners, routers);
criterion_main!(benches);

#[cfg(peers)]
mod peers {
    use criterion::BenchmarkGroup;
    use criterion::measurement::WallTime;
    use std::hint::black_box;

    /// With one point for each shard, as it comes, and with as many as ours has, so that shares are as even.
    pub(super) fn hashring(group: &mut BenchmarkGroup<'_, WallTime>, shards: usize, keys: &[String]) {
        for (id, points) in [("hashring", 1), ("hashring_160", 160)] {
            let mut ring = hashring::HashRing::new();
            let point = |n| (super::name(n / points), n % points);
            ring.batch_add((0..shards * points).map(point).collect());
            let mut keys_in_turn = keys.iter().cycle();
            group.bench_function(id, |b| {
                b.iter(|| ring.get(black_box(&keys_in_turn.next())).map(|(name, _)| name.len()));
            });
        }
    }
}
