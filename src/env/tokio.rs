#![allow(clippy::disallowed_methods, reason = "this is where the seam meets tokio")]

use super::Spawn;
use super::system::SystemSpawn;
use futures::future::BoxFuture;
use std::io;
use tokio::runtime::Handle;

/// Whether the caller runs inside a tokio runtime.
pub(crate) fn has_tokio() -> bool {
    Handle::try_current().is_ok()
}

/// Panics, with tokio's own words, on a thread that runs tasks of a tokio runtime and must not be blocked. Threads for
/// blocking work may.
pub(crate) fn may_block() {
    if let Ok(runtime) = Handle::try_current() {
        runtime.block_on(std::future::ready(()));
    }
}

/// Spawns on a tokio runtime. Dedicated threads are the operating system's.
pub(super) struct TokioSpawn(Handle);

impl TokioSpawn {
    pub(super) fn current() -> io::Result<TokioSpawn> {
        Handle::try_current().map(TokioSpawn).map_err(io::Error::other)
    }
}

impl Spawn for TokioSpawn {
    fn spawn(&self, future: BoxFuture<'static, ()>) {
        self.0.spawn(future);
    }

    fn spawn_dedicated(&self, name: &str, future: BoxFuture<'static, ()>) -> io::Result<()> {
        SystemSpawn.spawn_dedicated(name, future)
    }

    fn spawn_blocking(&self, future: BoxFuture<'static, ()>) {
        let _blocking_pool = self.0.spawn_blocking(move || futures::executor::block_on(future));
    }
}
