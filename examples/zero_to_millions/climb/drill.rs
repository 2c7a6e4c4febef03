//! The drill of a rung: at 60 % of its load, one part of what it added is killed.

use super::Result;
use super::cluster::Cluster;
use super::database::Database;
use super::jobs::Jobs;
use super::outage::{Outcomes, lose_home};
use super::plan::{Plan, Rung, divided};
use super::probe::{Setup, quantiles};
use super::service::{Deed, handle};
use crate::report::{Drill, DrillPoint};
use crate::traffic::Traffic;
use outgrow::cache::CachedStore;
use outgrow::env::{Env, Tick};
use outgrow::replica::FailoverTo;
use outgrow::sim::World;
use parking_lot::Mutex;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

/// How much of a rung's load it bears in the drill.
const LOAD: f64 = 0.6;
/// Traffic before counting begins, so that queues are as they usually are.
const SETTLE: Duration = Duration::from_secs(2);
const BEFORE: Duration = Duration::from_secs(5);
/// The least and the most time that traffic goes on after the kill, where something takes over.
const AFTER: RangeInclusive<u64> = 10..=30;
/// How long traffic goes on when the machine that was lost is back, where nothing takes over.
const ONCE_BACK: Duration = Duration::from_secs(15);
/// About how many requests a drill simulates.
const REQUESTS: f64 = 100_000.0;
const STEP: Duration = Duration::from_secs(1);
/// The most time, after the last request, for jobs that are still in the queue.
const DRAIN: Duration = Duration::from_secs(120);
/// Until a dead primary is noticed: three missed health checks of a third of a second.
pub(super) const DETECTION: Duration = Duration::from_secs(1);
/// Until a machine is back after it lost power.
pub(super) const REBOOT: Duration = Duration::from_secs(30);
/// Until a process is back after it was killed.
const RESPAWN: Duration = Duration::from_secs(3);

/// Requests by the second that they arrived in.
#[derive(Debug, Default)]
struct Step {
    latencies: Vec<u32>,
    failed: u64,
    requests: u64,
}

/// Runs the drill of `plan`, which carries `users`; with a part of both where that is enough to show it.
pub(super) fn drill(setup: &Arc<Setup>, plan: &Plan, users: u64) -> Result<Drill> {
    let users = (users as f64 * LOAD) as u64;
    let rate = setup.visits.rate_per_user() * users as f64;
    let requests = REQUESTS.min(setup.requests as f64);
    let shortest = match plan.rung.balanced() {
        true => Duration::from_secs(*AFTER.start()),
        false => REBOOT + ONCE_BACK,
    };
    let lasts = (SETTLE + BEFORE + shortest).as_secs_f64();
    let plan = divided(plan, &setup.hardware, rate * lasts / requests);
    let longer = Duration::from_secs((requests * f64::from(plan.part) / rate) as u64).saturating_sub(SETTLE + BEFORE);
    let after = longer.clamp(shortest, shortest.max(Duration::from_secs(*AFTER.end())));
    let world = World::new(setup.seed);
    world.run(run(&world, setup, &plan, plan.part_of(users), after))
}

