use super::entry::Entry;
use super::history::History;
use crate::env::Tick;
use crate::mutant::{Mutant, planted};
use crate::store::Position;

/// What a node decides about what a primary sends: whose records it takes, where they fit, and what of its own log they
/// replace. The rules are Raft's (Ongaro and Ousterhout, 2014, section 5.3).
#[derive(Clone, Debug)]
pub(crate) struct Acceptor {
    /// The newest epoch whose primary it obeys; on disk before anybody is told.
    promised: u64,
    /// Whether it counts towards a majority. A node that lost part of what it had acknowledged does not, until it has
    /// everything again: its log would say less than it once promised.
    voter: bool,
    history: History,
    /// The last record that counts. What the log holds beyond is replaced.
    last: u64,
    /// Up to here every record is known to be committed.
    commit: u64,
}

/// Records for another node, with the one before them.
#[derive(Clone, Debug)]
pub(crate) struct Append {
    pub(crate) epoch: u64,
    pub(crate) prev: Position,
    pub(crate) entries: Vec<Entry>,
    /// What the primary knew to be committed, and when it sent this.
    pub(crate) commit: u64,
    pub(crate) as_of: Tick,
}

/// A node's answer to a primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Its log is the primary's up to here, on disk.
    Has { last: u64, voter: bool },
    /// Its log differs or ends before: begin again after this record.
    Earlier { last: u64 },
    /// It obeys a newer primary.
    Fenced { promised: u64 },
    /// Its disk has no room now.
    Busy,
}

/// What to do with an [`Append`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Refuse it, and say why.
    Refuse(Answer),
    /// Take what is new of it.
    Take(Take),
    /// It would replace a committed record, which no primary does that was rightly chosen.
    Broken { seq: u64 },
}

/// How to take an [`Append`] of the epoch that is promised: in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Take {
    /// Cut the log after this record.
    pub(crate) cut: Option<u64>,
    /// How many of the entries are there already.
    pub(crate) skip: usize,
    /// Where the logs are equal up to, afterwards.
    pub(crate) matched: u64,
}

impl Acceptor {
    pub(crate) fn new(promised: u64, voter: bool, history: History, last: u64, commit: u64) -> Acceptor {
        Acceptor {
            promised,
            voter,
            history,
            last,
            commit,
        }
    }

    pub(crate) fn promised(&self) -> u64 {
        self.promised
    }

    pub(crate) fn voter(&self) -> bool {
        self.voter
    }

    pub(crate) fn history(&self) -> &History {
        &self.history
    }

    pub(crate) fn commit(&self) -> u64 {
        self.commit
    }

    /// The position of the last record.
    pub(crate) fn last(&self) -> Position {
        self.history.at(self.last)
    }

    /// Whether `epoch` is older than one that is promised.
    pub(crate) fn is_fenced(&self, epoch: u64) -> bool {
        epoch < self.promised && !planted(Mutant::SkipEpochCheck)
    }

    /// What to do with `append`. Nothing has changed yet.
    pub(crate) fn judge(&self, append: &Append) -> Verdict {
        if self.is_fenced(append.epoch) {
            return Verdict::Refuse(Answer::Fenced {
                promised: self.promised,
            });
        }
        let prev = append.prev;
        if prev.seq > self.last {
            return Verdict::Refuse(Answer::Earlier { last: self.last });
        }
        if prev.seq > self.commit && self.history.at(prev.seq) != prev {
            // The whole epoch that the record here belongs to is in doubt; go back by epochs, not by records.
            let last = self.history.start_of_epoch(prev.seq) - 1;
            return Verdict::Refuse(Answer::Earlier {
                last: last.max(self.commit),
            });
        }
        let has = |at: Position| at.seq <= self.last && (at.seq <= self.commit || self.history.at(at.seq) == at);
        let skip = append.entries.iter().take_while(|entry| has(entry.at)).count();
        let cut = append
            .entries
            .get(skip)
            .map(|entry| entry.at.seq - 1)
            .filter(|cut| *cut < self.last);
        if let Some(cut) = cut
            && cut < self.commit
        {
            return Verdict::Broken { seq: cut + 1 };
        }
        Verdict::Take(Take {
            cut,
            skip,
            matched: append.entries.last().map_or(prev.seq, |entry| entry.at.seq),
        })
    }

    /// Whether `epoch` may be promised: only one newer than any promised before.
    pub(crate) fn may_promise(&self, epoch: u64) -> bool {
        epoch > self.promised
    }

    /// The promise of `epoch` is on disk.
    pub(crate) fn promise(&mut self, epoch: u64) {
        self.promised = self.promised.max(epoch);
    }

    /// It counts towards a majority, or no longer does; that is on disk.
    pub(crate) fn set_voter(&mut self, voter: bool) {
        self.voter = voter;
    }

    /// The log has been cut after the record numbered `seq`.
    pub(crate) fn cut(&mut self, seq: u64) {
        self.last = self.last.min(seq);
        self.history.cut(seq);
    }

    /// The log has got the record at `at`.
    pub(crate) fn push(&mut self, at: Position) {
        self.history.note(at);
        self.last = at.seq;
    }

    /// The logs are equal up to `matched`, and the primary says that all up to `commit` is committed.
    pub(crate) fn committed(&mut self, commit: u64, matched: u64) {
        self.commit = self.commit.max(commit.min(matched));
    }

