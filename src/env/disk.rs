use futures::FutureExt;
use futures::future::BoxFuture;
use std::any::Any;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// What every disk operation returns: a boxed future of an [`io::Result`].
pub type DiskFuture<'a, T> = BoxFuture<'a, io::Result<T>>;

/// The files of one machine.
///
/// Every operation is a future. The operating system's does the call when first polled, so it must be polled only
/// where blocking is allowed: under [`Env::spawn_dedicated`](super::Env::spawn_dedicated),
/// [`Env::spawn_blocking`](super::Env::spawn_blocking), or a caller that blocks anyway. The simulated disk takes
/// virtual time instead.
///
/// A file's created, renamed or removed name is durable only after [`sync_dir`](Disk::sync_dir) of its directory.
pub trait Disk: Send + Sync {
    /// Opens a file for reading and writing.
    fn open<'a>(&'a self, path: &'a Path, mode: OpenMode) -> DiskFuture<'a, Arc<dyn File>>;

    /// Makes a directory and those above it; one that exists is fine. New ones are durable when this returns, so that
    /// callers need not know which of them were there before.
    fn create_dir<'a>(&'a self, path: &'a Path) -> DiskFuture<'a, ()>;

    /// The names in a directory, sorted.
    fn list<'a>(&'a self, dir: &'a Path) -> DiskFuture<'a, Vec<String>>;

    /// Renames a file, replacing a file of the new name.
    fn rename<'a>(&'a self, from: &'a Path, to: &'a Path) -> DiskFuture<'a, ()>;

    /// Removes a file.
    fn remove<'a>(&'a self, path: &'a Path) -> DiskFuture<'a, ()>;

    /// Makes the names in a directory durable.
    fn sync_dir<'a>(&'a self, dir: &'a Path) -> DiskFuture<'a, ()>;

    /// Takes the directory for this process alone, until the lock is dropped or the process ends.
    ///
    /// Fails with [`io::ErrorKind::WouldBlock`] when it is taken.
    fn lock<'a>(&'a self, dir: &'a Path) -> DiskFuture<'a, DirLock>;
}

/// An open file. Reads and writes name their offset; there is no cursor.
#[expect(
    clippy::len_without_is_empty,
    reason = "a length that is a disk operation is asked for once, and compared"
)]
pub trait File: Send + Sync {
    /// The length in bytes.
    fn len(&self) -> DiskFuture<'_, u64>;

    /// Reads at `offset` into `buf`; may read less, and reads 0 only at the end of the file.
    fn read_at<'a>(&'a self, buf: &'a mut [u8], offset: u64) -> DiskFuture<'a, usize>;

    /// Writes `data` at `offset`; may write less.
    fn write_at<'a>(&'a self, data: &'a [u8], offset: u64) -> DiskFuture<'a, usize>;

    /// Cuts the file, or extends it with zeros.
    fn set_len(&self, len: u64) -> DiskFuture<'_, ()>;

    /// Takes room on the device for the first `len` bytes. What lies behind the file's end so far reads as zeros.
    ///
    /// Fails with [`io::ErrorKind::Unsupported`] where room cannot be had before it is written, and by default.
    fn reserve(&self, len: u64) -> DiskFuture<'_, ()> {
        let _ = len;
        async { Err(io::ErrorKind::Unsupported.into()) }.boxed()
    }

    /// Writes `len` zeros at `offset`; may write less. Unlike other writes they need not stay in memory, so this is for
    /// many of them, best at multiples of 4 KiB, and for a file that nobody else uses meanwhile.
    fn zero_at(&self, offset: u64, len: usize) -> DiskFuture<'_, usize> {
        self.write_at(&ZEROS[..len.min(ZEROS.len())], offset)
    }

    /// Makes what was written durable (`fdatasync`). After an error nothing is known about any write since the last
    /// success, and a second call may succeed without having written them (Rebello and others, ATC 2020).
    fn sync_data(&self) -> DiskFuture<'_, ()>;

    /// Drops the clean cached pages of this file, so that the next read comes from the device.
    fn drop_cache(&self) -> DiskFuture<'_, ()>;
}

/// Linux keeps what is written at once in pages as large, and a small write into a large page takes longer: with 256 KiB by
/// a tenth, with a mebibyte twice as long.
pub(super) const CACHED_ZEROS: usize = 64 << 10;
static ZEROS: [u8; CACHED_ZEROS] = [0; CACHED_ZEROS];

/// How [`Disk::open`] treats a file that is, or is not, there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// The file must exist.
    Existing,
    /// The file must exist, and is only read, so one that this process may not write opens too.
    Read,
    /// The file must not exist, and is made.
    New,
}

/// Holds a directory for this process; made by [`Disk::lock`].
pub struct DirLock(#[expect(dead_code, reason = "held for its drop")] Box<dyn Any + Send + Sync>);

impl DirLock {
    /// A lock that lasts as long as `held`.
    pub fn new(held: impl Any + Send + Sync) -> DirLock {
        DirLock(Box::new(held))
    }
}

impl fmt::Debug for DirLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirLock").finish_non_exhaustive()
    }
}

/// Writes all of `data` at `offset`.
///
/// # Errors
/// The file's, and [`io::ErrorKind::WriteZero`] when it takes nothing more.
pub async fn write_all_at(file: &dyn File, mut data: &[u8], mut offset: u64) -> io::Result<()> {
    while !data.is_empty() {
        match file.write_at(data, offset).await? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            n => {
                data = &data[n..];
                offset += n as u64;
            }
        }
    }
    Ok(())
}

/// Writes `len` zeros at `offset`, as [`File::zero_at`] does.
///
/// # Errors
/// The file's, and [`io::ErrorKind::WriteZero`] when it takes nothing more.
pub async fn zero_all_at(file: &dyn File, mut offset: u64, mut len: usize) -> io::Result<()> {
    while len > 0 {
        match file.zero_at(offset, len).await? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            n => {
                len -= n;
                offset += n as u64;
            }
        }
    }
    Ok(())
}

/// Writes zeros from `offset` to `end` by the way of all writes, so that they are in memory.
pub(crate) async fn write_zeros_at(file: &dyn File, mut offset: u64, end: u64) -> io::Result<()> {
    while offset < end {
        let zeros = &ZEROS[..ZEROS.len().min((end - offset) as usize)];
        write_all_at(file, zeros, offset).await?;
        offset += zeros.len() as u64;
    }
    Ok(())
}

/// Fills `buf` from `offset`.
///
/// # Errors
/// The file's, and [`io::ErrorKind::UnexpectedEof`] when it ends first.
pub async fn read_exact_at(file: &dyn File, buf: &mut [u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while done < buf.len() {
        match file.read_at(&mut buf[done..], offset + done as u64).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => done += n,
        }
    }
    Ok(())
}
