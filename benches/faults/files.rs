//! Changing a store's files behind its back.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

const CHUNK: usize = 4 << 20;

/// Flips one bit in the middle of every copy of `bytes` in the files of a folder and those below it; how many there were.
/// Some stores keep more than one copy.
pub(super) fn flip(folder: &Path, bytes: &[u8]) -> io::Result<usize> {
    let mut flipped = 0;
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            flipped += flip(&path, bytes)?;
        } else if path.is_file() {
            let file = OpenOptions::new().read(true).write(true).open(path)?;
            for at in places(&file, bytes)? {
                let at = at + bytes.len() as u64 / 2;
                let mut byte = [0];
                file.read_exact_at(&mut byte, at)?;
                file.write_all_at(&[byte[0] ^ 0x10], at)?;
                flipped += 1;
            }
        }
    }
    Ok(flipped)
}

/// Where `bytes` begin in a file, read in chunks that overlap by one byte less than they have.
fn places(file: &File, bytes: &[u8]) -> io::Result<Vec<u64>> {
    let len = file.metadata()?.len();
    let mut found = Vec::new();
    let mut chunk = vec![0; CHUNK + bytes.len() - 1];
    for start in (0..len).step_by(CHUNK) {
        let end = (len - start).min(chunk.len() as u64) as usize;
        file.read_exact_at(&mut chunk[..end], start)?;
        let places = chunk[..end].windows(bytes.len()).enumerate();
        let places = places.filter(|(_, window)| window[0] == bytes[0] && *window == bytes);
        found.extend(places.map(|(at, _)| start + at as u64));
    }
    Ok(found)
}
