//! An inspection whose files change under it while it reads, at the worst moments: a segment that grows between two reads,
//! and one that is freed and made zeros of after it was opened.
#![allow(
    clippy::disallowed_methods,
    reason = "the test is the outside world: it renames and overwrites files"
)]

use futures::FutureExt;
use futures::executor::block_on;
use outgrow::env::{DirLock, Disk, DiskFuture, Env, File, OpenMode, Rng};
use outgrow::queue::{DurableQueue, Error, Inspection, Message};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// A folder of its own for each test, removed when the test passes.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Folder {
        Folder(std::env::temp_dir().join(format!("outgrow-queue-inspect-{}-{test}", std::process::id())))
    }

    fn segment(&self, number: u64) -> PathBuf {
        self.0.join(format!("{number:016x}.seg"))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            drop(std::fs::remove_dir_all(&self.0));
        }
    }
}

/// A closed queue with `messages`, each sent by itself, of about `len` bytes.
fn fill(folder: &Folder, messages: u64, len: u64) {
    block_on(async {
        let queue = DurableQueue::builder().env(Env::system()).segment_bytes(16 << 10);
        let queue = queue.open(&folder.0).await.expect("it opens");
        let mut rng = Env::builder().seed(7).build().rng("lengths");
        for n in 0..messages {
            let message = Message::new(vec![b'a' + (n % 26) as u8; rng.below(len) as usize]);
            queue.topic("t").send(message).await.expect("it is sent");
        }
        queue.close().await;
    });
}

/// What happens when a file was opened for reading; another may take its place.
type Meddler = Arc<dyn Fn(&Path, &Arc<dyn File>) -> Option<Arc<dyn File>> + Send + Sync>;

/// The disk of this machine, with somebody who meddles.
struct Meddled {
    inner: Arc<dyn Disk>,
    meddler: Meddler,
}

impl Disk for Meddled {
    fn open<'a>(&'a self, path: &'a Path, mode: OpenMode) -> DiskFuture<'a, Arc<dyn File>> {
        async move {
            assert_eq!(mode, OpenMode::Read, "who looks only reads");
            let file = self.inner.open(path, mode).await?;
            Ok((self.meddler)(path, &file).unwrap_or(file))
        }
        .boxed()
    }
    fn create_dir<'a>(&'a self, _: &'a Path) -> DiskFuture<'a, ()> {
        refused()
    }
    fn list<'a>(&'a self, dir: &'a Path) -> DiskFuture<'a, Vec<String>> {
        self.inner.list(dir)
    }
    fn rename<'a>(&'a self, _: &'a Path, _: &'a Path) -> DiskFuture<'a, ()> {
        refused()
    }
    fn remove<'a>(&'a self, _: &'a Path) -> DiskFuture<'a, ()> {
        refused()
    }
    fn sync_dir<'a>(&'a self, _: &'a Path) -> DiskFuture<'a, ()> {
        refused()
    }
    fn lock<'a>(&'a self, _: &'a Path) -> DiskFuture<'a, DirLock> {
        async { Err(io::Error::other("who looks locks nothing")) }.boxed()
    }
}

fn refused<'a>() -> DiskFuture<'a, ()> {
    async { Err(io::Error::other("who looks changes nothing")) }.boxed()
}

async fn look(
    folder: &Folder,
    meddler: impl Fn(&Path, &Arc<dyn File>) -> Option<Arc<dyn File>> + Send + Sync + 'static,
) -> Result<Inspection, Error> {
    let inner = Arc::clone(Env::system().disk());
    let meddler: Meddler = Arc::new(meddler);
    let env = Env::builder().disk(Meddled { inner, meddler }).build();
    DurableQueue::inspector().env(env).look(&folder.0).await
}

/// A file that is being written: what it has is there from the front up to an end that moves ahead with each read, and
/// what is behind that end reads as zeros. Reads are short, so that it moves between the reads of one segment.
struct Growing {
    inner: Arc<dyn File>,
    /// The end, and what decides how far it moves and how short reads are.
    now: Mutex<(u64, Rng)>,
}

