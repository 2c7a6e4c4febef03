//! Where results go: standard output and files.

use crate::inputs::InputError;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

/// Prints `text`. A reader who has gone away (`| head`) is no error: the files are still wanted.
pub(crate) fn say(text: &str) {
    let _ = io::stdout().lock().write_all(text.as_bytes());
}

/// Makes sure that a file can be written, before the work is done that it is for: creates it and the folders above it
/// and leaves what is in it.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn prepare(path: &Path) -> Result<(), InputError> {
    let folder = path.parent().unwrap_or(Path::new(""));
    std::fs::create_dir_all(folder)
        .and_then(|()| OpenOptions::new().append(true).create(true).open(path))
        .map_err(|why| failed(path, why))
        .map(drop)
}

/// Writes a file that was [prepared](prepare).
///
/// # Errors
/// When it cannot be written after all.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), InputError> {
    std::fs::write(path, text).map_err(|why| failed(path, why))
}

fn failed(path: &Path, why: io::Error) -> InputError {
    InputError::Io {
        path: path.to_owned(),
        why,
    }
}
