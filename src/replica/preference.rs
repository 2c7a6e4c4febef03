use crate::store::Position;
use std::time::Duration;

/// Which nodes may answer reads.
///
/// ```
/// use outgrow::replica::ReadPreference;
/// use std::time::Duration;
///
/// let near = ReadPreference::nearest().tag("zone", "a").max_lag(Duration::from_millis(200));
/// assert_ne!(near, ReadPreference::primary());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct ReadPreference {
    mode: Mode,
    tags: Vec<(String, String)>,
    zone: Option<String>,
    max_lag: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Primary,
    PrimaryPreferred,
    Secondary,
    SecondaryPreferred,
    Nearest,
}

impl ReadPreference {
    const fn new(mode: Mode) -> ReadPreference {
        ReadPreference {
            mode,
            tags: Vec::new(),
            zone: None,
            max_lag: None,
        }
    }

    /// The primary alone: reads see every acknowledged write.
    pub const fn primary() -> ReadPreference {
        ReadPreference::new(Mode::Primary)
    }

    /// The primary, and when it is gone, the others.
    pub const fn primary_preferred() -> ReadPreference {
        ReadPreference::new(Mode::PrimaryPreferred)
    }

    /// The others alone; the primary is spared.
    pub const fn secondary() -> ReadPreference {
        ReadPreference::new(Mode::Secondary)
    }

    /// The others, and when none of them will do, the primary.
    pub const fn secondary_preferred() -> ReadPreference {
        ReadPreference::new(Mode::SecondaryPreferred)
    }

    /// Any node.
    pub const fn nearest() -> ReadPreference {
        ReadPreference::new(Mode::Nearest)
    }

    /// Only nodes that have this tag. Given several times, all of them.
    pub fn tag(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.tags.push((name.into(), value.into()));
        self
    }

    /// Nodes whose tag "zone" is `zone` while one of them will do, else the others.
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// Only nodes that are at most this far behind the primary. By default, however far.
    pub fn max_lag(mut self, lag: Duration) -> Self {
        self.max_lag = Some(lag);
        self
    }
}

/// What choosing asks of a node, whatever a node is.
pub(crate) trait Routable {
    /// Whether it can answer reads.
    fn serves(&self) -> bool;
    fn is_primary(&self) -> bool;
    fn has_tag(&self, name: &str, value: &str) -> bool;
    /// How far it may be behind the primary.
    fn lag(&self) -> Duration;
    /// Whether it has got to `need`.
    fn has(&self, need: Position) -> bool;
    /// Reads under way there.
    fn in_flight(&self) -> u32;
}

/// Where a read goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pick {
    Node(usize),
    /// There are nodes that would do, but none of them has got to what the read needs.
    Behind,
    /// There is no node that would do.
    Nobody,
}

/// The most nodes that [`ReadPreference::pick`] can choose among.
pub(crate) const MAX_NODES: usize = 64;

impl ReadPreference {
    /// Chooses one of `count` nodes for a read that needs to see `need`: filters, then balances by the power of two choices.
    ///
    /// A `patient` read would rather wait for a node of the first choice than go to one of the second.
    pub(crate) fn pick<N: Routable>(
        &self,
        count: usize,
        node: impl Fn(usize) -> N,
        need: Position,
        patient: bool,
        dice: impl FnOnce() -> u64,
    ) -> Pick {
        let mut behind = false;
        for (primary, others) in self.mode.tiers() {
            for zone in self.zones() {
                let fits = |node: N| {
                    (if node.is_primary() { *primary } else { *others })
                        && node.serves()
                        && self.tags.iter().all(|(name, value)| node.has_tag(name, value))
                        && zone.is_none_or(|(zone, inside)| node.has_tag("zone", zone) == inside)
                        && self.max_lag.is_none_or(|max| node.is_primary() || node.lag() <= max)
                };
                let fit = mask(count, |i| fits(node(i)));
                if fit == 0 {
                    continue;
                }
                let ready = fit & mask(count, |i| need.seq == 0 || node(i).has(need));
                if ready != 0 {
                    return Pick::Node(lighter(ready, |i| node(i).in_flight(), dice));
                }
                behind = true;
            }
            if behind && patient {
                break;
            }
        }
        if behind { Pick::Behind } else { Pick::Nobody }
    }

    /// The passes over the nodes: those in the zone, then those outside; or all at once.
    fn zones(&self) -> impl Iterator<Item = Option<(&str, bool)>> {
        let zone = self.zone.as_deref();
        let inside = zone.map(|zone| (zone, true));
        let outside = zone.map(|zone| Some((zone, false)));
        std::iter::once(inside).chain(outside)
    }
}

impl Mode {
    /// In order: whether the primary may answer, and whether the others may.
    fn tiers(self) -> &'static [(bool, bool)] {
        match self {
            Mode::Primary => &[(true, false)],
            Mode::PrimaryPreferred => &[(true, false), (false, true)],
            Mode::Secondary => &[(false, true)],
            Mode::SecondaryPreferred => &[(false, true), (true, false)],
            Mode::Nearest => &[(true, true)],
        }
    }
}

fn mask(count: usize, holds: impl Fn(usize) -> bool) -> u64 {
    (0..count.min(MAX_NODES)).fold(0, |mask, i| mask | u64::from(holds(i)) << i)
}

