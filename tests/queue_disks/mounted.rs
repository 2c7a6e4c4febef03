//! File systems in files, mounted for one test by who may mount.

use crate::support;
use crate::talk::TempDir;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

#[derive(Clone, Copy, Debug)]
pub(crate) enum FileSystem {
    Ext4,
    Xfs,
}

impl FileSystem {
    pub(crate) fn name(self) -> &'static str {
        match self {
            FileSystem::Ext4 => "ext4",
            FileSystem::Xfs => "xfs",
        }
    }

    fn make(self) -> &'static str {
        match self {
            FileSystem::Ext4 => "mkfs.ext4",
            FileSystem::Xfs => "mkfs.xfs",
        }
    }
}

/// A mounted file system, which is gone with this.
pub(crate) struct Mounted {
    dir: TempDir,
    /// Whether the image lies on a small file system in memory.
    thin: bool,
    mounted: bool,
}

impl Mounted {
    /// A file system of `bytes` in a sparse file. None where nothing can be mounted, which is reported.
    pub(crate) fn image(kind: FileSystem, bytes: u64) -> Option<Mounted> {
        support::need(kind.make())?;
        support::need("xfs_io")?;
        may_mount()?;
        let mut mounted = Mounted::new(kind.name());
        mounted.make_image(kind, bytes);
        mounted.mount_image();
        Some(mounted)
    }

    /// A file system that believes to have `bytes`, of which only `room` are there.
    pub(crate) fn thin(kind: FileSystem, room: u64, bytes: u64) -> Option<Mounted> {
        support::need(kind.make())?;
        may_mount()?;
        let mut mounted = Mounted::new("thin");
        mounted.thin = true;
        let below = mounted.below();
        run(
            "mount",
            &["-t", "tmpfs", "-o", &format!("size={room}"), "tmpfs", &text(&below)],
        );
        mounted.make_image(kind, bytes);
        mounted.mount_image();
        Some(mounted)
    }

    /// A file system in memory.
    pub(crate) fn tmpfs(bytes: u64) -> Option<Mounted> {
        may_mount()?;
        let mut mounted = Mounted::new("tmpfs");
        let at = text(&mounted.path());
        run("mount", &["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs", &at]);
        mounted.mounted = true;
        Some(mounted)
    }

    fn new(what: &str) -> Mounted {
        let dir = TempDir::new(&format!("disk-{what}"));
        for sub in ["below", "at"] {
            std::fs::create_dir_all(dir.0.join(sub)).expect("a folder can be made");
        }
        Mounted {
            dir,
            thin: false,
            mounted: false,
        }
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.0.join("at")
    }

    fn below(&self) -> PathBuf {
        self.dir.0.join("below")
    }

    fn image_path(&self) -> PathBuf {
        self.below().join("image")
    }

    fn make_image(&self, kind: FileSystem, bytes: u64) {
        let file = std::fs::File::create(self.image_path()).expect("an image can be made");
        file.set_len(bytes).expect("a sparse file takes no room");
        run(kind.make(), &["-q", &text(&self.image_path())]);
    }

    fn mount_image(&mut self) {
        run("mount", &["-o", "loop", &text(&self.image_path()), &text(&self.path())]);
        self.mounted = true;
    }

    /// What was not synced is lost, and nothing works any more until it is mounted again.
    pub(crate) fn cut_power(&self) {
        run("xfs_io", &["-x", "-F", "-c", "shutdown", &text(&self.path())]);
    }

    /// Gives a thin one what it believes to have.
    pub(crate) fn make_room(&self, bytes: u64) {
        run("mount", &["-o", &format!("remount,size={bytes}"), &text(&self.below())]);
    }

    pub(crate) fn mount_again(&mut self) {
        run("umount", &[&text(&self.path())]);
        self.mounted = false;
        self.mount_image();
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.mounted {
            quietly("umount", &["-l", &text(&self.path())]);
        }
        if self.thin {
            quietly("umount", &["-l", &text(&self.below())]);
        }
    }
}

/// None where this process may not mount, which is reported: it takes root, and a container may forbid it all the same.
#[track_caller]
fn may_mount() -> Option<()> {
    let dir = TempDir::new("may-mount");
    let at = text(&dir.0);
    let allowed = quietly("mount", &["-t", "tmpfs", "-o", "size=64k", "tmpfs", &at]);
    if allowed {
        run("umount", &[&at]);
    }
    let loops = allowed && Path::new("/dev/loop-control").exists();
    if !loops {
        support::may_not("mount file systems");
    }
    loops.then_some(())
}

fn text(path: &Path) -> String {
    path.to_str().expect("a temporary folder has a plain name").to_owned()
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn quietly(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    let status = command
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}
