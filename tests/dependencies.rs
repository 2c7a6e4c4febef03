//! What a user of the crate takes on: the default build has few dependencies and no runtime, each feature adds what
//! it says, and the libraries that benches compare with are nobody's but the benches'.
#![allow(clippy::disallowed_methods, reason = "tests act as the outside world")]

use std::collections::BTreeSet;
use std::process::Command;

/// The default build's own dependencies. A new one is a decision: it goes into the README's list too.
const DIRECT: &[&str] = &[
    "bytes",
    "crc32c",
    "crossbeam",
    "dashmap",
    "foldhash",
    "futures",
    "hashbrown",
    "ipnet",
    "lru",
    "parking_lot",
    "quanta",
    "rustix",
    "siphasher",
    "thiserror",
];

/// Runtimes, and what only features may bring; in the default build not even indirectly.
const ABSENT: &[&str] = &[
    "actix-rt",
    "async-executor",
    "async-global-executor",
    "async-io",
    "async-nats",
    "async-std",
    "futures-timer",
    "getrandom",
    "glommio",
    "http",
    "http-body",
    "hyper",
    "io-uring",
    "log",
    "maxminddb",
    "metrics",
    "mio",
    "monoio",
    "polling",
    "postcard",
    "rand",
    "rayon",
    "redis",
    "serde",
    "serde_core",
    "smol",
    "socket2",
    "tokio",
    "tower",
    "tower-layer",
    "tower-service",
    "tracing",
    "tracing-core",
];

/// What the benches compare with, under `--cfg peers`.
const PEERS: &[&str] = &[
    "fjall",
    "foyer",
    "hashring",
    "moka",
    "okaywal",
    "pingora-load-balancing",
    "quick_cache",
    "raft-engine",
    "redb",
    "rusqlite",
    "tower",
    "yaque",
];

#[test]
fn the_default_build_has_no_runtime() {
    let tree = tree(&["-e", "normal"]);
    assert!(tree.contains("parking_lot_core"), "the tree is whole: {tree:?}");
    assert_eq!(common(&tree, ABSENT), Vec::<&str>::new());
}

#[test]
fn its_direct_dependencies_are_the_agreed_ones() {
    let mut direct = tree(&["-e", "normal", "--depth", "1"]);
    assert!(direct.remove("outgrow"), "the root is listed too: {direct:?}");
    assert_eq!(direct.iter().map(String::as_str).collect::<Vec<_>>(), DIRECT);
}

#[test]
fn each_feature_brings_what_it_says() {
    for (feature, brings) in [
        ("tokio", &["mio", "socket2", "tokio"][..]),
        ("serde", &["serde", "serde_core"][..]),
        ("json", &["serde", "serde_core"][..]),
        ("postcard", &["postcard", "serde", "serde_core"][..]),
        ("redis", &["mio", "redis", "socket2", "tokio"][..]),
        (
            "nats",
            &[
                "async-nats",
                "getrandom",
                "mio",
                "rand",
                "serde",
                "serde_core",
                "socket2",
                "tokio",
                "tracing",
                "tracing-core",
            ][..],
        ),
        (
            "dns",
            &[
                "getrandom",
                "mio",
                "rand",
                "serde",
                "serde_core",
                "socket2",
                "tokio",
                "tracing",
                "tracing-core",
            ][..],
        ),
        ("tower", &["http", "http-body", "tower-layer", "tower-service"][..]),
        ("tracing", &["tracing", "tracing-core"][..]),
        ("metrics", &["metrics"][..]),
        ("geoip", &["maxminddb", "serde", "serde_core"][..]),
        ("sim", &[][..]),
        ("suite", &[][..]),
        (
            "full",
            &[
                "async-nats",
                "getrandom",
                "http",
                "http-body",
                "maxminddb",
                "metrics",
                "mio",
                "postcard",
                "rand",
                "redis",
                "serde",
                "serde_core",
                "socket2",
                "tokio",
                "tower-layer",
                "tower-service",
                "tracing",
                "tracing-core",
            ][..],
        ),
    ] {
        let tree = tree(&["-e", "normal", "--no-default-features", "--features", feature]);
        assert_eq!(common(&tree, ABSENT), brings, "feature `{feature}`");
    }
}

#[test]
fn peers_are_for_benches_alone_and_locked() {
    let tests = tree(&["-e", "normal,dev,build", "--all-features"]);
    assert!(
        tests.contains("proptest"),
        "test dependencies are listed too: {tests:?}"
    );
    // The resolver of the feature `dns` has one of them in itself, and the clients in the examples bring tower.
    assert_eq!(common(&tests, PEERS), ["moka", "tower"]);
    let without_dns = tree(&["-e", "normal,dev,build"]);
    assert_eq!(common(&without_dns, PEERS), ["tower"]);
    let lock = include_str!("../Cargo.lock");
    for peer in PEERS {
        assert!(lock.contains(&format!("\nname = \"{peer}\"\n")), "`{peer}` is locked");
    }
    assert!(
        lock.contains("\nname = \"rusqlite\"\nversion = \"0.41."),
        "the version that the figures are compared with"
    );
}

/// The names of all packages in what `cargo tree` prints, for this machine's kind.
fn tree(arguments: &[&str]) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--locked", "--prefix", "none", "--format", "{p}"])
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        // Whoever measures with `--cfg peers` asks for the peers; this asks what everyone else gets.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .output()
        .expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("package names");
    let names = text.lines().filter_map(|line| line.split(' ').next());
    names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// Those of `names` that are in `tree`.
fn common<'a>(tree: &BTreeSet<String>, names: &[&'a str]) -> Vec<&'a str> {
    names.iter().copied().filter(|name| tree.contains(*name)).collect()
}
