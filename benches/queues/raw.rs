//! The disk by itself.

use super::{Keep, Produce};
use futures::executor::block_on;
use outgrow::env::{self, Env, OpenMode};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

const BYTES: u64 = 64 << 20;

/// A file of zeros that are on disk, overwritten from its beginning and again.
struct Raw {
    file: File,
    at: Mutex<u64>,
}

pub(super) fn open(dir: &Path) -> Result<Box<dyn Keep>, String> {
    let make = || {
        let mut options = OpenOptions::new();
        let mut file = options.create_new(true).read(true).write(true).open(dir.join("raw"))?;
        let zeros = vec![0; 1 << 20];
        for _ in 0..BYTES >> 20 {
            file.write_all(&zeros)?;
        }
        file.sync_all()?;
        Ok(file)
    };
    let file = make().map_err(|error: std::io::Error| error.to_string())?;
    let at = Mutex::new(0);
    Ok(Box::new(Raw { file, at }))
}

impl Keep for Raw {
    fn producer(&self) -> Box<dyn Produce + '_> {
        Box::new(Writer {
            file: &self.file,
            at: self.at.lock().expect("one producer at a time"),
            together: Vec::new(),
        })
    }
}

struct Writer<'a> {
    file: &'a File,
    at: MutexGuard<'a, u64>,
    together: Vec<u8>,
}

impl Writer<'_> {
    fn write(&mut self, bytes: &[u8]) {
        if *self.at + bytes.len() as u64 > BYTES {
            *self.at = 0;
        }
        self.file.write_all_at(bytes, *self.at).expect("the disk takes it");
        self.file.sync_data().expect("the disk takes it");
        *self.at += bytes.len() as u64;
    }
}

impl Produce for Writer<'_> {
    fn one(&mut self, payload: &'static [u8]) {
        self.write(payload);
    }

    fn batch(&mut self, payload: &'static [u8], count: usize) {
        let mut together = std::mem::take(&mut self.together);
        together.clear();
        (0..count).for_each(|_| together.extend_from_slice(payload));
        self.write(&together);
        self.together = together;
    }
}

/// How long it takes to read every file of a directory from the device, one after the other.
pub(crate) fn read_from_device(dir: &Path) -> Duration {
    let disk = Arc::clone(Env::system().disk());
    let names = block_on(disk.list(dir)).expect("it can be read");
    let open = |name: &String| block_on(disk.open(&dir.join(name), OpenMode::Read)).ok();
    let files: Vec<Arc<dyn env::File>> = names.iter().filter_map(open).collect();
    for file in &files {
        block_on(file.drop_cache()).expect("it is ours");
    }
    let mut bytes = vec![0; 1 << 20];
    let start = Instant::now();
    for file in files {
        let mut at = 0;
        while let Ok(read @ 1..) = block_on(file.read_at(&mut bytes, at)) {
            at += read as u64;
        }
    }
    start.elapsed()
}
