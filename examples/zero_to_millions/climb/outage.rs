//! The drill of the data centres: the region of the primaries loses power, and its users and writes go elsewhere.

use super::Result;
use super::cluster::Cluster;
use super::database::Database;
use super::drill::{DETECTION, REBOOT};
use super::probe::quantiles;
use super::regions::Geography;
use crate::report::RegionDrill;
use futures::future::try_join_all;
use outgrow::cache::CachedStore;
use outgrow::env::Tick;
use outgrow::replica::FailoverTo;
use std::ops::Range;
use std::time::Duration;

/// Cuts the power of the region that the primaries are in, moves these when that is noticed, and takes the region back.
/// Says what happened, and when all shards took writes again.
pub(super) async fn lose_home(cluster: &Cluster) -> Result<(String, Tick)> {
    let Cluster { env, geography, .. } = cluster;
    let (start, lost) = (env.now(), geography.home());
    let region = &cluster.regions[lost];
    region.hosts(false).for_each(|(_, host)| host.set_up(false, start));
    region.jobs.iter().for_each(|jobs| jobs.crash(cluster));
    for shard in &cluster.shards {
        for node in shard.shared().nodes_in(lost) {
            node.host.set_up(false, start);
            node.machine.crash();
        }
    }
    env.sleep(DETECTION).await;
    let home = geography.move_home();
    try_join_all(cluster.shards.iter().map(|shard| promote(shard, home))).await?;
    let writable = env.now();
    env.sleep(REBOOT).await;
    bring_back(cluster, lost).await?;
    let (names, back) = (geography.names(), env.now());
    let note = format!(
        "{} takes the writes after {:.2} s, and each waits for an answer from farther away until {} is back, with \
         replicas only, after {:.0} s",
        names[home],
        (writable - start).as_secs_f64(),
        names[lost],
        (back - start).as_secs_f64(),
    );
    Ok((note, writable))
}

/// Makes a node of the region `home` the primary.
async fn promote(shard: &Database, home: usize) -> Result<()> {
    let shared = shard.shared();
    let Some(node) = shared.nodes_in(home).next() else {
        return Ok(());
    };
    let report = shared.db.failover(FailoverTo::Node(node.name.clone())).await?;
    shared.set_primary(&report.to);
    Ok(())
}

async fn bring_back(cluster: &Cluster, lost: usize) -> Result<()> {
    let region = &cluster.regions[lost];
    for shard in &cluster.shards {
        for node in shard.shared().nodes_in(lost) {
            shard.shared().db.restart(&node.name, node.machine.env()).await?;
            node.host.set_up(true, cluster.env.now());
        }
    }
    if let Some(jobs) = &region.jobs {
        jobs.restart(cluster).await?;
    }
    // What was in memory is gone.
    region
        .webs
        .iter()
        .flat_map(|web| &web.caches)
        .for_each(CachedStore::clear);
    region
        .hosts(false)
        .for_each(|(_, host)| host.set_up(true, cluster.env.now()));
    Ok(())
}

/// How the requests of each region's users went, in the order in which they ended.
#[derive(Debug, Default)]
pub(super) struct Outcomes(Vec<Outcome>);

#[derive(Clone, Copy, Debug)]
struct Outcome {
    at: Tick,
    /// The region nearest to its user.
    region: usize,
    /// In microseconds; none without an answer in time.
    latency: Option<u32>,
}

impl Outcomes {
    /// Takes note of a request that came at `at`, of a user for whom `region` is nearest.
    pub(super) fn note(&mut self, at: Tick, region: usize, latency: Option<Duration>) {
        self.0.push(Outcome {
            at,
            region,
            latency: latency.map(|latency| latency.as_micros() as u32),
        });
    }

    /// From the kill until a user of the region that is lost got an answer again, from another; `None` if none did.
    pub(super) fn rerouted_ms(&self, lost: usize, kill: Tick) -> Option<f64> {
        let answered = |o: &&Outcome| o.region == lost && o.at >= kill && o.latency.is_some();
        let first = self.0.iter().filter(answered).map(|outcome| outcome.at).min()?;
        Some((first - kill).as_secs_f64() * 1e3)
    }

    /// What each region's users saw before the kill, from then until `settled`, and after that.
    pub(super) fn by_region(
        &self,
        geography: &Geography,
        kill: Tick,
        settled: Tick,
        timeout: Duration,
    ) -> Vec<RegionDrill> {
        let p99 = |region: usize, span: Range<Tick>| {
            let inside = self.0.iter().filter(|o| o.region == region && span.contains(&o.at));
            let latency = |o: &Outcome| o.latency.unwrap_or(timeout.as_micros() as u32);
            let mut latencies: Vec<u32> = inside.map(latency).collect();
            (!latencies.is_empty()).then(|| quantiles(&mut latencies, [0.99])[0])
        };
        let regions = geography.names().iter().enumerate().map(|(region, name)| {
            let after = || self.0.iter().filter(|o| o.region == region && o.at >= kill);
            RegionDrill {
                region: (*name).to_owned(),
                p99_before_ms: p99(region, Tick::ZERO..kill),
                p99_during_ms: p99(region, kill..settled),
                p99_after_ms: p99(region, settled..Tick::MAX),
                failed: after().filter(|outcome| outcome.latency.is_none()).count() as u64,
                requests: after().count() as u64,
            }
        });
        regions.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::climb::tests::data_centres;
    use outgrow::env::Env;

    #[test]
    fn requests_are_told_by_region_and_by_when_they_came() {
        let at = |seconds| Tick::ZERO + Duration::from_secs(seconds);
        let ms = |millis| Some(Duration::from_millis(millis));
        let mut outcomes = Outcomes::default();
        for (second, region, latency) in [
            (1, 0, ms(40)),
            (2, 1, ms(20)),
            (5, 0, None),
            (5, 1, ms(30)),
            (8, 0, ms(90)),
            (6, 0, ms(70)),
        ] {
            outcomes.note(at(second), region, latency);
        }
        assert_eq!(outcomes.rerouted_ms(0, at(4)), Some(2_000.0));
        assert_eq!(outcomes.rerouted_ms(2, at(4)), None);
        let (plan, hardware) = data_centres();
        let geography = Geography::new(&plan, &hardware, &Env::default()).expect("the places are on the Earth");
        let regions = outcomes.by_region(&geography, at(4), at(7), Duration::from_secs(2));
        let told = regions.iter().map(|r| {
            let p99s = [r.p99_before_ms, r.p99_during_ms, r.p99_after_ms];
            (p99s, r.failed, r.requests)
        });
        let want = [
            ([Some(40.0), Some(2_000.0), Some(90.0)], 1, 3),
            ([Some(20.0), Some(30.0), None], 0, 1),
            ([None, None, None], 0, 0),
        ];
        assert_eq!(told.collect::<Vec<_>>(), want);
    }
}
