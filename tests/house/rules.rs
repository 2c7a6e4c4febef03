//! The rules of the house. Each takes a source and returns what breaks it, a line per breach.

use crate::source::{Name, Source, Token};

/// The rooms and their floors. A room may import from lower floors only; on the lowest stand the parts that import
/// nothing of ours.
const FLOORS: &[(&str, u8)] = &[
    ("sync", 0),
    ("hash", 0),
    ("codec", 0),
    ("mutant", 0),
    ("env", 1),
    ("store", 2),
    ("log", 2),
    ("balance", 2),
    ("cache", 3),
    ("replica", 3),
    ("queue", 3),
    ("shard", 4),
    ("edge", 4),
    ("geo", 4),
    ("session", 4),
    ("limit", 4),
    ("system", 5),
];

/// Beside the house: may import any room, and only tests import it.
const BESIDE: &str = "sim";

/// Files that may go round `Env`, what for (`""` is everything), and why.
const LIFTED: &[(&str, &str, &str)] = &[
    ("src/env/system.rs", "", "it is the operating system's side of `Env`"),
    ("src/env/tokio.rs", "tokio", "it is tokio's side of `Env`"),
    ("src/env/mod.rs", "tokio", "it names the file above"),
    ("src/balance/check/tcp.rs", "tokio", "it connects by tokio's reactor"),
    (
        "src/mutant.rs",
        "std::env",
        "a test asks for a planted bug by a variable",
    ),
    (
        "src/sim/seeds.rs",
        "std::env",
        "whoever runs a simulation names its seeds by a variable",
    ),
];

/// No room imports its own floor or a higher one, nor, outside tests, the simulation.
pub(crate) fn floors(source: &Source) -> Vec<String> {
    let module = source.module();
    let Some(room) = module.first() else {
        return Vec::new(); // lib.rs names every room.
    };
    let mut breaches = Vec::new();
    for name in source.names() {
        let Some(target) = room_of(&name, module.len()) else {
            continue;
        };
        if target == *room {
            continue;
        }
        let breach = match (floor(room), floor(&target)) {
            _ if target == BESIDE => (!name.test).then(|| format!("imports `{BESIDE}`, which only tests may")),
            _ if *room == BESIDE => None,
            (None, _) => Some(format!("is in the room `{room}`, which has no floor in {}", file!())),
            (_, None) => Some(format!("imports `crate::{target}`, which is no room")),
            (Some(mine), Some(theirs)) => (theirs >= mine)
                .then(|| format!("is in `{room}` on floor {mine} and imports `{target}` on floor {theirs}")),
        };
        breaches.extend(breach.map(|breach| format!("{}:{}: {breach}", source.path, name.line)));
    }
    breaches
}

fn floor(room: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == room).map(|(_, floor)| *floor)
}

/// The room that a path leads into from a file `depth` modules below the root, if it leaves its own.
fn room_of(name: &Name, depth: usize) -> Option<String> {
    let ups = name
        .segments
        .iter()
        .take_while(|segment| *segment == "super" || *segment == "self");
    let skipped = ups.clone().count();
    let ups = ups.filter(|segment| *segment == "super").count();
    let rest = match name.segments.first()?.as_str() {
        "crate" => &name.segments[1..],
        "super" | "self" if ups >= depth + name.inline => &name.segments[skipped..],
        _ => return None,
    };
    rest.first().cloned() // None: the word `crate` alone, as in `pub(crate)`
}

/// Outside tests, nothing goes round `Env`.
pub(crate) fn seam(source: &Source) -> Vec<String> {
    let mut breaches = Vec::new();
    let mut breach = |line: usize, what: &str| {
        let lifted = LIFTED
            .iter()
            .any(|(path, of, _)| *path == source.path && (of.is_empty() || *of == what));
        if !lifted {
            breaches.push(format!("{}:{line}: goes round `Env` by `{what}`", source.path));
        }
    };
    for name in source.names().iter().filter(|name| !name.test) {
        for what in ROUND {
            if names(name, what) {
                breach(name.line, what);
            }
        }
    }
    for (at, token) in source.tokens.iter().enumerate() {
        if !token.test && token.word && token.text.starts_with("select") && source.is(at + 1, "!") {
            breach(token.line, &format!("{}!", token.text));
        }
    }
    breaches
}

