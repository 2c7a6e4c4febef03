//! What does a pick cost, with its lease and completion, and does it grow with the endpoints? Peers: tower's p2c, pingora.
#![allow(missing_docs, reason = "a program, not a library")]

use criterion::{Criterion, criterion_group, criterion_main};
use outgrow::balance::{
    Adaptive, Balancer, Endpoint, Lease, LeastRequest, Maglev, PeakEwma, Pool, PowerOfTwo, Prequal, Request, Ring,
    RoundRobin, ServerLoad, SmoothWeighted, Sticky, WeightedRandom,
};
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

const SIZES: [usize; 3] = [10, 100, 1_000];

fn pool<B: Balancer>(policy: B, endpoints: usize, weight: fn(usize) -> u32) -> Pool<B> {
    let endpoint = |i| Endpoint::new(format!("10.0.{}.{}:80", i / 256, i % 256)).weight(weight(i));
    Pool::builder(policy).endpoints((0..endpoints).map(endpoint)).build()
}

/// A pick, a lease and a success, with nothing else in flight.
fn picks<B: Balancer>(criterion: &mut Criterion, name: &str, policy: fn() -> B, weight: fn(usize) -> u32) {
    for size in SIZES {
        let mut group = criterion.benchmark_group(format!("balance/{name}/{size}"));
        let pool = pool(policy(), size, weight);
        group.bench_function("ours", |b| {
            b.iter(|| match pool.pick(black_box(&Request::new().key(b"user-7"))) {
                Ok(lease) => lease.succeed(),
                Err(error) => panic!("{error}"),
            });
        });
        #[cfg(peers)]
        peers::beside(&mut group, name, size);
    }
}

fn policies(criterion: &mut Criterion) {
    picks(criterion, "power_of_two", PowerOfTwo::default, |_| 1);
    picks(criterion, "power_of_two_weighted", PowerOfTwo::default, |i| {
        1 + i as u32 % 3
    });
    picks(criterion, "adaptive", Adaptive::default, |_| 1);
    picks(criterion, "peak_ewma", PeakEwma::default, |_| 1);
    picks(criterion, "peak_ewma_sampled", || PeakEwma::default().sampled(), |_| 1);
    picks(criterion, "prequal_unreported", Prequal::default, |_| 1);
    picks(
        criterion,
        "sticky_power_of_two",
        || Sticky::new(PowerOfTwo::default()),
        |_| 1,
    );
    picks(criterion, "round_robin_exact", RoundRobin::exact, |_| 1);
    picks(criterion, "round_robin", RoundRobin::default, |_| 1);
    picks(criterion, "smooth_weighted", SmoothWeighted::default, |i| {
        1 + i as u32 % 3
    });
    picks(criterion, "weighted_random", WeightedRandom::default, |i| {
        1 + i as u32 % 3
    });
    picks(criterion, "maglev", Maglev::default, |_| 1);
    picks(criterion, "ring", Ring::default, |_| 1);
    picks(criterion, "ring_bounded", || Ring::default().bounded_load(1.25), |_| 1);
    picks(
        criterion,
        "maglev_bounded",
        || Maglev::default().bounded_load(1.25),
        |_| 1,
    );
    keys(criterion, "ring_keys", Ring::default);
    keys(criterion, "maglev_keys", Maglev::default);
    keys(criterion, "sticky_keys", || Sticky::new(PowerOfTwo::default()));
    reported(criterion, "prequal_reported", Prequal::default);
    picks(criterion, "least_request", LeastRequest::default, |_| 1);
}

/// The same with other keys all the time, as caches of the processor see them.
fn keys<B: Balancer>(criterion: &mut Criterion, name: &str, policy: fn() -> B) {
    let keys: Vec<String> = (0..4_096).map(|i| format!("user-{}", i * 7_919)).collect();
    for size in SIZES {
        let mut group = criterion.benchmark_group(format!("balance/{name}/{size}"));
        let pool = pool(policy(), size, |_| 1);
        let mut next = keys.iter().cycle();
        group.bench_function("ours", |b| {
            b.iter(
                || match pool.pick(&Request::new().key(next.next().expect("there are keys"))) {
                    Ok(lease) => lease.succeed(),
                    Err(error) => panic!("{error}"),
                },
            );
        });
    }
}

