//! A modelled resource: the cores of a machine, its disk, its network.

use outgrow::env::{Env, Tick};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Serves work in the order of arrival, on one or more servers at once, and counts how long they are busy.
///
/// The end of a piece of work is known when it arrives, so a queue of any length costs one timer per piece.
#[derive(Debug)]
pub(super) struct Station {
    state: Mutex<State>,
    servers: u32,
}

#[derive(Debug)]
struct State {
    /// When each server is free.
    free_at: Vec<Tick>,
    /// When counting began.
    since: Tick,
    /// Work of the time since then, of all servers.
    busy: Duration,
}

impl Station {
    pub(super) fn new(servers: u32) -> Station {
        let servers = servers.max(1);
        let state = State {
            free_at: vec![Tick::ZERO; servers as usize],
            since: Tick::ZERO,
            busy: Duration::ZERO,
        };
        Station {
            state: Mutex::new(state),
            servers,
        }
    }

    /// How many pieces of work it serves at once.
    pub(super) fn servers(&self) -> u32 {
        self.servers
    }

    /// Takes a place in the line for `work`, and says when it will be done; `None` when it could not begin within
    /// `patience`.
    pub(super) fn book(&self, now: Tick, work: Duration, patience: Duration) -> Option<Tick> {
        let mut state = self.state.lock();
        let (server, free_at) = state
            .free_at
            .iter()
            .copied()
            .enumerate()
            .min_by_key(|(_, free_at)| *free_at)?;
        let start = free_at.max(now);
        if start - now > patience {
            return None;
        }
        let end = start + work;
        state.free_at[server] = end;
        state.busy += work;
        Some(end)
    }

    /// Starts counting anew.
    pub(super) fn reset(&self, now: Tick) {
        let mut state = self.state.lock();
        state.since = now;
        // What was begun before and reaches into the new count belongs to it.
        state.busy = state.free_at.iter().map(|free_at| *free_at - now).sum();
    }

    /// The share of the servers' time that was spent at work since the last [`reset`](Station::reset).
    pub(super) fn utilisation(&self, now: Tick) -> f64 {
        let state = self.state.lock();
        let ahead: Duration = state.free_at.iter().map(|free_at| *free_at - now).sum();
        let span = (now - state.since).as_secs_f64() * f64::from(self.servers);
        if span > 0.0 {
            state.busy.saturating_sub(ahead).as_secs_f64() / span
        } else {
            0.0
        }
    }

    /// Forgets the line, as a crash does.
    pub(super) fn clear(&self, now: Tick) {
        let mut state = self.state.lock();
        let ahead = state.free_at.iter().map(|free_at| *free_at - now).sum();
        state.busy = state.busy.saturating_sub(ahead);
        state.free_at.fill(now);
    }
}

/// A modelled machine: cores, a disk and a network link that requests queue for, and whether it is up.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) cpu: Station,
    pub(super) disk: Station,
    pub(super) network: Station,
    bytes_per_second: f64,
    disk_read: DiskRead,
    /// How long a request may wait for a core before it is refused.
    patience: Duration,
    /// Even while it is up; one more at each change.
    life: AtomicU64,
}

/// Work that a machine has taken on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Booked {
    /// When it will be done, unless the machine goes down.
    pub(super) done: Tick,
    /// Which life of the machine it belongs to.
    life: u64,
}

/// Why a machine did not do its part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It is down, or went down meanwhile.
    Down,
    /// Its line is too long.
    Refused,
}

/// What one read from a machine's disk takes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DiskRead {
    /// Until the answer is there.
    pub(super) latency: Duration,
    /// Of the disk's capacity: the inverse of the reads that it sustains in a second.
    pub(super) work: Duration,
}

/// What a request asks of a machine.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Work {
    /// Time on a core.
    pub(super) cpu: Duration,
    /// Bytes to send.
    pub(super) bytes: u64,
    /// Pages that have to come from the disk.
    pub(super) disk_reads: u32,
}

