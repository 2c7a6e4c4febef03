//! Who waits for the last lease of an endpoint hears of it, whoever ends it and whoever is refused meanwhile.

use crate::counts::Counts;
use crate::model;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

/// Somebody waits while `others` run, each of which says whether it saw the last lease go.
fn told(counts: Arc<Counts>, others: [fn(&Counts) -> bool; 2]) {
    let told = Arc::new(AtomicBool::new(false));
    let threads = others.map(|other| {
        let (counts, told) = (Arc::clone(&counts), Arc::clone(&told));
        thread::spawn(move || {
            if other(&counts) {
                told.store(true, Ordering::Release);
            }
        })
    });
    let idle = counts.watch();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(idle || told.load(Ordering::Acquire), "nobody told of the last");
    assert_eq!(counts.in_flight(), 0);
}

#[test]
fn the_last_of_two_is_heard_of() {
    model(3, || {
        let counts = Arc::new(Counts::new());
        counts.begin().unwrap();
        counts.begin().unwrap();
        told(counts, [Counts::end, Counts::end]);
    });
}

#[test]
fn one_that_is_refused_hides_no_end() {
    model(3, || {
        let counts = Arc::new(Counts::new());
        counts.begin().unwrap();
        counts.limit_to(0);
        told(
            counts,
            [Counts::end, |counts| counts.begin().is_err_and(|full| full.last)],
        );
    });
}
