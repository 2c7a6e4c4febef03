//! A store that does as it is told, call by call.

use crate::env::Env;
use crate::store::{Batch, Capability, Entry, Error, LocalStore, MemoryEngine, Receipt, Result, Scan, Store};
use crate::sync::Mutex;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// What happens to one call; when the script ends, calls work.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Work,
    Fail(Error),
    /// Does what was asked, and answers with an error.
    WorkAndFail(Error),
    /// Takes so long, and then works.
    Stall(Duration),
}

#[derive(Clone)]
pub(super) struct Scripted {
    inner: LocalStore<MemoryEngine>,
    env: Env,
    steps: Arc<Mutex<VecDeque<Step>>>,
    calls: Arc<Mutex<u32>>,
}

impl Scripted {
    pub(super) fn new(env: &Env, steps: impl IntoIterator<Item = Step>) -> Scripted {
        Scripted {
            inner: LocalStore::builder(MemoryEngine::new()).env(env.clone()).build(),
            env: env.clone(),
            steps: Arc::new(Mutex::new(steps.into_iter().collect())),
            calls: Arc::default(),
        }
    }

    /// The store below, which always works.
    pub(super) fn inner(&self) -> &LocalStore<MemoryEngine> {
        &self.inner
    }

    pub(super) fn then(&self, steps: impl IntoIterator<Item = Step>) {
        self.steps.lock().extend(steps);
    }

    /// How many calls came since this was last asked.
    pub(super) fn calls(&self) -> u32 {
        std::mem::take(&mut *self.calls.lock())
    }

    async fn play<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        *self.calls.lock() += 1;
        let step = self.steps.lock().pop_front();
        match step {
            None | Some(Step::Work) => work.await,
            Some(Step::Fail(error)) => Err(error),
            Some(Step::WorkAndFail(error)) => {
                work.await?;
                Err(error)
            }
            Some(Step::Stall(time)) => {
                self.env.sleep(time).await;
                work.await
            }
        }
    }
}

impl Store for Scripted {
    async fn get(&self, key: &[u8]) -> Result<Option<Entry>> {
        self.play(self.inner.get(key)).await
    }

    async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Entry>>> {
        self.play(self.inner.get_many(keys)).await
    }

    /// A step for each entry.
    fn scan(&self, scan: Scan) -> BoxStream<'_, Result<(Bytes, Entry)>> {
        let next = move |mut entries: BoxStream<'static, Result<(Bytes, Entry)>>| async move {
            let entry = self.play(async { entries.next().await.transpose() }).await?;
            Ok(entry.map(|entry| (entry, entries)))
        };
        let all: Vec<_> = futures::executor::block_on(self.inner.scan(scan).collect());
        stream::try_unfold(stream::iter(all).boxed(), next).boxed()
    }

    async fn commit(&self, batch: Batch) -> Result<Receipt> {
        self.play(self.inner.commit(batch)).await
    }

    fn capability(&self) -> Capability {
        self.inner.capability()
    }
}
