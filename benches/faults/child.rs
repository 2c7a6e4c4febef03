//! The child's half: a process of its own that opens one store and writes to it, or reads it, and says what it does by
//! lines over a connection to its parent. It writes to nothing else, so that faults injected into its system calls for
//! files hit the store alone. When the parent closes the connection, or is gone, the child ends.

use super::drivers::{Found, Kind};
use super::payload::{number, payload};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::mpsc::{self, Receiver};

/// What a child is to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Job {
    /// The first message's number.
    pub(crate) first: u64,
    /// How many messages, and again as many whenever the parent sends a byte.
    pub(crate) count: u64,
    /// Bytes of each.
    pub(crate) size: usize,
}

/// How many sends are tried after one that failed.
const TRIES: u64 = 20;

/// The line that says so.
pub(super) const OPENED: &str = "opened";
/// The line after which the child waits.
pub(super) const WAITS: &str = "waits";
/// The line after which nothing comes.
pub(super) const DONE: &str = "done";

struct Parent(TcpStream);

impl Parent {
    fn say(&mut self, line: &str) {
        // The parent reads lines.
        let line = format!("{}\n", line.replace('\n', " "));
        if self.0.write_all(line.as_bytes()).is_err() {
            std::process::exit(3);
        }
    }
}

/// Connects to the parent, and has a thread end this process when the parent has nothing more to say.
fn connect(port: u16) -> (Parent, Receiver<()>) {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("the parent listens");
    stream.set_nodelay(true).expect("a socket has options");
    let mut commands = stream.try_clone().expect("a socket can be cloned");
    let (more, asked) = mpsc::channel();
    std::thread::spawn(move || {
        let mut byte = [0];
        while matches!(commands.read(&mut byte), Ok(1)) {
            let _writer_gone = more.send(());
        }
        std::process::exit(0);
    });
    (Parent(stream), asked)
}

/// Sends messages, says of each whether it was taken, and tries some more after the first that was not. Then it waits,
/// the store still open.
pub(crate) fn write(kind: &Kind, dir: &Path, port: u16, job: Job) {
    let (mut parent, asked) = connect(port);
    let mut store = match (kind.open)(dir) {
        Ok(store) => store,
        Err(why) => return parent.say(&format!("refused {why}")),
    };
    parent.say(OPENED);
    let mut next = job.first;
    loop {
        let mut tries = None;
        let end = next + job.count;
        while next < end && tries != Some(0) {
            match store.send(&payload(next, job.size)) {
                Ok(()) => parent.say(&format!("acked {next}")),
                Err(why) => {
                    parent.say(&format!("failed {next} {why}"));
                    if tries.is_none() {
                        tries = Some(TRIES);
                        match store.remove() {
                            Some(Ok(())) => parent.say("removed"),
                            Some(Err(why)) => parent.say(&format!("kept {why}")),
                            None => {}
                        }
                    }
                }
            }
            tries = tries.map(|left| left - 1);
            next += 1;
        }
        parent.say(WAITS);
        if asked.recv().is_err() {
            return;
        }
    }
}

/// Reads everything, and says which messages are there.
pub(crate) fn read(kind: &Kind, dir: &Path, port: u16) {
    let (mut parent, _asked) = connect(port);
    let read = (kind.read)(dir, &mut |found| match found {
        Found::Message(bytes) => match number(&bytes) {
            Some(n) => parent.say(&format!("has {n}")),
            None => parent.say("wrong"),
        },
        Found::Report(why) => parent.say(&format!("reports {why}")),
    });
    if let Err(why) = read {
        parent.say(&format!("reports {why}"));
    }
    parent.say(DONE);
    // The line gets through before this process ends.
    drop(parent.0.shutdown(std::net::Shutdown::Write));
}
