//! Clients, servers and the messages between them, in virtual time.

use crate::clock::ManualClock;
use crate::scenario::{Arrivals, FaultKind, MILLI, Scenario, Service};
use outgrow::balance::{Balancer, Endpoint, Failure, Lease, OutlierEjection, Pool, Request, ServerLoad};
use outgrow::env::Rng;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

/// What became of one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) at: u64,
    pub(crate) server: usize,
    /// Until its client knew; `u64::MAX` while it does not.
    pub(crate) latency: u64,
    pub(crate) failed: bool,
}

/// Runs `scenario` and tells what became of each request, and when server 0 was first ejected.
pub(crate) fn run<B: Balancer>(scenario: &Scenario, seed: u64, ejection: bool, policy: impl Fn() -> B) -> Outcome {
    let clock = ManualClock::default();
    let mut chance = Rng::seeded(seed);
    let clients = (0..scenario.clients)
        .map(|_| {
            Pool::builder(policy())
                .endpoints((0..scenario.speeds.len()).map(|i| Endpoint::new(format!("s{i}")).target(i)))
                .outliers(ejection.then(OutlierEjection::default))
                .env(clock.env(chance.next_u64()))
                .build()
        })
        .collect();
    let mut chance = Rng::seeded(seed);
    let mut world = World {
        scenario,
        clock,
        clients,
        servers: scenario
            .speeds
            .iter()
            .map(|&speed| Server {
                speed,
                ..Server::default()
            })
            .collect(),
        traffic: Traffic::new(scenario, &mut chance),
        chance: chance.fork("probes"),
        now: 0,
        events: BinaryHeap::new(),
        number: 0,
        leases: Vec::new(),
        sent: Vec::with_capacity(scenario.requests),
        works: Vec::new(),
        ejected: None,
    };
    world.run();
    Outcome {
        sent: world.sent,
        ejected: world.ejected,
    }
}

#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) sent: Vec<Sent>,
    pub(crate) ejected: Option<u64>,
}

/// When requests come and how much work they are: the same for every policy.
#[derive(Debug)]
pub(crate) struct Traffic {
    gap: f64,
    service: Service,
    at: u64,
    gaps: Rng,
    works: Rng,
    senders: Rng,
}

impl Traffic {
    pub(crate) fn new(scenario: &Scenario, chance: &mut Rng) -> Traffic {
        let gap = match scenario.arrivals {
            Arrivals::Load(load) => 1.0 / (load * scenario.capacity()),
            Arrivals::Closed(_) => 0.0,
        };
        Traffic {
            gap,
            service: scenario.service,
            at: 0,
            gaps: chance.fork("gaps"),
            works: chance.fork("works"),
            senders: chance.fork("senders"),
        }
    }

    /// When the next request comes.
    pub(crate) fn arrival(&mut self) -> u64 {
        self.at += self.gaps.exponential(self.gap) as u64;
        self.at
    }

    /// How long the next request takes at a server of speed 1.
    pub(crate) fn work(&mut self) -> f64 {
        match self.service {
            Service::Exponential(mean) => self.works.exponential(mean),
            Service::HeavyTailed(mean) => {
                // A lognormal's squared coefficient of variation is exp(variance) - 1, its mean exp(mu + variance / 2).
                let variance = 6.0_f64.ln();
                let radius = (2.0 * self.works.exponential(1.0)).sqrt();
                let normal = radius * (std::f64::consts::TAU * self.works.unit()).cos();
                mean * (variance.sqrt() * normal - variance / 2.0).exp()
            }
        }
    }
}

struct World<'a, B: Balancer> {
    scenario: &'a Scenario,
    clock: ManualClock,
    /// Each client has a pool of its own.
    clients: Vec<Pool<B, usize>>,
    servers: Vec<Server>,
    traffic: Traffic,
    chance: Rng,
    now: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    /// Of events: those of one time happen in the order in which they were planned.
    number: u64,
    /// With `sent`, by the number of the request.
    leases: Vec<Option<(usize, Lease<B, usize>)>>,
    works: Vec<f64>,
    sent: Vec<Sent>,
    ejected: Option<u64>,
}

#[derive(Debug, Default)]
struct Server {
    speed: f64,
    /// Requests, when they came, and how many there were then, with them; the first is in service.
    queue: VecDeque<(u32, u64, u64)>,
    /// How long the last few requests took here, on the mean, by how many there were when they came.
    recent: u64,
}

impl Server {
    fn load(&self) -> Report {
        Report {
            in_flight: self.queue.len() as u32,
            latency: self.recent * (self.queue.len() as u64 + 1),
        }
    }
}

/// What a server tells of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Report {
    in_flight: u32,
    latency: u64,
}

