//! The image of one file against the dumbest model: whole arrays, and for each sector the list of what may be durable.

use crate::env::Rng;
use crate::sim::disk::image::Image;
use proptest::prelude::*;

const SECTOR: usize = 512;
const SECTORS: usize = 40;
const MAX: usize = SECTORS * SECTOR;

type Bytes = [u8; SECTOR];

#[derive(Clone, Debug)]
enum Step {
    Write { at: usize, len: usize, fill: u8 },
    SetLen(usize),
    Sync,
    FailSync,
    CutSync(u64),
    DropCache,
    Crash(u64),
}

fn write() -> impl Strategy<Value = Step> {
    let places = (0..MAX, 1..3_000_usize, 1..=255_u8);
    places.prop_map(|(at, len, fill)| Step::Write {
        at,
        len: len.min(MAX - at),
        fill,
    })
}

/// A step, and the writes that happen while it is under way (which only syncs have).
fn steps() -> impl Strategy<Value = Vec<(Step, Vec<Step>)>> {
    let step = prop_oneof![
        6 => write(),
        1 => (0..MAX).prop_map(Step::SetLen),
        2 => Just(Step::Sync),
        1 => Just(Step::FailSync),
        1 => any::<u64>().prop_map(Step::CutSync),
        1 => Just(Step::DropCache),
        1 => any::<u64>().prop_map(Step::Crash),
    ];
    prop::collection::vec((step, prop::collection::vec(write(), 0..3)), 0..40)
}

#[derive(Clone)]
struct Model {
    now: Vec<u8>,
    len: usize,
    sectors: Vec<Sector>,
    /// The lengths that may be durable.
    lens: Vec<usize>,
}

#[derive(Clone)]
struct Sector {
    /// What may be durable.
    durable: Vec<Bytes>,
    /// Whether what readers see may become durable at any time.
    dirty: bool,
}

impl Model {
    fn new() -> Model {
        let sector = Sector {
            durable: vec![[0; SECTOR]],
            dirty: false,
        };
        Model {
            now: vec![0; MAX],
            len: 0,
            sectors: vec![sector; SECTORS],
            lens: vec![0],
        }
    }

    fn sector(&self, n: usize) -> Bytes {
        self.now[n * SECTOR..][..SECTOR].try_into().unwrap()
    }

    fn write(&mut self, at: usize, len: usize, fill: u8) {
        self.now[at..at + len].fill(fill);
        self.len = self.len.max(at + len);
        for n in at / SECTOR..(at + len).div_ceil(SECTOR) {
            self.sectors[n].dirty = true;
        }
    }

    fn set_len(&mut self, len: usize) {
        if len < self.len {
            self.now[len..].fill(0);
            self.sectors[len / SECTOR..]
                .iter_mut()
                .for_each(|sector| sector.dirty = true);
        }
        self.len = len;
    }

    /// A sync that began when the file was `then`.
    fn synced(&mut self, then: &Model) {
        for n in 0..SECTORS {
            if then.sectors[n].dirty {
                self.sectors[n].durable = vec![then.sector(n)];
                // Written meanwhile, it may differ again; the same bytes written again are no difference.
                self.sectors[n].dirty = self.sector(n) != then.sector(n);
            }
        }
        self.lens = vec![then.len];
    }

    fn sync_failed(&mut self, then: &Model, rewritten: impl Fn(usize) -> bool) {
        for n in 0..SECTORS {
            self.sectors[n].dirty &= !then.sectors[n].dirty || rewritten(n);
        }
    }

    fn sync_cut(&mut self, then: &Model) {
        for n in 0..SECTORS {
            if then.sectors[n].dirty {
                self.sectors[n].durable.push(then.sector(n));
            }
        }
        self.lens.push(then.len);
    }

    /// Checks what a clean read or a crash left in a sector of a file that is `len` long, and takes it over.
    fn settle(&mut self, n: usize, found: Bytes, len: usize, allowed: &[Bytes]) -> Result<(), TestCaseError> {
        let end = len.saturating_sub(n * SECTOR).min(SECTOR);
        let fits = |bytes: &Bytes| bytes[..end] == found[..end] && found[end..].iter().all(|b| *b == 0);
        prop_assert!(allowed.iter().any(fits), "sector {n} holds what it never may");
        self.now[n * SECTOR..][..SECTOR].copy_from_slice(&found);
        Ok(())
    }

    fn cache_dropped(&mut self, found: &[u8]) -> Result<(), TestCaseError> {
        for n in 0..SECTORS {
            if !self.sectors[n].dirty {
                let mut allowed = self.sectors[n].durable.clone();
                // A sector past the end stays as it is: zeros.
                if n * SECTOR >= self.len {
                    allowed = vec![[0; SECTOR]];
                }
                self.settle(n, found[n * SECTOR..][..SECTOR].try_into().unwrap(), self.len, &allowed)?;
                if (n + 1) * SECTOR <= self.len {
                    self.sectors[n].durable = vec![self.sector(n)];
                }
            }
        }
        Ok(())
    }

