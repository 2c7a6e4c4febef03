use super::Ack;
use crate::env::{Tick, WallTime};
use crate::store::{Batch, Changed, Entry, Position, Record, Result, Version, resolve};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};

/// Versions that one epoch may issue before it runs into the next one's: a new primary starts above all that earlier
/// ones can have issued, also those whose last writes nobody has seen.
const VERSIONS_PER_EPOCH: u32 = 40;

/// What a primary decides: how a batch resolves, which records count as acknowledged, and who hears of it when.
///
/// A batch resolves against everything appended, though the engine gets a record only once it may be seen: when it is
/// committed (on a majority of disks), or when a write with [`Ack::Primary`] at or after it is on the primary's own. `W`
/// is whoever waits for an answer.
#[derive(Debug)]
pub(crate) struct Primary<W> {
    epoch: u64,
    me: usize,
    /// The epoch's first record. Nothing before it is committed by counting: only with it (Raft, section 5.4.2).
    start: u64,
    last: u64,
    commit: u64,
    /// What the engine has.
    applied: u64,
    version: Version,
    /// For each node, the last record on its disk.
    durable: Vec<u64>,
    /// For each node, whether it counts towards a majority.
    voters: Vec<bool>,
    /// What appended records that the engine has not got will make of their keys.
    overlay: BTreeMap<Bytes, (u64, Option<Entry>)>,
    /// Records with [`Ack::Primary`] that are not committed.
    weak: VecDeque<u64>,
    /// Those who wait, by the level they wait for, each in order.
    waiting: [VecDeque<Waiting<W>>; 3],
}

#[derive(Debug)]
struct Waiting<W> {
    seq: u64,
    deadline: Tick,
    waiter: W,
}