async fn run(world: &World, setup: &Arc<Setup>, plan: &Plan, users: NonZeroU32, after: Duration) -> Result<Drill> {
    let cluster = Cluster::build(world, plan, &setup.hardware, &setup.rows, setup.timeout).await?;
    let env = cluster.env.clone();
    cluster.shards.iter().for_each(|shard| shard.shared().keep_ledger());
    cluster.queues().for_each(Jobs::keep_count);
    let lost = cluster.geography.home();
    let begin = env.now() + SETTLE;
    let (kill, end) = (begin + BEFORE, begin + BEFORE + after);
    let attack = env.spawn({
        let (cluster, env, rung) = (Arc::clone(&cluster), env.clone(), plan.rung);
        async move {
            env.sleep_until(kill).await;
            attack(&cluster, rung).await
        }
    });
    let steps: Arc<Mutex<Vec<Step>>> = Arc::default();
    let outcomes: Arc<Mutex<Outcomes>> = Arc::default();
    let mut visits = Homes::new(kill);
    let mut rng = world.rng("deeds");
    let traffic = Traffic::new(Arc::clone(&setup.visits), users, env.now(), world.rng("traffic"));
    for arrival in traffic {
        if arrival.at >= end {
            break;
        }
        env.sleep_until(arrival.at).await;
        let deed = Deed::new(&cluster, arrival, setup.dynamic[arrival.step.url as usize], &mut rng);
        let step = (arrival.at >= begin).then(|| ((arrival.at - begin).as_nanos() / STEP.as_nanos()) as usize);
        let (cluster, setup, steps) = (Arc::clone(&cluster), Arc::clone(setup), Arc::clone(&steps));
        let (homes, outcomes) = (visits.clone(), Arc::clone(&outcomes));
        let request = async move {
            let answer = handle(&cluster, deed).await;
            let latency = cluster.env.now() - deed.arrival.at;
            if let Ok(answered) = &answer
                && deed.needs_state()
            {
                homes.answered(deed.arrival.visit, answered.machine(&cluster), deed.arrival.at);
            }
            if let Some(step) = step {
                let in_time = answer.is_ok() && latency <= setup.timeout;
                count(&mut steps.lock(), step, in_time, latency);
                if cluster.regions.len() > 1 {
                    let nearest = cluster.geography.nearest(deed.arrival.visit);
                    let latency = in_time.then_some(latency);
                    outcomes.lock().note(deed.arrival.at, nearest, latency);
                }
            }
            if let Ok(answered) = answer {
                answered.send_rest(&cluster).await;
            }
        };
        env.spawn(request).detach();
    }
    env.sleep(setup.timeout).await;
    let (note, settled) = attack.await??;
    let mut lost_writes = unfinished_jobs(&cluster).await;
    for shard in &cluster.shards {
        lost_writes += shard.shared().lost_writes().await?;
    }
    let mut steps = std::mem::take(&mut *steps.lock());
    let timeline = timeline(&mut steps, setup.timeout);
    let after = || timeline.iter().filter(|point| point.at_ms >= 0);
    let slo = setup.slo.as_secs_f64() * 1e3;
    let recovered = after().rposition_ms(slo);
    let outcomes = outcomes.lock();
    let by_region = |settled| outcomes.by_region(&cluster.geography, kill, settled, setup.timeout);
    let regions = settled.map(by_region).unwrap_or_default();
    Ok(Drill {
        part: plan.part,
        killed: killed(plan.rung).to_owned(),
        survived: after().all(|point| point.failed * 2 <= point.requests),
        failed_requests: after().map(|point| point.failed).sum(),
        lost_acknowledged_writes: lost_writes,
        lost_visits: visits.lost(),
        recovery_ms: recovered,
        rerouted_ms: outcomes.rerouted_ms(lost, kill),
        regions,
        note,
        timeline,
    })
}

/// How many accepted jobs are still not done when there has been time enough for all.
async fn unfinished_jobs(cluster: &Cluster) -> u64 {
    let open = || cluster.queues().map(Jobs::open_jobs).sum();
    let deadline = cluster.env.now() + DRAIN;
    while open() > 0 && cluster.env.now() < deadline {
        cluster.env.sleep(STEP).await;
    }
    open()
}

/// When the last step over the objective ended, if that was before the last step.
trait Recovery<'a>: Iterator<Item = &'a DrillPoint> + Sized {
    fn rposition_ms(self, slo: f64) -> Option<f64> {
        let points: Vec<&DrillPoint> = self.collect();
        match points
            .iter()
            .rposition(|point| point.p99_ms.is_some_and(|p99| p99 > slo))
        {
            None => Some(0.0),
            Some(last) if last + 1 == points.len() => None,
            Some(last) => Some((points[last].at_ms + STEP.as_millis() as i64) as f64),
        }
    }
}

impl<'a, I: Iterator<Item = &'a DrillPoint>> Recovery<'a> for I {}

fn count(steps: &mut Vec<Step>, step: usize, answered: bool, latency: Duration) {
    if steps.len() <= step {
        steps.resize_with(step + 1, Step::default);
    }
    let step = &mut steps[step];
    step.requests += 1;
    if answered {
        step.latencies.push(latency.as_micros() as u32);
    } else {
        step.failed += 1;
    }
}

/// The steps with their p99, in which a failed request counts as one that took the whole time limit.
fn timeline(steps: &mut [Step], timeout: Duration) -> Vec<DrillPoint> {
    let points = steps.iter_mut().enumerate().map(|(i, step)| {
        step.latencies
            .extend((0..step.failed).map(|_| timeout.as_micros() as u32));
        let p99_ms = (step.requests > 0).then(|| quantiles(&mut step.latencies, [0.99])[0]);
        let at_ms = (STEP * i as u32).as_millis() as i64 - BEFORE.as_millis() as i64;
        DrillPoint {
            at_ms,
            p99_ms,
            failed: step.failed,
            requests: step.requests,
        }
    });
    points.collect()
}