    fn crashed(&mut self, len: usize, found: &[u8]) -> Result<(), TestCaseError> {
        let lens = self.lens.iter().chain([&self.len]);
        prop_assert!(
            lens.clone().min().unwrap() <= &len && &len <= lens.max().unwrap(),
            "the length is {len}"
        );
        for n in 0..SECTORS {
            let mut allowed = self.sectors[n].durable.clone();
            if self.sectors[n].dirty && n * SECTOR < self.len {
                allowed.push(self.sector(n));
            }
            self.settle(n, found[n * SECTOR..][..SECTOR].try_into().unwrap(), len, &allowed)?;
            self.sectors[n] = Sector {
                durable: vec![self.sector(n)],
                dirty: false,
            };
        }
        (self.len, self.lens) = (len, vec![len]);
        Ok(())
    }
}

fn read(image: &Image) -> Vec<u8> {
    let mut bytes = vec![0; MAX];
    let n = image.read(&mut bytes, 0);
    assert_eq!(n as u64, image.len());
    bytes
}

fn apply_writes(image: &mut Image, model: &mut Model, writes: &[Step]) {
    for step in writes {
        if let Step::Write { at, len, fill } = step {
            image.write(&vec![*fill; *len], *at as u64);
            model.write(*at, *len, *fill);
        }
    }
}

fn covers(writes: &[Step], n: usize) -> bool {
    writes.iter().any(|step| match step {
        Step::Write { at, len, .. } => (at / SECTOR..(at + len).div_ceil(SECTOR)).contains(&n),
        _ => false,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// After any history each sector reads as the model says, and a crash leaves in each only what it may.
    #[test]
    fn a_crash_leaves_only_allowed_sectors(steps in steps()) {
        let (mut image, mut model) = (Image::default(), Model::new());
        for (step, meanwhile) in steps {
            match step {
                Step::Write { .. } => apply_writes(&mut image, &mut model, &[step]),
                Step::SetLen(len) => {
                    image.set_len(len as u64);
                    model.set_len(len);
                }
                Step::Sync | Step::FailSync | Step::CutSync(_) => {
                    let (capture, then) = (image.capture(), model.clone());
                    apply_writes(&mut image, &mut model, &meanwhile);
                    match step {
                        Step::FailSync => {
                            image.sync_failed(&capture);
                            model.sync_failed(&then, |n| covers(&meanwhile, n));
                        }
                        Step::CutSync(seed) => {
                            image.synced_partly(&capture, &mut Rng::seeded(seed));
                            model.sync_cut(&then);
                        }
                        _ => {
                            image.synced(&capture);
                            model.synced(&then);
                        }
                    }
                }
                Step::DropCache => {
                    image.drop_cache();
                    model.cache_dropped(&read(&image))?;
                }
                Step::Crash(seed) => {
                    image.crash(&mut Rng::seeded(seed));
                    model.crashed(image.len() as usize, &read(&image))?;
                }
            }
            prop_assert_eq!(image.len() as usize, model.len);
            prop_assert!(read(&image) == model.now, "readers see something else");
        }
    }
}

#[test]
fn an_older_sync_that_ends_later_takes_nothing_back() {
    let mut image = Image::default();
    image.write(b"old", 0);
    let first = image.capture();
    image.write(b"new", 0);
    let second = image.capture();
    image.synced(&second);
    image.synced(&first);
    image.crash(&mut Rng::seeded(1));
    assert_eq!(&read(&image)[..3], b"new");
}

#[test]
fn a_flipped_bit_shows_unless_a_newer_write_hides_it() {
    let synced = || {
        let mut image = Image::default();
        image.write(&[0; 1_000], 0);
        image.synced(&image.capture());
        image
    };

    // Clean: at once. Past the end: no such bit.
    let mut image = synced();
    assert!(image.flip(8 * 600));
    assert_eq!(read(&image)[600], 1);
    assert!(!image.flip(8 * 1_000));

    // Dirty: the write that comes with the next sync repairs it.
    let mut image = synced();
    image.write(&[7; 512], 0);
    assert!(image.flip(8 * 100));
    assert_eq!(read(&image)[100], 7);
    image.synced(&image.capture());
    image.crash(&mut Rng::seeded(1));
    assert_eq!(read(&image)[100], 7);

    // Left behind by a failed sync: the clean copy goes, and the old bytes with the wrong bit show.
    let mut image = synced();
    image.write(&[7; 512], 0);
    image.sync_failed(&image.capture());
    assert!(image.flip(8 * 100));
    assert_eq!(read(&image)[99..101], [0, 1]);
}

/// The system tells of an error once, so the other of two syncs may not hear of it.
#[test]
fn what_a_failed_sync_lost_is_not_brought_back_by_one_that_overlaps_it() {
    let durable = |mut image: Image| {
        image.drop_cache();
        let mut bytes = [0; SECTOR];
        image.read(&mut bytes, 0);
        bytes[0]
    };
    for rewritten in [false, true] {
        let mut image = Image::default();
        image.write(&[1; SECTOR], 0);
        image.synced(&image.capture());
        image.write(&[2; SECTOR], 0);
        let (failing, other) = (image.capture(), image.capture());
        if rewritten {
            image.write(&[3; SECTOR], 0);
        }
        image.sync_failed(&failing);
        image.synced(&other);
        if rewritten {
            image.sync_failed(&image.capture());
        }
        assert_eq!(durable(image), 1);
    }
}
