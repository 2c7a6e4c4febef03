//! What is simulated: servers, clients and what befalls them.

/// Servers with one FIFO queue each, and clients that send them requests.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    /// One for each server: how much faster than the mean service time it works.
    pub(crate) speeds: Vec<f64>,
    /// Each has a pool of its own and sees only its own requests in flight.
    pub(crate) clients: usize,
    pub(crate) service: Service,
    pub(crate) arrivals: Arrivals,
    pub(crate) requests: usize,
    /// How long a message takes between a client and a server.
    pub(crate) one_way: u64,
    /// Whether each answer carries the server's requests in flight.
    pub(crate) reports: bool,
    /// Probes to random servers with each request.
    pub(crate) probes: usize,
    /// After this a client gives up.
    pub(crate) timeout: Option<u64>,
    pub(crate) fault: Option<Fault>,
    /// The share of requests that fail at any server, after having been served.
    pub(crate) background_failures: f64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Service {
    /// With this mean in nanoseconds.
    Exponential(f64),
    /// Lognormal with this mean and a squared coefficient of variation of 5.
    HeavyTailed(f64),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Arrivals {
    /// A Poisson process that takes this share of all servers' capacity.
    Load(f64),
    /// So many requests at a time: the next begins when one ends.
    Closed(usize),
}

/// What goes wrong at server 0.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) kind: FaultKind,
    pub(crate) from: u64,
    pub(crate) until: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FaultKind {
    /// It works 20 times slower.
    Slow,
    /// It never answers.
    Hang,
    /// It answers with an error after 0.1 ms.
    Errors,
    /// Every other answer is an error, at the usual speed.
    HalfErrors,
}

pub(crate) const MILLI: u64 = 1_000_000;
pub(crate) const SECOND: u64 = 1_000_000_000;

impl Scenario {
    /// Requests per nanosecond at full capacity.
    pub(crate) fn capacity(&self) -> f64 {
        self.speeds.iter().sum::<f64>() / self.service.mean()
    }

    fn new(name: &'static str, title: &'static str, speeds: Vec<f64>, clients: usize) -> Scenario {
        Scenario {
            name,
            title,
            speeds,
            clients,
            service: Service::Exponential(10.0 * MILLI as f64),
            arrivals: Arrivals::Load(0.8),
            requests: 400_000,
            one_way: 0,
            reports: false,
            probes: 0,
            timeout: None,
            fault: None,
            background_failures: 0.0,
        }
    }

    /// With load reports on answers and so many probes a request, over a network.
    fn informed(self, probes: usize) -> Scenario {
        Scenario {
            one_way: MILLI / 2,
            reports: true,
            probes,
            ..self
        }
    }

    /// 20 servers at 60 % of their capacity, 1,000 requests a second, of which server 0 goes wrong for ten seconds.
    fn gray(name: &'static str, title: &'static str, kind: FaultKind, clients: usize) -> Scenario {
        Scenario {
            service: Service::Exponential(12.0 * MILLI as f64),
            arrivals: Arrivals::Load(0.6),
            requests: 40_000,
            timeout: Some(SECOND),
            fault: Some(Fault {
                kind,
                from: 10 * SECOND,
                until: 20 * SECOND,
            }),
            ..Scenario::new(name, title, vec![1.0; 20], clients)
        }
    }
}

impl Service {
    pub(crate) fn mean(self) -> f64 {
        match self {
            Service::Exponential(mean) | Service::HeavyTailed(mean) => mean,
        }
    }
}

/// The scenarios, in the order of the tables.
pub(crate) fn all() -> Vec<Scenario> {
    let mut all = blind();
    all.extend(informed());
    all.extend(gray());
    all
}

/// The scenario of that name.
pub(crate) fn find(name: &str) -> Option<Scenario> {
    all().into_iter().find(|scenario| scenario.name == name)
}

fn equal(name: &'static str, title: &'static str, clients: usize) -> Scenario {
    Scenario::new(name, title, vec![1.0; 100], clients)
}

fn halves(name: &'static str, title: &'static str, clients: usize) -> Scenario {
    let speed = |i: usize| if i.is_multiple_of(2) { 0.5 } else { 1.0 };
    Scenario::new(name, title, (0..100).map(speed).collect(), clients)
}

fn one_slow(name: &'static str, title: &'static str, servers: usize, clients: usize) -> Scenario {
    let speed = |i: usize| if i == 0 { 0.1 } else { 1.0 };
    Scenario::new(name, title, (0..servers).map(speed).collect(), clients)
}

fn heavy_tailed(scenario: Scenario) -> Scenario {
    let service = Service::HeavyTailed(scenario.service.mean());
    Scenario { service, ..scenario }
}

/// Clients see only what they send themselves.
fn blind() -> Vec<Scenario> {
    let failing = equal("F", "100 equal servers, 1 client, 1 % of requests fail anywhere", 1);
    vec![
        equal("A", "100 equal servers, 1 client", 1),
        equal("A2", "100 equal servers, 20 clients", 20),
        equal("A200", "100 equal servers, 200 clients", 200),
        Scenario::new("K", "1,000 equal servers, 1 client", vec![1.0; 1_000], 1),
        halves("B", "half of 100 servers at half speed, 1 client", 1),
        halves("B2", "half of 100 servers at half speed, 20 clients", 20),
        one_slow("C", "one of 100 servers ten times slower, 1 client", 100, 1),
        one_slow("C2", "one of 100 servers ten times slower, 20 clients", 100, 20),
        one_slow("D1", "one of 10 servers ten times slower, 1 client", 10, 1),
        one_slow("D", "one of 10 servers ten times slower, 4 clients", 10, 4),
        heavy_tailed(equal("E", "100 equal servers, heavy-tailed service, 1 client", 1)),
        heavy_tailed(equal("E2", "100 equal servers, heavy-tailed service, 20 clients", 20)),
        Scenario {
            background_failures: 0.01,
            ..failing
        },
    ]
}

/// Servers tell of their load on each answer and in answer to probes, over a network with a round trip of 1 ms.
fn informed() -> Vec<Scenario> {
    let a = |name, title| equal(name, title, 20);
    let many = equal("A200r", "100 equal servers, 200 clients, load reports", 200);
    vec![
        a("A2r", "100 equal servers, 20 clients, load reports").informed(0),
        a(
            "A2p1",
            "100 equal servers, 20 clients, load reports and 1 probe a request",
        )
        .informed(1),
        a(
            "A2p2",
            "100 equal servers, 20 clients, load reports and 2 probes a request",
        )
        .informed(2),
        a(
            "A2p3",
            "100 equal servers, 20 clients, load reports and 3 probes a request",
        )
        .informed(3),
        many.informed(0),
        halves("B2r", "half of 100 servers at half speed, 20 clients, load reports", 20).informed(0),
        one_slow(
            "C2r",
            "one of 100 servers ten times slower, 20 clients, load reports",
            100,
            20,
        )
        .informed(0),
        one_slow(
            "Dr",
            "one of 10 servers ten times slower, 4 clients, load reports",
            10,
            4,
        )
        .informed(0),
        heavy_tailed(a(
            "E2r",
            "100 equal servers, heavy-tailed service, 20 clients, load reports",
        ))
        .informed(0),
    ]
}

/// One of 20 servers goes wrong for ten seconds, without going away.
fn gray() -> Vec<Scenario> {
    let g = Scenario::gray;
    vec![
        g(
            "slow",
            "one of 20 servers is 20 times slower, 1 client",
            FaultKind::Slow,
            1,
        ),
        g(
            "slow4",
            "one of 20 servers is 20 times slower, 4 clients",
            FaultKind::Slow,
            4,
        ),
        g("hang", "one of 20 servers hangs, 1 client", FaultKind::Hang, 1),
        g("hang4", "one of 20 servers hangs, 4 clients", FaultKind::Hang, 4),
        g(
            "errors",
            "one of 20 servers answers with errors in 0.1 ms, 1 client",
            FaultKind::Errors,
            1,
        ),
        g(
            "errors4",
            "one of 20 servers answers with errors in 0.1 ms, 4 clients",
            FaultKind::Errors,
            4,
        ),
        g(
            "half4",
            "half of one server's answers are errors, 4 clients",
            FaultKind::HalfErrors,
            4,
        ),
    ]
}
