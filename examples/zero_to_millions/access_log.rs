//! Reads an access log, plain or gzip, into requests; bad lines are counted and never fatal.

use crate::line::{self, Format, Line, Stamp};
use flate2::bufread::MultiGzDecoder;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// One request, with its strings interned by the [`Sink`] that takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request<'a> {
    /// Seconds on the log's own time line; only differences mean something.
    pub(crate) second: i64,
    /// Who asked.
    pub(crate) host: &'a [u8],
    /// What was asked for.
    pub(crate) target: &'a [u8],
    /// Whether the method changes something: neither GET, HEAD nor OPTIONS.
    pub(crate) writes: bool,
    /// The answer's status.
    pub(crate) status: u16,
    /// The answer's size.
    pub(crate) bytes: u64,
}

/// Where requests go, in the order of the log.
pub(crate) trait Sink {
    /// Takes one request; false when it is full, and the request is only counted.
    fn take(&mut self, request: Request<'_>) -> bool;
}

/// What reading a log found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Count {
    /// All lines.
    pub(crate) lines: u64,
    /// Lines in no known format, longer than 64 KiB, or blank.
    pub(crate) malformed: u64,
    /// Well-formed lines that were over the limit of requests kept.
    pub(crate) skipped: u64,
    /// Lines in the Common Log Format.
    pub(crate) common: u64,
    /// Lines in the Combined Log Format.
    pub(crate) combined: u64,
    /// Lines in the format of the EPA-HTTP log.
    pub(crate) epa: u64,
}

/// Why a log cannot be used at all.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum LogError {
    #[error("{}: no such file", .0.display())]
    Missing(PathBuf),
    #[error("{}: is a directory, not a log file", .0.display())]
    Directory(PathBuf),
    #[error("{}: the file is empty", .0.display())]
    Empty(PathBuf),
    #[error("{}: the gzip data ends in the middle, after {lines} lines", path.display())]
    Truncated { path: PathBuf, lines: u64 },
    #[error("{}: the gzip data is damaged after {lines} lines ({why})", path.display())]
    Damaged { path: PathBuf, lines: u64, why: String },
    #[error("{}: none of its {lines} lines is in the Common, Combined or EPA format", path.display())]
    NoUsableLine { path: PathBuf, lines: u64 },
    #[error("{}: {why}", path.display())]
    Io { path: PathBuf, why: io::Error },
}

