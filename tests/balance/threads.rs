use outgrow::balance::{
    Balancer, Endpoint, Failure, LeastRequest, Load, Member, OutlierEjection, PickError, Pool, PowerOfTwo, Request,
};
use outgrow::env::{Rng, Tick};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

const IDS: [&str; 8] = ["0", "1", "2", "3", "4", "5", "6", "7"];
const ROUNDS: usize = 1_000;
/// Of both policies together.
const PICKS: u64 = 20_000_000;

/// One thread changes the membership while others pick, fail and succeed.
fn churn<B: Balancer>(policy: B) {
    let rules = OutlierEjection::default()
        .consecutive_failures(2)
        .base_ejection_time(Duration::from_micros(50));
    let pool = Pool::builder(policy)
        .outliers(rules)
        .endpoints(IDS.map(Endpoint::new))
        .build();
    // Odd while an endpoint is surely out: set after `remove` or `drain` returned, and back before `add` or `enable`.
    let gone: [AtomicU64; 8] = Default::default();
    let (done, picks) = (AtomicBool::new(false), AtomicU64::new(0));

    thread::scope(|scope| {
        for thread in 0..3 {
            let (pool, gone, done, picks) = (&pool, &gone, &done, &picks);
            scope.spawn(move || {
                let mut held = Vec::new();
                for i in thread.. {
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                    let before = gone.each_ref().map(|version| version.load(Ordering::SeqCst));
                    match pool.pick(&Request::new()) {
                        Ok(lease) => {
                            let id: usize = lease.id().parse().unwrap();
                            let still = gone[id].load(Ordering::SeqCst);
                            assert!(
                                before[id] % 2 == 0 || before[id] != still,
                                "{id} was picked when it was out"
                            );
                            held.push(lease);
                            picks.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(error) => assert_eq!(error, PickError::NoEndpoints),
                    }
                    if held.len() == 10 {
                        for (j, lease) in held.drain(..).enumerate() {
                            match (i + j) % 3 {
                                0 => lease.succeed(),
                                1 => lease.fail(Failure::Other),
                                _ => drop(lease),
                            }
                        }
                    }
                }
            });
        }
        for round in 0.. {
            if round >= ROUNDS && picks.load(Ordering::Relaxed) >= PICKS / 2 {
                break;
            }
            let id = round * 5 % 8;
            if round % 2 == 0 {
                assert!(pool.remove(IDS[id]));
            } else {
                assert!(pool.drain(IDS[id]));
            }
            gone[id].fetch_add(1, Ordering::SeqCst);
            if round % 7 == 0 {
                thread::yield_now();
            }
            gone[id].fetch_add(1, Ordering::SeqCst);
            if round % 2 == 0 {
                pool.add(Endpoint::new(IDS[id]));
            } else {
                assert!(pool.enable(IDS[id]));
            }
        }
        done.store(true, Ordering::Relaxed);
    });

    let status = pool.status();
    assert_eq!(status.endpoints.len(), 8);
    assert!(status.endpoints.iter().all(|e| e.in_flight == 0), "{status:?}");
    assert!(status.ejections > 0, "{status:?}");
}

#[test]
fn no_lease_on_a_removed_or_drained_endpoint_and_none_left_in_flight() {
    churn(PowerOfTwo::default());
    churn(LeastRequest::default());
}

/// A policy whose tables take as long as somebody holds the lock.
struct SlowTables(Arc<Gate>);

#[derive(Default)]
struct Gate {
    lock: Mutex<()>,
    tables: AtomicU64,
}

impl Balancer for SlowTables {
    type Table = usize;

    fn table(&self, members: &[Member]) -> usize {
        self.0.tables.fetch_add(1, Ordering::SeqCst);
        drop(self.0.lock.lock());
        members.len()
    }

    fn pick(&self, table: &usize, _: &[Arc<Load>], _: &Request<'_>, _: Tick, rng: &mut Rng) -> Option<usize> {
        Some(rng.index(*table))
    }
}

#[test]
fn picks_go_on_while_a_writer_stands_in_the_middle_of_a_change() {
    let gate = Arc::new(Gate::default());
    let rules = OutlierEjection::default()
        .consecutive_failures(1)
        .base_ejection_time(Duration::ZERO);
    let pool = Pool::builder(SlowTables(Arc::clone(&gate)))
        .outliers(rules.max_ejection_jitter(Duration::ZERO))
        .endpoints(IDS.map(Endpoint::new))
        .build();
    // Ejected, and due back at once: picks try to let it in, and find the writer there.
    pool.pick(&Request::new()).unwrap().fail(Failure::Other);
    let held = gate.lock.lock().unwrap();
    let tables = gate.tables.load(Ordering::SeqCst);
    thread::scope(|scope| {
        let writer = scope.spawn(|| pool.update(["new"].map(Endpoint::new)));
        while gate.tables.load(Ordering::SeqCst) == tables {
            thread::yield_now();
        }
        let mut picker = pool.picker();
        for _ in 0..100_000 {
            assert_ne!(&**pool.pick(&Request::new()).unwrap().id(), "new");
            picker.pick(&Request::new()).unwrap().succeed();
        }
        assert!(!writer.is_finished());
        drop(held);
        writer.join().unwrap();
        assert_eq!(&**pool.pick(&Request::new()).unwrap().id(), "new");
    });
}

#[test]
fn every_lease_is_counted_once() {
    let pool = Pool::builder(PowerOfTwo::default())
        .outliers(None)
        .endpoints(IDS.map(Endpoint::new))
        .build();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5_000 {
                    pool.pick(&Request::new()).unwrap().succeed();
                    pool.pick(&Request::new()).unwrap().fail(Failure::Other);
                    drop(pool.pick(&Request::new()).unwrap());
                }
            });
        }
    });
    let status = pool.status().endpoints;
    let sum = |count: fn(&outgrow::balance::EndpointStatus) -> u64| status.iter().map(count).sum::<u64>();
    assert_eq!(
        [sum(|e| e.succeeded), sum(|e| e.failed), sum(|e| e.cancelled)],
        [20_000; 3]
    );
    assert_eq!(sum(|e| e.in_flight.into()), 0);
}
