use super::*;
use crate::env::Env;
use crate::sim::{DiskOp, FaultKind, Inject, World};
use crate::store::{Batch, Entry, Error as StoreError, Feature, LocalStore, MemoryEngine, Scan, Store, StoreExt};
use bytes::Bytes;
use futures::TryStreamExt;
use futures::future::join_all;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;

type Local = LocalStore<MemoryEngine>;

fn local(env: &Env) -> Local {
    LocalStore::builder(MemoryEngine::new()).env(env.clone()).build()
}

async fn open(env: &Env, shards: &[(&str, &Local)]) -> Result<ShardedStore<Local>> {
    let builder = ShardedStore::builder(SlotTable::new(256)).env(env.clone());
    let add =
        |builder: ShardedStoreBuilder<_, _>, (name, store): &(&str, &Local)| builder.shard(*name, Local::clone(store));
    shards.iter().fold(builder, add).open("map").await
}

async fn contents(store: &impl Store, scan: Scan) -> Vec<(Bytes, Entry)> {
    store.scan(scan).try_collect().await.unwrap()
}

fn key(n: u8) -> Bytes {
    format!("key/{n:03}").into()
}

#[derive(Clone, Debug)]
enum Do {
    Put(u8, u8),
    Delete(u8),
    Count(u8),
    Scan { from: u8, descending: bool, limit: usize },
    AddShard,
    Reopen,
}