/// Of two nodes drawn out of `mask`, the one with fewer reads under way.
fn lighter(mask: u64, in_flight: impl Fn(usize) -> u32, dice: impl FnOnce() -> u64) -> usize {
    let count = u64::from(mask.count_ones());
    if count == 1 {
        return mask.trailing_zeros() as usize;
    }
    let dice = dice();
    let first = (dice >> 32) % count;
    let second = (first + 1 + (dice & 0xffff_ffff) % (count - 1)) % count;
    let (first, second) = (nth(mask, first), nth(mask, second));
    if in_flight(second) < in_flight(first) {
        second
    } else {
        first
    }
}

/// The index of the `n`-th bit that is set.
fn nth(mut mask: u64, n: u64) -> usize {
    for _ in 0..n {
        mask &= mask - 1;
    }
    mask.trailing_zeros() as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Rng;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    struct Node {
        serves: bool,
        primary: bool,
        zone: &'static str,
        lag: u64,
        at: u64,
        in_flight: u32,
    }

    impl Routable for &Node {
        fn serves(&self) -> bool {
            self.serves
        }
        fn is_primary(&self) -> bool {
            self.primary
        }
        fn has_tag(&self, name: &str, value: &str) -> bool {
            name == "zone" && value == self.zone
        }
        fn lag(&self) -> Duration {
            Duration::from_millis(self.lag)
        }
        fn has(&self, need: Position) -> bool {
            self.at >= need.seq
        }
        fn in_flight(&self) -> u32 {
            self.in_flight
        }
    }

    fn three() -> [Node; 3] {
        let node = |primary, zone, lag, at| Node {
            serves: true,
            primary,
            zone,
            lag,
            at,
            in_flight: 0,
        };
        [node(true, "a", 0, 9), node(false, "a", 5, 8), node(false, "b", 500, 3)]
    }

    fn picks(nodes: &[Node], preference: &ReadPreference, need: u64, patient: bool) -> Vec<Pick> {
        let mut rng = Rng::seeded(1);
        let need = Position::new(1, need);
        let mut picks: Vec<_> = (0..100)
            .map(|_| preference.pick(nodes.len(), |i| &nodes[i], need, patient, || rng.next_u64()))
            .collect();
        picks.sort_by_key(|pick| format!("{pick:?}"));
        picks.dedup();
        picks
    }

    #[test]
    fn modes_tags_zones_and_lag_filter() {
        let nodes = three();
        let check = |preference: &ReadPreference, expected: &[usize]| {
            let expected: Vec<_> = expected.iter().map(|node| Pick::Node(*node)).collect();
            assert_eq!(picks(&nodes, preference, 0, true), expected, "{preference:?}");
        };
        check(&ReadPreference::primary(), &[0]);
        check(&ReadPreference::primary_preferred(), &[0]);
        check(&ReadPreference::secondary(), &[1, 2]);
        check(&ReadPreference::secondary_preferred(), &[1, 2]);
        check(&ReadPreference::nearest(), &[0, 1, 2]);
        check(&ReadPreference::nearest().tag("zone", "a"), &[0, 1]);
        check(&ReadPreference::nearest().zone("b"), &[2]);
        check(&ReadPreference::nearest().max_lag(Duration::from_millis(10)), &[0, 1]);
        check(&ReadPreference::nearest().zone("b").max_lag(Duration::ZERO), &[0]);
        assert_eq!(
            picks(&nodes, &ReadPreference::secondary().tag("zone", "c"), 0, true),
            [Pick::Nobody]
        );
    }

    #[test]
    fn a_patient_read_waits_for_its_first_choice() {
        let nodes = three();
        let preferred = ReadPreference::secondary_preferred();
        assert_eq!(picks(&nodes, &preferred, 8, true), [Pick::Node(1)]);
        assert_eq!(picks(&nodes, &preferred, 9, true), [Pick::Behind]);
        assert_eq!(picks(&nodes, &preferred, 9, false), [Pick::Node(0)]);
        assert_eq!(picks(&nodes, &ReadPreference::secondary(), 9, false), [Pick::Behind]);
        assert_eq!(picks(&nodes, &ReadPreference::nearest(), 9, true), [Pick::Node(0)]);
    }

    #[test]
    fn without_the_primary_others_step_in_only_where_they_may() {
        let mut nodes = three();
        nodes[0].serves = false;
        assert_eq!(picks(&nodes, &ReadPreference::primary(), 0, true), [Pick::Nobody]);
        let preferred = picks(&nodes, &ReadPreference::primary_preferred(), 0, true);
        assert_eq!(preferred, [Pick::Node(1), Pick::Node(2)]);
    }

    proptest! {
        #[test]
        fn the_busier_of_a_pair_never_wins(busy in prop::collection::vec(0_u32..5, 2..8), seed: u64) {
            let node = |in_flight| Node { serves: true, primary: false, zone: "a", lag: 0, at: 0, in_flight };
            let nodes: Vec<_> = busy.into_iter().map(node).collect();
            let mut rng = Rng::seeded(seed);
            let most = nodes.iter().map(|node| node.in_flight).max().unwrap();
            let ties = nodes.iter().filter(|node| node.in_flight == most).count();
            for _ in 0..50 {
                let Pick::Node(node) = ReadPreference::nearest().pick(nodes.len(), |i| &nodes[i], Position::START, true, || rng.next_u64()) else {
                    panic!("there are nodes");
                };
                prop_assert!(nodes[node].in_flight < most || ties > 1);
            }
        }
    }
}
