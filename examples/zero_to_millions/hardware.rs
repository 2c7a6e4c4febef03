//! What the log does not tell: what requests cost and which machines there are, from `hardware.toml`.

use crate::figures::{self, Entry, Figure, Figures, HardwareError, Spec, wrong_type};
use std::time::Duration;
use toml::Value;

/// The modelled workload and machines, checked.
#[derive(Clone, Debug)]
pub(crate) struct Hardware {
    /// What requests do.
    pub(crate) workload: Workload,
    /// How far away is far.
    pub(crate) distance: Distance,
    /// The machine that renders pages and sends files.
    pub(crate) web: Web,
    /// The machine that keeps rows.
    pub(crate) database: Database,
    /// The machine that keeps jobs.
    pub(crate) queue: QueueServer,
    /// The machine in front of web machines.
    pub(crate) balancer: LoadBalancer,
    figures: Figures,
    static_suffixes: Suffixes,
}

/// What requests do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Workload {
    /// Rows that a dynamic request reads.
    pub(crate) reads_per_dynamic: u32,
    /// Rows that a writing request writes, all in one commit.
    pub(crate) writes_per_write: u32,
    /// The share of dynamic requests that write, besides those whose method says so.
    pub(crate) write_share: f64,
    /// The share of dynamic requests that bring a job.
    pub(crate) job_share: f64,
    /// What a job takes of a web machine's core.
    pub(crate) job_cpu: Duration,
    /// Rows that a job writes, all in one commit.
    pub(crate) job_writes: u32,
    /// All rows, in bytes.
    pub(crate) data_bytes: u64,
    /// One row.
    pub(crate) row_bytes: u32,
    /// The Zipf exponent of the rows' popularity.
    pub(crate) row_skew: f64,
    /// The share of reads and writes that go to one key.
    pub(crate) celebrity_share: f64,
}

/// What a distance costs, for regions and users that are apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Distance {
    /// There and back over 100 km of cable.
    pub(crate) round_trip_per_100_km: Duration,
    /// How much longer the cables are than the great circle.
    pub(crate) path_factor: f64,
}

