use crate::places::{at, equator};
use outgrow::geo::{Client, GeoRouter, Overrides};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// Whatever changes meanwhile: a route leads to a centre that was good at some moment of the change.
#[test]
#[allow(clippy::disallowed_methods, reason = "real threads are the subject")]
fn routes_go_on_while_all_is_changed() {
    let centres = || equator([("a", 0.0), ("b", 10.0), ("c", 20.0), ("d", 30.0)]).map(|centre| centre.capacity(10));
    let router = GeoRouter::builder().centres(centres()).build().unwrap();
    router.drain("d");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2_u32)
            .map(|reader| {
                let (router, over) = (router.clone(), &over);
                scope.spawn(move || {
                    let mut routes = 0_u64;
                    while !over.load(Relaxed) || routes == 0 {
                        let key = (routes as u32 * 2 + reader).to_be_bytes();
                        let position = at(0.0, (routes % 40) as f64);
                        let client = Client::new().position(position).key(&key).ip([10, 0, 0, 1]);
                        let route = router.route(&client).unwrap();
                        // `a` is never down, drained or gone, and `d` always is.
                        assert_ne!(&**route.id(), "d");
                        let few = router.nearest(&client, 3).unwrap();
                        assert!(few.iter().all(|route| &**route.id() != "d"));
                        routes += 1;
                    }
                    routes
                })
            })
            .collect();
        for i in 0..2_000_u32 {
            match i % 6 {
                0 => drop(router.set_health("b", i % 12 == 0)),
                1 => drop(router.shift("c", f64::from(i % 10) / 10.0)),
                2 => router.update(centres()),
                3 => drop(router.remove("c")),
                4 => drop(router.observe(
                    "10.0.0.0/8".parse::<outgrow::geo::IpNet>().unwrap(),
                    "b",
                    Duration::from_millis(1),
                )),
                _ => router
                    .set_overrides(Overrides::new().subnet("10.0.0.0/9".parse().unwrap(), "b"))
                    .unwrap(),
            }
        }
        over.store(true, Relaxed);
        let routes: Vec<u64> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
        let routed: u64 = router.status().centres.iter().map(|centre| centre.routed).sum();
        assert!(routes.iter().all(|routes| *routes > 0) && routed > 0);
    });
}

/// A target that holds up whoever drops it.
struct Holds(Mutex<Option<(Sender<()>, Receiver<()>)>>);

impl Drop for Holds {
    fn drop(&mut self) {
        if let Some((started, may_go_on)) = self.0.get_mut().unwrap().take() {
            started.send(()).unwrap();
            may_go_on.recv().unwrap();
        }
    }
}

/// Nobody waits: routes are done while the one who changes the router is stopped under its lock, where what was replaced
/// is dropped.
#[test]
#[allow(clippy::disallowed_methods, reason = "real threads are the subject")]
fn a_route_does_not_wait_for_a_change_that_is_held_up() {
    let (started, has_started) = channel();
    let (go_on, may_go_on) = channel();
    let [a, b, c] = equator([("a", 0.0), ("b", 10.0), ("c", 20.0)]);
    let plain = || Holds(Mutex::new(None));
    let holds = Holds(Mutex::new(Some((started, may_go_on))));
    let router = GeoRouter::builder()
        .centres([a.target(plain()), b.target(holds)])
        .build()
        .unwrap();
    let client = Client::new().position(at(0.0, 11.0));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            router.remove("b");
            // Dropped by the change after which no thread reads the old snapshot any more.
            while !done.load(Relaxed) {
                router.set_health("a", true);
            }
        });
        has_started.recv().unwrap();
        let changes = scope.spawn(|| router.add(c.target(plain())));
        for _ in 0..1_000 {
            assert_eq!(
                &**router.route(&client).unwrap().id(),
                "a",
                "`b` is gone, and `c` not yet there"
            );
        }
        assert!(!changes.is_finished(), "the change before holds the lock");
        done.store(true, Relaxed);
        go_on.send(()).unwrap();
    });
    assert_eq!(&**router.route(&client).unwrap().id(), "c");
}