impl From<Report> for ServerLoad {
    fn from(report: Report) -> ServerLoad {
        ServerLoad::new(report.in_flight as f32).latency(Duration::from_nanos(report.latency))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrival,
    Reaches { request: u32 },
    Done { server: u32 },
    Answer { request: u32, report: Report, failed: bool },
    Timeout { request: u32 },
    Probe { client: u32, server: u32 },
    Probed { client: u32, server: u32, report: Report },
}

impl<B: Balancer> World<'_, B> {
    fn run(&mut self) {
        match self.scenario.arrivals {
            Arrivals::Load(_) => self.plan_arrival(),
            Arrivals::Closed(n) => (0..n).for_each(|_| self.plan(0, Event::Arrival)),
        }
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            self.now = at;
            self.clock.set(at);
            match event {
                Event::Arrival => self.arrival(),
                Event::Reaches { request } => self.reaches(request),
                Event::Done { server } => self.done(server as usize),
                Event::Answer {
                    request,
                    report,
                    failed,
                } => self.answer(request, report, failed),
                Event::Timeout { request } => self.timeout(request),
                Event::Probe { client, server } => {
                    let report = self.servers[server as usize].load();
                    self.plan(self.scenario.one_way, Event::Probed { client, server, report });
                }
                Event::Probed { client, server, report } => {
                    let id = format!("s{server}");
                    self.clients[client as usize].report_load(&id, report.into());
                }
            }
        }
    }

    fn plan(&mut self, after: u64, event: Event) {
        self.number += 1;
        self.events.push(Reverse((self.now + after, self.number, event)));
    }

    fn plan_arrival(&mut self) {
        let at = self.traffic.arrival();
        self.plan(at - self.now, Event::Arrival);
    }

    fn arrival(&mut self) {
        if self.sent.len() == self.scenario.requests {
            return;
        }
        let request = self.sent.len() as u32;
        let client = self.traffic.senders.index(self.clients.len());
        let work = self.traffic.work();
        let lease = self.clients[client]
            .pick(&Request::new())
            .expect("an endpoint that may be picked");
        let server = lease.target;
        self.sent.push(Sent {
            at: self.now,
            server,
            latency: u64::MAX,
            failed: false,
        });
        self.leases.push(Some((client, lease)));
        self.works.push(work);
        match self.scenario.one_way {
            0 => self.reaches(request),
            one_way => self.plan(one_way, Event::Reaches { request }),
        }
        if let Some(timeout) = self.scenario.timeout {
            self.plan(timeout, Event::Timeout { request });
        }
        for _ in 0..self.scenario.probes {
            let server = self.chance.index(self.servers.len()) as u32;
            self.plan(
                self.scenario.one_way,
                Event::Probe {
                    client: client as u32,
                    server,
                },
            );
        }
        if let Arrivals::Load(_) = self.scenario.arrivals {
            self.plan_arrival();
        }
    }

    fn fault(&self, server: usize) -> Option<FaultKind> {
        let fault = self.scenario.fault.filter(|_| server == 0)?;
        (fault.from..fault.until).contains(&self.now).then_some(fault.kind)
    }

    fn reaches(&mut self, request: u32) {
        let server = self.sent[request as usize].server;
        match self.fault(server) {
            Some(FaultKind::Hang) => {}
            Some(FaultKind::Errors) => {
                let report = self.servers[server].load();
                let event = Event::Answer {
                    request,
                    report,
                    failed: true,
                };
                self.plan(MILLI / 10 + self.scenario.one_way, event);
            }
            _ => {
                let now = self.now;
                let there = self.servers[server].queue.len() as u64 + 1;
                self.servers[server].queue.push_back((request, now, there));
                if there == 1 {
                    self.serve(server);
                }
            }
        }
    }

    fn serve(&mut self, server: usize) {
        let Some(&(request, ..)) = self.servers[server].queue.front() else {
            return;
        };
        let slower = if self.fault(server) == Some(FaultKind::Slow) {
            20.0
        } else {
            1.0
        };
        let time = self.works[request as usize] * slower / self.servers[server].speed;
        self.plan(time as u64, Event::Done { server: server as u32 });
    }

    fn done(&mut self, server: usize) {
        let at = &mut self.servers[server];
        let (request, came, there) = at.queue.pop_front().expect("a request in service");
        at.recent = (at.recent * 7 + (self.now - came) / there) / 8;
        let report = at.load();
        let half = self.fault(server) == Some(FaultKind::HalfErrors);
        let failed = if half {
            self.chance.chance(0.5)
        } else {
            self.chance.chance(self.scenario.background_failures)
        };
        self.serve(server);
        match self.scenario.one_way {
            0 => self.answer(request, report, failed),
            one_way => self.plan(
                one_way,
                Event::Answer {
                    request,
                    report,
                    failed,
                },
            ),
        }
    }

    fn answer(&mut self, request: u32, report: Report, failed: bool) {
        let Some((client, lease)) = self.leases[request as usize].take() else {
            return;
        };
        if self.scenario.reports {
            lease.report_load(report.into());
        }
        self.finish(request, client, lease, failed.then_some(Failure::Response));
    }

    fn timeout(&mut self, request: u32) {
        if let Some((client, lease)) = self.leases[request as usize].take() {
            self.finish(request, client, lease, Some(Failure::Timeout));
        }
    }

    fn finish(&mut self, request: u32, client: usize, lease: Lease<B, usize>, failure: Option<Failure>) {
        let server = lease.target;
        match failure {
            Some(failure) => lease.fail(failure),
            None => lease.succeed(),
        }
        let failed = failure.is_some();
        let sent = &mut self.sent[request as usize];
        (sent.latency, sent.failed) = (self.now - sent.at, failed);
        if failed && server == 0 && self.ejected.is_none() && self.clients[client].status().endpoints[0].ejections > 0 {
            self.ejected = Some(self.now);
        }
        if let Arrivals::Closed(_) = self.scenario.arrivals {
            self.plan(0, Event::Arrival);
        }
    }
}
