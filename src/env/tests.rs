//! The operating system behind the seam, and the contract that every disk keeps.
#![allow(clippy::disallowed_methods, reason = "real threads and files are the subject")]

use super::*;
use futures::executor::block_on;
use futures::future::join_all;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

const MS: Duration = Duration::from_millis(1);

/// A directory of its own for one test, removed at the end.
struct TempDir(PathBuf);

impl TempDir {
    fn new() -> TempDir {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!(
            "outgrow-env-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        TempDir(std::env::temp_dir().join(name))
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _absent_is_fine = std::fs::remove_dir_all(&self.0);
    }
}

fn kind<T>(result: io::Result<T>) -> io::ErrorKind {
    result.map(drop).unwrap_err().kind()
}

/// What every disk does, whichever it is; `base` is a directory that does not exist yet.
pub(crate) async fn disk_contract(env: Env, base: PathBuf) {
    let disk = env.disk();
    let at = |name: &str| base.join(name);

    // Directories: made with those above, listed in order.
    assert_eq!(kind(disk.open(&at("a"), OpenMode::New).await), io::ErrorKind::NotFound);
    assert_eq!(kind(disk.list(&base).await), io::ErrorKind::NotFound);
    disk.create_dir(&at("x/y")).await.unwrap();
    disk.create_dir(&at("x/y")).await.unwrap();
    assert_eq!(disk.list(&at("x")).await.unwrap(), ["y"]);

    // Files: opened as they are there or not.
    assert_eq!(
        kind(disk.open(&at("a"), OpenMode::Existing).await),
        io::ErrorKind::NotFound
    );
    let file = disk.open(&at("a"), OpenMode::New).await.unwrap();
    assert_eq!(
        kind(disk.open(&at("a"), OpenMode::New).await),
        io::ErrorKind::AlreadyExists
    );
    let again = disk.open(&at("a"), OpenMode::Existing).await.unwrap();
    assert_eq!(disk.list(&base).await.unwrap(), ["a", "x"]);

    // Bytes: written and read at their offsets, holes and extensions are zeros, the end is the end.
    write_all_at(&*file, b"hello", 3).await.unwrap();
    assert_eq!(again.len().await.unwrap(), 8);
    let mut buf = [9; 8];
    read_exact_at(&*again, &mut buf, 0).await.unwrap();
    assert_eq!(&buf, b"\0\0\0hello");
    assert_eq!(again.read_at(&mut buf, 8).await.unwrap(), 0);
    assert_eq!(again.read_at(&mut buf, 6).await.unwrap(), 2);
    assert_eq!(
        kind(read_exact_at(&*again, &mut buf, 6).await),
        io::ErrorKind::UnexpectedEof
    );
    file.set_len(4).await.unwrap();
    file.set_len(6).await.unwrap();
    read_exact_at(&*again, &mut buf[..6], 0).await.unwrap();
    assert_eq!(&buf[..6], b"\0\0\0h\0\0");
    file.sync_data().await.unwrap();
    file.drop_cache().await.unwrap();
    read_exact_at(&*again, &mut buf[..6], 0).await.unwrap();
    assert_eq!(&buf[..6], b"\0\0\0h\0\0");

    // Room taken ahead reads as zeros and changes nothing that is there; so do zeros that are written.
    match file.reserve(20_000).await {
        Err(e) => assert_eq!(e.kind(), io::ErrorKind::Unsupported),
        Ok(()) => assert_eq!(again.len().await.unwrap(), 20_000),
    }
    file.reserve(4).await.ok();
    zero_all_at(&*file, 8_192, 300_000).await.unwrap();
    write_all_at(&*file, b"end", 308_000).await.unwrap();
    let mut all = vec![9; 308_192];
    read_exact_at(&*again, &mut all, 0).await.unwrap();
    let expected = |at: usize| match at {
        3 => b'h',
        308_000..308_003 => b"end"[at - 308_000],
        _ => 0,
    };
    assert!(all.iter().enumerate().all(|(at, byte)| *byte == expected(at)));
    file.set_len(6).await.unwrap();

    // Names: renamed over another, removed; what is open stays readable.
    let other = disk.open(&at("b"), OpenMode::New).await.unwrap();
    write_all_at(&*other, b"other", 0).await.unwrap();
    disk.rename(&at("a"), &at("b")).await.unwrap();
    disk.sync_dir(&base).await.unwrap();
    assert_eq!(disk.list(&base).await.unwrap(), ["b", "x"]);
    assert_eq!(other.len().await.unwrap(), 5);
    assert_eq!(
        disk.open(&at("b"), OpenMode::Existing)
            .await
            .unwrap()
            .len()
            .await
            .unwrap(),
        6
    );
    assert_eq!(kind(disk.rename(&at("a"), &at("c")).await), io::ErrorKind::NotFound);
    disk.remove(&at("b")).await.unwrap();
    assert_eq!(kind(disk.remove(&at("b")).await), io::ErrorKind::NotFound);
    assert_eq!(file.len().await.unwrap(), 6);

    // Locks: one holder at a time.
    let held = disk.lock(&base).await.unwrap();
    assert_eq!(kind(disk.lock(&base).await), io::ErrorKind::WouldBlock);
    let elsewhere = disk.lock(&at("x")).await.unwrap();
    drop(held);
    drop(disk.lock(&base).await.unwrap());
    drop(elsewhere);
}

#[test]
fn the_contract_of_disks_holds() {
    let dir = TempDir::new();
    block_on(disk_contract(Env::system(), dir.0.join("base")));
}

#[test]
fn sleeps_never_end_early() {
    let env = Env::system();
    let start = env.now();
    let sleeps = [30_u32, 10, 20, 0, 15].map(|millis| {
        let env = &env;
        async move {
            env.sleep(millis * MS).await;
            assert!(env.now() - start >= millis * MS);
        }
    });
    block_on(join_all(sleeps));
}

/// Notes its number when woken.
struct Note(usize, Arc<Mutex<Vec<usize>>>);

impl futures::task::ArcWake for Note {
    fn wake_by_ref(this: &Arc<Note>) {
        this.1.lock().push(this.0);
    }
}

#[test]
fn timers_fire_once_in_their_order_and_disarmed_ones_never() {
    let (clock, woken) = (system::clock(), Arc::default());
    // Far enough away that even a busy machine has armed and disarmed all by then.
    let soon = clock.now() + 1_000 * MS;
    let arm = |n: usize| {
        let waker = futures::task::waker(Arc::new(Note(n, Arc::clone(&woken))));
        clock.arm(soon + Duration::from_micros(n as u64 * 100), &waker)
    };
    // Every other one is armed in the wrong order.
    let mut timers: Vec<_> = (0..100).rev().step_by(2).map(|n| (n, arm(n))).collect();
    timers.extend((0..100).step_by(2).map(|n| (n, arm(n))));
    let disarmed = |n: usize| n.is_multiple_of(3);
    timers
        .iter()
        .filter(|(n, _)| disarmed(*n))
        .for_each(|(_, timer)| clock.disarm(*timer));

    let expected: Vec<_> = (0..100).filter(|n| !disarmed(*n)).collect();
    while woken.lock().len() < expected.len() {
        block_on(Env::system().sleep(MS));
    }
    block_on(Env::system().sleep(20 * MS));
    assert_eq!(*woken.lock(), expected);
    timers.iter().for_each(|(_, timer)| clock.disarm(*timer));
}

#[test]
fn sleeps_of_many_threads_all_end() {
    thread::scope(|scope| {
        for thread in 0..8_u32 {
            scope.spawn(move || {
                let env = Env::system();
                for i in 0..50 {
                    let late = env.sleep(Duration::from_secs(3600));
                    let soon = env.sleep((thread + i) % 3 * MS);
                    block_on(futures::future::select(late, soon));
                }
            });
        }
    });
}

#[test]
fn a_timeout_cuts_what_takes_too_long_and_nothing_else() {
    let env = Env::system();
    block_on(async {
        assert_eq!(env.timeout(MS, std::future::pending::<()>()).await, Err(Elapsed));
        assert_eq!(env.timeout(Duration::from_secs(60), async { 7 }).await, Ok(7));
        assert_eq!(env.timeout(Duration::MAX, env.sleep(MS)).await, Ok(()));
    });
}

/// Panics are reported, whichever way a task is spawned.
fn panics_are_reported(env: &Env) {
    block_on(async {
        assert_eq!(env.spawn(async { 1 }).await, Ok(1));
        assert_eq!(env.spawn_blocking(async { 2 }).await, Ok(2));
        assert_eq!(
            env.spawn_dedicated("own", async { thread::current().name().map(str::to_owned) })
                .unwrap()
                .await,
            Ok(Some("own".to_owned()))
        );
        assert_eq!(env.spawn(async { panic!("on purpose") }).await, Err::<(), _>(TaskGone));
        assert_eq!(
            env.spawn_blocking(async { panic!("on purpose") }).await,
            Err::<(), _>(TaskGone)
        );
        let own = env.spawn_dedicated("own", async { panic!("on purpose") }).unwrap();
        assert_eq!(own.await, Err::<(), _>(TaskGone));
        // The threads that carried them still work.
        assert_eq!(
            join_all((0..100).map(|i| env.spawn(async move { i }))).await,
            (0..100).map(Ok).collect::<Vec<_>>()
        );
    });
}

#[test]
fn futures_of_the_user_run_where_the_user_says_or_not_at_all() {
    let system = Env::system();
    assert!(!system.can_spawn_user() && system.spawn_user(async { 1 }).is_none());

    let runtime = futures::executor::ThreadPool::builder();
    let runtime = { runtime }.pool_size(1).name_prefix("theirs-").create().unwrap();
    let name = || async { thread::current().name().map(str::to_owned) };
    let env = Env::builder().spawner(move |future| runtime.spawn_ok(future)).build();
    assert!(env.can_spawn_user());
    assert_eq!(
        block_on(env.spawn_user(name()).unwrap()),
        Ok(Some("theirs-0".to_owned()))
    );
    // What is not the user's stays on the pool of this crate.
    assert!(block_on(env.spawn(name())).unwrap().unwrap().starts_with("outgrow-"));
    let gone = env.spawn_user(async { panic!("on purpose") }).unwrap();
    assert_eq!(block_on(gone), Err::<(), _>(TaskGone));

    // A whole `Spawn` of the user's serves both.
    struct Inline;
    impl Spawn for Inline {
        fn spawn(&self, future: BoxFuture<'static, ()>) {
            block_on(future);
        }
        fn spawn_dedicated(&self, _: &str, future: BoxFuture<'static, ()>) -> io::Result<()> {
            block_on(future);
            Ok(())
        }
        fn spawn_blocking(&self, future: BoxFuture<'static, ()>) {
            block_on(future);
        }
    }
    let env = Env::builder().spawn(Inline).build();
    let task = env.spawn_user(async { 7 }).unwrap();
    assert_eq!(block_on(task), Ok(7));
    #[cfg(feature = "tokio")]
    {
        let runtime = ::tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .unwrap();
        let env = runtime.block_on(async { Env::tokio().unwrap() });
        assert!(env.can_spawn_user());
        assert_eq!(runtime.block_on(env.spawn_user(async { 7 }).unwrap()), Ok(7));
    }
}

#[test]
fn a_panicking_task_is_reported_as_gone() {
    panics_are_reported(&Env::system());
}

#[test]
fn blocking_work_shares_a_bounded_number_of_threads() {
    let env = Env::system();
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let work = (0..200).map(|i| {
        let (now, most) = (Arc::clone(&now), Arc::clone(&most));
        env.spawn_blocking(async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            thread::sleep(MS);
            now.fetch_sub(1, Ordering::SeqCst);
            i
        })
    });
    let done = block_on(join_all(work.collect::<Vec<_>>()));
    assert_eq!(done, (0..200).map(Ok).collect::<Vec<_>>(), "all of it is done");
    let most = most.load(Ordering::SeqCst);
    assert!((2..=16).contains(&most), "{most} at once");
}

