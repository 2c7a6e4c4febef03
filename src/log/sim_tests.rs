//! The log in a simulated world: faults at every disk operation, crashes anywhere, and a ledger of what was promised.

use super::{Durability, Item, Log, LogError, LogOptions, OnDamage, OpenReport};
use crate::env::Rng;
use crate::sim::{DiskModel, DiskOp, FaultCounts, FaultKind, Faults, Inject, Machine, World};
use bytes::Bytes;
use futures::future::join_all;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

const OPTIONS: LogOptions = LogOptions {
    segment_bytes: 8 << 10,
    buffer_bytes: 64 << 10,
    on_damage: OnDamage::Serve,
};
/// How often one log is opened, used and ended in one world.
const LIVES: usize = 12;

/// What the log has promised, against which it is checked at each opening.
#[derive(Default)]
struct Ledger {
    /// Entries that have to be there.
    must: BTreeMap<u64, Bytes>,
    /// Entries that have to be there unless the power was cut since.
    kernel: BTreeMap<u64, Bytes>,
    /// Power cuts and failed syncs so far.
    losses: u64,
    /// Entries that may be there.
    may: BTreeSet<(u64, Bytes)>,
    /// Everything before this may have been released.
    released: u64,
    /// Everything from here on may have been truncated.
    truncated: Option<u64>,
    /// Whether damage is to be expected.
    flips: bool,
    written: u64,
}

impl Ledger {
    fn payload(&mut self, rng: &mut Rng) -> Bytes {
        self.written += 1;
        let mut bytes = self.written.to_le_bytes().to_vec();
        let most = if rng.chance(0.1) { 3_000 } else { 100 };
        bytes.resize(8 + rng.index(most), b'.');
        bytes.into()
    }

    /// Notes how many power cuts and failed syncs there have been: with each, what is only in the kernel may be lost.
    fn lose(&mut self, faults: &FaultCounts) {
        let losses = faults.get(FaultKind::Crash) + faults.get(FaultKind::SyncError);
        let kernel = std::mem::take(&mut self.kernel);
        if self.losses == losses {
            self.must.extend(kernel);
        }
        self.losses = losses;
    }

    /// Checks what an opening found, and takes it for the truth.
    fn check(&mut self, report: &OpenReport, found: &BTreeMap<u64, Bytes>, lost: &BTreeSet<u64>) {
        assert!(
            self.flips || (lost.is_empty() && report.damage.is_empty()),
            "nothing was flipped: {report:?}"
        );
        for (seq, bytes) in &self.must {
            let void = self
                .truncated
                .is_some_and(|from| *seq >= from && report.range.end <= *seq);
            let released = *seq < self.released && *seq < report.range.start;
            // Damage to what was written last looks like a torn tail, and both headers of the last segment take it along;
            // the report tells.
            let told = report.torn > 0 || !report.damage.is_empty();
            let damaged = self.flips && (lost.contains(seq) || (*seq >= report.range.end && told));
            let kept = found.get(seq) == Some(bytes) || self.replaced(*seq, found);
            assert!(kept || void || released || damaged, "entry {seq} is lost: {report:?}");
        }
        for (seq, bytes) in found {
            let known = self.must.get(seq) == Some(bytes) || self.may.contains(&(*seq, bytes.clone()));
            assert!(known, "entry {seq} was never written there, or was refused: {report:?}");
        }
        self.must.clone_from(found);
        self.may.clear();
        self.truncated = None;
    }

    /// Whether an entry gave way to one written after a truncation that nobody was told of.
    fn replaced(&self, seq: u64, found: &BTreeMap<u64, Bytes>) -> bool {
        let by = found.get(&seq).map(|bytes| (seq, bytes.clone()));
        self.truncated.is_some_and(|from| seq >= from) && by.is_some_and(|by| self.may.contains(&by))
    }

