use crate::store::{LogId, Position};

/// What a node answers when it is asked to promise a new epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Promised {
    pub(crate) node: usize,
    /// The last record on its disk.
    pub(crate) last: Position,
    /// Whether it counts towards a majority. One that does not has made the promise all the same.
    pub(crate) voter: bool,
}

/// Who becomes the primary of the new epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    /// The node whose log is the longest; only it may be promoted without losing anything.
    pub(crate) best: usize,
    /// The node that is wanted in the end: if it is another, it first has to be brought to the same place.
    pub(crate) target: usize,
}

/// Chooses among `promised`, the nodes out of `nodes` that obey the new epoch; `None` when they are no majority.
///
/// A committed record is on a majority of disks, two majorities share a node, and of two logs the one with the greater
/// last position holds whatever is committed in either: so the best of a majority has it all.
pub(crate) fn choose(promised: &[Promised], nodes: usize, wanted: Option<usize>, old: Option<usize>) -> Option<Choice> {
    let voters = || promised.iter().filter(|promised| promised.voter);
    if voters().count() < nodes / 2 + 1 {
        return None;
    }
    // Among equals the wanted one, then any but the old primary, then the first.
    let rank = |node: usize| (Some(node) == wanted, Some(node) != old, std::cmp::Reverse(node));
    let best = voters().max_by_key(|promised| (promised.last, rank(promised.node)))?;
    let others = voters().filter(|promised| Some(promised.node) != old || Some(promised.node) == wanted);
    let target = match wanted {
        Some(wanted) => voters().find(|promised| promised.node == wanted),
        None => others.max_by_key(|promised| (promised.last, rank(promised.node))),
    };
    Some(Choice {
        best: best.node,
        target: target.unwrap_or(best).node,
    })
}

/// What a node that has been opened remembers of the store it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    /// Its directory is new.
    New,
    /// There are files, but not the one that says what they belong to.
    Lost,
    Membership {
        log: LogId,
        /// The newest epoch it has promised.
        promised: u64,
    },
}

/// How a set of opened nodes becomes a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Formation {
    /// No epoch was ever promised, so nothing was ever written: every node that is open takes part from the start.
    New(Option<LogId>),
    /// The store exists. Nodes that remember nothing have lost their disks, or never had one: they join as learners.
    Existing(LogId),
}

/// Why opened nodes make no store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoFormation {
    #[error("{open} of {nodes} nodes could be opened; a majority is needed")]
    TooFew { open: usize, nodes: usize },
    #[error("nodes of two stores: {0} and {1}")]
    Mixed(LogId, LogId),
    #[error("only {left} of {nodes} nodes have their data; a majority is needed")]
    Forgot { left: usize, nodes: usize },
}

/// Decides what the nodes that could be opened, out of `nodes`, are together.
///
/// A promise is asked for only when a majority has its membership on disk. So where nobody has promised anything, and
/// a majority is asked, nothing was ever committed.
pub(crate) fn form(opened: &[Memory], nodes: usize) -> Result<Formation, NoFormation> {
    let majority = nodes / 2 + 1;
    let open = opened.len();
    if open < majority {
        return Err(NoFormation::TooFew { open, nodes });
    }
    let (mut log, mut left, mut unpromised) = (None, 0, true);
    for memory in opened {
        match *memory {
            Memory::New => {}
            Memory::Lost => unpromised = false,
            Memory::Membership { log: mine, promised } => {
                if let Some(other) = log.filter(|log| *log != mine) {
                    return Err(NoFormation::Mixed(other, mine));
                }
                log = Some(mine);
                left += 1;
                unpromised &= promised == 0;
            }
        }
    }
    match log {
        Some(log) if left >= majority => Ok(Formation::Existing(log)),
        _ if unpromised => Ok(Formation::New(log)),
        _ => Err(NoFormation::Forgot { left, nodes }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn promised(node: usize, epoch: u64, seq: u64) -> Promised {
        Promised {
            node,
            last: Position::new(epoch, seq),
            voter: true,
        }
    }

    #[test]
    fn the_most_caught_up_wins_and_the_old_primary_only_alone() {
        let all = [promised(0, 1, 9), promised(1, 1, 8), promised(2, 1, 9)];
        let choice = |wanted, old| choose(&all, 3, wanted, old).unwrap();
        assert_eq!(choice(None, Some(0)), Choice { best: 2, target: 2 });
        assert_eq!(choice(None, None), Choice { best: 0, target: 0 });
        assert_eq!(choice(Some(1), Some(0)), Choice { best: 2, target: 1 });
        assert_eq!(choice(Some(0), Some(0)), Choice { best: 0, target: 0 });
        // Nobody else has as much as the old primary: it hands over first.
        assert_eq!(choose(&all[..2], 3, None, Some(0)), Some(Choice { best: 0, target: 1 }));
        assert_eq!(choose(&all[..1], 3, None, None), None);
        // A newer epoch beats a longer log.
        let newer = [promised(0, 1, 9), promised(1, 2, 8)];
        assert_eq!(choose(&newer, 3, None, None).unwrap().best, 1);
    }

    #[test]
    fn a_learner_neither_counts_nor_wins() {
        let learner = Promised {
            voter: false,
            ..promised(2, 7, 7)
        };
        assert_eq!(choose(&[promised(0, 1, 9), learner], 3, None, None), None);
        let choice = choose(&[promised(0, 1, 9), promised(1, 1, 9), learner], 3, Some(2), None);
        assert_eq!(choice.unwrap().target, 0);
    }

    proptest! {
        /// Whatever a majority has on disk, the chosen log holds, whichever majority is asked.
        #[test]
        fn nothing_committed_is_lost(lasts in prop::collection::vec((1_u64..4, 0_u64..9), 5), asked in prop::sample::subsequence(vec![0_usize, 1, 2, 3, 4], 3..=5)) {
            let promised: Vec<_> = asked.iter().map(|node| promised(*node, lasts[*node].0, lasts[*node].1)).collect();
            let best = choose(&promised, 5, None, None).unwrap().best;
            let mut sorted: Vec<_> = lasts.iter().map(|(epoch, seq)| Position::new(*epoch, *seq)).collect();
            sorted.sort();
            // Three of five have at least this much.
            let committed = sorted[2];
            prop_assert!(Position::new(lasts[best].0, lasts[best].1) >= committed);
        }
    }

    #[test]
    fn nodes_form_a_store_or_say_why_not() {
        let knows = |log, promised| Memory::Membership {
            log: LogId(log),
            promised,
        };
        let (new, lost) = (Memory::New, Memory::Lost);
        assert_eq!(form(&[new, new, new], 3), Ok(Formation::New(None)));
        // The first opening was cut short after one node had written its membership.
        assert_eq!(form(&[knows(7, 0), new], 3), Ok(Formation::New(Some(LogId(7)))));
        let existing = Ok(Formation::Existing(LogId(7)));
        assert_eq!(form(&[knows(7, 4), knows(7, 0), new], 3), existing);
        assert_eq!(form(&[knows(7, 4), lost, knows(7, 4)], 3), existing);
        let forgot = |left| Err(NoFormation::Forgot { left, nodes: 3 });
        assert_eq!(form(&[knows(7, 4), new, new], 3), forgot(1));
        assert_eq!(form(&[lost, new, new], 3), forgot(0));
        assert_eq!(form(&[new], 3), Err(NoFormation::TooFew { open: 1, nodes: 3 }));
        let mixed = Err(NoFormation::Mixed(LogId(7), LogId(8)));
        assert_eq!(form(&[knows(7, 1), knows(8, 1)], 3), mixed);
    }
}
