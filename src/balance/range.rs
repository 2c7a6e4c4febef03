//! Which endpoints may be picked, and how requests divide among their priorities and zones: worked out when something
//! changes, not when a request comes.

use super::EndpointState;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a pool does when too few of its endpoints are well.
///
/// Of those that take requests at all, so many have to be active, that is neither ejected nor failing their checks. With
/// fewer, the rest may not carry the load, or the fault may lie with who judges; which of the two it is, nobody but the
/// user can know, so this is a choice. Each [priority](super::Endpoint::priority) is judged by itself, and only when all of
/// them together are not well enough to carry everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Panic {
    /// Goes on with those that are active, were it one. The default.
    #[default]
    Never,
    /// Picks among all of a priority, ejected and failing ones too, when fewer than `below_percent` of them are active.
    /// Envoy's default is 50.
    RouteAll {
        /// From 0, which is never, to 100.
        below_percent: u32,
    },
    /// Refuses requests to a priority of which fewer than `below_percent` are active, which spares the rest a load that
    /// would break them too.
    Refuse {
        /// From 0, which is never, to 100.
        below_percent: u32,
    },
}

/// What the plan has to know about an endpoint.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    pub(super) state: EndpointState,
    pub(super) priority: u8,
    pub(super) zone: Option<&'a Arc<str>>,
}

/// The priorities that get requests, the first first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) levels: Vec<Level>,
}

/// The endpoints of one priority that may be picked, as positions among the candidates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Level {
    /// Its share of the requests. All shares add up to 100.
    pub(super) percent: u32,
    pub(super) members: Vec<usize>,
    /// The same by zone, if it was asked for and there are several.
    pub(super) zones: BTreeMap<Arc<str>, Vec<usize>>,
}

/// How much more than its share a level can carry, in percent: with 72 of 100 active it still carries everything. As in
/// Envoy.
const OVERPROVISIONING: usize = 140;

