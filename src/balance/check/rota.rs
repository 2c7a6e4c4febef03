use super::gate::Gate;
use crate::balance::EndpointId;
use crate::balance::background::share;
use crate::env::{Rng, Tick};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How often an endpoint is checked, and what it takes to change its health.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) rise: u32,
    pub(super) fall: u32,
    pub(super) interval: Duration,
    pub(super) unhealthy_interval: Option<Duration>,
    pub(super) jitter: f64,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            rise: 2,
            fall: 3,
            interval: Duration::from_secs(5),
            unhealthy_interval: None,
            jitter: 0.1,
        }
    }
}

/// Whose turn it is to be checked, and who is healthy. Pure: time and chance are arguments.
pub(super) struct Rota {
    rules: Rules,
    slots: BTreeMap<EndpointId, Slot>,
    /// When each that is not being checked comes next.
    due: BTreeSet<(Tick, EndpointId)>,
    last_turn: u64,
}

struct Slot {
    gate: Gate,
    /// The check that is running; who has none is due at some time.
    turn: Option<u64>,
}

/// One check that has begun. It has no say once its endpoint has left, even if one of the same name has joined since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) id: EndpointId,
    turn: u64,
}

impl Rota {
    pub(super) fn new(rules: Rules) -> Rota {
        Rota {
            rules,
            slots: BTreeMap::new(),
            due: BTreeSet::new(),
            last_turn: 0,
        }
    }

    /// Makes `ids` those that are checked. One that joins is due at once, and one that leaves is forgotten.
    pub(super) fn set_members(&mut self, ids: &BTreeSet<EndpointId>, now: Tick) {
        self.slots.retain(|id, _| ids.contains(id));
        self.due.retain(|(_, id)| ids.contains(id));
        for id in ids {
            if !self.slots.contains_key(id) {
                self.due.insert((now, id.clone()));
                let gate = Gate::new(self.rules.rise, self.rules.fall);
                self.slots.insert(id.clone(), Slot { gate, turn: None });
            }
        }
    }

    /// When the next check is due, if any endpoint waits for one.
    pub(super) fn next(&self) -> Option<Tick> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Begins the check that has been due for longest.
    pub(super) fn begin(&mut self, now: Tick) -> Option<Turn> {
        self.next().filter(|at| *at <= now)?;
        let (_, id) = self.due.pop_first()?;
        self.last_turn += 1;
        let turn = self.last_turn;
        let slot = self
            .slots
            .get_mut(&id)
            .expect("broken invariant: who is due has a slot");
        slot.turn = Some(turn);
        Some(Turn { id, turn })
    }

    /// Ends a check, and says whether its endpoint is healthy; `None` if it has left.
    pub(super) fn end(&mut self, turn: &Turn, passed: bool, now: Tick, rng: &mut Rng) -> Option<bool> {
        let slot = self.slots.get_mut(&turn.id)?;
        if slot.turn != Some(turn.turn) {
            return None;
        }
        let healthy = slot.gate.take(passed);
        let at = now + self.rules.pause(healthy, rng);
        slot.turn = None;
        self.due.insert((at, turn.id.clone()));
        Some(healthy)
    }
}

impl Rules {
    /// The time from the end of a check to the next of the same endpoint.
    fn pause(&self, healthy: bool, rng: &mut Rng) -> Duration {
        let interval = self.unhealthy_interval.filter(|_| !healthy).unwrap_or(self.interval);
        let jitter = share(self.jitter);
        let share = 1.0 + jitter * (2.0 * rng.unit() - 1.0);
        let pause = Duration::try_from_secs_f64(interval.as_secs_f64() * share);
        pause.unwrap_or(Duration::MAX).max(LEAST)
    }
}

