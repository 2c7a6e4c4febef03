//! The models: the log's task and one or two who append.

use crate::committer;
use crate::env::Env;
use crate::handle::Handle;
use crate::shared::{FAULT, Fault, Shared};
use crate::{LogError, LogOptions};
use futures::FutureExt;
use futures::channel::oneshot;
use loom::sync::Notify;
use loom::thread::{self, JoinHandle};
use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// Wakes one thread, and counts.
struct Bell {
    notify: Notify,
    rings: AtomicUsize,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.rings.fetch_add(1, Ordering::SeqCst);
        self.notify.notify();
    }
}

impl Bell {
    fn new() -> (Arc<Bell>, Waker) {
        let bell = Arc::new(Bell {
            notify: Notify::new(),
            rings: AtomicUsize::new(0),
        });
        (Arc::clone(&bell), Waker::from(bell))
    }
}

/// What is not dropped when a model fails: it would ask the checker for a lock, which has none to give any more.
struct Leaks<T>(Option<T>);

impl<T> Leaks<T> {
    fn new(value: T) -> Leaks<T> {
        Leaks(Some(value))
    }
}

impl<T> Deref for Leaks<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().unwrap()
    }
}

impl<T> DerefMut for Leaks<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().unwrap()
    }
}

impl<T> Drop for Leaks<T> {
    fn drop(&mut self) {
        if thread::panicking() {
            std::mem::forget(self.0.take());
        }
    }
}

/// Waits for a future on this thread.
fn wait<F: Future>(future: F) -> F::Output {
    let (bell, waker) = Bell::new();
    let mut future = Leaks::new(Box::pin(future));
    loop {
        match future.poll_unpin(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => bell.notify.wait(),
        }
    }
}

/// The same for one that waits for the end of a commit that others write: nothing else wakes it.
fn wait_for_one_ring<F: Future>(future: F) -> (F::Output, Arc<Bell>) {
    let (bell, waker) = Bell::new();
    let mut future = Leaks::new(Box::pin(future));
    let cx = &mut Context::from_waker(&waker);
    loop {
        // The checker may end a wait for no reason.
        let rings = bell.rings.load(Ordering::SeqCst);
        match future.poll_unpin(cx) {
            Poll::Ready(output) => return (output, bell),
            Poll::Pending => assert_eq!(rings, 0, "woken before the end"),
        }
        bell.notify.wait();
    }
}

/// A log whose task runs on a thread of its own.
fn start(marks: bool, wanted: u64) -> (Leaks<Handle>, JoinHandle<()>) {
    let (told, mut opened) = oneshot::channel();
    let mut task = Box::pin(committer::run(
        Env::default(),
        PathBuf::new(),
        (LogOptions::default(), None),
        told,
    ));
    let idle = task.poll_unpin(&mut Context::from_waker(Waker::noop()));
    assert!(idle.is_pending());
    let Ok(Some(Ok((handle, _)))) = opened.try_recv() else {
        panic!("it is open")
    };
    let mut state = handle.shared.state.lock();
    (state.marks, state.wanted) = (marks, wanted);
    drop(state);
    (Leaks::new(handle), thread::spawn(move || wait(task)))
}

/// Every interleaving with at most three preemptions, with something wrong on purpose.
fn model(fault: Fault, run: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.max_branches = 100_000;
    model.check(move || {
        FAULT.set(fault);
        run();
    });
}

fn spawn<T: 'static>(log: &Handle, run: impl FnOnce(Arc<Shared>) -> T + 'static) -> JoinHandle<T> {
    let shared = Arc::clone(&log.shared);
    thread::spawn(move || run(shared))
}

fn append_here(shared: &Arc<Shared>) -> Result<(), LogError> {
    let mut append = Leaks::new(shared.append()?);
    wait(append.here())
}

/// Closes the log and waits for its task; everything is written by then.
fn close(log: Leaks<Handle>, task: JoinHandle<()>, written: u64) {
    let shared = Arc::clone(&log.shared);
    drop(log);
    task.join().unwrap();
    assert_eq!(shared.state.lock().written, written);
}

