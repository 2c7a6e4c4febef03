/// A doubly linked list of slots in order of age, for policies that take entries out of its middle.
#[derive(Debug)]
pub(super) struct List {
    /// By slot: the next older one and the next younger one.
    links: Vec<[u32; 2]>,
    oldest: u32,
    youngest: u32,
}

impl List {
    pub(super) fn new() -> List {
        List {
            links: Vec::new(),
            oldest: NONE,
            youngest: NONE,
        }
    }

    pub(super) fn oldest(&self) -> Option<u32> {
        some(self.oldest)
    }

    /// The next younger member than `slot`.
    pub(super) fn younger(&self, slot: u32) -> Option<u32> {
        some(self.links[slot as usize][YOUNGER])
    }

    /// Adds `slot`, which is no member, at the young end.
    pub(super) fn push(&mut self, slot: u32) {
        let at = slot as usize;
        if at >= self.links.len() {
            self.links.resize(at + 1, [NONE, NONE]);
        }
        self.links[at] = [self.youngest, NONE];
        self.join(self.youngest, slot);
        self.youngest = slot;
    }

    /// Takes out `slot`, which is a member.
    pub(super) fn remove(&mut self, slot: u32) {
        let [older, younger] = self.links[slot as usize];
        self.join(older, younger);
    }

    /// All members, the youngest first.
    pub(super) fn youngest_first(&self) -> Vec<u32> {
        std::iter::successors(some(self.youngest), |slot| some(self.links[*slot as usize][OLDER])).collect()
    }

    /// Makes neighbours of two members, or of one and the end where the other would be.
    fn join(&mut self, older: u32, younger: u32) {
        match older {
            NONE => self.oldest = younger,
            older => self.links[older as usize][YOUNGER] = younger,
        }
        match younger {
            NONE => self.youngest = older,
            younger => self.links[younger as usize][OLDER] = older,
        }
    }
}

fn some(slot: u32) -> Option<u32> {
    (slot != NONE).then_some(slot)
}

const NONE: u32 = u32::MAX;
const OLDER: usize = 0;
const YOUNGER: usize = 1;