/// No endpoint is checked in a tight loop.
const LEAST: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Rng;
    use proptest::prelude::*;

    const START: Tick = Tick::from_nanos(1_000_000_000);

    fn ids(names: &[&str]) -> BTreeSet<EndpointId> {
        names.iter().map(|name| EndpointId::from(*name)).collect()
    }

    fn exact() -> Rules {
        Rules {
            jitter: 0.0,
            ..Rules::default()
        }
    }

    #[test]
    fn who_joins_is_checked_at_once_and_then_at_the_interval() {
        let rng = &mut Rng::seeded(1);
        let mut rota = Rota::new(exact());
        rota.set_members(&ids(&["a", "b"]), START);
        let (a, b) = (rota.begin(START).unwrap(), rota.begin(START).unwrap());
        assert_eq!((&*a.id, &*b.id), ("a", "b"));
        assert_eq!((rota.begin(START), rota.next()), (None, None), "both are being checked");
        let later = START + Duration::from_secs(2);
        assert_eq!(rota.end(&a, true, later, rng), Some(true));
        assert_eq!(rota.next(), Some(later + Duration::from_secs(5)));
        rota.set_members(&ids(&["a", "b", "c"]), later);
        assert_eq!(rota.begin(later).map(|turn| turn.id), Some("c".into()));
    }

    #[test]
    fn an_unhealthy_one_may_have_an_interval_of_its_own() {
        let rng = &mut Rng::seeded(1);
        let mut rota = Rota::new(Rules {
            unhealthy_interval: Some(Duration::from_secs(1)),
            ..exact()
        });
        rota.set_members(&ids(&["a"]), START);
        let turn = rota.begin(START).unwrap();
        assert_eq!(rota.end(&turn, false, START, rng), Some(false));
        assert_eq!(rota.next(), Some(START + Duration::from_secs(1)));
    }

    #[test]
    fn a_check_has_no_say_about_another_of_the_same_name() {
        let rng = &mut Rng::seeded(1);
        let mut rota = Rota::new(exact());
        rota.set_members(&ids(&["a"]), START);
        let old = rota.begin(START).unwrap();
        rota.set_members(&ids(&[]), START);
        assert_eq!(rota.end(&old, false, START, rng), None);
        rota.set_members(&ids(&["a"]), START);
        let new = rota.begin(START).unwrap();
        assert_eq!(rota.end(&old, false, START, rng), None);
        assert_eq!(rota.end(&new, true, START, rng), Some(true));
        assert_eq!(rota.end(&new, false, START, rng), None, "a check ends once");
    }

    #[test]
    fn chance_is_kept_within_its_bounds() {
        let rng = &mut Rng::seeded(1);
        for (jitter, least, most) in [
            (f64::NAN, 5.0, 5.0),
            (-1.0, 5.0, 5.0),
            (0.5, 2.5, 7.5),
            (9.0, 0.0, 10.0),
        ] {
            let rules = Rules { jitter, ..exact() };
            let pauses = (0..1_000).map(|_| rules.pause(true, rng).as_secs_f64());
            let (low, high) = pauses.fold((f64::MAX, 0.0_f64), |(low, high), p| (low.min(p), high.max(p)));
            let slack = (most - least) * 0.05;
            assert!(
                (least..=least + slack).contains(&low) && (most - slack..=most).contains(&high),
                "{low} to {high}"
            );
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Members(BTreeSet<u8>),
        Begin,
        End(prop::sample::Index, bool),
        Pass(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            prop::collection::btree_set(0_u8..6, 0..6).prop_map(Step::Members),
            Just(Step::Begin),
            (any::<prop::sample::Index>(), any::<bool>()).prop_map(|(which, passed)| Step::End(which, passed)),
            (0_u64..8_000).prop_map(Step::Pass),
        ];
        prop::collection::vec(step, 1..120)
    }

    proptest! {
        /// Against a list that is searched from one end to the other.
        #[test]
        fn it_does_what_a_list_does(steps in steps(), seed: u64) {
            let rng = &mut Rng::seeded(seed);
            let mut now = START;
            let mut rota = Rota::new(Rules::default());
            // Each member, when it is due, or the running check's number.
            let mut model: Vec<(EndpointId, Result<Tick, usize>)> = Vec::new();
            let mut begun: Vec<Turn> = Vec::new();
            for step in steps {
                match step {
                    Step::Members(set) => {
                        let set: BTreeSet<_> = set.into_iter().map(|n| EndpointId::from(n.to_string())).collect();
                        rota.set_members(&set, now);
                        model.retain(|(id, _)| set.contains(id));
                        for id in set {
                            if !model.iter().any(|(known, _)| *known == id) {
                                model.push((id, Ok(now)));
                            }
                        }
                    }
                    Step::Begin => {
                        let due = model.iter_mut().filter(|(_, state)| state.is_ok_and(|at| at <= now));
                        let first = due.min_by_key(|(id, state)| (state.ok(), id.clone()));
                        let turn = rota.begin(now);
                        prop_assert_eq!(turn.as_ref().map(|turn| &turn.id), first.as_ref().map(|(id, _)| id));
                        if let (Some(turn), Some((_, state))) = (turn, first) {
                            *state = Err(begun.len());
                            begun.push(turn);
                        }
                    }
                    Step::End(which, passed) if !begun.is_empty() => {
                        let which = which.index(begun.len());
                        let running = model.iter_mut().find(|(_, state)| *state == Err(which));
                        let verdict = rota.end(&begun[which], passed, now, rng);
                        prop_assert_eq!(verdict.is_some(), running.is_some());
                        if let Some((id, state)) = running {
                            let at = rota.due.iter().find(|(_, due)| due == id).map(|(at, _)| *at);
                            let pause = at.expect("it is due again") - now;
                            let bounds = Duration::from_millis(4_500)..=Duration::from_millis(5_500);
                            prop_assert!(bounds.contains(&pause), "{:?}", pause);
                            *state = Ok(now + pause);
                        }
                    }
                    Step::End(..) => {}
                    Step::Pass(millis) => now = now + Duration::from_millis(millis),
                }
                prop_assert_eq!(rota.next(), model.iter().filter_map(|(_, state)| state.ok()).min());
            }
        }
    }
}