    async fn append(&mut self, log: &Log, rng: &mut Rng) {
        let mut waiting = Vec::new();
        for _ in 0..=rng.index(6) {
            let entries: Vec<_> = (0..=rng.index(3)).map(|_| self.payload(rng)).collect();
            let durability = match rng.chance(0.3) {
                true => Durability::Os,
                false => Durability::Disk,
            };
            let appended = match rng.chance(0.2) {
                true => log.append_reserved(&entries[..], durability),
                false => log.append_with(&entries[..], durability),
            };
            let Ok(append) = appended else {
                continue;
            };
            self.may.extend(append.seqs().zip(entries.iter().cloned()));
            let here = rng.chance(0.3);
            waiting.push(async move {
                let seqs = append.seqs();
                let result = match here {
                    true => append.here().await,
                    false => append.await,
                };
                (seqs, entries, durability, result)
            });
        }
        for (seqs, entries, durability, result) in join_all(waiting).await {
            let entries = seqs.zip(entries);
            match result {
                Ok(()) if durability == Durability::Os => self.kernel.extend(entries),
                Ok(()) => {
                    // What is before it is on disk as well.
                    self.must.append(&mut self.kernel);
                    self.must.extend(entries);
                }
                Err(error) if error.is_unknown() => {}
                Err(_) => entries.for_each(|entry| assert!(self.may.remove(&entry), "it was put there")),
            }
        }
    }

    /// An entry in pieces, staged before it is appended or not.
    async fn long(&mut self, log: &Log, rng: &mut Rng) {
        let mut bytes = self.payload(rng).to_vec();
        bytes.resize((1 << 20) + rng.index(100_000), b'l');
        let bytes = Bytes::from(bytes);
        let entry = match rng.chance(0.5) {
            true => log.stage(bytes.clone()).await,
            false => Ok(bytes.clone().into()),
        };
        let Ok(append) = entry.and_then(|entry| log.append_with(&[entry][..], Durability::Disk)) else {
            return;
        };
        let entry = (append.seqs().start, bytes);
        self.may.insert(entry.clone());
        match append.await {
            Ok(()) => {
                self.must.append(&mut self.kernel);
                self.must.insert(entry.0, entry.1);
            }
            Err(error) if error.is_unknown() => {}
            Err(_) => assert!(self.may.remove(&entry), "it was put there"),
        }
    }

    async fn truncate(&mut self, log: &Log, rng: &mut Rng) {
        let range = log.range();
        let seq = range.start + rng.below(range.end - range.start);
        match log.truncate_after(seq).await {
            // Nothing was behind it.
            Ok(()) if seq + 1 == range.end => {}
            Ok(()) => {
                // What is kept of the log is on disk by now.
                self.must.append(&mut self.kernel);
                drop(self.must.split_off(&(seq + 1)));
            }
            Err(error) if error.is_unknown() => {
                self.truncated = Some(self.truncated.map_or(seq + 1, |from| from.min(seq + 1)));
            }
            Err(_) => {}
        }
    }

    async fn release(&mut self, log: &Log, rng: &mut Rng) {
        let range = log.range();
        let seq = range.start + rng.below(range.end - range.start);
        self.released = self.released.max(seq);
        if log.release_before(seq).await.is_ok() {
            let first = log.range().start;
            // What is lost to damage need not be kept.
            assert!(self.flips || first <= seq, "{first} {seq} {range:?}");
            self.must = self.must.split_off(&first);
            self.kernel = self.kernel.split_off(&first);
        }
    }
}

