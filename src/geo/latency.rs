use super::prefixes::{Prefixes, canonical};
use crate::balance::EndpointId;
use crate::env::Tick;
use crate::sync::{AtomicU64, Ordering};
use core::net::IpAddr;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The share of a new observation in the average: an eighth, as in TCP's round-trip time (RFC 6298).
const GAIN: f32 = 0.125;

/// How much faster than the nearest another centre has to be: by a tenth, so that noise moves nobody back and forth.
const FASTER: f32 = 0.9;

/// Clients whose latencies are alike, and which are measured together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Group {
    /// Those with an address in a network; the longest that holds the address counts.
    Subnet(IpNet),
    /// Those that [say so](super::Client::group), which goes before their subnet.
    Named(Arc<str>),
}

impl From<IpNet> for Group {
    fn from(net: IpNet) -> Group {
        Group::Subnet(net)
    }
}

impl From<&str> for Group {
    fn from(name: &str) -> Group {
        Group::Named(name.into())
    }
}

/// The average latency of one group to each centre. Written under the router's lock, read without.
#[derive(Debug)]
pub(super) struct Row(Box<[AtomicU64]>);

impl Row {
    fn new(centres: usize) -> Row {
        Row((0..centres).map(|_| AtomicU64::new(0)).collect())
    }

    /// The average for a centre in milliseconds, if its last observation is at most `age` old.
    #[inline]
    pub(super) fn fresh(&self, centre: usize, now: Tick, age: Duration) -> Option<f32> {
        let (millis, at) = unpack(self.0[centre].load(Ordering::Relaxed))?;
        (now - at <= age).then_some(millis)
    }

    fn observe(&self, centre: usize, latency: Duration, now: Tick, age: Duration) {
        // The latency zero is below what the wire allows, and would be no latency here.
        let new = (latency.as_secs_f32() * 1e3).max(f32::MIN_POSITIVE);
        let average = match self.fresh(centre, now, age) {
            Some(old) => old + (new - old) * GAIN,
            None => new,
        };
        self.0[centre].store(pack(average, now), Ordering::Relaxed);
    }
}

/// Both in one word, so that a reader never sees the average of one time with another time: 32 bits of the average and
/// 32 of the time in seconds, which lasts for 136 years. 0 is no average.
fn pack(millis: f32, at: Tick) -> u64 {
    let seconds = u32::try_from(at.as_nanos() / 1_000_000_000).unwrap_or(u32::MAX);
    u64::from(millis.to_bits()) << 32 | u64::from(seconds)
}

fn unpack(word: u64) -> Option<(f32, Tick)> {
    let at = Tick::from_nanos((word & u64::from(u32::MAX)) * 1_000_000_000);
    (word >> 32 != 0).then(|| (f32::from_bits((word >> 32) as u32), at))
}

/// All that was observed: a row for each group, and no more rows than the limit. Of too many, the one goes that was
/// observed the longest time ago.
#[derive(Debug)]
pub(super) struct LatencyTable {
    rows: BTreeMap<Group, (Arc<Row>, u64)>,
    /// Groups by their last observation.
    order: BTreeMap<u64, Group>,
    observations: u64,
    centres: Vec<EndpointId>,
    limit: usize,
    age: Duration,
    pub(super) evicted: u64,
}

/// What an observation changed for readers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Observed {
    /// Nothing but figures, which they see already.
    Figures,
    /// There is a group more.
    Joined,
    /// One group took the place of another.
    Replaced,
}

impl LatencyTable {
    pub(super) fn new(limit: usize, age: Duration) -> LatencyTable {
        LatencyTable {
            rows: BTreeMap::new(),
            order: BTreeMap::new(),
            observations: 0,
            centres: Vec::new(),
            limit: limit.max(1),
            age,
            evicted: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Makes `centres` those that the rows are about; what was observed of one that stays is kept.
    pub(super) fn arrange(&mut self, centres: Vec<EndpointId>) {
        if self.centres == centres {
            return;
        }
        let before = |id: &EndpointId| self.centres.iter().position(|known| known == id);
        let places: Vec<Option<usize>> = centres.iter().map(before).collect();
        for (row, _) in self.rows.values_mut() {
            let kept = |place: &Option<usize>| place.map_or(0, |place| row.0[place].load(Ordering::Relaxed));
            *row = Arc::new(Row(places.iter().map(kept).map(AtomicU64::new).collect()));
        }
        self.centres = centres;
    }

    pub(super) fn observe(&mut self, group: Group, centre: usize, latency: Duration, now: Tick) -> Observed {
        let group = match group {
            Group::Subnet(net) => Group::Subnet(canonical(net)),
            named @ Group::Named(_) => named,
        };
        self.observations += 1;
        let stamp = self.observations;
        self.order.insert(stamp, group.clone());
        if let Some((row, last)) = self.rows.get_mut(&group) {
            self.order.remove(last);
            *last = stamp;
            row.observe(centre, latency, now, self.age);
            return Observed::Figures;
        }
        let mut observed = Observed::Joined;
        if self.rows.len() >= self.limit
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.rows.remove(&oldest);
            self.evicted += 1;
            observed = Observed::Replaced;
        }
        let row = Row::new(self.centres.len());
        row.observe(centre, latency, now, self.age);
        self.rows.insert(group, (Arc::new(row), stamp));
        observed
    }

    /// The rows as readers look them up.
    pub(super) fn groups(&self) -> Groups {
        let mut groups = Groups {
            named: BTreeMap::new(),
            rows: Vec::new(),
            subnets: Prefixes::new([]),
            age: self.age,
        };
        let mut subnets = Vec::new();
        for (group, (row, _)) in &self.rows {
            match group {
                Group::Subnet(net) => {
                    subnets.push((*net, groups.rows.len()));
                    groups.rows.push(Arc::clone(row));
                }
                Group::Named(name) => {
                    groups.named.insert(Arc::clone(name), Arc::clone(row));
                }
            }
        }
        groups.subnets = Prefixes::new(subnets);
        groups
    }
}

/// The rows of a [`LatencyTable`] at one moment; their figures go on changing.
#[derive(Debug)]
pub(super) struct Groups {
    named: BTreeMap<Arc<str>, Arc<Row>>,
    subnets: Prefixes<usize>,
    rows: Vec<Arc<Row>>,
    age: Duration,
}

impl Groups {
    pub(super) fn is_empty(&self) -> bool {
        self.named.is_empty() && self.rows.is_empty()
    }