/// What every machine has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine {
    pub(crate) cores: u32,
    pub(crate) network_bytes_per_second: f64,
    /// To it and back, from another machine in its zone.
    pub(crate) round_trip: Duration,
    /// US dollars a month.
    pub(crate) price: f64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Web {
    pub(crate) machine: Machine,
    /// A static request, without sending its body.
    pub(crate) static_cpu: Duration,
    /// A dynamic request, without its queries and without sending its body.
    pub(crate) render_cpu: Duration,
    pub(crate) send_cpu_per_mib: Duration,
    /// Memory for its cache, in bytes.
    pub(crate) cache_bytes: u64,
    /// One lookup in its cache.
    pub(crate) cache_cpu: Duration,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Database {
    pub(crate) machine: Machine,
    /// One row read.
    pub(crate) read_cpu: Duration,
    /// One row written.
    pub(crate) write_cpu: Duration,
    /// One row that a replica takes over.
    pub(crate) apply_cpu: Duration,
    /// Memory for pages, in bytes.
    pub(crate) page_memory_bytes: u64,
    /// A read that is not in memory.
    pub(crate) disk_read: Duration,
    pub(crate) disk_sync: Duration,
    pub(crate) disk_reads_per_second: f64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct QueueServer {
    pub(crate) machine: Machine,
    pub(crate) send_cpu: Duration,
    pub(crate) receive_cpu: Duration,
    pub(crate) disk_sync: Duration,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct LoadBalancer {
    pub(crate) machine: Machine,
    pub(crate) request_cpu: Duration,
    pub(crate) send_cpu_per_mib: Duration,
}

#[derive(Clone, Debug)]
struct Suffixes {
    /// In lower case, without the dot.
    list: Vec<String>,
    why: String,
}

impl Hardware {
    /// The figures that come with the program.
    pub(crate) fn built_in() -> Hardware {
        Hardware::parse(include_str!("hardware.toml")).expect("broken invariant: the built-in hardware.toml is valid")
    }

    /// Reads a hardware file's text.
    ///
    /// # Errors
    /// When a key is missing, unknown or has a bad value; the error names it.
    pub(crate) fn parse(text: &str) -> Result<Hardware, HardwareError> {
        let mut entries = figures::entries(text)?;
        let suffixes = entries.remove(STATIC_SUFFIXES).ok_or_else(|| HardwareError::Missing {
            key: STATIC_SUFFIXES.to_owned(),
        })?;
        let suffixes = Suffixes::new(suffixes)?;
        Ok(Hardware::new(Figures::take(SPECS, &mut entries)?, suffixes))
    }

    /// Every modelled number, in the order of the file.
    pub(crate) fn figures(&self) -> impl Iterator<Item = &Figure> {
        self.figures.list()
    }

    /// This hardware with one figure multiplied by `factor`, rounded away from the old value where it counts whole
    /// things; `None` when its bounds leave it as it is.
    pub(crate) fn scaled(&self, name: &str, factor: f64) -> Option<Hardware> {
        let figures = self.figures.scaled(name, factor)?;
        Some(Hardware::new(figures, self.static_suffixes.clone()))
    }

    /// Whether a request for this target is rendered; otherwise it is a file that a web machine just sends.
    pub(crate) fn is_dynamic(&self, target: &[u8]) -> bool {
        !self.static_suffixes.matches(target)
    }

    /// Which requests are dynamic, in words, and why.
    pub(crate) fn dynamic_rule(&self) -> (String, &str) {
        let rule = format!(
            "all but targets without a query that end in .{}",
            self.static_suffixes.list.join(" .")
        );
        (rule, &self.static_suffixes.why)
    }

    fn new(figures: Figures, static_suffixes: Suffixes) -> Hardware {
        let number = |name: &str| figures.get(name);
        let count = |name: &str| number(name) as u32;
        let millis = |name: &str| Duration::from_secs_f64(number(name) / 1e3);
        let gib = |name: &str| number(name) * GIB;
        let machine = |name: &str| {
            let key = |key: &str| format!("{name}.{key}");
            Machine {
                cores: count(&key("cores")),
                network_bytes_per_second: number(&key("network_mbit")) * 1e6 / 8.0,
                round_trip: millis(&key("round_trip_ms")),
                price: number(&key("price")),
            }
        };
        Hardware {
            workload: Workload {
                reads_per_dynamic: count("workload.reads_per_dynamic"),
                writes_per_write: count("workload.writes_per_write"),
                write_share: number("workload.write_share"),
                job_share: number("workload.job_share"),
                job_cpu: millis("workload.job_cpu_ms"),
                job_writes: count("workload.job_writes"),
                data_bytes: gib("workload.data_gib") as u64,
                row_bytes: count("workload.row_bytes"),
                row_skew: number("workload.row_skew"),
                celebrity_share: number("workload.celebrity_share"),
            },
            distance: Distance {
                round_trip_per_100_km: millis("distance.round_trip_ms_per_100_km"),
                path_factor: number("distance.path_factor"),
            },
            web: Web {
                machine: machine("web"),
                static_cpu: millis("web.static_cpu_ms"),
                render_cpu: millis("web.render_cpu_ms"),
                send_cpu_per_mib: millis("web.send_cpu_ms_per_mib"),
                cache_bytes: (gib("web.memory_gib") * number("web.cache_memory_share")) as u64,
                cache_cpu: millis("web.cache_cpu_ms"),
            },
            database: Database {
                machine: machine("database"),
                read_cpu: millis("database.read_cpu_ms"),
                write_cpu: millis("database.write_cpu_ms"),
                apply_cpu: millis("database.apply_cpu_ms"),
                page_memory_bytes: (gib("database.memory_gib") * number("database.page_memory_share")) as u64,
                disk_read: millis("database.disk_read_ms"),
                disk_sync: millis("database.disk_sync_ms"),
                disk_reads_per_second: number("database.disk_reads_per_second"),
            },
            queue: QueueServer {
                machine: machine("queue"),
                send_cpu: millis("queue.send_cpu_ms"),
                receive_cpu: millis("queue.receive_cpu_ms"),
                disk_sync: millis("queue.disk_sync_ms"),
            },
            balancer: LoadBalancer {
                machine: machine("balancer"),
                request_cpu: millis("balancer.request_cpu_ms"),
                send_cpu_per_mib: millis("balancer.send_cpu_ms_per_mib"),
            },
            figures,
            static_suffixes,
        }
    }
}

impl Suffixes {
    fn new(entry: Entry) -> Result<Suffixes, HardwareError> {
        let refuse = |got: &Value| wrong_type(STATIC_SUFFIXES.to_owned(), "an array of strings", got);
        let Value::Array(items) = entry.value else {
            return Err(refuse(&entry.value));
        };
        let list = items.into_iter().map(|item| match item {
            Value::String(suffix) => Ok(suffix.trim_start_matches('.').to_ascii_lowercase()),
            other => Err(refuse(&other)),
        });
        Ok(Suffixes {
            list: list.collect::<Result<_, _>>()?,
            why: entry.why,
        })
    }

    fn matches(&self, target: &[u8]) -> bool {
        let name = target.rsplit(|&b| b == b'/').next().unwrap_or(target);
        let Some(dot) = name.iter().rposition(|&b| b == b'.') else {
            return false;
        };
        !target.contains(&b'?')
            && self
                .list
                .iter()
                .any(|suffix| name[dot + 1..].eq_ignore_ascii_case(suffix.as_bytes()))
    }
}

const STATIC_SUFFIXES: &str = "workload.static_suffixes";
const GIB: f64 = 1_073_741_824.0;

const SPECS: &[Spec] = &[
    whole("workload.reads_per_dynamic", 0.0, 1000.0),
    whole("workload.writes_per_write", 1.0, 1000.0),
    share("workload.write_share"),
    share("workload.job_share"),
    millis("workload.job_cpu_ms"),
    whole("workload.job_writes", 0.0, 1000.0),
    range("workload.data_gib", 0.001, 1e6),
    whole("workload.row_bytes", 1.0, 1_048_576.0),
    range("workload.row_skew", 0.0, 3.0),
    share("workload.celebrity_share"),
    millis("distance.round_trip_ms_per_100_km"),
    range("distance.path_factor", 1.0, 100.0),
    whole("web.cores", 1.0, 1024.0),
    range("web.memory_gib", 0.1, 1e5),
    range("web.network_mbit", 1.0, 1e7),
    millis("web.round_trip_ms"),
    range("web.price", 0.0, 1e9),
    millis("web.static_cpu_ms"),
    millis("web.render_cpu_ms"),
    millis("web.send_cpu_ms_per_mib"),
    share("web.cache_memory_share"),
    millis("web.cache_cpu_ms"),
    whole("database.cores", 1.0, 1024.0),
    range("database.memory_gib", 0.1, 1e5),
    range("database.network_mbit", 1.0, 1e7),
    millis("database.round_trip_ms"),
    range("database.price", 0.0, 1e9),
    millis("database.read_cpu_ms"),
    millis("database.write_cpu_ms"),
    millis("database.apply_cpu_ms"),
    share("database.page_memory_share"),
    millis("database.disk_read_ms"),
    millis("database.disk_sync_ms"),
    range("database.disk_reads_per_second", 1.0, 1e9),
    whole("queue.cores", 1.0, 1024.0),
    range("queue.network_mbit", 1.0, 1e7),
    millis("queue.round_trip_ms"),
    range("queue.price", 0.0, 1e9),
    millis("queue.send_cpu_ms"),
    millis("queue.receive_cpu_ms"),
    millis("queue.disk_sync_ms"),
    whole("balancer.cores", 1.0, 1024.0),
    range("balancer.network_mbit", 1.0, 1e7),
    millis("balancer.round_trip_ms"),
    range("balancer.price", 0.0, 1e9),
    millis("balancer.request_cpu_ms"),
    millis("balancer.send_cpu_ms_per_mib"),
];

const fn range(name: &'static str, min: f64, max: f64) -> Spec {
    Spec {
        name,
        min,
        max,
        whole: false,
    }
}

const fn whole(name: &'static str, min: f64, max: f64) -> Spec {
    Spec {
        name,
        min,
        max,
        whole: true,
    }
}

const fn share(name: &'static str) -> Spec {
    range(name, 0.0, 1.0)
}

/// A time of at most a minute.
const fn millis(name: &'static str) -> Spec {
    range(name, 0.0, 60_000.0)
}

#[cfg(test)]
#[path = "hardware_tests.rs"]
mod tests;
