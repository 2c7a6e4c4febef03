use crate::env::Tick;
use crate::hash::KeyedHash;
use std::fmt;

/// Lines kept by [`World::record`](super::World::record); later ones still count and change the digest.
const MAX_LINES: usize = 1_000_000;

/// What happened in a world, in short: two runs are the same run when their traces are equal.
///
/// ```
/// use outgrow::sim::World;
/// let run = |seed| {
///     let world = World::new(seed);
///     world.note("hello");
///     world.trace()
/// };
/// assert_eq!(run(1), run(1));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Trace {
    /// A hash over every event in order: tasks polled, timers fired, disk operations with their outcomes, faults,
    /// notes.
    pub digest: u64,
    /// How many events there were.
    pub events: u64,
    /// One line for each event since [`World::record`](super::World::record) was switched on, the first million.
    pub lines: Vec<String>,
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.lines {
            writeln!(f, "{line}")?;
        }
        write!(f, "{:016x} over {} events", self.digest, self.events)
    }
}

/// The running digest.
#[derive(Default)]
pub(super) struct Tracer {
    digest: u64,
    events: u64,
    lines: Option<Vec<String>>,
}

/// The kinds of event, as the digest tells them apart.
#[derive(Clone, Copy)]
pub(super) enum Event {
    Poll = 1,
    Timer,
    Disk,
    Fault,
    Note,
}

impl Tracer {
    #[inline]
    pub(super) fn event(&mut self, kind: Event, a: u64, b: u64) {
        self.events += 1;
        self.digest = mix(self.digest ^ kind as u64, mix(a, b));
    }

    /// An event that is text.
    pub(super) fn text(&mut self, kind: Event, now: Tick, text: &str) {
        self.event(kind, now.as_nanos(), KeyedHash::new(0, 0).hash(text.as_bytes()));
        self.line(now, || text.to_owned());
    }

    /// Keeps the line of the last event, if anybody asked for lines.
    #[inline]
    pub(super) fn line(&mut self, now: Tick, text: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines
            && lines.len() < MAX_LINES
        {
            lines.push(format!("{now:?} {}", text()));
        }
    }

    pub(super) fn record(&mut self, on: bool) {
        match (&self.lines, on) {
            (None, true) => self.lines = Some(Vec::new()),
            (_, false) => self.lines = None,
            (Some(_), true) => {}
        }
    }

    pub(super) fn trace(&self) -> Trace {
        Trace {
            digest: self.digest,
            events: self.events,
            lines: self.lines.clone().unwrap_or_default(),
        }
    }
}

/// Folds the 128-bit product of both, each first moved away from zero.
#[inline]
fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a ^ 0x9e37_79b9_7f4a_7c15) * u128::from(b ^ 0xbf58_476d_1ce4_e5b9);
    (product >> 64) as u64 ^ product as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_kind_change_the_digest() {
        let digest = |events: &[(Event, u64, u64)]| {
            let mut tracer = Tracer::default();
            for (kind, a, b) in events {
                tracer.event(*kind, *a, *b);
            }
            tracer.trace().digest
        };
        let one = digest(&[(Event::Poll, 1, 2), (Event::Timer, 3, 4)]);
        assert_eq!(one, digest(&[(Event::Poll, 1, 2), (Event::Timer, 3, 4)]));
        assert_ne!(one, digest(&[(Event::Timer, 3, 4), (Event::Poll, 1, 2)]));
        assert_ne!(one, digest(&[(Event::Poll, 1, 2), (Event::Poll, 3, 4)]));
        assert_ne!(one, digest(&[(Event::Poll, 1, 2), (Event::Timer, 3, 5)]));
    }
}
