use crate::env::Rng;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// What a disk writes whole or not at all.
pub(crate) const SECTOR: u64 = 512;
const PAGE: u64 = 4096;

type Sector = [u8; SECTOR as usize];
type Page = [u8; PAGE as usize];

/// One file's bytes, twice: as readers see them, and as they would be after a power cut.
///
/// The readers' image is kept whole (absent pages are zeros, and so is everything past the end). The durable image is
/// kept as the difference: for each sector where the two may differ, what is durable.
#[derive(Default)]
pub(super) struct Image {
    pages: Vec<Option<Box<Page>>>,
    len: u64,
    durable_len: u64,
    /// The change after which the durable length was that of the readers' image.
    durable_len_at: u64,
    unsynced: BTreeMap<u64, Unsynced>,
    /// Changes so far; they order writes and syncs that overlap.
    changes: u64,
}

/// A sector whose durable bytes may differ from what readers see.
struct Unsynced {
    /// `None` for zeros.
    durable: Option<Box<Sector>>,
    /// The change that made those bytes, or a later one that a failed sync lost. What an older sync captured, and ends
    /// later, must not come back.
    durable_at: u64,
    /// The last change.
    written: u64,
    /// False once a sync has failed: the kernel holds it for clean, and no later sync writes it.
    dirty: bool,
}

/// What a sync set out to write when it began.
pub(super) struct Capture {
    sectors: Vec<(u64, u64, Sector)>,
    len: u64,
    at: u64,
}

impl Capture {
    pub(super) fn bytes(&self) -> u64 {
        self.sectors.len() as u64 * SECTOR
    }
}

/// Un-synced sectors, or names, that a crash kept and lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fate {
    pub(super) kept: u64,
    pub(super) lost: u64,
}

impl Image {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Reads what is there; 0 at the end.
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> usize {
        let n = self.len.saturating_sub(offset).min(buf.len() as u64) as usize;
        for (page, within, part) in spans(offset, n) {
            let to = &mut buf[part];
            match self.pages.get(page).and_then(Option::as_ref) {
                Some(page) => to.copy_from_slice(&page[within..within + to.len()]),
                None => to.fill(0),
            }
        }
        n
    }

    pub(super) fn write(&mut self, data: &[u8], offset: u64) {
        if data.is_empty() {
            return;
        }
        let end = offset + data.len() as u64;
        self.changes += 1;
        for sector in offset / SECTOR..end.div_ceil(SECTOR) {
            self.touch(sector);
        }
        for (page, within, part) in spans(offset, data.len()) {
            let from = &data[part];
            self.page(page)[within..within + from.len()].copy_from_slice(from);
        }
        self.len = self.len.max(end);
    }

    pub(super) fn set_len(&mut self, len: u64) {
        self.changes += 1;
        if len < self.len {
            // Only pages that are there hold anything but zeros, and zeros stay zeros.
            for page in len / PAGE..self.pages.len() as u64 {
                if self.pages[page as usize].is_some() {
                    let first = (page * PAGE / SECTOR).max(len / SECTOR);
                    (first..(page + 1) * PAGE / SECTOR).for_each(|sector| self.touch(sector));
                }
            }
            // What a failed sync left behind there is cut as well, and must not come back after the next sync.
            let stale: Vec<_> = self.unsynced.range(len / SECTOR..).map(|(at, _)| *at).collect();
            stale.into_iter().for_each(|sector| self.touch(sector));
            self.zero_from(len);
        }
        self.len = len;
    }

    /// Begins a sync: what is written from now on is no part of it.
    pub(super) fn capture(&self) -> Capture {
        let dirty = self.unsynced.iter().filter(|(_, sector)| sector.dirty);
        Capture {
            sectors: dirty
                .map(|(at, sector)| (*at, sector.written, self.sector(*at)))
                .collect(),
            len: self.len,
            at: self.changes,
        }
    }

    /// Ends a sync that did what it set out to do.
    pub(super) fn synced(&mut self, capture: &Capture) {
        for (at, written, bytes) in &capture.sectors {
            self.sector_synced(*at, *written, bytes);
        }
        self.len_synced(capture);
    }

    /// Ends a sync that was cut off: any of it may have been done.
    pub(super) fn synced_partly(&mut self, capture: &Capture, rng: &mut Rng) {
        let share = share(rng);
        for (at, written, bytes) in &capture.sectors {
            if rng.chance(share) {
                self.sector_synced(*at, *written, bytes);
            }
        }
        if rng.chance(share) {
            self.len_synced(capture);
        }
    }

    /// Ends a sync that failed: what it captured counts as clean from now on, and is not durable (Rebello and others,
    /// "Can Applications Recover from fsync Failures?", ATC 2020). Nor does another that overlaps it make it so: the system
    /// tells one of them.
    pub(super) fn sync_failed(&mut self, capture: &Capture) {
        for (at, written, _) in &capture.sectors {
            if let Some(sector) = self.unsynced.get_mut(at) {
                sector.dirty &= sector.written != *written;
                sector.durable_at = sector.durable_at.max(*written);
            }
        }
    }

    fn sector_synced(&mut self, at: u64, written: u64, bytes: &Sector) {
        if let Entry::Occupied(mut entry) = self.unsynced.entry(at)
            && entry.get().durable_at < written
        {
            if entry.get().written == written {
                entry.remove();
            } else {
                entry.get_mut().durable = Some(Box::new(*bytes));
                entry.get_mut().durable_at = written;
            }
        }
    }

    fn len_synced(&mut self, capture: &Capture) {
        if capture.at >= self.durable_len_at {
            self.durable_len = capture.len;
            self.durable_len_at = capture.at;
        }
    }