/// A pick, a lease, what the endpoint says of its load, and a success.
fn reported<B: Balancer>(criterion: &mut Criterion, name: &str, policy: fn() -> B) {
    for size in SIZES {
        let mut group = criterion.benchmark_group(format!("balance/{name}/{size}"));
        let pool = pool(policy(), size, |_| 1);
        let mut said = 0.0;
        group.bench_function("ours", |b| {
            b.iter(|| match pool.pick(black_box(&Request::new())) {
                Ok(lease) => {
                    said = (said + 3.0) % 17.0;
                    lease.report_load(ServerLoad::new(said).latency(Duration::from_millis(5)));
                    lease.succeed();
                }
                Err(error) => panic!("{error}"),
            });
        });
    }
}

/// The same with a lease on every endpoint, so that the adaptive policy has to look at all of them.
fn busy(criterion: &mut Criterion) {
    for size in [10, 100] {
        let mut group = criterion.benchmark_group(format!("balance/adaptive_busy/{size}"));
        let pool = pool(Adaptive::default(), size, |_| 1);
        let held: Vec<Lease<_>> = (0..size).filter_map(|_| pool.pick(&Request::new()).ok()).collect();
        group.bench_function("ours", |b| {
            b.iter(|| match pool.pick(black_box(&Request::new())) {
                Ok(lease) => lease.succeed(),
                Err(error) => panic!("{error}"),
            });
        });
        drop(held);
    }
}

/// A choice without a lease, by a handle of the thread's own.
fn choices(criterion: &mut Criterion) {
    fn choose<B: Balancer>(criterion: &mut Criterion, name: &str, policy: fn() -> B) {
        for size in SIZES {
            let mut group = criterion.benchmark_group(format!("balance/choose_{name}/{size}"));
            let mut picker = pool(policy(), size, |i| 1 + i as u32 % 3).picker();
            group.bench_function("ours", |b| {
                b.iter(|| {
                    let chosen = picker.choose(black_box(&Request::new().key(b"user-7")));
                    black_box(chosen.expect("there are endpoints"));
                });
            });
        }
    }
    fn even<B: Balancer>(criterion: &mut Criterion, name: &str, policy: fn() -> B) {
        for size in SIZES {
            let mut group = criterion.benchmark_group(format!("balance/choose_{name}/{size}"));
            let mut picker = pool(policy(), size, |_| 1).picker();
            group.bench_function("ours", |b| {
                b.iter(|| {
                    let chosen = picker.choose(black_box(&Request::new().key(b"user-7")));
                    black_box(chosen.expect("there are endpoints"));
                });
            });
        }
    }
    even(criterion, "power_of_two", PowerOfTwo::default);
    even(criterion, "round_robin", RoundRobin::default);
    choose(criterion, "alias", WeightedRandom::default);
    even(criterion, "maglev", Maglev::default);
    even(criterion, "ring", Ring::default);
}

/// Picks while another thread replaces the endpoints a thousand times a second, and while it does not.
#[allow(
    clippy::disallowed_methods,
    reason = "a thread beside the one that is measured is the subject"
)]
fn written(criterion: &mut Criterion) {
    fn beside<B: Balancer>(criterion: &mut Criterion, name: &str, policy: fn() -> B) {
        let mut group = criterion.benchmark_group(format!("balance/written_{name}/100"));
        let pool = pool(policy(), 100, |_| 1);
        let mut measure = |title: &str| {
            group.bench_function(title, |b| {
                b.iter(|| match pool.pick(black_box(&Request::new())) {
                    Ok(lease) => lease.succeed(),
                    Err(error) => panic!("{error}"),
                });
            });
        };
        measure("quiet");
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Relaxed) {
                    std::thread::sleep(Duration::from_millis(1));
                    pool.update((0..100).map(|i| Endpoint::new(format!("10.0.0.{i}:80"))));
                }
            });
            measure("ours");
            done.store(true, Relaxed);
        });
    }
    beside(criterion, "power_of_two", PowerOfTwo::default);
    beside(criterion, "round_robin", RoundRobin::default);
}

