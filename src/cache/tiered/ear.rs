use crate::cache::bus::{Message, Notice, Origin};
use crate::env::Tick;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;

/// The most senders that are told apart; past that the one not heard for the longest time is forgotten.
const MAX_PEERS: usize = 1_024;

/// Judges what was heard on a bus: which keys to drop, and until when what is remembered may be trusted.
///
/// One's own heartbeat that comes back proves that everything was heard which the bus took before it was sent. So what
/// is remembered may be used for the time `limit` from then, and has by then seen every message that the bus took
/// longer ago than that. A number left out by another sender, or its silence, means that it could not say something.
#[derive(Debug)]
pub(super) struct Ear {
    me: Origin,
    limit: Duration,
    /// When the subscription began: heartbeats from before prove nothing about it.
    since: Tick,
    /// Until when what is remembered may be used.
    until: Tick,
    peers: BTreeMap<Origin, Peer>,
}

#[derive(Clone, Copy, Debug)]
struct Peer {
    /// The newest of its messages.
    number: u64,
    heard: Tick,
}

/// What follows from a message, or from silence.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict<'a> {
    pub(super) drop: Drop<'a>,
    /// The subscription was found to work after it was not known to.
    pub(super) begins: bool,
    /// It was not heard in time.
    pub(super) missed: bool,
}

/// What has to be forgotten.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Drop<'a> {
    #[default]
    Nothing,
    Keys(&'a [Bytes]),
    Everything,
}

impl Ear {
    pub(super) fn new(me: Origin, limit: Duration) -> Ear {
        Ear {
            me,
            limit,
            since: Tick::MAX,
            until: Tick::ZERO,
            peers: BTreeMap::new(),
        }
    }

    /// Until when what is remembered may be used; past already when it may not.
    pub(super) fn until(&self) -> Tick {
        self.until
    }

    pub(super) fn peers(&self) -> usize {
        self.peers.len()
    }

    /// A subscription was made; whether it works remains to be seen.
    pub(super) fn subscribed(&mut self, now: Tick) {
        self.since = now;
    }

    /// The subscription ended. True when it was believed to work.
    pub(super) fn ended(&mut self, now: Tick) -> bool {
        let believed = now < self.until;
        self.until = Tick::ZERO;
        self.since = Tick::MAX;
        self.peers.clear();
        believed
    }