/// Reads the log at `path` into `sink`.
///
/// # Errors
/// When nothing can be replayed from it; see [`LogError`].
pub(crate) fn read(path: &Path, sink: &mut impl Sink) -> Result<Count, LogError> {
    let io_error = |why: io::Error| match why.kind() {
        io::ErrorKind::NotFound => LogError::Missing(path.to_owned()),
        io::ErrorKind::IsADirectory => LogError::Directory(path.to_owned()),
        _ => LogError::Io {
            path: path.to_owned(),
            why,
        },
    };
    let file = File::open(path).map_err(io_error)?;
    if file.metadata().map_err(io_error)?.is_dir() {
        return Err(LogError::Directory(path.to_owned()));
    }
    let mut plain = BufReader::with_capacity(BUFFER, file);
    let gzip = plain.fill_buf().map_err(io_error)?.starts_with(&GZIP_MAGIC);
    let mut count = Count::default();
    let done = if gzip {
        read_lines(
            BufReader::with_capacity(BUFFER, MultiGzDecoder::new(plain)),
            sink,
            &mut count,
        )
    } else {
        read_lines(plain, sink, &mut count)
    };
    let (path, lines) = (path.to_owned(), count.lines);
    match done {
        Err(why) if gzip && why.kind() == io::ErrorKind::UnexpectedEof => Err(LogError::Truncated { path, lines }),
        Err(why) if gzip && matches!(why.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => {
            let why = why.to_string();
            Err(LogError::Damaged { path, lines, why })
        }
        Err(why) => Err(LogError::Io { path, why }),
        Ok(()) if lines == 0 => Err(LogError::Empty(path)),
        Ok(()) if lines == count.malformed => Err(LogError::NoUsableLine { path, lines }),
        Ok(()) => Ok(count),
    }
}

fn read_lines(mut input: impl BufRead, sink: &mut impl Sink, count: &mut Count) -> io::Result<()> {
    let mut line = Vec::with_capacity(1024);
    let mut months = Months::default();
    while let Some(whole) = next_line(&mut input, &mut line)? {
        count.lines += 1;
        match line::parse(&line).filter(|_| whole) {
            Some(parsed) => {
                count.format(parsed.format);
                let request = request(&parsed, &mut months);
                count.skipped += u64::from(!sink.take(request));
            }
            None => count.malformed += 1,
        }
    }
    Ok(())
}

/// Puts the next line into `line`, without its end; false when it was too long to keep, `None` at the end.
fn next_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Option<bool>> {
    line.clear();
    let mut whole = true;
    let mut started = false;
    loop {
        let buffer = input.fill_buf()?;
        if buffer.is_empty() {
            return Ok(started.then_some(whole));
        }
        started = true;
        let end = buffer.iter().position(|&b| b == b'\n');
        let part = &buffer[..end.unwrap_or(buffer.len())];
        whole &= line.len() + part.len() <= LINE_LIMIT;
        if whole {
            line.extend_from_slice(part);
        }
        let used = part.len() + usize::from(end.is_some());
        input.consume(used);
        if end.is_some() {
            return Ok(Some(whole));
        }
    }
}

fn request<'a>(line: &Line<'a>, months: &mut Months) -> Request<'a> {
    Request {
        second: months.second(line.stamp),
        host: line.host,
        target: line.target,
        writes: !matches!(line.method, b"" | b"GET" | b"HEAD" | b"OPTIONS"),
        status: line.status,
        bytes: line.bytes,
    }
}

impl Count {
    fn format(&mut self, format: Format) {
        match format {
            Format::Common => self.common += 1,
            Format::Combined => self.combined += 1,
            Format::Epa => self.epa += 1,
        }
    }
}

/// Turns days of a month into days of the log.
///
/// Nothing tells which month it is. A day that falls by more than half a month is taken as the next month, which
/// starts right after the highest day seen in this one; a day that rises as much is a late line of the month before.
#[derive(Debug, Default)]
struct Months {
    /// Days of the log before the first of this month and of the month before.
    starts: i64,
    started: Option<i64>,
    /// The highest day seen in this month.
    highest: u8,
}

impl Months {
    fn second(&mut self, stamp: Stamp) -> i64 {
        match stamp {
            Stamp::Unix(second) => second,
            Stamp::DayOfMonth { day, second } => (self.days_before(day) + i64::from(day)) * 86_400 + i64::from(second),
        }
    }

    fn days_before(&mut self, day: u8) -> i64 {
        if day + HALF_MONTH < self.highest {
            self.started = Some(self.starts);
            self.starts += i64::from(self.highest);
            self.highest = day;
        } else if let Some(before) = self.started.filter(|_| self.highest + HALF_MONTH < day) {
            return before;
        }
        self.highest = self.highest.max(day);
        self.starts
    }
}