#[test]
fn a_detached_task_runs_on() {
    let (send, receive) = futures::channel::oneshot::channel();
    Env::system().spawn(async move { send.send(5) }).detach();
    assert_eq!(block_on(receive), Ok(5));
}

#[test]
fn the_clocks_agree() {
    let env = Env::system();
    let (coarse, now) = (env.coarse(), env.now());
    assert!(coarse <= now && now - coarse < Duration::from_secs(1));
    assert!(env.wall().as_millis() > 1_700_000_000_000, "after 2023");
}

#[test]
fn parts_can_be_replaced() {
    struct Refuse;
    impl Spawn for Refuse {
        fn spawn(&self, _: BoxFuture<'static, ()>) {}
        fn spawn_dedicated(&self, _: &str, _: BoxFuture<'static, ()>) -> io::Result<()> {
            Err(io::ErrorKind::OutOfMemory.into())
        }
        fn spawn_blocking(&self, _: BoxFuture<'static, ()>) {}
    }
    let env = Env::builder().seed(7).spawn(Refuse).build();
    assert_eq!(block_on(env.spawn(async {})), Err(TaskGone));
    assert_eq!(kind(env.spawn_dedicated("x", async {})), io::ErrorKind::OutOfMemory);
    let other = Env::builder().seed(7).build();
    assert_eq!(env.rng("a").next_u64(), other.rng("a").next_u64());
}

#[test]
fn a_deep_directory_is_made_from_a_relative_path() {
    let made = block_on(Env::system().disk().create_dir(Path::new(".")));
    assert!(made.is_ok(), "{made:?}");
    let dir = TempDir::new();
    std::fs::create_dir(&dir.0).unwrap();
    std::fs::write(dir.0.join("file"), b"").unwrap();
    let disk = Arc::clone(Env::system().disk());
    assert!(block_on(disk.create_dir(&dir.0.join("file/below"))).is_err());
    assert!(block_on(disk.create_dir(&dir.0.join("file"))).is_err());
    block_on(disk.create_dir(&dir.0.join("a/b/c"))).unwrap();
    assert!(dir.0.join("a/b/c").is_dir());
}

#[cfg(feature = "tokio")]
mod on_tokio {
    use super::*;

    #[test]
    fn tasks_run_on_the_current_runtime() {
        assert!(Env::tokio().is_err(), "there is none here");
        let runtime = ::tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .build()
            .unwrap();
        let env = {
            let _entered = runtime.enter();
            Env::tokio().unwrap()
        };
        panics_are_reported(&env);
        let on_runtime = env.spawn(async { ::tokio::runtime::Handle::try_current().is_ok() });
        assert_eq!(block_on(on_runtime), Ok(true));
        let blocking = env.spawn_blocking(async { ::tokio::runtime::Handle::try_current().is_ok() });
        assert_eq!(block_on(blocking), Ok(true));
    }

    #[test]
    fn the_default_is_the_runtime_that_is_there() {
        let runtime = ::tokio::runtime::Builder::new_current_thread().build().unwrap();
        let seen = runtime.block_on(async {
            Env::default()
                .spawn(async { ::tokio::runtime::Handle::try_current().is_ok() })
                .await
        });
        assert_eq!(seen, Ok(true));
        let seen = block_on(Env::default().spawn(async { ::tokio::runtime::Handle::try_current().is_ok() }));
        assert_eq!(seen, Ok(false));
    }

    #[test]
    fn a_runtime_that_is_gone_ends_its_tasks() {
        let runtime = ::tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .unwrap();
        let env = {
            let _entered = runtime.enter();
            Env::tokio().unwrap()
        };
        let task = env.spawn(std::future::pending::<()>());
        drop(runtime);
        assert_eq!(block_on(task), Err(TaskGone));
    }
}