    /// Forgets the clean pages: those of a failed sync go back to what is durable.
    pub(super) fn drop_cache(&mut self) {
        let clean = self.unsynced.iter().filter(|(_, sector)| !sector.dirty);
        let clean: Vec<_> = clean.map(|(at, _)| *at).collect();
        clean.into_iter().for_each(|at| self.reload(at));
    }

    /// Leaves what a power cut leaves: every un-synced sector kept or lost, and any length between the durable and the
    /// last.
    pub(super) fn crash(&mut self, rng: &mut Rng) -> Fate {
        let mut fate = Fate::default();
        let (low, high) = (self.len.min(self.durable_len), self.len.max(self.durable_len));
        let len = match rng.below(3) {
            0 => self.durable_len,
            1 => self.len,
            _ => low + rng.below(high - low + 1),
        };
        let share = share(rng);
        for (at, sector) in std::mem::take(&mut self.unsynced) {
            // Past its last end the file has nothing new to keep.
            if sector.dirty && at * SECTOR < self.len && rng.chance(share) {
                fate.kept += 1;
            } else {
                fate.lost += 1;
                self.restore(at, sector.durable.as_deref());
            }
        }
        self.zero_from(len);
        self.changes += 1;
        (self.len, self.durable_len, self.durable_len_at) = (len, len, self.changes);
        fate
    }

    /// Flips any one durable bit; false when there is none.
    pub(super) fn flip_any(&mut self, rng: &mut Rng) -> bool {
        self.flip(rng.below(self.durable_len * 8))
    }

    /// Flips a durable bit and drops the clean copy of its sector; false when there is no such bit.
    pub(super) fn flip(&mut self, bit: u64) -> bool {
        let byte = bit / 8;
        let at = byte / SECTOR;
        let mask = 1 << (bit % 8);
        match self.unsynced.entry(at) {
            _ if byte >= self.durable_len => return false,
            Entry::Occupied(mut entry) => {
                let durable = entry
                    .get_mut()
                    .durable
                    .get_or_insert_with(|| Box::new([0; SECTOR as usize]));
                durable[(byte % SECTOR) as usize] ^= mask;
                if !entry.get().dirty {
                    self.reload(at);
                }
            }
            Entry::Vacant(_) if byte >= self.len => return false,
            Entry::Vacant(_) => self.page((byte / PAGE) as usize)[(byte % PAGE) as usize] ^= mask,
        }
        true
    }

    /// Notes that a sector is about to change.
    fn touch(&mut self, at: u64) {
        let changes = self.changes;
        if let Some(sector) = self.unsynced.get_mut(&at) {
            sector.written = changes;
            sector.dirty = true;
            return;
        }
        let blank = self
            .pages
            .get((at * SECTOR / PAGE) as usize)
            .is_none_or(Option::is_none);
        let durable = (!blank).then(|| Box::new(self.sector(at)));
        let sector = Unsynced {
            durable,
            durable_at: changes - 1,
            written: changes,
            dirty: true,
        };
        self.unsynced.insert(at, sector);
    }

    fn sector(&self, at: u64) -> Sector {
        match self.pages.get((at * SECTOR / PAGE) as usize).and_then(Option::as_ref) {
            Some(page) => {
                let within = (at * SECTOR % PAGE) as usize;
                page[within..within + SECTOR as usize]
                    .try_into()
                    .expect("a page is whole sectors")
            }
            None => [0; SECTOR as usize],
        }
    }

    /// Reads a clean sector from the device again.
    fn reload(&mut self, at: u64) {
        let whole = (at + 1) * SECTOR <= self.len;
        // Past its end the readers' image stays zero, so a sector that reaches beyond may still differ.
        let durable = match whole {
            true => self.unsynced.remove(&at).and_then(|sector| sector.durable),
            false => self.unsynced.get(&at).and_then(|sector| sector.durable.clone()),
        };
        if at * SECTOR < self.len {
            self.restore(at, durable.as_deref());
            self.zero_from(self.len);
        }
    }

    fn restore(&mut self, at: u64, durable: Option<&Sector>) {
        let within = (at * SECTOR % PAGE) as usize;
        let page = self.page((at * SECTOR / PAGE) as usize);
        page[within..within + SECTOR as usize].copy_from_slice(durable.unwrap_or(&[0; SECTOR as usize]));
    }

    fn page(&mut self, page: usize) -> &mut Page {
        if self.pages.len() <= page {
            self.pages.resize_with(page + 1, || None);
        }
        self.pages[page].get_or_insert_with(|| Box::new([0; PAGE as usize]))
    }

    fn zero_from(&mut self, len: u64) {
        self.pages.truncate(len.div_ceil(PAGE) as usize);
        if let Some(Some(page)) = self.pages.get_mut((len / PAGE) as usize) {
            page[(len % PAGE) as usize..].fill(0);
        }
    }
}

/// How much of something uncertain happens: all, nothing, or any share, each a third of the time.
fn share(rng: &mut Rng) -> f64 {
    match rng.below(3) {
        0 => 0.0,
        1 => 1.0,
        _ => rng.unit(),
    }
}

/// The pages under `len` bytes at `offset`: page, offset within it, and the range of the bytes.
fn spans(offset: u64, len: usize) -> impl Iterator<Item = (usize, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let within = (at % PAGE) as usize;
        let n = (PAGE as usize - within).min(len - done);
        let part = done..done + n;
        done += n;
        (n > 0).then_some(((at / PAGE) as usize, within, part))
    })
}