    pub(super) fn hear<'a>(&mut self, now: Tick, message: &'a Message) -> Verdict<'a> {
        if message.origin == self.me {
            return self.hear_myself(now, &message.notice);
        }
        let gap = self.note(now, message.origin, message.number);
        if matches!(message.notice, Notice::Goodbye) {
            self.peers.remove(&message.origin);
        }
        let drop = match &message.notice {
            _ if gap => Drop::Everything,
            Notice::Keys(keys) => Drop::Keys(keys),
            // Entries of a store carry no tags that one could look for.
            Notice::Tag(_) | Notice::Everything => Drop::Everything,
            Notice::Heartbeat { .. } | Notice::Goodbye => Drop::Nothing,
        };
        Verdict {
            drop,
            ..Verdict::default()
        }
    }

    /// What one said oneself is done already; it only counts that it came back.
    fn hear_myself<'a>(&mut self, now: Tick, notice: &Notice) -> Verdict<'a> {
        let Notice::Heartbeat { at } = notice else {
            return Verdict::default();
        };
        let (at, until) = (*at, *at + self.limit);
        if at < self.since || at > now || until <= now {
            return Verdict::default();
        }
        let begins = self.until <= now;
        self.until = self.until.max(until);
        Verdict {
            drop: if begins { Drop::Everything } else { Drop::Nothing },
            begins,
            missed: false,
        }
    }

    /// Notes that a sender was heard; true when it said something that was not.
    fn note(&mut self, now: Tick, origin: Origin, number: u64) -> bool {
        let known = self.peers.get(&origin).map_or(0, |peer| peer.number);
        let gap = number > known.saturating_add(1);
        let peer = Peer {
            number: number.max(known),
            heard: now,
        };
        self.peers.insert(origin, peer);
        if self.peers.len() <= MAX_PEERS {
            return gap;
        }
        let oldest = self.peers.iter().min_by_key(|(origin, peer)| (peer.heard, **origin));
        let oldest = oldest.map(|(origin, _)| *origin);
        oldest.and_then(|origin| self.peers.remove(&origin));
        true
    }

    /// What follows from what was not heard by `now`.
    pub(super) fn check(&mut self, now: Tick) -> Verdict<'static> {
        let missed = self.until != Tick::ZERO && self.until <= now;
        if missed {
            self.until = Tick::ZERO;
        }
        let limit = self.limit;
        let before = self.peers.len();
        self.peers.retain(|_, peer| now < peer.heard + limit);
        let silent = self.peers.len() < before;
        Verdict {
            drop: if missed || silent {
                Drop::Everything
            } else {
                Drop::Nothing
            },
            begins: false,
            missed,
        }
    }

    /// When to [check](Ear::check) next.
    pub(super) fn next_check(&self) -> Tick {
        let mine = if self.until == Tick::ZERO {
            Tick::MAX
        } else {
            self.until
        };
        let theirs = self.peers.values().map(|peer| peer.heard + self.limit).min();
        mine.min(theirs.unwrap_or(Tick::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: Origin = Origin(1);
    const OTHER: Origin = Origin(2);
    const LIMIT: Duration = Duration::from_nanos(100);

    fn at(nanos: u64) -> Tick {
        Tick::from_nanos(nanos)
    }

    fn beat(origin: Origin, number: u64, sent: u64) -> Message {
        Message::new(origin, number, Notice::Heartbeat { at: at(sent) })
    }

    fn everything() -> Verdict<'static> {
        Verdict {
            drop: Drop::Everything,
            ..Verdict::default()
        }
    }

    /// One that hears, until 110.
    fn hearing() -> Ear {
        let mut ear = Ear::new(ME, LIMIT);
        ear.subscribed(at(5));
        assert!(ear.hear(at(12), &beat(ME, 1, 10)).begins);
        assert_eq!(ear.until(), at(110));
        ear
    }

    #[test]
    fn only_a_heartbeat_of_ones_own_from_since_proves_anything() {
        let mut ear = Ear::new(ME, LIMIT);
        assert_eq!(ear.hear(at(1), &beat(ME, 1, 0)), Verdict::default());
        ear.subscribed(at(5));
        assert_eq!(ear.hear(at(6), &beat(ME, 1, 4)), Verdict::default());
        assert_eq!(
            ear.hear(at(6), &beat(ME, 1, 7)),
            Verdict::default(),
            "it was sent in the future"
        );
        assert_eq!(
            ear.hear(at(200), &beat(ME, 1, 9)),
            Verdict::default(),
            "it took too long"
        );
        assert_eq!(ear.hear(at(6), &beat(OTHER, 1, 6)), Verdict::default());
        assert_eq!(ear.until(), Tick::ZERO);
        let message = beat(ME, 2, 205);
        let begins = ear.hear(at(210), &message);
        assert_eq!((begins.begins, begins.drop), (true, Drop::Everything));
        assert_eq!(ear.until(), at(305));
    }

    #[test]
    fn trust_is_counted_from_when_a_heartbeat_was_sent_and_ends_with_silence() {
        let mut ear = hearing();
        assert_eq!(ear.hear(at(60), &beat(ME, 2, 40)), Verdict::default());
        assert_eq!((ear.until(), ear.next_check()), (at(140), at(140)));
        assert_eq!(ear.check(at(139)), Verdict::default());
        let silence = ear.check(at(140));
        assert_eq!((silence.missed, silence.drop), (true, Drop::Everything));
        assert_eq!(ear.check(at(141)), Verdict::default(), "once");
        assert_eq!(ear.next_check(), Tick::MAX);
        assert!(ear.hear(at(150), &beat(ME, 3, 149)).begins);
        assert!(ear.ended(at(151)) && !ear.ended(at(152)));
        assert_eq!(ear.until(), Tick::ZERO);
    }

    #[test]
    fn others_say_what_to_drop_and_a_gap_drops_everything() {
        let mut ear = hearing();
        let keys = Message::new(OTHER, 1, Notice::Keys(vec!["a".into()]));
        assert_eq!(ear.hear(at(13), &keys).drop, Drop::Keys(&["a".into()]));
        assert_eq!(ear.hear(at(14), &beat(OTHER, 2, 0)), Verdict::default());
        assert_eq!(ear.hear(at(15), &beat(OTHER, 4, 0)), everything(), "3 is missing");
        assert_eq!(ear.hear(at(15), &beat(OTHER, 5, 0)), Verdict::default());
        let late = Message::new(OTHER, 3, Notice::Keys(vec!["b".into()]));
        assert_eq!(ear.hear(at(16), &late).drop, Drop::Keys(&["b".into()]));
        for notice in [Notice::Tag("t".into()), Notice::Everything] {
            let number = if notice == Notice::Everything { 7 } else { 6 };
            assert_eq!(ear.hear(at(17), &Message::new(OTHER, number, notice)), everything());
        }
        // What a stranger said before it was heard may have been meant for us.
        assert_eq!(ear.hear(at(18), &beat(Origin(3), 9, 0)), everything());
        // One's own words need not be heard to be known.
        assert_eq!(
            ear.hear(at(18), &Message::new(ME, 99, Notice::Everything)),
            Verdict::default()
        );
    }

    #[test]
    fn who_falls_silent_without_a_goodbye_may_have_left_something_unsaid() {
        let mut ear = hearing();
        ear.hear(at(20), &beat(OTHER, 1, 0));
        ear.hear(at(30), &beat(Origin(3), 1, 0));
        ear.hear(at(31), &Message::new(Origin(3), 2, Notice::Goodbye));
        assert_eq!((ear.peers(), ear.next_check()), (1, at(110)));
        ear.hear(at(100), &beat(ME, 2, 90));
        assert_eq!(ear.next_check(), at(120));
        assert_eq!(ear.check(at(119)), Verdict::default());
        assert_eq!(ear.check(at(120)), everything());
        assert_eq!((ear.check(at(121)), ear.peers()), (Verdict::default(), 0));
    }

    #[test]
    fn there_are_no_more_peers_than_fit() {
        let mut ear = hearing();
        for n in 0..MAX_PEERS as u64 {
            assert_eq!(
                ear.hear(at(13 + n / 1_000), &beat(Origin(10 + n), 1, 0)),
                Verdict::default()
            );
        }
        assert_eq!(ear.hear(at(15), &beat(Origin(9_999), 1, 0)), everything());
        assert_eq!(ear.peers(), MAX_PEERS);
        assert_eq!(ear.hear(at(15), &beat(Origin(9_999), 2, 0)), Verdict::default());
    }
}