fn what() -> impl Strategy<Value = Do> {
    prop_oneof![
        6 => (any::<u8>(), any::<u8>()).prop_map(|(k, v)| Do::Put(k, v)),
        2 => any::<u8>().prop_map(Do::Delete),
        1 => any::<u8>().prop_map(Do::Count),
        1 => (any::<u8>(), any::<bool>(), 0..40_usize).prop_map(|(from, descending, limit)| Do::Scan { from, descending, limit }),
        1 => Just(Do::AddShard),
        1 => Just(Do::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever shards come in between, it answers like one map.
    #[test]
    fn it_is_one_store(todo in prop::collection::vec(what(), 1..120), seed: u64) {
        let world = World::new(seed);
        let env = world.env();
        world.run(async {
            let mut shards = vec![local(&env), local(&env)];
            let names = ["a", "b", "c", "d", "e"];
            let named = |shards: &[Local]| names.into_iter().zip(shards.to_vec()).collect::<Vec<_>>();
            let reopen = async |shards: &[Local]| {
                let named = named(shards);
                let named: Vec<_> = named.iter().map(|(name, store)| (*name, store)).collect();
                open(&env, &named).await.unwrap()
            };
            let mut store = reopen(&shards).await;
            let mut model: BTreeMap<Bytes, Bytes> = BTreeMap::new();
            for what in todo {
                match what {
                    Do::Put(k, v) => {
                        let value = Bytes::from(v.to_string());
                        store.put(key(k), value.clone()).await.unwrap();
                        model.insert(key(k), value);
                    }
                    Do::Delete(k) => {
                        store.delete(key(k)).await.unwrap();
                        model.remove(&key(k));
                    }
                    Do::Count(k) => {
                        let total = |text: &Bytes| std::str::from_utf8(text).unwrap().parse::<i64>().unwrap() + 7;
                        store.add(key(k), 7).await.unwrap();
                        let total = model.get(&key(k)).map_or(7, total);
                        model.insert(key(k), total.to_string().into());
                    }
                    Do::Scan { from, descending, limit } => {
                        let scan = Scan::range(key(from)..).page(3).limit(limit);
                        let scan = if descending { scan.reverse() } else { scan };
                        let found: Vec<_> = contents(&store, scan).await.into_iter().map(|(k, e)| (k, e.value)).collect();
                        let mut expected: Vec<_> = model.range(key(from)..).map(|(k, v)| (k.clone(), v.clone())).collect();
                        if descending { expected.reverse(); }
                        expected.truncate(limit);
                        assert_eq!(found, expected);
                    }
                    Do::AddShard if shards.len() < names.len() => {
                        let shard = local(&env);
                        shards.push(shard.clone());
                        store.add_shard(names[shards.len() - 1], shard).await.unwrap();
                    }
                    Do::AddShard => {}
                    Do::Reopen => store = reopen(&shards).await,
                }
            }
            let keys: Vec<Bytes> = (0..=u8::MAX).map(key).collect();
            let found = store.get_many(&keys).await.unwrap();
            for (key, entry) in keys.iter().zip(found) {
                assert_eq!(entry.as_ref().map(|entry| &entry.value), model.get(key));
                assert_eq!(store.get(key).await.unwrap(), entry);
            }
            let held: usize = shards.iter().map(|shard| shard.engine().len()).sum();
            assert_eq!(held, model.len(), "each key is held once");
        });
    }
}

/// A shard is added under traffic, and the machine dies at each disk operation in turn (or the operation fails).
#[test]
fn a_move_survives_a_crash_at_every_disk_operation() {
    let mut crashed = 0;
    for op in [
        DiskOp::Write,
        DiskOp::Sync,
        DiskOp::Rename,
        DiskOp::SyncDir,
        DiskOp::Open,
    ] {
        for nth in 0.. {
            for kill in [true, false] {
                crashed += u32::from(move_with_fault(op, nth, kill));
            }
            if nth >= 6 {
                break;
            }
        }
    }
    assert!(crashed >= 10, "{crashed}");
}

/// Returns whether the fault hit.
fn move_with_fault(op: DiskOp, nth: u64, kill: bool) -> bool {
    let world = World::new(nth);
    let (main, disk) = (world.env(), world.machine("disk"));
    let shards = [local(&main), local(&main), local(&main)];
    let [a, b, c] = &shards;
    let (start, mut model) = world.run(async {
        let store = open(&disk.env(), &[("a", a), ("b", b)]).await.unwrap();
        let mut model = BTreeMap::new();
        for k in 0..200 {
            let receipt = store.put(key(k), "1").await.unwrap();
            model.insert(key(k), receipt.version);
        }
        for k in 0..20 {
            store.delete(key(k)).await.unwrap();
            model.remove(&key(k));
        }
        (store, model)
    });
    disk.inject(op, nth, if kill { Inject::Crash } else { Inject::Fail });
    let before = world.faults().total();
    let moved = world.run(async { start.add_shard("c", c.clone()).await.is_ok() });
    let hit = world.faults().total() > before;
    assert_eq!(moved, !hit);
    if !hit {
        // The move does not do so many of these operations.
        return false;
    }
    // What is acknowledged now has to be there after the next opening, whichever map that finds.
    world.run(async {
        for k in 100..120 {
            if let Ok(receipt) = start.put(key(k), "2").await {
                assert!(receipt.version > model[&key(k)], "versions only rise");
                model.insert(key(k), receipt.version);
            }
        }
    });
    if kill {
        disk.crash();
    } else {
        disk.kill();
    }
    drop(start);
    let found = world.run(async {
        let store = match open(&disk.env(), &[("a", a), ("b", b), ("c", c)]).await {
            Ok(store) => store,
            // The map never got to the new shard.
            Err(StoreError::Invalid { .. }) => open(&disk.env(), &[("a", a), ("b", b)]).await.unwrap(),
            Err(error) => panic!("{error}"),
        };
        contents(&store, Scan::all()).await
    });
    let found: BTreeMap<_, _> = found.into_iter().map(|(key, entry)| (key, entry.version)).collect();
    assert_eq!(found, model, "{op:?} {nth} {kill}");
    true
}

#[test]
fn writers_and_readers_go_on_while_a_shard_is_added() {
    for seed in 0..20 {
        let world = World::new(seed);
        let env = world.env();
        world.run(async {
            let shards = [local(&env), local(&env), local(&env)];
            let store = open(&env, &[("a", &shards[0]), ("b", &shards[1])]).await.unwrap();
            let traffic = (0..8_u8).map(|writer| {
                let (store, env) = (store.clone(), env.clone());
                env.clone().spawn(async move {
                    for round in 0..50_u32 {
                        let key = key(writer * 20 + (round % 20) as u8);
                        let value = Bytes::from(round.to_string());
                        store.put(key.clone(), value.clone()).await.unwrap();
                        env.sleep(Duration::from_micros(u64::from(round) * 7 % 90)).await;
                        let read = store.get(&key).await.unwrap().expect("it was written");
                        assert_eq!(read.value, value);
                    }
                })
            });
            let traffic: Vec<_> = traffic.collect();
            env.sleep(Duration::from_micros(500)).await;
            store.add_shard("c", shards[2].clone()).await.unwrap();
            for task in join_all(traffic).await {
                task.unwrap();
            }
            assert_eq!(contents(&store, Scan::all()).await.len(), 160);
            assert!(shards[2].engine().len() > 20);
        });
    }
}

#[test]
fn what_it_cannot_do_it_refuses() {
    let world = World::new(1);
    let env = world.env();
    world.run(async {
        let (a, b) = (local(&env), local(&env));
        let store = open(&env, &[("a", &a), ("b", &b)]).await.unwrap();
        assert!(!store.capability().has(Feature::AtomicBatches));
        let wide = (0..50).fold(Batch::new(), |batch, k| batch.put(key(k), "1"));
        assert!(matches!(
            store.commit(wide).await,
            Err(StoreError::Unsupported(Feature::AtomicBatches))
        ));
        store
            .commit(Batch::new().put("cart/{7}", "1").put("order/{7}", "2"))
            .await
            .unwrap();
        let cursor = Batch::new()
            .put("a", "1")
            .cursor("view", crate::store::Position::new(1, 1));
        assert!(matches!(
            store.commit(cursor).await,
            Err(StoreError::Unsupported(Feature::Cursors))
        ));
        a.put("{7}/stray", "1").await.unwrap();
        let full = local(&env);
        full.put("x", "1").await.unwrap();
        assert!(matches!(
            store.add_shard("c", full).await,
            Err(StoreError::Invalid { .. })
        ));
        assert!(matches!(
            store.add_shard("a", local(&env)).await,
            Err(StoreError::Invalid { .. })
        ));
        assert!(matches!(
            open(&env, &[("a", &a)]).await,
            Err(StoreError::Invalid { .. })
        ));
        assert!(matches!(
            open(&env, &[("a", &a), ("b", &b), ("z", &b)]).await,
            Err(StoreError::Invalid { .. })
        ));
    });
}

#[test]
fn a_damaged_map_is_refused() {
    let world = World::new(1);
    let machine = world.machine("main");
    let (a, b) = (local(&machine.env()), local(&machine.env()));
    world.run(async { open(&machine.env(), &[("a", &a), ("b", &b)]).await.map(drop).unwrap() });
    assert!(machine.flip_bit("map/shards", 200));
    assert_eq!(world.faults().get(FaultKind::BitFlip), 1);
    let refused = world.run(async { open(&machine.env(), &[("a", &a), ("b", &b)]).await.err() });
    assert!(matches!(refused, Some(StoreError::Corrupt { .. })), "{refused:?}");
}