impl<W> Primary<W> {
    /// The primary of `epoch` on node `me` of `nodes`, whose first record is the `start`-th; the engine is at `applied`.
    pub(crate) fn new(epoch: u64, me: usize, nodes: usize, start: u64, applied: u64) -> Primary<W> {
        let mut voters = vec![false; nodes];
        voters[me] = true;
        Primary {
            epoch,
            me,
            start,
            last: start,
            commit: applied,
            applied,
            version: Version((epoch - 1) << VERSIONS_PER_EPOCH),
            durable: vec![0; nodes],
            voters,
            overlay: BTreeMap::new(),
            weak: VecDeque::new(),
            waiting: Default::default(),
        }
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    pub(crate) fn commit(&self) -> u64 {
        self.commit
    }

    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    pub(crate) fn durable(&self, node: usize) -> u64 {
        self.durable[node]
    }

    /// Whether the epoch's first record is committed and applied, and with it everything before.
    pub(crate) fn is_established(&self) -> bool {
        self.applied >= self.start
    }

    /// The version of the next write, when the engine has seen `engine`.
    pub(crate) fn next_version(&self, engine: Version) -> Version {
        self.version.max(engine).next()
    }

    /// Where the next record will stand.
    pub(crate) fn next(&self) -> Position {
        Position::new(self.epoch, self.last + 1)
    }

    /// The record that carries out `batch` at `version`, if it may happen; `engine` is what the engine holds.
    pub(crate) fn resolve(
        &self,
        batch: &Batch,
        version: Version,
        now: WallTime,
        engine: impl Fn(&[u8]) -> Result<Option<Entry>>,
    ) -> Result<Record> {
        resolve(batch, version, now, |key| match self.overlay.get(key) {
            Some((_, entry)) => Ok(entry.clone()),
            None => engine(key),
        })
    }

    /// Takes `record`, which was issued `version`, as the next one of the log.
    pub(crate) fn append(&mut self, record: &Record, version: Version, ack: Ack) {
        self.last += 1;
        self.version = self.version.max(version).max(record.version());
        self.overlay_with(self.last, record);
        if ack == Ack::Primary {
            self.weak.push_back(self.last);
        }
    }

    fn overlay_with(&mut self, seq: u64, record: &Record) {
        for change in &record.changes {
            let entry = match &change.to {
                Changed::Set(entry) => Some(entry.clone()),
                Changed::Removed(_) => None,
            };
            self.overlay.insert(change.key.clone(), (seq, entry));
        }
    }

    /// Forgets every record after the one numbered `last`, which no other node has got, and gives back who waits for
    /// them. `pending` are the records left that the engine has not got.
    pub(crate) fn roll_back<'a>(&mut self, last: u64, pending: impl Iterator<Item = (u64, &'a Record)>) -> Vec<W> {
        self.last = last;
        self.weak.retain(|seq| *seq <= last);
        self.overlay.clear();
        for (seq, record) in pending {
            self.overlay_with(seq, record);
        }
        let mut waiting = Vec::new();
        for queue in &mut self.waiting {
            let left = queue.partition_point(|waiting| waiting.seq <= last);
            waiting.extend(queue.drain(left..).map(|waiting| waiting.waiter));
        }
        waiting
    }

    /// Records that count once they are on the primary's own disk, and are not committed.
    pub(crate) fn weak(&self) -> usize {
        self.weak.len()
    }

    /// Lets `waiter` hear when the record numbered `seq` is acknowledged at the level of `ack`, and applied.
    pub(crate) fn wait(&mut self, seq: u64, ack: Ack, deadline: Tick, waiter: W) {
        self.waiting[ack as usize].push_back(Waiting { seq, deadline, waiter });
    }

    /// Node `node` has every record up to `seq` on its disk; it counts towards a majority if it is a `voter`.
    pub(crate) fn on_disk(&mut self, node: usize, seq: u64, voter: bool) {
        self.durable[node] = self.durable[node].max(seq.min(self.last));
        self.voters[node] = voter;
        let majority = self.durable.len() / 2 + 1;
        let on_majority = |seq: u64| {
            let with = self
                .durable
                .iter()
                .zip(&self.voters)
                .filter(|(on, voter)| **voter && **on >= seq);
            with.count() >= majority
        };
        let reached = self.durable.iter().copied().filter(|seq| on_majority(*seq)).max();
        if let Some(reached) = reached
            && reached >= self.start
        {
            self.commit = self.commit.max(reached);
        }
    }

    /// Node `node` has been started again, perhaps without all that it had.
    pub(crate) fn forget(&mut self, node: usize) {
        self.durable[node] = 0;
        self.voters[node] = false;
    }

    /// How far the engine may go now.
    pub(crate) fn visible(&mut self) -> u64 {
        while self.weak.front().is_some_and(|seq| *seq <= self.commit) {
            self.weak.pop_front();
        }
        let mine = self.durable[self.me];
        let shown = self.weak.partition_point(|seq| *seq <= mine);
        let exposed = shown.checked_sub(1).map_or(0, |last| self.weak[last]);
        if self.commit >= self.start {
            self.commit.max(exposed)
        } else {
            self.applied
        }
    }

    /// The engine has got `record`, which is numbered `seq`.
    pub(crate) fn applied(&mut self, seq: u64, record: &Record) {
        self.applied = self.applied.max(seq);
        for change in &record.changes {
            if self.overlay.get(&change.key).is_some_and(|(newest, _)| *newest <= seq) {
                self.overlay.remove(&change.key);
            }
        }
    }

    /// Those whose record is acknowledged and applied.
    pub(crate) fn answered(&mut self) -> Vec<W> {
        let reached = |ack: Ack| match ack {
            Ack::Primary => self.durable[self.me],
            Ack::Majority => self.commit,
            Ack::All => self.durable.iter().copied().min().unwrap_or(0),
        };
        let reached = [Ack::Primary, Ack::Majority, Ack::All].map(|ack| reached(ack).min(self.applied));
        let mut answered = Vec::new();
        for (queue, reached) in self.waiting.iter_mut().zip(reached) {
            while queue.front().is_some_and(|first| first.seq <= reached) {
                answered.extend(queue.pop_front().map(|first| first.waiter));
            }
        }
        answered
    }

    /// Those whose time is up.
    pub(crate) fn expired(&mut self, now: Tick) -> Vec<W> {
        let mut expired = Vec::new();
        for queue in &mut self.waiting {
            while queue.front().is_some_and(|first| first.deadline <= now) {
                expired.extend(queue.pop_front().map(|first| first.waiter));
            }
        }
        expired
    }

    /// When the time of the next one is up.
    pub(crate) fn deadline(&self) -> Option<Tick> {
        let fronts = self.waiting.iter().filter_map(VecDeque::front);
        fronts.map(|first| first.deadline).min()
    }

    /// Everybody who still waits, when this node ceases to be the primary.
    pub(crate) fn step_down(self) -> impl Iterator<Item = W> {
        self.waiting.into_iter().flatten().map(|waiting| waiting.waiter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Change, Error, Expect};
    use proptest::prelude::*;

    const LATE: Tick = Tick::MAX;

    fn set(primary: &mut Primary<u64>, key: &str, value: &str, ack: Ack) -> Position {
        let batch = Batch::new().put(key.to_owned(), value.to_owned());
        let (at, version) = (primary.next(), primary.next_version(Version(0)));
        let record = primary
            .resolve(&batch, version, WallTime::default(), |_| Ok(None))
            .unwrap();
        primary.append(&record, version, ack);
        primary.wait(at.seq, ack, LATE, at.seq);
        at
    }

    fn established() -> Primary<u64> {
        let mut primary = Primary::new(1, 0, 3, 1, 0);
        primary.on_disk(0, 1, true);
        primary.on_disk(1, 1, true);
        assert_eq!(primary.visible(), 1);
        primary.applied(1, &Record::default());
        primary
    }

    #[test]
    fn a_batch_sees_what_is_appended_but_not_applied() {
        let mut primary = established();
        set(&mut primary, "a", "1", Ack::Majority);
        let batch = Batch::new().expect("a", Expect::Absent).put("a", "2");
        let refused = primary.resolve(&batch, Version(9), WallTime::default(), |_| Ok(None));
        assert!(matches!(refused, Err(Error::Conflict { .. })));
        primary.on_disk(0, 2, true);
        primary.on_disk(2, 2, true);
        assert_eq!(primary.visible(), 2);
        let change = Change {
            key: "a".into(),
            to: Changed::Removed(Version(1)),
        };
        primary.applied(2, &Record::new(vec![change]));
        assert!(primary.overlay.is_empty());
    }

    #[test]
    fn nothing_counts_before_the_epochs_first_record_does() {
        // Records 1 to 4 are of earlier epochs; 5 opens this one.
        let mut primary: Primary<u64> = Primary::new(3, 0, 3, 5, 2);
        primary.on_disk(0, 4, true);
        primary.on_disk(1, 4, true);
        assert_eq!((primary.commit(), primary.visible()), (2, 2));
        primary.on_disk(0, 5, true);
        primary.on_disk(1, 5, true);
        assert_eq!((primary.commit(), primary.visible()), (5, 5));
    }

    #[test]
    fn a_node_that_is_not_a_voter_does_not_count() {
        let mut primary = established();
        set(&mut primary, "a", "1", Ack::Majority);
        primary.on_disk(0, 2, true);
        primary.on_disk(1, 2, false);
        assert_eq!(primary.commit(), 1);
        primary.on_disk(1, 2, true);
        assert_eq!(primary.commit(), 2);
    }

    #[test]
    fn a_new_epoch_issues_versions_above_every_older_one() {
        let first = |epoch| Primary::<u64>::new(epoch, 0, 1, 1, 0).next_version(Version(7));
        assert_eq!(first(1), Version(8));
        assert!(first(2) > Version(1_000_000_000_000));
    }

    #[test]
    fn what_the_disk_had_no_room_for_is_forgotten() {
        let mut primary: Primary<u64> = Primary::new(1, 0, 1, 1, 0);
        primary.on_disk(0, 1, true);
        primary.applied(1, &Record::default());
        let kept = Change {
            key: "a".into(),
            to: Changed::Removed(Version(1)),
        };
        let kept = Record::new(vec![kept]);
        primary.append(&kept, Version(1), Ack::Majority);
        primary.wait(2, Ack::Majority, LATE, 2);
        set(&mut primary, "a", "lost", Ack::Primary);
        assert_eq!(primary.roll_back(2, [(2, &kept)].into_iter()), [3]);
        assert_eq!((primary.last(), primary.weak()), (2, 0));
        let absent = Batch::new().expect("a", Expect::Absent);
        assert!(
            primary
                .resolve(&absent, Version(9), WallTime::default(), |_| Ok(None))
                .is_ok()
        );
        primary.on_disk(0, 2, true);
        primary.applied(2, &kept);
        assert_eq!(primary.answered(), [2]);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Write(Ack),
        Disk(usize, u64, bool),
        Apply,
    }

    fn step() -> impl Strategy<Value = Step> {
        let ack = prop::sample::select(vec![Ack::Primary, Ack::Majority, Ack::All]);
        prop_oneof![
            3 => ack.prop_map(Step::Write),
            4 => (0_usize..3, 0_u64..30, prop::bool::weighted(0.9)).prop_map(|(node, seq, voter)| Step::Disk(node, seq, node == 0 || voter)),
            2 => Just(Step::Apply),
        ]
    }

    proptest! {
        /// Against a list of writes and a list of disks, all looked through each time.
        #[test]
        fn it_answers_who_a_naive_count_answers(steps in prop::collection::vec(step(), 1..60)) {
            let mut primary = established();
            let mut writes: Vec<(u64, Ack)> = Vec::new();
            let mut disks = [1_u64, 1, 0];
            let mut voters = [true, true, false];
            let (mut commit, mut applied) = (1, 1);
            let mut answered = std::collections::BTreeSet::new();
            for step in steps {
                match step {
                    Step::Write(ack) => writes.push((set(&mut primary, "k", "v", ack).seq, ack)),
                    Step::Disk(node, seq, voter) => {
                        primary.on_disk(node, seq, voter);
                        disks[node] = disks[node].max(seq.min(1 + writes.len() as u64));
                        voters[node] = voter;
                        for seq in 1..=1 + writes.len() as u64 {
                            if (0..3).filter(|n| voters[*n] && disks[*n] >= seq).count() >= 2 {
                                commit = commit.max(seq);
                            }
                        }
                    }
                    Step::Apply => {
                        let shown = writes.iter().filter(|(seq, ack)| *ack == Ack::Primary && *seq <= disks[0]);
                        let visible = shown.map(|(seq, _)| *seq).max().unwrap_or(0).max(commit);
                        prop_assert_eq!(primary.visible().max(applied), visible.max(applied));
                        applied = visible.max(applied);
                        primary.applied(applied, &Record::default());
                    }
                }
                answered.extend(primary.answered());
                let all = *disks.iter().min().unwrap();
                let expected = |(seq, ack): &&(u64, Ack)| {
                    let reached = match ack { Ack::Primary => disks[0], Ack::Majority => commit, Ack::All => all };
                    *seq <= reached && *seq <= applied
                };
                let expected: std::collections::BTreeSet<u64> = writes.iter().filter(expected).map(|(seq, _)| *seq).collect();
                prop_assert_eq!(&answered, &expected);
                prop_assert_eq!(primary.commit(), commit);
            }
        }
    }
}
