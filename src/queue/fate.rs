use super::Result;
use crate::sync::{Mutex, Waiters};

/// What becomes of a send that is on its way, for those who repeat it.
#[derive(Debug, Default)]
pub(super) struct Fate {
    told: Mutex<Option<Result<()>>>,
    waiters: Waiters,
}

impl Fate {
    /// Settles it. Whoever waits still has to be [woken](Fate::wake).
    pub(super) fn tell(&self, result: Result<()>) {
        *self.told.lock() = Some(result);
    }

    pub(super) fn wake(&self) {
        self.waiters.wake_all();
    }

    /// Waits until it is settled.
    ///
    /// # Cancel safety
    /// Dropping it leaves nothing behind.
    pub(super) async fn wait(&self) -> Result<()> {
        self.waiters.wait(|| self.told.lock().clone()).await
    }
}
