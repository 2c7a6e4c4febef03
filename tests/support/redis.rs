//! A Redis server of the test's own: on a free port of the loopback, with its files in a temporary folder, gone with
//! the test.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to start.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Server {
    program: PathBuf,
    dir: PathBuf,
    port: u16,
    child: Option<Child>,
}

impl Server {
    /// Starts `program` (what `need("redis-server")` found) for the test called `name`.
    pub(crate) fn start(program: &Path, name: &str) -> Server {
        let dir = std::env::temp_dir().join(format!("outgrow-redis-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a temporary folder can be made");
        let mut server = Server {
            program: program.to_owned(),
            dir,
            port: free_port(),
            child: None,
        };
        let mut attempts = 1;
        while !server.spawn() {
            // Somebody else took the port in between.
            assert!(attempts < 5, "no port for a Redis server in five attempts");
            server.port = free_port();
            attempts += 1;
        }
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// Ends it without a warning (SIGKILL); what it had in memory is gone.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("a child can be killed");
            child.wait().expect("a killed child ends");
        }
    }

    /// Starts it again on the same port.
    pub(crate) fn restart(&mut self) {
        self.kill();
        let deadline = Instant::now() + PATIENCE;
        while !self.spawn() {
            assert!(Instant::now() < deadline, "the Redis server starts again");
        }
    }

    /// Stops its process until [`resume`](Server::resume): it neither answers nor closes connections.
    pub(crate) fn pause(&self) {
        self.signal("-STOP");
    }

    pub(crate) fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let child = self.child.as_ref().expect("it runs");
        let status = Command::new("kill").arg(signal).arg(child.id().to_string()).status();
        assert!(status.expect("`kill` is there").success());
    }

    /// Sends one command of plain words past every client, and returns the first bytes of the answer.
    pub(crate) fn tell(&self, words: &str) -> String {
        self.ask(words).expect("the Redis server answers")
    }

    fn ask(&self, words: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        stream.write_all(format!("{words}\r\n").as_bytes()).ok()?;
        let mut answer = [0; 4096];
        let len = stream.read(&mut answer).ok()?;
        Some(String::from_utf8_lossy(&answer[..len]).into_owned())
    }

    /// False when it ended at once.
    fn spawn(&mut self) -> bool {
        let child = Command::new(&self.program)
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
            .arg("--dir")
            .arg(&self.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.child = Some(child.expect("the Redis server starts"));
        let deadline = Instant::now() + PATIENCE;
        loop {
            if self.ask("PING").is_some_and(|answer| answer.starts_with("+PONG")) {
                return true;
            }
            let child = self.child.as_mut().expect("it was just started");
            if child.try_wait().expect("a child can be asked").is_some() {
                return false;
            }
            assert!(Instant::now() < deadline, "a Redis server that starts answers");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        let _result = std::fs::remove_dir_all(&self.dir);
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("the loopback has a free port");
    listener.local_addr().expect("a listener has an address").port()
}
