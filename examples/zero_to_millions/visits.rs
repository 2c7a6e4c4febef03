//! What users do: the visits of a log, kept compactly so that millions of users can replay them.

use std::time::Duration;

/// One request of a visit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Milliseconds since the visit's first request.
    pub(crate) offset_ms: u32,
    /// Which URL, an index for [`Visits::url`].
    pub(crate) url: u32,
    /// The answer's size; 4 GiB and more are kept as 4 GiB.
    pub(crate) bytes: u32,
    /// The answer's status in the log.
    pub(crate) status: u16,
    /// Whether the request's method writes.
    pub(crate) writes: bool,
    /// Whether it is the visit's last request.
    pub(crate) last: bool,
}

/// All visits of a log. A visit is one host's requests with no gap over the session gap; its user is online from its
/// first request until one median gap after its last.
#[derive(Debug)]
pub(crate) struct Visits {
    log: Replayable,
    /// Where each visit starts in the steps, and the end.
    starts: Vec<u32>,
    /// With all visits laid end to end, the millisecond at which the wait after each request is over: a pause inside
    /// a visit, the tail after its last request.
    until: Vec<u64>,
    /// Where a search in `until` begins: for each of equal parts of the whole, its first request.
    guide: Vec<u32>,
}

/// What is kept of a log.
#[derive(Debug)]
pub(crate) struct Replayable {
    /// The requests, visit after visit.
    pub(crate) steps: Vec<Step>,
    /// How long a user stays online after the last request of a visit.
    pub(crate) tail_ms: u32,
    pub(crate) urls: Vec<Box<[u8]>>,
    pub(crate) hosts: usize,
    /// From the first request to the last.
    pub(crate) span: Duration,
}

impl Visits {
    /// Lays visits end to end. `steps` holds at least one, each visit's last one marked, none out of order.
    pub(crate) fn new(log: Replayable) -> Visits {
        let mut visits = Visits {
            starts: vec![0],
            until: Vec::with_capacity(log.steps.len()),
            guide: vec![0; log.steps.len().next_power_of_two().min(MAX_GUIDE) + 1],
            log,
        };
        let mut now = 0;
        for (i, step) in visits.log.steps.iter().enumerate() {
            now += u64::from(match visits.log.steps.get(i + 1) {
                Some(next) if !step.last => next.offset_ms - step.offset_ms,
                _ => visits.log.tail_ms,
            });
            visits.until.push(now);
            if step.last {
                visits.starts.push(i as u32 + 1);
            }
        }
        let part_ms = visits.part_ms();
        let mut step = 0;
        for (part, first) in visits.guide.iter_mut().enumerate() {
            let from = part as u64 * part_ms;
            while visits.until.get(step).is_some_and(|&until| until <= from) {
                step += 1;
            }
            *first = step as u32;
        }
        visits
    }

    /// How many visits there are; never 0.
    pub(crate) fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// The requests of all visits, visit after visit.
    pub(crate) fn all_steps(&self) -> &[Step] {
        &self.log.steps
    }

    /// The requests of one visit; never none.
    pub(crate) fn steps(&self, visit: usize) -> &[Step] {
        &self.log.steps[self.start(visit)..self.start(visit + 1)]
    }

    /// Where a visit's requests start in [`all_steps`](Visits::all_steps).
    pub(crate) fn start(&self, visit: usize) -> usize {
        self.starts[visit] as usize
    }

    /// How long the user of one visit is online.
    #[cfg(test)]
    pub(crate) fn online(&self, visit: usize) -> Duration {
        Duration::from_millis(self.online_before(visit + 1) - self.online_before(visit))
    }

    /// How many milliseconds the users of all visits are online, added up.
    pub(crate) fn total_online_ms(&self) -> u64 {
        self.online_before(self.len())
    }

    /// At this millisecond of all visits laid end to end: the request made last (an index into all steps), and how many
    /// milliseconds the wait after it still takes, at least 1. A uniform draw tells what a user who is online right now
    /// is doing; a long visit is seen more often than a short one.
    pub(crate) fn at(&self, millisecond: u64) -> (usize, u32) {
        let part = (millisecond / self.part_ms()) as usize;
        let (from, to) = (self.guide[part] as usize, self.guide[part + 1] as usize);
        let step = from + self.until[from..to].partition_point(|&until| until <= millisecond);
        (step, (self.until[step] - millisecond) as u32)
    }

    fn online_before(&self, visit: usize) -> u64 {
        self.start(visit).checked_sub(1).map_or(0, |last| self.until[last])
    }

    fn part_ms(&self) -> u64 {
        self.total_online_ms() / (self.guide.len() as u64 - 1) + 1
    }

    /// How long a user stays online after the last request: the median of the gaps inside visits.
    pub(crate) fn median_gap(&self) -> Duration {
        Duration::from_millis(self.log.tail_ms.into())
    }

    /// The path that an index stands for, with its query.
    #[cfg(test)]
    pub(crate) fn url(&self, url: u32) -> &[u8] {
        &self.log.urls[url as usize]
    }

    /// All URLs, by index.
    pub(crate) fn urls(&self) -> &[Box<[u8]>] {
        &self.log.urls
    }

    /// How many clients the log has.
    pub(crate) fn hosts(&self) -> usize {
        self.log.hosts
    }

    /// The time from the log's first request to its last.
    pub(crate) fn span(&self) -> Duration {
        self.log.span
    }

    /// How many requests a second each user online makes.
    pub(crate) fn rate_per_user(&self) -> f64 {
        self.log.steps.len() as f64 / self.total_online_ms() as f64 * 1000.0
    }

    /// The mean time that a user stays online.
    pub(crate) fn mean_online(&self) -> Duration {
        Duration::from_millis(self.total_online_ms()).div_f64(self.len() as f64)
    }

    /// How many visits are of a single request.
    pub(crate) fn one_request_visits(&self) -> usize {
        (0..self.len()).filter(|&visit| self.steps(visit).len() == 1).count()
    }

    /// The longest time between two events of one user: a pause inside a visit, or the tail after one.
    pub(crate) fn longest_pause(&self) -> Duration {
        let pauses = self.log.steps.windows(2).filter(|pair| !pair[0].last);
        let longest = pauses.map(|pair| pair[1].offset_ms - pair[0].offset_ms).max();
        Duration::from_millis(longest.unwrap_or(0).max(self.log.tail_ms).into())
    }
}

const MAX_GUIDE: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use crate::collect::tests::collect;

    #[test]
    fn every_millisecond_finds_its_wait() {
        let visits = collect(&[
            ("a", 0, "/"),
            ("a", 10, "/"),
            ("a", 10, "/"),
            ("b", 0, "/"),
            ("c", 5, "/"),
            ("c", 7, "/"),
        ]);
        let mut want = Vec::new();
        for visit in 0..visits.len() {
            let end = visits.online(visit).as_millis() as u32;
            let ends = visits
                .steps(visit)
                .iter()
                .skip(1)
                .map(|step| step.offset_ms)
                .chain([end]);
            let steps = visits.start(visit)..;
            for (step, (from, to)) in steps.zip(visits.steps(visit).iter().map(|step| step.offset_ms).zip(ends)) {
                want.extend((from..to).map(|now| (step, to - now)));
            }
        }
        assert_eq!(want.len() as u64, visits.total_online_ms());
        for (millisecond, want) in (0..).zip(want) {
            assert_eq!(visits.at(millisecond), want, "at {millisecond}");
        }
    }
}
