//! Where a contender keeps its files.

use outgrow::env::Env;
use std::path::{Path, PathBuf};

/// A folder of its own on the disk that holds the target folder, which a machine's `/tmp` may not be; gone with it.
#[derive(Debug)]
pub(crate) struct Dir(PathBuf);

impl Dir {
    pub(crate) fn new(name: &str) -> Dir {
        let unique = Env::system().rng(name).next_u64();
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-{name}-{unique:x}"));
        std::fs::create_dir_all(&dir).expect("the target folder can be written to");
        Dir(dir)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// Where a program is on the search path.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}
