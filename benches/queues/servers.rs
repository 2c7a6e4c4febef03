//! Redis Streams and JetStream on the loopback, each of their servers started for one measurement, with a client that
//! does nothing but what a durable send takes: no pool, no runtime, one connection for each producer.

use super::place::find;
use super::{Keep, Produce};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to start, and to answer.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn redis(dir: &Path) -> Result<Box<dyn Keep>, String> {
    let program = find("redis-server").ok_or("there is no redis-server on the search path")?;
    let port = free_port();
    let mut command = Command::new(program);
    command
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
        .args(["--appendonly", "yes", "--appendfsync", "always", "--dir"])
        .arg(dir);
    let server = Server::start(command, port)?;
    Ok(Box::new(Redis(server)))
}

pub(super) fn jetstream(dir: &Path) -> Result<Box<dyn Keep>, String> {
    let program = find("nats-server").ok_or("there is no nats-server on the search path")?;
    let version = Command::new(&program).arg("--version").output();
    let version = String::from_utf8_lossy(&version.map_err(|error| error.to_string())?.stdout).into_owned();
    if !syncs(&version) {
        return Err(format!(
            "{} knows no `sync_interval`, which came with 2.10",
            version.trim()
        ));
    }
    let port = free_port();
    let settings = format!(
        "listen: \"127.0.0.1:{port}\"\njetstream {{ store_dir: {:?}, sync_interval: always }}\n",
        dir.join("jetstream")
    );
    let file = dir.join("server.conf");
    std::fs::write(&file, settings).map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    command.arg("-c").arg(file);
    let server = Server::start(command, port)?;
    let stream = r#"{"name":"S","subjects":["s"],"storage":"file","retention":"limits","discard":"old","max_consumers":-1,"max_msgs":-1,"max_bytes":-1,"num_replicas":1}"#;
    let answer = Nats::connect(port).and_then(|mut nats| {
        nats.publish("$JS.API.STREAM.CREATE.S", stream.as_bytes());
        nats.flush()?;
        nats.answer()
    });
    match answer {
        Ok(answer) if !answer.contains("\"error\"") => Ok(Box::new(JetStream(server))),
        Ok(answer) => Err(answer),
        Err(error) => Err(error.to_string()),
    }
}

/// Whether a server that calls itself so, as `nats-server: v2.15.1`, can sync before it answers.
fn syncs(version: &str) -> bool {
    let numbers = version.trim().rsplit('v').next().unwrap_or_default();
    let mut numbers = numbers.split('.').map(|number| number.parse().unwrap_or(0_u32));
    let (major, minor) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    (major, minor) >= (2, 10)
}

fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("the loopback has a free port");
    listener.local_addr().expect("a listener has an address").port()
}

/// A process that is ended with it.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    /// Starts it, and waits until it listens.
    fn start(mut command: Command, port: u16) -> Result<Server, String> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().map_err(|error| error.to_string())?;
        let mut server = Server { child, port };
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = server.child.try_wait().map_err(|error| error.to_string())?;
            if let Some(status) = ended {
                return Err(format!("the server ended at once: {status}"));
            }
            if start.elapsed() > PATIENCE {
                return Err("the server does not listen".to_owned());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A connection that writes many requests at once, and reads the answers.
struct Connection {
    stream: BufReader<TcpStream>,
    out: Vec<u8>,
}

impl Connection {
    fn new(port: u16) -> io::Result<Connection> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Connection {
            stream: BufReader::new(stream),
            out: Vec::new(),
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.get_mut().write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        match self.stream.read_line(&mut line)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(line),
        }
    }

    fn skip(&mut self, bytes: usize) -> io::Result<Vec<u8>> {
        let mut skipped = vec![0; bytes];
        self.stream.read_exact(&mut skipped)?;
        Ok(skipped)
    }
}

struct Redis(Server);

impl Keep for Redis {
    fn producer(&self) -> Box<dyn Produce + '_> {
        Box::new(RedisProducer(Connection::new(self.0.port).expect("the server listens")))
    }
}

struct RedisProducer(Connection);

impl Produce for RedisProducer {
    fn one(&mut self, payload: &'static [u8]) {
        self.batch(payload, 1);
    }

    fn batch(&mut self, payload: &'static [u8], count: usize) {
        let connection = &mut self.0;
        for _ in 0..count {
            let len = payload.len();
            let head = format!("*5\r\n$4\r\nXADD\r\n$1\r\ns\r\n$1\r\n*\r\n$1\r\np\r\n${len}\r\n");
            connection.out.extend_from_slice(head.as_bytes());
            connection.out.extend_from_slice(payload);
            connection.out.extend_from_slice(b"\r\n");
        }
        connection.flush().expect("the server reads");
        for _ in 0..count {
            let head = connection.line().expect("the server answers");
            assert!(head.starts_with('$'), "an id, not {head}");
            connection.line().expect("the server answers");
        }
    }
}

struct JetStream(Server);

impl Keep for JetStream {
    fn producer(&self) -> Box<dyn Produce + '_> {
        Box::new(Nats::connect(self.0.port).expect("the server listens"))
    }
}

/// A client that subscribes to one inbox, where all answers go.
struct Nats {
    connection: Connection,
    inbox: String,
}

impl Nats {
    fn connect(port: u16) -> io::Result<Nats> {
        let mut connection = Connection::new(port)?;
        connection.line()?;
        let inbox = format!("_INBOX.{}", connection.stream.get_ref().local_addr()?.port());
        let hello = format!("CONNECT {{\"verbose\":false,\"pedantic\":false}}\r\nSUB {inbox} 1\r\nPING\r\n");
        connection.out.extend_from_slice(hello.as_bytes());
        connection.flush()?;
        while !connection.line()?.starts_with("PONG") {}
        Ok(Nats { connection, inbox })
    }

    fn publish(&mut self, subject: &str, payload: &[u8]) {
        let head = format!("PUB {subject} {} {}\r\n", self.inbox, payload.len());
        let out = &mut self.connection.out;
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(payload);
        out.extend_from_slice(b"\r\n");
    }

    fn flush(&mut self) -> io::Result<()> {
        self.connection.flush()
    }

    /// What the next message to the inbox says.
    fn answer(&mut self) -> io::Result<String> {
        loop {
            let line = self.connection.line()?;
            match line.split_whitespace().next() {
                Some("MSG") => {
                    let len = line.split_whitespace().last().and_then(|len| len.parse().ok());
                    let len: usize = len.ok_or(io::ErrorKind::InvalidData)?;
                    let mut payload = self.connection.skip(len + 2)?;
                    payload.truncate(len);
                    return String::from_utf8(payload).map_err(|_| io::ErrorKind::InvalidData.into());
                }
                Some("PING") => {
                    self.connection.out.extend_from_slice(b"PONG\r\n");
                    self.connection.flush()?;
                }
                Some("-ERR") => return Err(io::Error::other(line)),
                _ => {}
            }
        }
    }
}

impl Produce for Nats {
    fn one(&mut self, payload: &'static [u8]) {
        self.batch(payload, 1);
    }

    fn batch(&mut self, payload: &'static [u8], count: usize) {
        (0..count).for_each(|_| self.publish("s", payload));
        self.flush().expect("the server reads");
        for _ in 0..count {
            let answer = self.answer().expect("the server answers");
            assert!(answer.contains("\"seq\""), "a number, not {answer}");
        }
    }
}
