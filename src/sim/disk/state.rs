use super::image::Image;
use super::names::{Names, normal};
use crate::env::Rng;
use crate::sim::faults::{DiskOp, FaultKind, Faults, Inject};
use crate::sim::model::{DiskModel, Latency};
use crate::sync::Mutex;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What outlives a machine's incarnations on its disk, and what is to go wrong there.
pub(in crate::sim) struct DiskState {
    pub(super) names: Names<Arc<Node>>,
    pub(super) rng: Rng,
    pub(in crate::sim) faults: Faults,
    pub(in crate::sim) model: DiskModel,
    plans: Vec<Plan>,
    begun: [u64; DiskOp::ALL.len()],
    /// Directories taken, each with the number of the lock that holds it.
    pub(super) locks: BTreeMap<String, u64>,
    nodes: u64,
    lives: u64,
}

/// A file, whatever its name.
pub(super) struct Node {
    pub(super) number: u64,
    pub(super) image: Mutex<Image>,
}

impl PartialEq for Node {
    fn eq(&self, other: &Node) -> bool {
        self.number == other.number
    }
}

struct Plan {
    op: DiskOp,
    nth: u64,
    fault: Inject,
}

/// What chance and orders have decided about one operation.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Verdict {
    /// How it fails.
    pub(super) fault: Option<FaultKind>,
    /// How much longer it takes.
    pub(super) stall: Option<Duration>,
    /// How the machine ends meanwhile.
    pub(super) end: Option<FaultKind>,
}

impl DiskState {
    pub(in crate::sim) fn new(rng: Rng) -> DiskState {
        DiskState {
            names: Names::new(),
            rng,
            faults: Faults::default(),
            model: DiskModel::default(),
            plans: Vec::new(),
            begun: [0; DiskOp::ALL.len()],
            locks: BTreeMap::new(),
            nodes: 0,
            lives: 0,
        }
    }

    pub(in crate::sim) fn plan(&mut self, op: DiskOp, nth: u64, fault: Inject) {
        let nth = self.ops(op).saturating_add(nth);
        self.plans.push(Plan { op, nth, fault });
    }

    pub(in crate::sim) fn ops(&self, op: DiskOp) -> u64 {
        self.begun[op as usize]
    }

    /// The number of the machine's present life.
    pub(in crate::sim) fn incarnation(&self) -> u64 {
        self.lives
    }

    /// Ends the present life: locks are free again, and after a power cut only what chance leaves is there.
    pub(in crate::sim) fn end(&mut self, power_cut: bool) -> Vec<(FaultKind, u64)> {
        self.lives += 1;
        self.locks.clear();
        if !power_cut {
            return Vec::new();
        }
        let names = self.names.crash(&mut self.rng);
        let mut counts = vec![(FaultKind::NameKept, names.kept), (FaultKind::NameLost, names.lost)];
        for (_, node) in self.names.files() {
            let sectors = node.image.lock().crash(&mut self.rng);
            counts.push((FaultKind::SectorKept, sectors.kept));
            counts.push((FaultKind::SectorLost, sectors.lost));
        }
        counts
    }

    pub(in crate::sim) fn flip(&mut self, path: &Path, bit: u64) -> bool {
        let node = self.names.get(&normal(path));
        node.is_ok_and(|node| node.image.lock().flip(bit))
    }

    pub(in crate::sim) fn files(&self) -> Vec<String> {
        self.names.files().map(|(path, _)| path.clone()).collect()
    }

    pub(in crate::sim) fn read_file(&self, path: &Path) -> Option<Vec<u8>> {
        let image = self.names.get(&normal(path)).ok()?.image.lock();
        let mut bytes = vec![0; image.len() as usize];
        image.read(&mut bytes, 0);
        Some(bytes)
    }

    pub(super) fn node(&mut self) -> Arc<Node> {
        self.nodes += 1;
        Arc::new(Node {
            number: self.nodes,
            image: Mutex::default(),
        })
    }

    /// A number for a lock.
    pub(super) fn lock_number(&mut self) -> u64 {
        self.nodes += 1;
        self.nodes
    }

    /// The bytes that may be added before the disk is full.
    pub(super) fn room(&self) -> u64 {
        if self.model.capacity == u64::MAX {
            return u64::MAX;
        }
        let used: u64 = self.names.files().map(|(_, node)| node.image.lock().len()).sum();
        self.model.capacity.saturating_sub(used)
    }

    pub(super) fn latency(&self, op: DiskOp) -> Latency {
        match op {
            DiskOp::Read => self.model.read,
            op if op.syncs() => self.model.sync,
            _ => self.model.write,
        }
    }

    /// Counts an operation that begins, and decides what goes wrong with it.
    pub(super) fn judge(&mut self, op: DiskOp) -> Verdict {
        let nth = self.ops(op);
        self.begun[op as usize] += 1;
        if let Some(at) = self.plans.iter().position(|plan| plan.op == op && plan.nth == nth) {
            return Verdict::ordered(op, self.plans.swap_remove(at).fault);
        }
        let faults = self.faults;
        let mut chance = |applies, p| applies && p > 0.0 && self.rng.chance(p);
        let stall = chance(true, faults.stall).then_some(faults.stall_for);
        let fault = [
            (op.reads(), faults.read_error, FaultKind::ReadError),
            (op.changes(), faults.write_error, FaultKind::WriteError),
            (op.takes_space(), faults.no_space, FaultKind::NoSpace),
            (op == DiskOp::Read, faults.short_read, FaultKind::ShortRead),
            (op == DiskOp::Write, faults.short_write, FaultKind::ShortWrite),
            (op.syncs(), faults.sync_error, FaultKind::SyncError),
            (op == DiskOp::Sync, faults.bit_flip, FaultKind::BitFlip),
        ]
        .into_iter()
        .find_map(|(applies, p, kind)| chance(applies, p).then_some(kind));
        Verdict {
            fault,
            stall,
            end: None,
        }
    }
}

impl Verdict {
    fn ordered(op: DiskOp, fault: Inject) -> Verdict {
        let failure = match op {
            op if op.syncs() => FaultKind::SyncError,
            op if op.changes() => FaultKind::WriteError,
            _ => FaultKind::ReadError,
        };
        let none = Verdict::default();
        let fails = |kind| Verdict {
            fault: Some(kind),
            ..none
        };
        match fault {
            Inject::Short if op == DiskOp::Read => fails(FaultKind::ShortRead),
            Inject::Short if op == DiskOp::Write => fails(FaultKind::ShortWrite),
            Inject::Fail | Inject::Short => fails(failure),
            Inject::NoSpace => fails(FaultKind::NoSpace),
            Inject::Stall(stall) => Verdict {
                stall: Some(stall),
                ..none
            },
            Inject::Crash => Verdict {
                end: Some(FaultKind::Crash),
                ..none
            },
            Inject::Kill => Verdict {
                end: Some(FaultKind::Kill),
                ..none
            },
        }
    }
}
