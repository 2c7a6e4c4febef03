//! A name server on loopback that says what a test wants.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub(crate) const A: u16 = 1;
const CNAME: u16 = 5;
const SOA: u16 = 6;
pub(crate) const AAAA: u16 = 28;
pub(crate) const SRV: u16 = 33;

/// A record: its own name if that is another than the question's, its type, its time to live and its data.
#[derive(Clone)]
pub(crate) struct Record {
    name: Option<String>,
    kind: u16,
    ttl: u32,
    data: Vec<u8>,
}

pub(crate) fn address(ip: &str, ttl: u32) -> Record {
    let (kind, data) = match ip.parse().unwrap() {
        IpAddr::V4(ip) => (A, ip.octets().to_vec()),
        IpAddr::V6(ip) => (AAAA, ip.octets().to_vec()),
    };
    let name = None;
    Record { name, kind, ttl, data }
}

pub(crate) fn cname(to: &str, ttl: u32) -> Record {
    let (name, kind, data) = (None, CNAME, labels(to));
    Record { name, kind, ttl, data }
}

pub(crate) fn srv(priority: u16, weight: u16, port: u16, target: &str, ttl: u32) -> Record {
    let mut data: Vec<u8> = [priority, weight, port].map(u16::to_be_bytes).concat();
    data.extend(labels(target));
    let (name, kind) = (None, SRV);
    Record { name, kind, ttl, data }
}

impl Record {
    pub(crate) fn of(mut self, name: &str) -> Record {
        self.name = Some(name.to_owned());
        self
    }
}

/// What the server does with a question.
#[derive(Clone)]
pub(crate) enum Answer {
    Records(Vec<Record>),
    /// There is nothing, for this many seconds.
    Nothing(u32),
    /// There is no such name, for this many seconds.
    NoName(u32),
    Fails,
    Silence,
}

#[derive(Default)]
struct State {
    answers: BTreeMap<(String, u16), Answer>,
    silent: bool,
    asked: Vec<(String, u16, Instant)>,
}

pub(crate) struct Server {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start() -> Server {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let (state, stop) = (Arc::<Mutex<State>>::default(), Arc::<AtomicBool>::default());
        Server {
            address: socket.local_addr().unwrap(),
            state: Arc::clone(&state),
            stop: Arc::clone(&stop),
            thread: Some(std::thread::spawn(move || serve(&socket, &state, &stop))),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers questions for this name and type so from now on.
    pub(crate) fn say(&self, name: &str, kind: u16, answer: Answer) {
        self.state
            .lock()
            .unwrap()
            .answers
            .insert((name.to_owned(), kind), answer);
    }

    pub(crate) fn be_silent(&self, silent: bool) {
        self.state.lock().unwrap().silent = silent;
    }

    /// When it was asked for this name and type.
    pub(crate) fn asked(&self, name: &str, kind: u16) -> Vec<Instant> {
        let state = self.state.lock().unwrap();
        let of = state.asked.iter().filter(|(n, k, _)| n == name && *k == kind);
        of.map(|(_, _, at)| *at).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
        let served = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            served.unwrap().unwrap();
        }
    }
}

fn serve(socket: &UdpSocket, state: &Mutex<State>, stop: &AtomicBool) {
    let mut packet = [0; 1_500];
    while !stop.load(SeqCst) {
        let Ok((length, from)) = socket.recv_from(&mut packet) else {
            continue;
        };
        let question = &packet[..length];
        let (name, kind, end) = asked(question);
        let mut state = state.lock().unwrap();
        state.asked.push((name.clone(), kind, Instant::now()));
        let answer = state.answers.get(&(name.clone(), kind)).cloned();
        let answer = answer.unwrap_or(if state.answers.keys().any(|(known, _)| *known == name) {
            Answer::Nothing(1)
        } else {
            Answer::NoName(1)
        });
        if !state.silent
            && let Some(reply) = reply(&question[..end], &answer)
        {
            socket.send_to(&reply, from).unwrap();
        }
    }
}

/// The name and type of the one question in a packet, and where it ends.
fn asked(packet: &[u8]) -> (String, u16, usize) {
    let mut name = String::new();
    let mut at = 12;
    while packet[at] != 0 {
        let end = at + 1 + packet[at] as usize;
        name += &String::from_utf8_lossy(&packet[at + 1..end]).to_lowercase();
        name += ".";
        at = end;
    }
    (name, u16::from_be_bytes([packet[at + 1], packet[at + 2]]), at + 5)
}

/// The answer to a packet that has a header and a question (RFC 1035, section 4).
fn reply(question: &[u8], answer: &Answer) -> Option<Vec<u8>> {
    let none: &[Record] = &[];
    let (code, records, negative) = match answer {
        Answer::Records(records) => (0, &**records, None),
        Answer::Nothing(ttl) => (0, none, Some(*ttl)),
        Answer::NoName(ttl) => (3, none, Some(*ttl)),
        Answer::Fails => (2, none, None),
        Answer::Silence => return None,
    };
    let mut reply = question[..2].to_vec();
    reply.extend([0x85, 0x80 | code]); // an answer with authority; recursion is desired and available
    let counts = [1, records.len() as u16, u16::from(negative.is_some()), 0];
    counts.iter().for_each(|count| reply.extend(count.to_be_bytes()));
    reply.extend(&question[12..]);
    for record in records {
        write(&mut reply, record);
    }
    if let Some(ttl) = negative {
        // How long there is nothing is the least of the record's time to live and its last field (RFC 2308).
        let mut data = [labels("ns."), labels("admin.")].concat();
        [1, 2, 3, 4, ttl]
            .iter()
            .for_each(|field| data.extend(field.to_be_bytes()));
        let (name, kind) = (Some("org.".to_owned()), SOA);
        write(&mut reply, &Record { name, kind, ttl, data });
    }
    Some(reply)
}

fn write(reply: &mut Vec<u8>, record: &Record) {
    match &record.name {
        Some(name) => reply.extend(labels(name)),
        None => reply.extend([0xc0, 12]), // as in the question
    }
    reply.extend(record.kind.to_be_bytes());
    reply.extend(1_u16.to_be_bytes());
    reply.extend(record.ttl.to_be_bytes());
    reply.extend((record.data.len() as u16).to_be_bytes());
    reply.extend(&record.data);
}

fn labels(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}