async fn open(world: &World, machine: &Machine, ledger: &mut Ledger) -> Option<Log> {
    let (log, report) = match Log::open(&machine.env(), Path::new("a/log"), OPTIONS).await {
        Ok(opened) => opened,
        Err(LogError::Locked) => panic!("nobody else has it"),
        Err(_) => return None,
    };
    let mut reader = log.reader(report.range.start);
    let (mut found, mut lost) = (BTreeMap::new(), BTreeSet::new());
    loop {
        match reader.next().await {
            Ok(Some(Item::Record { seq, bytes })) => drop(found.insert(seq, bytes)),
            Ok(Some(Item::Gap(gap))) => lost.extend(gap.range),
            Ok(None) => break,
            Err(LogError::Io { .. }) => {}
            // The machine is down.
            Err(_) => return None,
        }
    }
    let told: BTreeSet<u64> = report.gaps.iter().flat_map(|gap| gap.range.clone()).collect();
    assert!(told.is_subset(&lost), "reading gives what the report calls lost");
    let whole = report
        .range
        .clone()
        .all(|seq| found.contains_key(&seq) || lost.contains(&seq));
    assert!(whole, "every number is a record or in a gap: {report:?}");
    ledger.lose(&world.faults());
    ledger.check(&report, &found, &lost);
    Some(log)
}

/// One life of the log, which ends by chance.
async fn live(world: &World, machine: &Machine, ledger: &mut Ledger, rng: &mut Rng) {
    let Some(log) = open(world, machine, ledger).await else {
        return machine.kill();
    };
    if rng.chance(0.5) {
        let op = [
            DiskOp::Write,
            DiskOp::Sync,
            DiskOp::SyncDir,
            DiskOp::Create,
            DiskOp::Remove,
        ][rng.index(5)];
        let end = if rng.chance(0.7) { Inject::Crash } else { Inject::Kill };
        machine.inject(op, rng.below(20), end);
    }
    for _ in 0..rng.below(30) {
        match rng.below(20) {
            0 => ledger.truncate(&log, rng).await,
            1 => ledger.release(&log, rng).await,
            2 => ledger.long(&log, rng).await,
            3 => machine.env().sleep(Duration::from_millis(rng.below(30))).await,
            _ => ledger.append(&log, rng).await,
        }
    }
    match rng.below(4) {
        0 => machine.kill(),
        1 => log.close().await,
        _ => machine.crash(),
    }
}

async fn heals(world: &World, machine: &Machine, ledger: &mut Ledger) -> bool {
    let Some(log) = open(world, machine, ledger).await else {
        return false;
    };
    let Ok(append) = log.append(&[Bytes::new()]) else {
        return false;
    };
    let (seqs, result) = (append.seqs(), append.await);
    ledger.may.insert((seqs.start, Bytes::new()));
    result.is_ok() && log.durable() == log.range().end
}

/// Names the seed of a world in which a check fails.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            #[expect(clippy::print_stderr, reason = "whoever sees the test fail needs the seed")]
            {
                eprintln!("this was seed {}", self.0);
            }
        }
    }
}

fn simulate(seed: u64, faults: Faults) -> (FaultCounts, String) {
    let _named = Named(seed);
    let world = World::new(seed);
    let machine = world.machine("node");
    let mut rng = world.rng("driver");
    let mut ledger = Ledger {
        flips: faults.bit_flip > 0.0,
        ..Ledger::default()
    };
    world.run(async {
        machine.set_faults(faults);
        for _ in 0..LIVES {
            live(&world, &machine, &mut ledger, &mut rng).await;
        }
        // Faults stop, but for crashes still on order, and the log must heal.
        machine.set_faults(Faults::default());
        for _ in 0..LIVES {
            machine.kill();
            if heals(&world, &machine, &mut ledger).await {
                return;
            }
        }
        panic!("the log does not heal");
    });
    (world.faults(), format!("{:?}", world.trace()))
}

const FAULTY: Faults = Faults {
    read_error: 0.002,
    write_error: 0.004,
    no_space: 0.01,
    short_read: 0.02,
    short_write: 0.02,
    sync_error: 0.004,
    bit_flip: 0.0,
    stall: 0.01,
    stall_for: Duration::from_millis(30),
};

#[test]
fn one_seed_gives_one_trace() {
    assert_eq!(simulate(1, FAULTY), simulate(1, FAULTY));
}