impl File for Growing {
    fn len(&self) -> DiskFuture<'_, u64> {
        self.inner.len()
    }
    fn read_at<'a>(&'a self, buf: &'a mut [u8], offset: u64) -> DiskFuture<'a, usize> {
        async move {
            let (end, most) = {
                let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
                let most = 1 + now.1.index(700);
                now.0 += now.1.below(600);
                (now.0, most.min(buf.len()))
            };
            let read = self.inner.read_at(&mut buf[..most], offset).await?;
            let written = end.saturating_sub(offset).min(read as u64) as usize;
            buf[written..read].fill(0);
            Ok(read)
        }
        .boxed()
    }
    fn write_at<'a>(&'a self, _: &'a [u8], _: u64) -> DiskFuture<'a, usize> {
        async { Err(io::Error::other("who looks writes nothing")) }.boxed()
    }
    fn set_len(&self, _: u64) -> DiskFuture<'_, ()> {
        refused()
    }
    fn sync_data(&self) -> DiskFuture<'_, ()> {
        refused()
    }
    fn drop_cache(&self) -> DiskFuture<'_, ()> {
        self.inner.drop_cache()
    }
}

#[test]
fn a_segment_that_grows_while_it_is_read_is_read_up_to_a_moment() {
    let folder = Folder::new("grows");
    fill(&folder, 40, 300);
    assert!(
        folder.segment(1).exists() && !folder.segment(2).exists(),
        "there is one segment"
    );
    let mut seen = Vec::new();
    for seed in 0..300 {
        let whole = Env::builder().seed(seed).build();
        let grow = move |_: &Path, file: &Arc<dyn File>| {
            let mut rng = whole.rng("growth");
            let now = Mutex::new((rng.below(12_000), rng));
            let inner = Arc::clone(file);
            Some(Arc::new(Growing { inner, now }) as Arc<dyn File>)
        };
        block_on(async {
            let mut found = look(&folder, grow).await.expect("it can be looked at");
            assert!(
                found.damaged().is_empty() && found.lost().is_empty(),
                "seed {seed}: {found:?}"
            );
            // What counts can be read, and is a beginning of what was sent.
            let (entries, mut read) = (found.entries(), 0);
            let mut messages = found.messages(Some("t"));
            while let Some(message) = messages.next().await.expect("it can be read") {
                let letter = b'a' + (read % 26) as u8;
                assert!(
                    message.message.payload.iter().all(|byte| *byte == letter),
                    "seed {seed}"
                );
                read += 1;
            }
            assert_eq!(read, entries, "seed {seed}");
            seen.push(read);
        });
    }
    assert!(seen.iter().any(|read| (1..40).contains(read)), "{seen:?}");
    assert!(seen.contains(&40), "{seen:?}");
}

#[test]
fn a_segment_that_is_freed_while_it_is_read_is_not_taken_for_damaged() {
    for from in 1..4 {
        let folder = Folder::new(&format!("freed-{from}"));
        fill(&folder, 200, 600);
        let newest = (1..)
            .take_while(|number| folder.segment(*number).exists())
            .last()
            .expect("there are some");
        assert!(newest > 4, "{newest} segments");
        // When the newest is opened the others are open already, and now the oldest of them go.
        let gone: Vec<PathBuf> = (1..=from).map(|number| folder.segment(number)).collect();
        let last = folder.segment(newest);
        let free = move |path: &Path, _: &Arc<dyn File>| {
            for path in gone.iter().filter(|gone| path == last && gone.exists()) {
                let spare = path.with_extension("spare");
                std::fs::rename(path, &spare).expect("it can be renamed");
                let len = spare.metadata().expect("it is there").len() as usize;
                // Over the same bytes, as the log does it; a new file would leave those that were opened alone.
                let file = std::fs::OpenOptions::new()
                    .write(true)
                    .open(&spare)
                    .expect("it can be written");
                io::Write::write_all(&mut &file, &vec![0; len]).expect("it can be written");
            }
            None
        };
        block_on(async {
            let mut found = look(&folder, free).await.expect("it can be looked at");
            assert!(found.damaged().is_empty() && found.lost().is_empty(), "{found:?}");
            assert_eq!(found.segments()[0].segment, from + 1);
            let (entries, mut read) = (found.entries(), 0);
            let mut messages = found.messages(None);
            while messages.next().await.expect("it can be read").is_some() {
                read += 1;
            }
            assert_eq!(read, entries);
            assert!((1..200).contains(&read), "{read}");
        });
    }
}