/// One who writes for itself, and one who has it written.
fn both_are_told(fault: Fault) {
    model(fault, || {
        let (log, task) = start(false, u64::MAX);
        let other = spawn(&log, |shared| wait_for_one_ring(shared.append().unwrap()));
        assert_eq!(append_here(&log.shared), Ok(()));
        let (result, bell) = other.join().unwrap();
        assert_eq!(result, Ok(()));
        close(log, task, 2);
        assert!(bell.rings.load(Ordering::SeqCst) <= 1, "woken more than once");
    });
}

#[test]
fn a_thread_that_writes_and_one_that_waits_are_both_told() {
    both_are_told(Fault::None);
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_wake_that_is_lost_is_caught() {
    both_are_told(Fault::WakesNobody);
}

#[test]
fn two_that_write_for_themselves_are_both_told() {
    model(Fault::None, || {
        let (log, task) = start(false, u64::MAX);
        let other = spawn(&log, |shared| append_here(&shared));
        assert_eq!(append_here(&log.shared), Ok(()));
        assert_eq!(other.join().unwrap(), Ok(()));
        close(log, task, 2);
    });
}

#[test]
fn two_that_wait_are_both_told_once() {
    model(Fault::None, || {
        let (log, task) = start(false, u64::MAX);
        let other = spawn(&log, |shared| wait_for_one_ring(shared.append().unwrap()));
        let (result, bell) = wait_for_one_ring(log.shared.append().unwrap());
        assert_eq!(result, Ok(()));
        let (result, others) = other.join().unwrap();
        assert_eq!(result, Ok(()));
        close(log, task, 2);
        for bell in [bell, others] {
            assert!(bell.rings.load(Ordering::SeqCst) <= 1, "woken more than once");
        }
    });
}

#[test]
fn what_nobody_waits_for_is_written_all_the_same() {
    model(Fault::None, || {
        let (log, task) = start(false, 2);
        let other = spawn(&log, |shared| append_here(&shared));
        drop(log.shared.append().unwrap());
        // Before it is closed, which would have it written in any case.
        log.shared.news.wait();
        assert_eq!(other.join().unwrap(), Ok(()));
        close(log, task, 2);
    });
}

/// One who goes away after a poll, with the turn or without.
#[test]
fn a_writer_that_is_dropped_hands_its_turn_on() {
    model(Fault::None, || {
        let (log, task) = start(false, u64::MAX);
        log.shared.state.lock().slow = true;
        let other = spawn(&log, |shared| match shared.append() {
            Ok(append) => wait(append),
            Err(refused) => Err(refused),
        });
        let mut append = Leaks::new(log.shared.append().unwrap());
        let _once = Box::pin(append.here()).poll_unpin(&mut Context::from_waker(Waker::noop()));
        drop(append);
        // What it had begun to write nobody knows about; whoever waits is told so.
        let result = other.join().unwrap();
        let known = [Ok(()), Err(LogError::Abandoned), Err(LogError::Poisoned)];
        assert!(known.contains(&result), "{result:?}");
        let shared = Arc::clone(&log.shared);
        drop(log);
        task.join().unwrap();
        assert!(shared.state.lock().written >= u64::from(result.is_ok()));
    });
}

/// The last commit is vouched for, though nobody waits for that.
fn vouched_for(fault: Fault) {
    model(fault, || {
        let (log, task) = start(true, 2);
        let other = spawn(&log, |shared| append_here(&shared));
        assert_eq!(append_here(&log.shared), Ok(()));
        assert_eq!(other.join().unwrap(), Ok(()));
        log.shared.news.wait();
        close(log, task, 2);
    });
}

#[test]
fn the_last_commit_is_vouched_for() {
    vouched_for(Fault::None);
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_commit_that_nobody_vouches_for_is_caught() {
    vouched_for(Fault::TimerForgotten);
}