/// Divides the requests. A level gets as much as its active endpoints can carry of what those before it leave.
pub(super) fn plan(candidates: &[Candidate<'_>], panic: Panic, zoned: bool) -> Plan {
    let mut usable: BTreeMap<u8, Vec<usize>> = BTreeMap::new();
    for (i, candidate) in candidates.iter().enumerate() {
        if candidate.state.is_usable() {
            usable.entry(candidate.priority).or_default().push(i);
        }
    }
    let groups: Vec<Vec<usize>> = usable.into_values().collect();
    let active: Vec<usize> = groups.iter().map(|group| active(candidates, group)).collect();
    let health: Vec<usize> = groups
        .iter()
        .zip(&active)
        .map(|(group, active)| (active * OVERPROVISIONING / group.len()).min(100))
        .collect();
    let all_well = health.iter().sum::<usize>() >= 100;
    let chosen: Vec<Vec<usize>> = groups
        .iter()
        .zip(&active)
        .map(|(group, &active)| choose(candidates, group, active, panic, all_well))
        .collect();
    let percents = shares(&health, &chosen);
    let levels = chosen
        .into_iter()
        .zip(percents)
        .filter(|(members, _)| !members.is_empty());
    Plan {
        levels: levels
            .map(|(members, percent)| Level {
                percent,
                zones: if zoned {
                    by_zone(candidates, &members)
                } else {
                    BTreeMap::new()
                },
                members,
            })
            .collect(),
    }
}

fn active(candidates: &[Candidate<'_>], group: &[usize]) -> usize {
    let is_active = |i: &&usize| candidates[**i].state == EndpointState::Active;
    group.iter().filter(is_active).count()
}

/// Those of a level that may be picked.
fn choose(candidates: &[Candidate<'_>], group: &[usize], active: usize, panic: Panic, all_well: bool) -> Vec<usize> {
    let too_few = |percent: u32| !all_well && active * 100 < group.len() * percent.min(100) as usize;
    match panic {
        Panic::RouteAll { below_percent } if too_few(below_percent) => group.to_vec(),
        Panic::Refuse { below_percent } if too_few(below_percent) => Vec::new(),
        _ => {
            let is_active = |i: &usize| candidates[*i].state == EndpointState::Active;
            group.iter().copied().filter(is_active).collect()
        }
    }
}

/// The share of each level in percent. A level that nobody may be picked of gets none; what the health of all leaves over
/// is divided in proportion.
fn shares(health: &[usize], chosen: &[Vec<usize>]) -> Vec<u32> {
    // One in panic counts as what it was judged by, unless nothing is well at all.
    let nothing_is_well = health.iter().all(|&health| health == 0);
    let can: Vec<usize> = health
        .iter()
        .zip(chosen)
        .map(|(&health, members)| match members.is_empty() {
            true => 0,
            false if nothing_is_well => 100,
            false => health,
        })
        .collect();
    let total = can.iter().sum::<usize>().clamp(1, 100);
    let mut left = 100;
    let mut percents: Vec<u32> = Vec::with_capacity(can.len());
    for can in can {
        let share = (can * 100 / total).min(left);
        left -= share;
        percents.push(share as u32);
    }
    // What rounding left goes to the first that has a share.
    if let Some(first) = percents.iter_mut().find(|percent| **percent > 0) {
        *first += left as u32;
    }
    percents
}

fn by_zone(candidates: &[Candidate<'_>], members: &[usize]) -> BTreeMap<Arc<str>, Vec<usize>> {
    let mut zones: BTreeMap<Arc<str>, Vec<usize>> = BTreeMap::new();
    for &i in members {
        let zone = candidates[i].zone.map_or_else(|| Arc::from(""), Arc::clone);
        zones.entry(zone).or_default().push(i);
    }
    if zones.len() < 2 {
        zones.clear();
    }
    zones
}

#[cfg(test)]
mod tests {
    use super::*;
    use EndpointState::{Active, Draining, Ejected, Unhealthy};
    use proptest::prelude::*;

    fn candidates(states: &[(EndpointState, u8)]) -> Vec<Candidate<'_>> {
        let candidate = |&(state, priority)| Candidate {
            state,
            priority,
            zone: None,
        };
        states.iter().map(candidate).collect()
    }

    /// The shares of `levels`, each `active` of `total`.
    fn percents(levels: &[(usize, usize)], panic: Panic) -> Vec<(u32, usize)> {
        let mut states = Vec::new();
        for (priority, &(active, total)) in levels.iter().enumerate() {
            states.extend((0..total).map(|i| (if i < active { Active } else { Ejected }, priority as u8)));
        }
        let plan = plan(&candidates(&states), panic, false);
        plan.levels
            .iter()
            .map(|level| (level.percent, level.members.len()))
            .collect()
    }

    /// The worked examples of Envoy's page on priority levels.
    #[test]
    fn a_level_spills_when_less_than_five_sevenths_of_it_is_active() {
        let two = |p0, p1| percents(&[(p0, 100), (p1, 100)], Panic::Never);
        assert_eq!(two(100, 100), [(100, 100), (0, 100)]);
        assert_eq!(two(72, 72), [(100, 72), (0, 72)]);
        assert_eq!(two(71, 71), [(99, 71), (1, 71)]);
        assert_eq!(two(50, 50), [(70, 50), (30, 50)]);
        assert_eq!(two(0, 100), [(100, 100)]);
        assert_eq!(two(25, 25), [(50, 25), (50, 25)]);
        let three = percents(&[(20, 100), (20, 100), (20, 100)], Panic::Never);
        assert_eq!(three.iter().map(|(percent, _)| percent).sum::<u32>(), 100);
        assert_eq!(three, [(34, 20), (33, 20), (33, 20)]);
    }

    #[test]
    fn panic_is_a_choice() {
        let panic = |panic| percents(&[(4, 10)], panic);
        assert_eq!(panic(Panic::Never), [(100, 4)]);
        assert_eq!(panic(Panic::RouteAll { below_percent: 40 }), [(100, 4)]);
        assert_eq!(panic(Panic::RouteAll { below_percent: 41 }), [(100, 10)]);
        assert_eq!(panic(Panic::Refuse { below_percent: 40 }), [(100, 4)]);
        assert_eq!(panic(Panic::Refuse { below_percent: 41 }).len(), 0);
        let none = percents(&[(0, 10), (0, 5)], Panic::RouteAll { below_percent: 50 });
        assert_eq!(none, [(100, 10), (0, 5)]);
        // The second level carries everything, so nobody panics about the first.
        let spared = percents(&[(1, 10), (10, 10)], Panic::RouteAll { below_percent: 50 });
        assert_eq!(spared, [(14, 1), (86, 10)]);
    }

    #[test]
    fn a_zone_is_a_group_of_its_own_where_there_are_several() {
        let zones: [Arc<str>; 2] = ["a".into(), "b".into()];
        let candidate = |zone, state| Candidate {
            state,
            priority: 0,
            zone,
        };
        let all = [
            candidate(Some(&zones[0]), Active),
            candidate(Some(&zones[1]), Active),
            candidate(None, Active),
            candidate(Some(&zones[0]), Unhealthy),
        ];
        let zones_of = |all: &[Candidate<'_>]| plan(all, Panic::Never, true).levels.remove(0).zones;
        let found = zones_of(&all);
        let found: Vec<_> = found.iter().map(|(zone, members)| (&**zone, &**members)).collect();
        assert_eq!(found, [("", &[2][..]), ("a", &[0]), ("b", &[1])]);
        assert!(zones_of(&all[..1]).is_empty());
    }

    proptest! {
        #[test]
        fn every_plan_is_whole(
            states in prop::collection::vec((prop::sample::select(vec![Active, Ejected, Unhealthy, Draining]), 0..4_u8), 0..30),
            below_percent in 0..=100_u32,
            kind in 0..3,
        ) {
            let panic = [Panic::Never, Panic::RouteAll { below_percent }, Panic::Refuse { below_percent }][kind as usize];
            let plan = plan(&candidates(&states), panic, false);
            let total: u32 = plan.levels.iter().map(|level| level.percent).sum();
            prop_assert_eq!(total, if plan.levels.is_empty() { 0 } else { 100 });
            let mut members: Vec<usize> = plan.levels.iter().flat_map(|level| level.members.clone()).collect();
            members.sort_unstable();
            prop_assert!(members.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert!(members.iter().all(|&i| states[i].0 != Draining));
            let active: Vec<usize> = (0..states.len()).filter(|&i| states[i].0 == Active).collect();
            match panic {
                Panic::Never => prop_assert_eq!(&members, &active),
                Panic::RouteAll { .. } => prop_assert!(active.iter().all(|i| members.contains(i))),
                Panic::Refuse { .. } => prop_assert!(members.iter().all(|i| active.contains(i))),
            }
            // Nobody is passed over who could take requests.
            for (i, level) in plan.levels.iter().enumerate() {
                let later: u32 = plan.levels[i + 1..].iter().map(|level| level.percent).sum();
                let can = level.members.iter().any(|i| active.contains(i));
                prop_assert!(later <= 1 || level.percent > 0 || !can, "{:?}", plan);
            }
        }
    }
}