/// An endpoint leaves and another joins: two snapshots, with the table of the policy.
fn changes(criterion: &mut Criterion) {
    fn change<B: Balancer>(criterion: &mut Criterion, name: &str, policy: fn() -> B) {
        for size in SIZES {
            let mut group = criterion.benchmark_group(format!("balance/change_{name}/{size}"));
            let pool = pool(policy(), size, |i| 1 + i as u32 % 3);
            group.bench_function("ours", |b| {
                b.iter(|| {
                    pool.add(Endpoint::new("joins"));
                    assert!(pool.remove("joins"));
                });
            });
        }
    }
    change(criterion, "power_of_two", PowerOfTwo::default);
    change(criterion, "smooth_weighted", SmoothWeighted::default);
    change(criterion, "maglev", Maglev::default);
    change(criterion, "ring", Ring::default);
}

criterion_group!(benches, policies, busy, choices, written, changes);
criterion_main!(benches);

#[cfg(peers)]
mod peers {
    use criterion::BenchmarkGroup;
    use criterion::measurement::WallTime;
    use futures::future::{Ready, ready};
    use futures::task::noop_waker_ref;
    use pingora_load_balancing::LoadBalancer;
    use pingora_load_balancing::selection::{self, BackendIter, BackendSelection};
    use std::hint::black_box;
    use std::task::{Context, Poll};
    use std::time::Duration;
    use tower::balance::p2c::Balance;
    use tower::discover::Discover;
    use tower::discover::ServiceList;
    use tower::load::{CompleteOnResponse, Load, PeakEwmaDiscover, PendingRequestsDiscover};
    use tower::{BoxError, Service};

    /// Answers at once.
    struct Nothing;

    impl Service<()> for Nothing {
        type Response = ();
        type Error = BoxError;
        type Future = Ready<Result<(), BoxError>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, (): ()) -> Self::Future {
            ready(Ok(()))
        }
    }

    /// What the others do where we do `name`.
    pub(super) fn beside(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, size: usize) {
        let list = || ServiceList::new((0..size).map(|_| Nothing));
        match name {
            "power_of_two" => tower(
                group,
                PendingRequestsDiscover::new(list(), CompleteOnResponse::default()),
            ),
            "peak_ewma" => {
                let (rtt, decay) = (Duration::from_millis(30), Duration::from_secs(10));
                tower(
                    group,
                    PeakEwmaDiscover::new(list(), rtt, decay, CompleteOnResponse::default()),
                );
            }
            "round_robin" => pingora::<selection::RoundRobin>(group, size),
            "weighted_random" => pingora::<selection::Random>(group, size),
            "maglev" => pingora::<selection::FNVHash>(group, size),
            "ring" => pingora::<selection::Consistent>(group, size),
            _ => {}
        }
    }

    /// The same with tower: the pick is part of `poll_ready`, the completion of the call's future, which includes the
    /// call of an endpoint that answers at once.
    fn tower<D>(group: &mut BenchmarkGroup<'_, WallTime>, discover: D)
    where
        D: Discover + Unpin,
        D::Key: std::hash::Hash + Clone + Send,
        D::Error: Into<BoxError>,
        D::Service: Service<(), Error = BoxError> + Load,
        <D::Service as Load>::Metric: std::fmt::Debug,
    {
        let mut balance = Balance::new(discover);
        let mut cx = Context::from_waker(noop_waker_ref());
        group.bench_function("tower", |b| {
            b.iter(|| {
                assert!(matches!(balance.poll_ready(&mut cx), Poll::Ready(Ok(()))));
                let mut answer = std::pin::pin!(balance.call(black_box(())));
                assert!(answer.as_mut().poll(&mut cx).is_ready());
            });
        });
    }

    /// A selection of pingora's, which counts nothing in flight.
    fn pingora<S: BackendSelection + 'static>(group: &mut BenchmarkGroup<'_, WallTime>, size: usize)
    where
        S::Iter: BackendIter,
    {
        let addresses = (0..size).map(|i| format!("10.0.{}.{}:80", i / 256, i % 256));
        let balancer = LoadBalancer::<S>::try_from_iter(addresses).expect("these are addresses");
        group.bench_function("pingora", |b| {
            b.iter(|| black_box(balancer.select(black_box(b"user-7"), 256)).expect("all are healthy"));
        });
    }
}
