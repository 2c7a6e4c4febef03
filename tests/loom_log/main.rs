//! How the right to write a log goes from hand to hand, and how those who wait hear of the end, under a model checker that
//! tries every interleaving, up to a number of preemptions. The source files are those of the crate, over the checker's
//! locks; what they stand on is a model of the rest of the log: appends that go into one batch, a writer that writes.
//!
//! `RUSTFLAGS="--cfg outgrow_loom" cargo test --release --test loom_log --target-dir target-models`
//!
//! Each protocol is also run with a fault of its own, which has to be caught. A waiter whom nobody wakes is a deadlock.
#![cfg(outgrow_loom)]
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a test")]
#![allow(dead_code, reason = "the models use a part of it")]

#[path = "../../src/log/committer.rs"]
mod committer;
mod env;
#[path = "../../src/log/group.rs"]
mod group;
mod models;
mod shared;
#[path = "../../src/log/turn.rs"]
mod turn;
#[path = "../../src/log/wait.rs"]
mod wait;

/// What stands in for the crate's door to locks.
mod sync {
    /// A lock that gives its guard at once.
    #[derive(Debug)]
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Mutex<T> {
            Mutex(loom::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
            self.0.lock().unwrap()
        }
    }
}

/// Why a commit failed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum LogError {
    Abandoned,
    Poisoned,
}

impl LogError {
    fn abandoned() -> LogError {
        LogError::Abandoned
    }
}

#[derive(Default)]
struct LogOptions {
    segment_bytes: u64,
}

struct Notes;

struct OpenReport;

mod handle {
    use crate::shared::Shared;
    use std::sync::Arc;

    /// Stops the task when it goes.
    pub(crate) struct Handle {
        pub(crate) shared: Arc<Shared>,
    }

    impl Drop for Handle {
        fn drop(&mut self) {
            self.shared.stop();
        }
    }
}

mod open {
    use crate::env::Env;
    use crate::shared::Shared;
    use crate::{LogError, LogOptions, Notes, OpenReport};
    use std::path::Path;

    pub(crate) async fn open(
        env: &Env,
        _: &Path,
        _: LogOptions,
        _: Option<Notes>,
    ) -> Result<(Shared, OpenReport), LogError> {
        Ok((Shared::new(env.clone()), OpenReport))
    }
}

/// Everything is synced as it is written here.
mod flush {
    use crate::LogError;
    use crate::shared::Shared;
    use std::sync::Arc;

    pub(crate) enum Flush {
        Idle,
        Running,
        Failed(LogError),
    }

    pub(crate) fn start(_: &Arc<Shared>) {}
}

mod spare {
    use crate::shared::Shared;
    use std::sync::Arc;

    pub(crate) fn keep(_: &Arc<Shared>) {}

    pub(crate) fn start(_: &Arc<Shared>) {}
}

mod writer {
    pub(crate) use crate::shared::{Writer, group_of};
}
