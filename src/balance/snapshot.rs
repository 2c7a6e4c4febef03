use super::roster::{Roster, Seat};
use super::shared::{Core, SharedNode};
use super::{Balancer, Load, Request, ZoneRouting};
use crate::env::{Rng, Tick};
use std::sync::Arc;
use std::time::Duration;

/// What picks read: the endpoints that may be picked, stage by stage, and the policy's tables for them. Immutable.
pub(super) struct Snapshot<B: Balancer, T: Send + Sync + 'static> {
    /// When it is out of date without anybody's doing.
    pub(super) expires: Tick,
    /// When the first of those ejected returns.
    pub(super) next_return: Option<Tick>,
    /// Whether somebody is ejected or fails its checks.
    pub(super) any_out: bool,
    /// Whether there is one stage without zones, so that there is nothing to choose but an endpoint.
    simple: bool,
    /// The endpoints of the first priority; empty if there are none at all.
    first: Stage<B, T>,
    others: Box<[Stage<B, T>]>,
}

/// The endpoints of one priority.
struct Stage<B: Balancer, T: Send + Sync + 'static> {
    /// The share of the requests that goes to this stage and those before it.
    percent: u32,
    all: Group<B, T>,
    zones: Box<[Zone<B, T>]>,
}

struct Zone<B: Balancer, T: Send + Sync + 'static> {
    name: Arc<str>,
    weight: u64,
    group: Group<B, T>,
}

/// Endpoints among which the policy chooses, position by position.
pub(super) struct Group<B: Balancer, T: Send + Sync + 'static> {
    table: B::Table,
    pub(super) loads: Box<[Arc<Load>]>,
    pub(super) nodes: Box<[SharedNode<B, T>]>,
}

/// What is known when an endpoint is chosen.
pub(super) struct Choice<'a, B> {
    pub(super) core: &'a Core<B>,
    pub(super) request: &'a Request<'a>,
    pub(super) now: Tick,
}

/// How long what an endpoint reports of its load is held for its load.
const FRESH: Duration = Duration::from_secs(1);

impl<B: Balancer, T: Send + Sync + 'static> Snapshot<B, T> {
    pub(super) fn new(policy: &B, roster: &Roster<SharedNode<B, T>>, now: Tick) -> Snapshot<B, T> {
        let plan = roster.plan();
        let group = |positions: &[usize]| Group::new(policy, roster, positions, now);
        let weight = |positions: &[usize]| {
            positions
                .iter()
                .map(|&i| u64::from(roster.seats()[i].member.weight))
                .sum()
        };
        let mut percent = 0;
        let mut stages = plan.levels.into_iter().map(|level| {
            percent += level.percent;
            Stage {
                percent,
                all: group(&level.members),
                zones: level
                    .zones
                    .into_iter()
                    .map(|(name, positions)| Zone {
                        name,
                        weight: weight(&positions),
                        group: group(&positions),
                    })
                    .collect(),
            }
        });
        let first = stages.next().unwrap_or_else(|| Stage {
            percent: 100,
            all: group(&[]),
            zones: Box::default(),
        });
        let others: Box<[_]> = stages.collect();
        Snapshot {
            expires: roster.next_change(now),
            next_return: roster.next_return(),
            any_out: roster.seats().iter().any(Seat::is_out),
            simple: others.is_empty() && first.zones.is_empty(),
            first,
            others,
        }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.first.all.loads.is_empty()
    }

    /// Chooses a group, and an endpoint of it; none if the policy refuses.
    // Always, as `Shared::choose`.
    #[inline(always)]
    pub(super) fn choose(&self, choice: &Choice<'_, B>, rng: &mut Rng) -> Option<(&Group<B, T>, usize)> {
        if self.simple {
            let group = &self.first.all;
            return Some((group, group.pick(choice, rng)?));
        }
        self.choose_stage(choice, rng)
    }

    #[inline(never)]
    fn choose_stage(&self, choice: &Choice<'_, B>, rng: &mut Rng) -> Option<(&Group<B, T>, usize)> {
        let draw = if self.others.is_empty() {
            0
        } else {
            rng.below(100) as u32
        };
        let stage = self.stages().find(|stage| draw < stage.percent).unwrap_or(&self.first);
        let (group, i) = stage.choose(choice, rng)?;
        if !choice.request.avoids(&group.loads[i]) {
            return Some((group, i));
        }
        // All that the policy could choose among was tried. Elsewhere is somebody who was not.
        let mut untried = self
            .groups()
            .filter_map(|group| Some((group, group.pick(choice, rng)?)));
        let found = untried.find(|(group, i)| !choice.request.avoids(&group.loads[*i]));
        Some(found.unwrap_or((group, i)))
    }

    /// All that may be picked, beginning with those of `group` that follow `start`, which come again later.
    pub(super) fn places<'s>(
        &'s self,
        group: &'s Group<B, T>,
        start: usize,
    ) -> impl Iterator<Item = (&'s Group<B, T>, usize)> {
        let around = (start..group.loads.len()).chain(0..start).map(move |i| (group, i));
        let all = self.groups();
        around.chain(all.flat_map(|group| (0..group.loads.len()).map(move |i| (group, i))))
    }

    fn stages(&self) -> impl Iterator<Item = &Stage<B, T>> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// The priorities that get requests at present.
    pub(super) fn busy_groups(&self) -> impl Iterator<Item = &Group<B, T>> {
        let mut before = 0;
        let stages = self.stages();
        let busy = stages.filter(move |stage| std::mem::replace(&mut before, stage.percent) < stage.percent);
        busy.map(|stage| &stage.all)
    }

    /// All endpoints that may be picked, priority by priority.
    pub(super) fn groups(&self) -> impl Iterator<Item = &Group<B, T>> {
        self.stages().map(|stage| &stage.all)
    }
}

