//! Small files that are there as a whole or not at all.

use super::{Disk, Env, File, OpenMode, read_exact_at, write_all_at};
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Puts a file of these bytes in the place of `dir/name`; durable when it returns. After an error either may be there.
pub(crate) async fn replace(disk: &dyn Disk, dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = dir.join(format!("{name}.new"));
    let file = create(disk, &temporary).await?;
    write_all_at(&*file, bytes, 0).await?;
    publish(disk, &*file, &temporary, dir, name).await
}

/// Makes an empty file, in the place of what an earlier attempt may have left.
pub(crate) async fn create(disk: &dyn Disk, path: &Path) -> io::Result<Arc<dyn File>> {
    match disk.open(path, OpenMode::New).await {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            disk.remove(path).await?;
            disk.open(path, OpenMode::New).await
        }
        result => result,
    }
}

/// Gives a file that has been written its name.
pub(crate) async fn publish(
    disk: &dyn Disk,
    file: &dyn File,
    temporary: &Path,
    dir: &Path,
    name: &str,
) -> io::Result<()> {
    file.sync_data().await?;
    disk.rename(temporary, &dir.join(name)).await?;
    disk.sync_dir(dir).await
}

/// The bytes of a file as the device has them, or nothing when it does not exist.
pub(crate) async fn read(disk: &dyn Disk, path: &Path, max: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match disk.open(path, OpenMode::Existing).await {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        result => result?,
    };
    file.drop_cache().await?;
    let mut bytes = vec![0; file.len().await?.min(max) as usize];
    read_exact_at(&*file, &mut bytes, 0).await?;
    Ok(Some(bytes))
}

/// Runs `work` where it may block, and waits for it.
pub(crate) async fn blocking<T: Send + 'static>(
    env: &Env,
    work: impl Future<Output = io::Result<T>> + Send + 'static,
) -> io::Result<T> {
    env.spawn_blocking(work).await?
}

/// Makes `dir` and those above it, each durable in the one above.
pub(crate) async fn make_dir(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    let mut missing: Vec<PathBuf> = Vec::new();
    for dir in dir.ancestors() {
        let is_missing =
            !dir.as_os_str().is_empty() && disk.list(dir).await.is_err_and(|e| e.kind() == io::ErrorKind::NotFound);
        if !is_missing {
            break;
        }
        missing.push(dir.to_owned());
    }
    if missing.is_empty() {
        return Ok(());
    }
    disk.create_dir(dir).await?;
    for made in missing.iter().rev() {
        let above = made.parent().filter(|above| !above.as_os_str().is_empty());
        disk.sync_dir(above.unwrap_or(Path::new("."))).await?;
    }
    Ok(())
}