    /// The row of a client, and how many leading bits of its address that depends on.
    #[inline]
    pub(super) fn find(&self, group: Option<&str>, ip: Option<IpAddr>) -> (Option<&Row>, u8) {
        if let Some(row) = group.and_then(|name| self.named.get(name)) {
            return (Some(row), 0);
        }
        let (place, bits) = ip.map_or((None, 0), |ip| self.subnets.find(ip));
        (place.map(|place| &*self.rows[place]), bits)
    }

    /// The centre with the lowest fresh average of `row`, among `centres`. `nearest`, where it is given, must be among
    /// those that have one, or nobody can say that another is faster than it, and by more than [`FASTER`].
    #[inline]
    pub(super) fn fastest(&self, row: &Row, centres: usize, nearest: Option<usize>, now: Tick) -> Option<usize> {
        let fresh = |centre| row.fresh(centre, now, self.age);
        let mut best = match nearest {
            Some(nearest) => Some((fresh(nearest)? * FASTER, nearest)),
            None => None,
        };
        for centre in 0..centres {
            if let Some(millis) = fresh(centre)
                && best.is_none_or(|(least, _)| millis < least)
            {
                best = Some((millis, centre));
            }
        }
        best.map(|(_, centre)| centre)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Tick = Tick::from_nanos(5_000_000_000_000);
    const AGE: Duration = Duration::from_secs(60);

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn table(limit: usize, centres: &[&str]) -> LatencyTable {
        let mut table = LatencyTable::new(limit, AGE);
        table.arrange(centres.iter().map(|id| EndpointId::from(*id)).collect());
        table
    }

    #[test]
    fn an_average_follows_and_goes_stale() {
        let mut table = table(9, &["a"]);
        assert_eq!(table.observe("g".into(), 0, ms(80), NOW), Observed::Joined);
        assert_eq!(table.observe("g".into(), 0, ms(160), NOW), Observed::Figures);
        let groups = table.groups();
        let (row, bits) = groups.find(Some("g"), None);
        let row = row.unwrap();
        assert_eq!((row.fresh(0, NOW, AGE), bits), (Some(90.0), 0));
        assert_eq!(row.fresh(0, NOW + AGE, AGE), Some(90.0));
        assert_eq!(row.fresh(0, NOW + AGE + ms(1), AGE), None);
        // After a silence the average starts anew.
        table.observe("g".into(), 0, ms(10), NOW + AGE * 2);
        assert_eq!(row.fresh(0, NOW + AGE * 2, AGE), Some(10.0));
    }

    #[test]
    fn the_group_observed_longest_ago_makes_room() {
        let mut table = table(2, &["a"]);
        let net = |text: &str| Group::Subnet(text.parse().unwrap());
        table.observe(net("192.0.2.0/24"), 0, ms(1), NOW);
        table.observe(net("198.51.100.0/24"), 0, ms(1), NOW);
        table.observe(net("192.0.2.77/24"), 0, ms(1), NOW);
        assert_eq!(table.observe("third".into(), 0, ms(1), NOW), Observed::Replaced);
        assert_eq!((table.len(), table.evicted, table.order.len()), (2, 1, 2));
        let groups = table.groups();
        assert!(groups.find(None, Some([192, 0, 2, 1].into())).0.is_some());
        assert!(groups.find(None, Some([198, 51, 100, 1].into())).0.is_none());
        assert!(groups.find(Some("third"), None).0.is_some());
    }

    #[test]
    fn what_was_observed_of_a_centre_stays_with_it() {
        let mut table = table(9, &["a", "b"]);
        table.observe("g".into(), 1, ms(20), NOW);
        table.arrange(vec!["b".into(), "c".into()]);
        let groups = table.groups();
        let row = groups.find(Some("g"), None).0.unwrap();
        assert_eq!([0, 1].map(|i| row.fresh(i, NOW, AGE)), [Some(20.0), None]);
    }

    #[test]
    fn the_fastest_must_beat_the_nearest() {
        let mut table = table(9, &["a", "b", "c"]);
        table.observe("g".into(), 1, ms(30), NOW);
        table.observe("g".into(), 2, ms(20), NOW);
        let groups = table.groups();
        let row = groups.find(Some("g"), None).0.unwrap();
        let fastest = |nearest| groups.fastest(row, 3, nearest, NOW);
        assert_eq!(fastest(Some(0)), None, "nothing is known of the nearest");
        assert_eq!(fastest(Some(1)), Some(2));
        assert_eq!(fastest(None), Some(2));
        table.observe("g".into(), 0, ms(22), NOW);
        assert_eq!(fastest(Some(0)), Some(0), "by less than a tenth");
        assert_eq!(groups.fastest(row, 3, None, NOW + AGE * 2), None);
    }
}