impl<B: Balancer, T: Send + Sync + 'static> Stage<B, T> {
    /// Stays in the request's zone as long as that has an endpoint that is not much busier than others.
    fn choose(&self, choice: &Choice<'_, B>, rng: &mut Rng) -> Option<(&Group<B, T>, usize)> {
        let Some((zone, zones)) = self.zone_of(choice) else {
            return Some((&self.all, self.all.pick(choice, rng)?));
        };
        let near = &self.zones[zone].group;
        let i = near.pick(choice, rng)?;
        let burden = near.burden(i, choice.now);
        if burden <= f64::from(zones.headroom) && !choice.request.avoids(&near.loads[i]) {
            return Some((near, i));
        }
        let far = self.elsewhere(zone, rng);
        let j = far.pick(choice, rng)?;
        let leaves = match (
            choice.request.avoids(&near.loads[i]),
            choice.request.avoids(&far.loads[j]),
        ) {
            (false, false) => burden > zones.spill_factor * far.burden(j, choice.now),
            (avoids, _) => avoids,
        };
        Some(if leaves { (far, j) } else { (near, i) })
    }

    fn zone_of<'c>(&self, choice: &Choice<'c, B>) -> Option<(usize, &'c ZoneRouting)> {
        let zones = choice.core.zones.as_ref()?;
        let name = choice.request.zone.or(zones.local.as_deref())?;
        let zone = self.zones.binary_search_by(|zone| (*zone.name).cmp(name)).ok()?;
        Some((zone, zones))
    }

    /// Another zone, at random by weight.
    fn elsewhere(&self, zone: usize, rng: &mut Rng) -> &Group<B, T> {
        let others = || {
            self.zones
                .iter()
                .enumerate()
                .filter(|(i, _)| *i != zone)
                .map(|(_, other)| other)
        };
        let mut draw = rng.below(others().map(|other| other.weight).sum());
        let drawn = others().find(|other| {
            let found = draw < other.weight;
            draw = draw.saturating_sub(other.weight);
            found
        });
        drawn.map_or(&self.all, |other| &other.group)
    }
}

impl<B: Balancer, T: Send + Sync + 'static> Group<B, T> {
    fn new(policy: &B, roster: &Roster<SharedNode<B, T>>, positions: &[usize], now: Tick) -> Group<B, T> {
        let seats = || positions.iter().map(|&i| &roster.seats()[i]);
        Group {
            table: policy.table(&roster.members(positions, now)),
            loads: seats().map(|seat| Arc::clone(&seat.load)).collect(),
            nodes: seats().map(|seat| Arc::clone(&seat.node)).collect(),
        }
    }

    #[inline(always)]
    fn pick(&self, choice: &Choice<'_, B>, rng: &mut Rng) -> Option<usize> {
        let i = choice
            .core
            .policy
            .pick(&self.table, &self.loads, choice.request, choice.now, rng)?;
        (i < self.loads.len()).then_some(i)
    }

    /// What an endpoint would carry with one request more, in proportion to its weight.
    fn burden(&self, i: usize, now: Tick) -> f64 {
        let load = &self.loads[i];
        let mut busy = f64::from(load.in_flight());
        if let Some((reported, age)) = load.reported(now)
            && age < FRESH
        {
            busy = busy.max(reported.into());
        }
        (busy + 1.0) / f64::from(self.nodes[i].endpoint.weight.max(1))
    }
}
