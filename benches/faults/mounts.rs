//! File systems of the run's own, which need root. They are mounted in a mount namespace of the run's own (the program
//! runs itself through `unshare`), so that the kernel unmounts them when it is gone, however it went.

use super::process::text;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Whether this process may mount.
pub(crate) fn may_mount() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0)
}

/// The words that run a program in a mount namespace of its own.
pub(crate) const APART: [&str; 4] = ["unshare", "--mount", "--propagation", "private"];

/// Something mounted, until it is dropped.
pub(super) struct Mount(PathBuf);

impl Mount {
    /// The ext4 of an image file.
    pub(super) fn image(image: &Path, at: &Path) -> Result<Mount, String> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "ext4", "-o", "loop"]).arg(image);
        Mount::new(mount, at)
    }

    /// A file system in memory with room for so many bytes.
    pub(super) fn memory(bytes: u64, at: &Path) -> Result<Mount, String> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"]);
        Mount::new(mount, at)
    }

    fn new(mut mount: Command, at: &Path) -> Result<Mount, String> {
        std::fs::create_dir_all(at).map_err(text)?;
        run(mount.arg(at))?;
        Ok(Mount(at.to_owned()))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Cuts the power: from now on nothing reaches the device, what waits for it is gone, and every call fails. It is
    /// the ioctl FS_IOC_SHUTDOWN with the flag NOLOGFLUSH; Python makes it, since Rust has no safe call for it.
    pub(super) fn cut(&self) -> Result<(), String> {
        const SHUTDOWN: &str = "import fcntl, os, struct, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))";
        run(Command::new("python3").args(["-c", SHUTDOWN]).arg(&self.0))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if run(Command::new("umount").arg(&self.0)).is_err() {
            // Somebody still has a file open there: out of sight now, and gone with the last of them.
            drop(run(Command::new("umount").arg("-l").arg(&self.0)));
        }
    }
}

/// Makes a file of so many bytes, none of them on disk yet, with an empty ext4 in it.
pub(super) fn format(image: &Path, bytes: u64) -> Result<(), String> {
    let file = File::create(image).map_err(text)?;
    file.set_len(bytes).map_err(text)?;
    run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(image))
}

fn run(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{name}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}