const HALF_MONTH: u8 = 15;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const BUFFER: usize = 1 << 16;
/// Longer lines are malformed: servers cut a request line at 8 to 16 KiB.
const LINE_LIMIT: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;
    use std::io::Write;

    /// Keeps what the tests look at.
    #[derive(Default)]
    struct Kept(Vec<(i64, Vec<u8>, bool)>);

    impl Sink for Kept {
        fn take(&mut self, request: Request<'_>) -> bool {
            self.0.push((request.second, request.target.to_vec(), request.writes));
            true
        }
    }

    fn lines(text: &[u8]) -> (Count, Kept) {
        let (mut count, mut kept) = (Count::default(), Kept::default());
        // A small buffer, so that lines cross its edges.
        read_lines(BufReader::with_capacity(7, text), &mut kept, &mut count).expect("memory can be read");
        (count, kept)
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).expect("memory can be written");
        encoder.finish().expect("memory can be written")
    }

    fn file(name: &str, bytes: &[u8]) -> (PathBuf, Result<Count, LogError>) {
        let path = std::env::temp_dir().join(format!("outgrow-access-log-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).expect("the temporary folder can be written");
        let count = read(&path, &mut Kept::default());
        std::fs::remove_file(&path).expect("the file was just written");
        (path, count)
    }

    const LINE: &[u8] = b"a [01:00:00:00] \"GET / HTTP/1.0\" 200 5\n";

    #[test]
    fn counts_every_line_and_keeps_odd_bytes() {
        let long = [
            b"a [01:00:00:00] \"GET /",
            vec![b'x'; LINE_LIMIT].as_slice(),
            b"\" 200 5\n",
        ]
        .concat();
        let text = [
            LINE,
            b"\n",
            b"rubbish\r\n",
            &long,
            b"b [01:00:00:01] \"POST /\xff\" 200 -\r\n",
            b"c - - [01/Jan/1970:00:00:07 +0000] \"GET / HTTP/1.0\" 200 1",
        ];
        let (count, kept) = lines(&text.concat());
        let want = Count {
            lines: 6,
            malformed: 3,
            skipped: 0,
            common: 1,
            combined: 0,
            epa: 2,
        };
        assert_eq!(count, want);
        assert_eq!(kept.0[1], (86_401, b"/\xff".to_vec(), true));
        assert_eq!(kept.0[2], (7, b"/".to_vec(), false));
    }

    #[test]
    fn days_of_the_month_go_on_over_its_end() {
        let mut months = Months::default();
        let mut day = |day| months.second(Stamp::DayOfMonth { day, second: 0 }) / 86_400;
        assert_eq!(
            [30, 31, 1, 31, 2, 16, 30, 1].map(&mut day),
            [30, 31, 32, 31, 33, 47, 61, 62]
        );
    }

    #[test]
    fn plain_and_gzip_of_one_or_more_members_read_alike() {
        let (_, plain) = file("plain", &LINE.repeat(3));
        let (_, zipped) = file("gz", &gzip(&LINE.repeat(3)));
        let (_, members) = file("members", &[gzip(LINE), gzip(&LINE.repeat(2))].concat());
        for count in [plain, zipped, members] {
            assert_eq!(count.expect("a good log").epa, 3);
        }
    }

    #[test]
    fn each_useless_input_has_its_own_error() {
        let folder = std::env::temp_dir();
        assert!(matches!(
            read(&folder, &mut Kept::default()),
            Err(LogError::Directory(_))
        ));
        assert!(matches!(
            read(&folder.join("no such log"), &mut Kept::default()),
            Err(LogError::Missing(_))
        ));
        assert!(matches!(file("empty", b"").1, Err(LogError::Empty(_))));
        assert!(matches!(file("empty.gz", &gzip(b"")).1, Err(LogError::Empty(_))));
        assert!(matches!(
            file("useless", b"a\nb\n").1,
            Err(LogError::NoUsableLine { lines: 2, .. })
        ));
        let mut zipped = gzip(&LINE.repeat(10_000));
        let half = &zipped[..zipped.len() - 9];
        assert!(matches!(
            file("half.gz", half).1,
            Err(LogError::Truncated { lines: 1.., .. })
        ));
        assert!(matches!(
            file("stub.gz", &zipped[..5]).1,
            Err(LogError::Truncated { lines: 0, .. })
        ));
        let end = zipped.len() - 6;
        zipped[end] ^= 1;
        assert!(matches!(file("damaged.gz", &zipped).1, Err(LogError::Damaged { .. })));
    }

    proptest! {
        #[test]
        fn no_bytes_are_fatal(text in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let (count, kept) = lines(&text);
            let newlines = text.iter().filter(|&&b| b == b'\n').count() as u64;
            let rest = u64::from(text.last().is_some_and(|&b| b != b'\n'));
            prop_assert_eq!(count.lines, newlines + rest);
            prop_assert_eq!(count.malformed + kept.0.len() as u64, count.lines);
        }
    }
}