/// Which web machine holds the state of each visit, and whose state was lost.
#[derive(Clone)]
struct Homes {
    kill: Tick,
    homes: Arc<Mutex<(Vec<u32>, u64)>>,
}

impl Homes {
    const NOWHERE: u32 = u32::MAX;

    fn new(kill: Tick) -> Homes {
        Homes {
            kill,
            homes: Arc::default(),
        }
    }

    /// A request of `visit` was answered by `web`. A visit that was elsewhere before the kill has lost its state.
    fn answered(&self, visit: u32, web: usize, at: Tick) {
        let (homes, lost) = &mut *self.homes.lock();
        let visit = visit as usize;
        if homes.len() <= visit {
            homes.resize(visit + 1, Homes::NOWHERE);
        }
        let before = std::mem::replace(&mut homes[visit], web as u32);
        *lost += u64::from(at >= self.kill && before != Homes::NOWHERE && before != web as u32);
    }

    fn lost(&mut self) -> u64 {
        self.homes.lock().1
    }
}

fn killed(rung: Rung) -> &'static str {
    match rung {
        Rung::Single | Rung::Doubled | Rung::Quadrupled => "the server loses power",
        Rung::Database => "the database machine loses power",
        Rung::Balancer => "one web machine loses power",
        Rung::Replication => "the primary loses power",
        Rung::Cache => "every cache is emptied at once",
        Rung::Queue => "the queue's process is killed",
        Rung::Sharding => "one shard's primary loses power",
        Rung::DataCentres => "the region of the primaries loses power",
    }
}

/// Kills, and does what is done about it. Says what happened, and where a region was lost when all took writes again.
async fn attack(cluster: &Cluster, rung: Rung) -> Result<(String, Option<Tick>)> {
    let env = &cluster.env;
    let note = match rung {
        Rung::Single | Rung::Doubled | Rung::Quadrupled | Rung::Database => {
            let took = power_cycle(&cluster.shards[0], env).await?;
            format!("nothing takes over: down until the machine is back and has read its log, {took:.1} s")
        }
        Rung::Balancer => {
            let host = &cluster.regions[0].webs[0].host;
            host.set_up(false, env.now());
            env.sleep(REBOOT).await;
            host.set_up(true, env.now());
            "the pool ejects it after failed requests; its visits go on elsewhere, without their state".to_owned()
        }
        Rung::Cache => {
            cluster.webs().flat_map(|web| &web.caches).for_each(CachedStore::clear);
            "the database bears the misses until the hot rows are back".to_owned()
        }
        Rung::Queue => {
            for jobs in cluster.queues() {
                jobs.kill(cluster);
                env.sleep(RESPAWN).await;
                jobs.restart(cluster).await?;
            }
            format!(
                "back after {} s with every accepted job; requests that bring one fail meanwhile",
                RESPAWN.as_secs()
            )
        }
        Rung::Replication | Rung::Sharding => fail_over(&cluster.shards[0], env).await?,
        Rung::DataCentres => {
            let (note, settled) = lose_home(cluster).await?;
            return Ok((note, Some(settled)));
        }
    };
    Ok((note, None))
}

/// Turns a database's only machine off, and on again. Says how many seconds that took.
async fn power_cycle(database: &Database, env: &Env) -> Result<f64> {
    let shared = database.shared();
    let node = shared.primary();
    let start = env.now();
    node.host.set_up(false, start);
    node.machine.crash();
    env.sleep(REBOOT).await;
    shared.db.restart(&node.name, node.machine.env()).await?;
    // The only node takes over from itself: a new epoch begins with what its log holds.
    shared.db.failover(FailoverTo::MostCaughtUp).await?;
    node.host.set_up(true, env.now());
    Ok((env.now() - start).as_secs_f64())
}

/// Turns a primary's machine off, promotes a replica when that is noticed, and takes the old primary back.
async fn fail_over(database: &Database, env: &Env) -> Result<String> {
    let shared = database.shared();
    let old = shared.primary();
    let start = env.now();
    old.host.set_up(false, start);
    old.machine.crash();
    env.sleep(DETECTION).await;
    let report = shared.db.failover(FailoverTo::MostCaughtUp).await?;
    shared.set_primary(&report.to);
    let writable = (env.now() - start).as_secs_f64();
    env.sleep(REBOOT).await;
    shared.db.restart(&old.name, old.machine.env()).await?;
    old.host.set_up(true, env.now());
    Ok(format!(
        "noticed after {} s, a replica takes writes after {writable:.2} s; the old primary comes back as a replica",
        DETECTION.as_secs()
    ))
}