/// Ways round `Env`: one word anywhere in a path, a crate's name at its start, or neighbours anywhere in it.
const ROUND: &[&str] = &[
    "Instant::now",
    "SystemTime::now",
    "thread::spawn",
    "thread::sleep",
    "thread::scope",
    "thread::Builder",
    "std::fs",
    "fs",
    "std::net",
    "std::process",
    "std::env",
    "std::io::stdin",
    "rustix::fs",
    "rustix::time",
    "rand",
    "getrandom",
    "fastrand",
    "tokio",
    "RandomState",
    "HashMap",
    "HashSet",
    "std::sync::mpsc",
    "ThreadPool",
];

fn names(name: &Name, what: &str) -> bool {
    let segments: Vec<&str> = name.segments.iter().map(String::as_str).collect();
    let wanted: Vec<&str> = what.split("::").collect();
    if wanted.len() > 1 {
        return segments.windows(wanted.len()).any(|window| window == wanted);
    }
    if what.starts_with(char::is_uppercase) {
        return segments.contains(&what);
    }
    segments.len() > 1 && segments[0] == what
}

/// Outside tests, `unwrap` is an `expect` that states the invariant, or an error.
pub(crate) fn unwraps(source: &Source) -> Vec<String> {
    let mut breaches = Vec::new();
    for (at, token) in source.tokens.iter().enumerate() {
        let unwraps = matches!(token.text.as_str(), "unwrap" | "unwrap_err") && token.word;
        // Called as a method, or named as a path (`Option::unwrap`).
        let used = at > 0 && (source.is(at - 1, ".") || source.is(at - 1, "::"));
        if unwraps && used && !token.test {
            breaches.push(format!(
                "{}:{}: `{}` outside tests",
                source.path, token.line, token.text
            ));
        }
    }
    breaches
}

/// `unsafe` has its homes.
pub(crate) fn safety(source: &Source) -> Vec<String> {
    let home = UNSAFE.iter().any(|(path, _)| *path == source.path);
    let unsafes = |token: &&Token| token.word && token.text == "unsafe" && !home;
    let breach = |token: &Token| format!("{}:{}: `unsafe` outside its homes", source.path, token.line);
    source.tokens.iter().filter(unsafes).map(breach).collect()
}

/// The files that may hold `unsafe`, and why.
const UNSAFE: &[(&str, &str)] = &[
    (
        "src/cache/arena.rs",
        "a measured gain: memory that nobody touches before it is needed, in large pages",
    ),
    (
        "src/cache/lanes.rs",
        "a measured gain: vector instructions load and compare all tags of a bucket",
    ),
    (
        "src/cache/slab.rs",
        "a measured gain: a hit takes no lock while another entry takes its place",
    ),
    (
        "src/cache/slab/map.rs",
        "a measured gain: a hit takes no lock while another entry takes its place",
    ),
    (
        "src/cache/slab/slot.rs",
        "a measured gain: a hit takes no lock while another entry takes its place",
    ),
    (
        "src/cache/slab/relocate.rs",
        "memory is given back: an entry moves once nobody reads it",
    ),
    (
        "src/sync/epoch.rs",
        "a measured gain: readers of a snapshot take no lock",
    ),
    (
        "tests/support/counting.rs",
        "an allocator that counts is an unsafe trait's implementation",
    ),
    (
        "tests/cache_shrinks.rs",
        "an allocator that counts is an unsafe trait's implementation",
    ),
];

/// No file is longer than 600 lines.
pub(crate) fn length(source: &Source) -> Vec<String> {
    let lines = source.text.lines().count();
    let breach = || format!("{}: {lines} lines: past {MOST_LINES} it is two ideas", source.path);
    (lines > MOST_LINES).then(breach).into_iter().collect()
}

const MOST_LINES: usize = 600;

/// Nothing is left for later: no unfinished code, no note to finish it, no test that is ignored.
pub(crate) fn finished(source: &Source) -> Vec<String> {
    let mut breaches = Vec::new();
    for (at, token) in source.tokens.iter().enumerate() {
        let macros = matches!(token.text.as_str(), "todo" | "unimplemented") && source.is(at + 1, "!");
        let ignored = token.text == "ignore" && at > 1 && source.is(at - 1, "[") && source.is(at - 2, "#");
        if token.word && (macros || ignored) {
            breaches.push(format!("{}:{}: `{}`", source.path, token.line, token.text));
        }
    }
    for (index, line) in source.text.lines().enumerate() {
        for note in ["TODO", "FIXME", "XXX", "HACK"] {
            let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
            if words.any(|word| word == note) {
                breaches.push(format!("{}:{}: `{note}`", source.path, index + 1));
            }
        }
    }
    breaches
}
