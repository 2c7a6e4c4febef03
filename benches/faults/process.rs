//! The parent's half of a child: it is started, listened to, and ended with whoever holds it.

use super::child::Job;
use super::drivers::Kind;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a child may say nothing until it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(15);

/// What a child says next.
#[derive(Debug)]
pub(super) enum Said {
    Line(String),
    /// It is gone.
    Ended,
    /// It says nothing.
    Silent,
}

pub(super) struct Process {
    child: Child,
    lines: BufReader<TcpStream>,
}

impl Process {
    /// Has a child do `role` with a store in `dir`, run by the program and arguments of `through`, if any.
    pub(super) fn start(
        role: &str,
        kind: &Kind,
        dir: &Path,
        job: Job,
        through: &[OsString],
    ) -> Result<Process, String> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(text)?;
        let port = listener.local_addr().map_err(text)?.port();
        let me = std::env::current_exe().map_err(text)?;
        let mut command = match through {
            [] => Command::new(me),
            [program, words @ ..] => {
                let mut command = Command::new(program);
                command.args(words).arg(me);
                command
            }
        };
        let child = command
            .args([role, kind.name])
            .arg(dir)
            .arg(port.to_string())
            .args([job.first.to_string(), job.count.to_string(), job.size.to_string()])
            // Some stores keep their files where they are told to by this, or else in the working directory.
            .current_dir(dir)
            .env("WALRUS_DATA_DIR", dir.join("walrus"))
            .env("WALRUS_QUIET", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(text)?;
        accept(&listener, child)
    }

    pub(super) fn next(&mut self) -> Said {
        let mut line = String::new();
        match self.lines.read_line(&mut line) {
            Ok(0) => Said::Ended,
            Ok(_) => Said::Line(line.trim_end().to_owned()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Said::Silent,
            Err(_) => Said::Ended,
        }
    }

    /// Has a child that waits do as much again.
    pub(super) fn more(&mut self) {
        drop(self.lines.get_mut().write_all(b"m"));
    }

    /// SIGKILL. What it said before can still be listened to.
    pub(super) fn kill(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// Has it end without closing anything, and waits until it has.
    pub(super) fn end(mut self) -> Option<ExitStatus> {
        drop(self.lines.get_ref().shutdown(Shutdown::Write));
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        None
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn accept(listener: &TcpListener, mut child: Child) -> Result<Process, String> {
    listener.set_nonblocking(true).map_err(text)?;
    let start = Instant::now();
    let stream = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(text(error)),
        }
        if let Some(status) = child.try_wait().map_err(text)? {
            return Err(format!("the child ended before it said anything: {status}"));
        }
        if start.elapsed() > PATIENCE {
            drop(child.kill());
            drop(child.wait());
            return Err("the child does not connect".to_owned());
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    stream.set_nonblocking(false).map_err(text)?;
    stream.set_nodelay(true).map_err(text)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(text)?;
    let lines = BufReader::new(stream);
    Ok(Process { child, lines })
}

pub(super) fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