#[test]
fn what_was_acknowledged_is_there_whatever_happens() {
    let mut counts = FaultCounts::default();
    for seed in 0..200 {
        counts += simulate(seed, FAULTY).0;
    }
    for kind in FaultKind::ALL {
        let never = matches!(kind, FaultKind::BitFlip | FaultKind::ClockSkew);
        assert!(never || counts.get(kind) >= 20, "{counts}");
    }
}

#[test]
fn what_rots_is_reported_and_costs_no_more() {
    for seed in 0..100 {
        let bit_flip = 0.02;
        simulate(seed, Faults { bit_flip, ..FAULTY });
    }
}

/// A log whose disk has no more room.
async fn filled(machine: &Machine) -> Log {
    let opened = Log::open(&machine.env(), Path::new("a/log"), OPTIONS).await;
    let (log, _) = opened.expect("it opens");
    loop {
        let refused = match log.append(&[Bytes::from(vec![b'x'; 1_000])]) {
            Ok(append) => append.await.err(),
            Err(error) => Some(error),
        };
        match refused {
            None => {}
            Some(LogError::Full) => return log,
            Some(error) => panic!("{error}"),
        }
    }
}

fn small_disk() -> DiskModel {
    DiskModel {
        capacity: 100_000,
        ..DiskModel::default()
    }
}

#[test]
fn a_full_disk_takes_what_frees_room_and_then_everything() {
    for seed in 0..20 {
        let world = World::new(seed);
        let machine = world.machine("node");
        machine.set_disk(small_disk());
        world.run(async {
            let log = filled(&machine).await;
            let end = log.range().end;
            assert!(end > 40, "{end}");
            // The reserve holds a segment of these; what else is tried in between is refused, and harms none of them.
            for n in 0..40 {
                let acks = log
                    .append_reserved(&[Bytes::from(vec![b'a'; 100])][..], Durability::Disk)
                    .unwrap();
                acks.await.unwrap();
                if n % 10 == 0 {
                    let refused = log.append(&[Bytes::from(vec![b'x'; 1_000])]).unwrap();
                    assert_eq!(refused.await, Err(LogError::Full), "seed {seed}");
                }
            }
            assert_eq!(log.range().end, end + 40, "the numbers are given again");
            log.release_before(end).await.unwrap();
            for _ in 0..20 {
                log.append(&[Bytes::from(vec![b'x'; 1_000])]).unwrap().await.unwrap();
            }
            log.close().await;
            let (log, report) = Log::open(&machine.env(), Path::new("a/log"), OPTIONS).await.unwrap();
            assert_eq!((report.range.end, report.gaps.len(), report.torn), (end + 60, 0, 0));
            drop(log);
        });
    }
}

#[test]
fn room_is_found_again_by_the_next_append() {
    let world = World::new(1);
    let machine = world.machine("node");
    machine.set_disk(small_disk());
    world.run(async {
        let log = filled(&machine).await;
        machine.set_disk(DiskModel::default());
        for _ in 0..20 {
            log.append(&[Bytes::from(vec![b'x'; 1_000])]).unwrap().await.unwrap();
        }
    });
}

#[test]
fn a_failed_sync_beside_those_who_write_poisons_the_log() {
    let world = World::new(3);
    let machine = world.machine("node");
    world.run(async {
        let opened = Log::open(&machine.env(), Path::new("a/log"), OPTIONS).await;
        let (log, _) = opened.expect("it opens");
        log.append(&[Bytes::from_static(b"on disk")]).unwrap().await.unwrap();
        // Files are made ahead meanwhile.
        machine.env().sleep(Duration::from_millis(50)).await;
        log.append_with(&[Bytes::from_static(b"in the kernel")][..], Durability::Os)
            .unwrap()
            .await
            .unwrap();
        machine.inject(DiskOp::Sync, 0, Inject::Fail);
        // Nobody waits for it, and nobody writes.
        machine.env().sleep(Duration::from_millis(50)).await;
        assert_eq!(log.check(), Err(LogError::Poisoned));
        assert!(matches!(log.append(&[Bytes::new()]), Err(LogError::Poisoned)));
        log.close().await;
    });
}
