//! Which process has a directory open.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A process that has the lock of a directory.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    pid: u32,
    name: Option<String>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "process {} ({name})", self.pid),
            None => write!(f, "process {}", self.pid),
        }
    }
}

/// The process that holds `dir`, where the system lists its locks (Linux) and shows that process to this one.
pub(crate) fn of(dir: &Path) -> Option<Holder> {
    let meta = std::fs::metadata(dir).ok()?;
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let pid = holder(&locks, meta.dev(), meta.ino())?;
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok();
    Some(Holder {
        pid,
        name: name.map(|name| name.trim_end().to_owned()),
    })
}

/// The process that holds a lock by `flock` on an inode, of lines like
/// `1: FLOCK  ADVISORY  WRITE 4711 fe:01:393217 0 EOF`. Those that wait for it have an arrow behind the number.
fn holder(locks: &str, dev: u64, inode: u64) -> Option<u32> {
    // How the kernel's library packs a device's numbers for programs (`makedev` in the C library).
    let major = (dev >> 8 & 0xfff) | (dev >> 32 & !0xfff);
    let minor = (dev & 0xff) | (dev >> 12 & !0xff);
    let place = format!("{major:02x}:{minor:02x}:{inode}");
    locks.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        if words.next()? != "FLOCK" {
            return None;
        }
        let (pid, at) = (words.nth(2)?, words.next()?);
        (at == place).then(|| pid.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCKS: &str = "\
1: POSIX  ADVISORY  WRITE 11 fe:01:77 0 EOF
2: FLOCK  ADVISORY  WRITE 4711 fe:01:77 0 EOF
2: -> FLOCK  ADVISORY  WRITE 12 fe:01:77 0 EOF
3: FLOCK  ADVISORY  READ 13 00:2f:99 0 EOF
";

    #[test]
    fn a_holder_is_found_by_device_and_inode() {
        let dev = |major: u64, minor: u64| (major & 0xfff) << 8 | (minor & 0xff) | (minor & !0xff) << 12;
        assert_eq!(holder(LOCKS, dev(0xfe, 1), 77), Some(4711));
        assert_eq!(holder(LOCKS, dev(0, 0x2f), 99), Some(13));
        assert_eq!(holder(LOCKS, dev(0xfe, 2), 77), None);
        assert_eq!(holder(LOCKS, dev(0xfe, 1), 7), None);
        assert_eq!(holder("nonsense\n\n1:", dev(0xfe, 1), 77), None);
    }
}
