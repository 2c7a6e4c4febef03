//! The faults, each done to one store: what came of it in a few words, or why this machine cannot do it.

use super::child::Job;
use super::drivers::Kind;
use super::ledger::{Contents, End, Written, short};
use super::mounts::{Mount, format, may_mount};
use super::payload::payload;
use super::process::{Process, text};
use super::{files, mounts};
use crate::place::{Dir, find};
use outgrow::env::Env;
use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::path::Path;

/// What heads a column, and what fills it.
pub(crate) type Column = (&'static str, fn(&Kind, quick: bool) -> Result<String, String>);

pub(crate) const COLUMNS: [Column; 6] = [
    ("killed, again and again", killed),
    ("power cut (ext4)", power_cut),
    ("a bit of message 200 of 400 flipped", flipped),
    ("disk full after message 150", full),
    ("the 100th sync fails once", failed_sync),
    ("a second process", second_process),
];

pub(crate) use mounts::{APART, may_mount as is_root};

const SMALL: usize = 100;
/// So much that files made ahead are used up soon.
const LARGE: usize = 64 << 10;
const MESSAGES: u64 = 400;

fn job(first: u64, count: u64, size: usize) -> Job {
    Job { first, count, size }
}

fn write(kind: &Kind, dir: &Path, job: Job) -> Result<Process, String> {
    Process::start("write", kind, dir, job, &[])
}

/// Opens what a child has left and reads it, in another.
fn read(kind: &Kind, dir: &Path) -> Result<Contents, String> {
    let mut reader = Process::start("read", kind, dir, job(0, 0, 0), &[])?;
    let contents = Contents::listen(&mut reader);
    reader.end();
    Ok(contents)
}

/// Writes the messages into a store and leaves it as it is, as when a process is killed.
fn fill(kind: &Kind, dir: &Path) -> Result<(Written, Process), String> {
    let mut written = Written::default();
    let mut writer = write(kind, dir, job(0, MESSAGES, SMALL))?;
    let end = written.listen(&mut writer, |_| false);
    match (end, &written.failed, &written.refused) {
        (End::Waits, None, None) => Ok((written, writer)),
        (_, failed, refused) => Err(format!("without any fault: {failed:?} {refused:?} {end:?}")),
    }
}

/// SIGKILL in the middle of sending, and again after it was opened anew.
fn killed(kind: &Kind, quick: bool) -> Result<String, String> {
    let dir = Dir::new("killed");
    let mut rng = Env::system().rng("kills");
    let mut written = Written::default();
    let kills = if quick { 3 } else { 20 };
    for round in 0..kills {
        let mut writer = write(kind, dir.path(), job(round * 1_000_000, 1_000_000, SMALL))?;
        let enough = written.acked.len() + 50 + rng.below(250) as usize;
        let end = written.listen(&mut writer, |written| written.acked.len() >= enough);
        writer.kill();
        // What it said before it was killed counts too.
        written.listen(&mut writer, |_| false);
        if end != End::Enough {
            let why = written.refused.or(written.failed).unwrap_or_default();
            return Ok(format!("does not go on after kill {round}: {}", short(&why)));
        }
    }
    Ok(read(kind, dir.path())?.verdict(&written.safe()))
}

/// The machine loses everything that was not synced.
fn power_cut(kind: &Kind, _quick: bool) -> Result<String, String> {
    if !may_mount() {
        return Err("only root may mount".to_owned());
    }
    let dir = Dir::new("power-cut");
    let (image, at) = (dir.path().join("image"), dir.path().join("disk"));
    format(&image, 1 << 30)?;
    let disk = Mount::image(&image, &at)?;
    let (written, mut writer) = fill(kind, disk.path())?;
    disk.cut()?;
    writer.kill();
    drop(disk);
    let disk = Mount::image(&image, &at)?;
    let contents = read(kind, disk.path())?;
    Ok(contents.verdict(&written.safe()))
}

/// A bit changes on disk while nobody has the store open.
fn flipped(kind: &Kind, _quick: bool) -> Result<String, String> {
    let dir = Dir::new("flipped");
    let (written, writer) = fill(kind, dir.path())?;
    writer.end();
    let copies = files::flip(dir.path(), &payload(MESSAGES / 2, SMALL)).map_err(text)?;
    if copies == 0 {
        return Err(format!("{} does not keep a message as it is", kind.name));
    }
    let copies = if copies == 1 {
        String::new()
    } else {
        format!(" (in {copies} copies)")
    };
    Ok(read(kind, dir.path())?.verdict(&written.safe()) + &copies)
}

/// Somebody else fills the disk while the store sends; then there is room again.
fn full(kind: &Kind, _quick: bool) -> Result<String, String> {
    if !may_mount() {
        return Err("only root may mount".to_owned());
    }
    const ROOM: u64 = 320 << 20;
    let dir = Dir::new("full");
    let disk = Mount::memory(ROOM, &dir.path().join("disk"))?;
    let mut written = Written::default();
    // More than there is room for.
    let mut writer = write(kind, disk.path(), job(0, 2 * ROOM / LARGE as u64, LARGE))?;
    let mut end = written.listen(&mut writer, |written| written.acked.len() >= 150);
    let filler = disk.path().join("filler");
    if end == End::Enough {
        take_all(&filler).map_err(text)?;
        end = written.listen(&mut writer, |_| false);
    }
    writer.end();
    drop(std::fs::remove_file(filler));
    let failed = how_it_failed(&written, end);
    let removed = match written.removed {
        Some(true) => ", can still remove",
        Some(false) => ", cannot remove either",
        None => "",
    };
    let verdict = read(kind, disk.path())?.verdict(&written.safe());
    Ok(format!("{failed}{removed}; {verdict}"))
}

/// Writes until there is no room.
fn take_all(filler: &Path) -> std::io::Result<()> {
    let mut file = File::create(filler)?;
    let zeros = vec![0; 64 << 10];
    while file.write_all(&zeros).is_ok() {}
    // The last pages, by pages.
    while file.write_all(&zeros[..4_096]).is_ok() {}
    Ok(())
}

fn how_it_failed(written: &Written, end: End) -> String {
    match (end, &written.failed) {
        (End::Silent, _) => "HANGS".to_owned(),
        (End::Ended, _) => "the process dies".to_owned(),
        (_, None) => "no error".to_owned(),
        (_, Some(why)) => match written.acked_after {
            0 => format!("error ({}), then refuses", short(why)),
            more => format!("error ({}), then takes {more} more", short(why)),
        },
    }
}

/// A sync of the store's files returns an error, once; those after it succeed, as Linux has it.
fn failed_sync(kind: &Kind, _quick: bool) -> Result<String, String> {
    let strace = find("strace").ok_or("there is no strace on the search path")?;
    let dir = Dir::new("failed-sync");
    let log = dir.path().join("calls");
    let words = [
        "-f",
        "-qq",
        "-e",
        "trace=fsync,fdatasync,msync,sync_file_range",
        "-e",
        "inject=fsync,fdatasync,msync,sync_file_range:error=EIO:when=100",
        "-o",
    ];
    let mut through = vec![strace.into_os_string()];
    through.extend(words.map(OsString::from));
    through.push(log.clone().into());
    let store = dir.path().join("store");
    std::fs::create_dir_all(&store).map_err(text)?;
    let mut writer = Process::start("write", kind, &store, job(0, MESSAGES, SMALL), &through)?;
    let mut written = Written::default();
    let end = written.listen(&mut writer, |_| false);
    writer.end();
    if !std::fs::read_to_string(&log).map_err(text)?.contains("INJECTED") {
        return Ok("makes no such call".to_owned());
    }
    let verdict = read(kind, &store)?.verdict(&written.safe());
    Ok(format!("{}; {verdict}", how_it_failed(&written, end)))
}

/// Another process opens a store that is open, and both send.
fn second_process(kind: &Kind, _quick: bool) -> Result<String, String> {
    let dir = Dir::new("second");
    let mut written = Written::default();
    let mut one = write(kind, dir.path(), job(0, 20, SMALL))?;
    let opened = written.listen(&mut one, |_| false);
    if opened != End::Waits {
        return Err(format!("without any fault: {opened:?} {written:?}"));
    }
    let mut other = write(kind, dir.path(), job(1_000, 20, SMALL))?;
    let end = written.listen(&mut other, |_| false);
    if let Some(why) = &written.refused {
        return Ok(format!("refused ({})", short(why)));
    }
    if end == End::Silent {
        return Ok("waits for the first".to_owned());
    }
    for process in [&mut one, &mut other] {
        process.more();
        written.listen(process, |_| false);
    }
    one.end();
    other.end();
    let taken = written.acked.len();
    let verdict = read(kind, dir.path())?.verdict(&written.safe());
    Ok(format!("allowed; of {taken} acknowledged {verdict}"))
}
