use super::accept::Answer;
use crate::store::Position;

/// What a primary knows of one other node, and so what to send it next. At most one message is under way at a time: what
/// gathers meanwhile goes with the next, which makes batches where they are needed.
#[derive(Debug)]
pub(crate) struct Peer {
    /// The next record to send.
    next: u64,
    /// The commit index it was told last, if it is known to have heard anything.
    told: Option<u64>,
    state: State,
    /// Whether it counts towards a majority, as it said last.
    voter: bool,
    /// Whether it is to get a snapshot, because the log cannot be read where its next record is.
    needs_snapshot: bool,
    /// Tells the message under way from older ones, whose answers no longer count.
    round: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Busy,
    /// Nobody answers there, until [`Peer::is_back`].
    Down,
}

/// What to send to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Nothing.
    Wait,
    /// The records from this one on, possibly none, and the commit index.
    Records(u64),
    /// The engine's state: the log no longer goes back that far.
    Snapshot,
    /// That it counts towards a majority from now on.
    Admit,
}

impl Peer {
    /// A node to which nothing was sent; most likely it lacks only the record `start`.
    pub(crate) fn new(start: u64) -> Peer {
        Peer {
            next: start,
            told: None,
            state: State::Idle,
            voter: true,
            needs_snapshot: false,
            round: 0,
        }
    }

    /// What to send now, when the log holds `first..=last` and everything up to `commit` is committed; `matched` is what
    /// the node has for certain, `start` the epoch's first record.
    pub(crate) fn plan(&self, first: u64, last: u64, commit: u64, matched: u64, start: u64) -> Plan {
        if self.state != State::Idle {
            return Plan::Wait;
        }
        let caught_up = matched >= commit && matched >= start;
        if self.needs_snapshot || self.next < first {
            Plan::Snapshot
        } else if !self.voter && caught_up {
            Plan::Admit
        } else if self.next <= last || self.told.is_none_or(|told| told < commit.min(matched)) {
            Plan::Records(self.next)
        } else {
            Plan::Wait
        }
    }

    /// A message with the commit index `told` is under way; its outcome counts with the number returned.
    pub(crate) fn sent(&mut self, told: u64) -> u64 {
        self.state = State::Busy;
        self.told = Some(told);
        self.round += 1;
        self.round
    }

    /// Whether the message numbered `round` is the one under way.
    pub(crate) fn is_current(&self, round: u64) -> bool {
        self.state == State::Busy && self.round == round
    }

    /// The node answered.
    pub(crate) fn answered(&mut self, answer: &Answer) {
        self.state = State::Idle;
        match answer {
            Answer::Has { last, voter } => {
                self.next = last + 1;
                self.voter = *voter;
                self.needs_snapshot = false;
            }
            Answer::Earlier { last } => {
                // Each time at least one record further back, so that it comes to an end.
                self.next = (last + 1).min(self.next.saturating_sub(1)).max(1);
                self.told = None;
            }
            Answer::Fenced { .. } | Answer::Busy => {}
        }
    }

    /// The log cannot be read where the node's next record is.
    pub(crate) fn unreadable(&mut self) {
        self.state = State::Idle;
        self.needs_snapshot = true;
    }

    /// The pause after a message or its answer got lost is over.
    pub(crate) fn retry(&mut self) {
        self.state = State::Idle;
        self.told = None;
    }

    /// The node is gone.
    pub(crate) fn down(&mut self) {
        self.state = State::Down;
        self.told = None;
    }

    /// The node has been started again.
    pub(crate) fn is_back(&mut self) {
        self.state = State::Idle;
        self.told = None;
    }
}

/// What a message starts from: the record before its first.
pub(crate) fn before(history: &super::history::History, from: u64) -> Position {
    history.at(from - 1)
}