    /// A snapshot has taken the place of the whole log.
    pub(crate) fn installed(&mut self, at: Position, history: History) {
        self.history = history;
        self.last = at.seq;
        self.commit = at.seq;
    }
}

#[cfg(test)]
mod tests {
    use super::super::ship::{Peer, Plan, before};
    use super::*;
    use crate::store::Record;
    use proptest::prelude::*;

    fn log(epochs: &[u64]) -> Vec<Position> {
        epochs
            .iter()
            .enumerate()
            .map(|(i, epoch)| Position::new(*epoch, i as u64 + 1))
            .collect()
    }

    fn history(log: &[Position]) -> History {
        let mut history = History::default();
        log.iter().for_each(|at| history.note(*at));
        history
    }

    fn append(epoch: u64, prev: Position, entries: &[Position], commit: u64) -> Append {
        Append {
            epoch,
            prev,
            entries: entries.iter().map(|at| Entry::new(*at, Record::default())).collect(),
            commit,
            as_of: Tick::default(),
        }
    }

    #[test]
    fn an_older_primary_is_refused() {
        let node = Acceptor::new(4, true, history(&log(&[1, 1])), 2, 0);
        let late = append(3, Position::new(1, 2), &[Position::new(3, 3)], 0);
        assert_eq!(node.judge(&late), Verdict::Refuse(Answer::Fenced { promised: 4 }));
        assert!(!node.may_promise(4) && node.may_promise(5));
    }

    #[test]
    fn committed_records_are_never_replaced() {
        let node = Acceptor::new(1, true, history(&log(&[1, 1, 1])), 3, 2);
        let sent = append(2, Position::START, &[Position::new(1, 1), Position::new(2, 2)], 0);
        // The second record is known to be committed, so it counts as the one that is there.
        assert!(matches!(
            node.judge(&sent),
            Verdict::Take(Take { skip: 2, cut: None, .. })
        ));
        let behind = append(2, Position::new(1, 2), &[Position::new(2, 3)], 0);
        assert!(matches!(node.judge(&behind), Verdict::Take(Take { cut: Some(2), .. })));
    }

    /// Carries out a verdict on a log that is a plain list, and gives back what was cut.
    fn take(node: &mut Acceptor, disk: &mut Vec<Position>, sent: &Append) -> (Answer, Vec<Position>) {
        match node.judge(sent) {
            Verdict::Refuse(answer) => (answer, Vec::new()),
            Verdict::Broken { seq } => panic!("would replace committed record {seq}"),
            Verdict::Take(take) => {
                let mut tail = Vec::new();
                if let Some(cut) = take.cut {
                    tail = disk.split_off(cut as usize);
                    node.cut(cut);
                }
                for entry in &sent.entries[take.skip..] {
                    disk.push(entry.at);
                    node.push(entry.at);
                }
                node.committed(sent.commit, take.matched);
                let voter = node.voter();
                let last = take.matched;
                (Answer::Has { last, voter }, tail)
            }
        }
    }

    proptest! {
        /// However two logs differ after what is committed, the primary brings the other to its own, and what it
        /// replaces is handed back.
        #[test]
        fn a_node_is_brought_to_the_primarys_log(
            common in prop::collection::vec(0_u64..2, 0..12),
            mine in prop::collection::vec(0_u64..3, 0..12),
            theirs in prop::collection::vec(0_u64..3, 0..12),
            commit in any::<prop::sample::Index>(),
            chunk in 1_usize..5,
        ) {
            let grow = |steps: &[u64], mut epoch: u64| -> Vec<u64> {
                steps.iter().map(|step| { epoch += step; epoch }).collect()
            };
            let common = grow(&common, 1);
            let fork = common.last().copied().unwrap_or(1);
            // Two histories after the fork share no epoch, as no two primaries do.
            let odd = grow(&mine, fork + 1).iter().map(|epoch| epoch * 2 + 1).collect::<Vec<_>>();
            let even = grow(&theirs, fork + 1).iter().map(|epoch| epoch * 2).collect::<Vec<_>>();
            let primary = log(&[&common[..], &odd, &[1_000]].concat());
            let mut disk = log(&[&common[..], &even].concat());
            let committed = commit.index(common.len() + 1) as u64;
            let mut node = Acceptor::new(2, true, history(&disk), disk.len() as u64, committed);

            let (last, epochs) = (primary.len() as u64, history(&primary));
            let mut peer = Peer::new(last);
            let mut matched = 0;
            let mut handed_back = Vec::new();
            for _ in 0..100 {
                let Plan::Records(from) = peer.plan(1, last, last, matched, last) else { break };
                let to = primary.len().min(from as usize - 1 + chunk);
                let sent = append(1_000, before(&epochs, from), &primary[from as usize - 1..to], last);
                peer.sent(last);
                let (answer, mut tail) = take(&mut node, &mut disk, &sent);
                handed_back.append(&mut tail);
                if let Answer::Has { last, .. } = answer {
                    matched = last;
                }
                peer.answered(&answer);
            }
            prop_assert_eq!(&disk, &primary);
            prop_assert_eq!(node.last(), *primary.last().unwrap());
            prop_assert_eq!(node.commit(), last);
            prop_assert_eq!(handed_back, log(&[&common[..], &even].concat())[common.len()..].to_vec());
        }
    }
}