impl Work {
    /// Work for a core alone.
    pub(super) fn cpu(cpu: Duration) -> Work {
        Work { cpu, ..Work::default() }
    }
}

impl Host {
    pub(super) fn new(cores: u32, bytes_per_second: f64, disk_read: DiskRead, patience: Duration) -> Host {
        let (cpu, disk, network) = (Station::new(cores), Station::new(1), Station::new(1));
        Host {
            cpu,
            disk,
            network,
            bytes_per_second,
            disk_read,
            patience,
            life: AtomicU64::new(0),
        }
    }

    /// Waits until every part of `work` is done, then for `travel` more.
    pub(super) async fn serve(&self, env: &Env, work: Work, travel: Duration) -> Result<(), Failure> {
        let booked = self.book(env.now(), work)?;
        env.sleep_until(booked.done + travel).await;
        self.finish(booked)
    }

    /// Takes a place in each line that `work` needs.
    pub(super) fn book(&self, now: Tick, work: Work) -> Result<Booked, Failure> {
        let life = self.life.load(Ordering::Relaxed);
        if life % 2 == 1 {
            return Err(Failure::Down);
        }
        let mut done = self.cpu.book(now, work.cpu, self.patience).ok_or(Failure::Refused)?;
        if work.disk_reads > 0 {
            let read = self
                .disk
                .book(now, self.disk_read.work * work.disk_reads, self.patience)
                .ok_or(Failure::Refused)?;
            // The query waits for its pages in the middle of its work, for all at once.
            done = done.max(read) + self.disk_read.latency;
        }
        if work.bytes > 0 {
            let sending = Duration::from_secs_f64(work.bytes as f64 / self.bytes_per_second);
            done = done.max(self.network.book(now, sending, self.patience).ok_or(Failure::Refused)?);
        }
        Ok(Booked { done, life })
    }

    /// What became of work, when the time has come that it should be done.
    pub(super) fn finish(&self, booked: Booked) -> Result<(), Failure> {
        if self.life.load(Ordering::Relaxed) == booked.life {
            Ok(())
        } else {
            Err(Failure::Down)
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.life.load(Ordering::Relaxed).is_multiple_of(2)
    }

    /// Turns it off or on; its line is lost either way.
    pub(super) fn set_up(&self, up: bool, now: Tick) {
        if self.is_up() != up {
            self.life.fetch_add(1, Ordering::Relaxed);
            self.stations().for_each(|station| station.clear(now));
        }
    }

    /// Starts counting anew.
    pub(super) fn reset(&self, now: Tick) {
        self.stations().for_each(|station| station.reset(now));
    }

    fn stations(&self) -> impl Iterator<Item = &Station> {
        [&self.cpu, &self.disk, &self.network].into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENT: Duration = Duration::from_secs(10);

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn at(millis: u64) -> Tick {
        Tick::ZERO + ms(millis)
    }

    #[test]
    fn work_queues_for_the_first_free_server() {
        let station = Station::new(2);
        let ends: Vec<_> = [10, 4, 4, 4].map(|work| station.book(at(0), ms(work), PATIENT)).into();
        assert_eq!(ends, [10, 4, 8, 12].map(|end| Some(at(end))));
        assert_eq!(station.book(at(100), ms(1), PATIENT), Some(at(101)));
        assert_eq!(station.book(at(100), ms(50), PATIENT), Some(at(150)));
        assert_eq!(station.book(at(101), ms(1), ms(0)), Some(at(102)));
        assert_eq!(station.book(at(101), ms(1), ms(0)), None);
    }

    #[test]
    fn utilisation_counts_what_was_done_in_the_window() {
        let station = Station::new(1);
        station.book(at(0), ms(30), PATIENT);
        station.reset(at(10));
        station.book(at(60), ms(100), PATIENT);
        // Of 10..110 ms: 20 ms left over from before, and 50 of the 100 ms begun at 60.
        let busy = station.utilisation(at(110));
        assert!((busy - 0.7).abs() < 1e-9, "{busy}");
    }
}
