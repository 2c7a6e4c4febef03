//! NATS servers of the test's own, alone or as a cluster of three: on free ports of the loopback, with their files in a
//! temporary folder, gone with the test. What they acknowledge is synced first (`sync_interval: always`).

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to start.
const PATIENCE: Duration = Duration::from_secs(20);

/// Servers that know each other.
pub(crate) struct Cluster {
    dir: PathBuf,
    nodes: Vec<Node>,
}

struct Node {
    program: PathBuf,
    config: PathBuf,
    port: u16,
    child: Option<Child>,
}

impl Cluster {
    /// Starts `count` servers of `program` (what `need("nats-server")` found) for the test called `name`.
    pub(crate) fn start(program: &Path, name: &str, count: usize) -> Cluster {
        let dir = std::env::temp_dir().join(format!("outgrow-nats-{name}-{}", std::process::id()));
        // Somebody else may take a port between the look and the start.
        for _ in 0..5 {
            let _left_over = std::fs::remove_dir_all(&dir);
            std::fs::create_dir_all(&dir).expect("a temporary folder can be made");
            let nodes = configure(program, &dir, count);
            let mut cluster = Cluster {
                dir: dir.clone(),
                nodes,
            };
            if cluster.nodes.iter_mut().all(Node::spawn) {
                return cluster;
            }
        }
        panic!("no ports for {count} NATS servers in five attempts");
    }

    /// The addresses of all servers.
    pub(crate) fn url(&self) -> String {
        let urls: Vec<_> = self
            .nodes
            .iter()
            .map(|node| format!("nats://127.0.0.1:{}", node.port))
            .collect();
        urls.join(",")
    }

    /// What server number `index` calls itself.
    pub(crate) fn name(index: usize) -> String {
        format!("n{index}")
    }

    /// Ends a server without a warning (SIGKILL).
    pub(crate) fn kill(&mut self, index: usize) {
        self.nodes[index].kill();
    }

    /// Starts a server again, on its ports and its files.
    pub(crate) fn restart(&mut self, index: usize) {
        self.nodes[index].kill();
        let deadline = Instant::now() + PATIENCE;
        while !self.nodes[index].spawn() {
            assert!(Instant::now() < deadline, "the NATS server starts again");
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.nodes.iter_mut().for_each(Node::kill);
        let _result = std::fs::remove_dir_all(&self.dir);
    }
}

/// Writes the configuration of each server.
fn configure(program: &Path, dir: &Path, count: usize) -> Vec<Node> {
    // All at once, so that no port comes twice.
    let listeners: Vec<_> = (0..2 * count)
        .map(|_| TcpListener::bind(("127.0.0.1", 0)).expect("the loopback has a free port"))
        .collect();
    let port = |index: usize| listeners[index].local_addr().expect("a listener has an address").port();
    let routes: Vec<_> = (0..count)
        .map(|index| format!("nats://127.0.0.1:{}", port(count + index)))
        .collect();
    let mut nodes = Vec::new();
    for index in 0..count {
        let (name, store) = (Cluster::name(index), dir.join(format!("store{index}")));
        let mut text = format!("server_name: {name}\nlisten: 127.0.0.1:{}\n", port(index));
        text += &format!("jetstream {{ store_dir: {store:?}, sync_interval: always }}\n");
        if count > 1 {
            let (listen, routes) = (port(count + index), routes.join(", "));
            text += &format!("cluster {{ name: test, listen: 127.0.0.1:{listen}, routes: [{routes}] }}\n");
        }
        let config = dir.join(format!("{name}.conf"));
        std::fs::write(&config, text).expect("a temporary folder can be written");
        nodes.push(Node {
            program: program.to_owned(),
            config,
            port: port(index),
            child: None,
        });
    }
    nodes
}

impl Node {
    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("a child can be killed");
            child.wait().expect("a killed child ends");
        }
    }

    /// False when it ended at once.
    fn spawn(&mut self) -> bool {
        let log = std::fs::File::create(self.config.with_extension("log")).expect("a temporary folder can be written");
        let child = Command::new(&self.program)
            .arg("-c")
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.child = Some(child.expect("the NATS server starts"));
        let deadline = Instant::now() + PATIENCE;
        loop {
            if self.greets() {
                return true;
            }
            let child = self.child.as_mut().expect("it was just started");
            if child.try_wait().expect("a child can be asked").is_some() {
                return false;
            }
            assert!(Instant::now() < deadline, "a NATS server that starts says so");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Whether it takes clients, which it greets first.
    fn greets(&self) -> bool {
        let greeting = || {
            let stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
            stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line).ok()?;
            Some(line)
        };
        greeting().is_some_and(|line| line.starts_with("INFO "))
    }
}
