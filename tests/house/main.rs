//! The house stands: rooms import lower floors only, nothing goes round `Env`, and files keep the manners that the
//! compiler does not check. For each rule a small bad sample proves that it is noticed.
#![allow(clippy::disallowed_methods, reason = "tests act as the outside world")]

mod rules;
mod source;

use source::Source;
use std::collections::BTreeSet;
use std::path::Path;

type Rule = fn(&Source) -> Vec<String>;

/// Checks a rule on the files of some folders; those that only tests compile are left out where `product` says so.
fn check(rule: Rule, folders: &[&str], product: bool) {
    let sources: Vec<Source> = folders.iter().flat_map(|folder| read(folder)).collect();
    let tests: BTreeSet<String> = sources.iter().flat_map(|source| source.test_modules.clone()).collect();
    let breaches: Vec<String> = sources
        .iter()
        .filter(|source| !product || !source.is_in(&tests))
        .flat_map(rule)
        .collect();
    assert!(sources.len() > 10, "the folders {folders:?} hold the package");
    assert!(breaches.is_empty(), "\n{}", breaches.join("\n"));
}

/// All the Rust files under a folder of the package.
fn read(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    let mut folders = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else {
            continue; // A package of this folder's kind need not have one yet.
        };
        for path in entries.map(|entry| entry.expect("a folder that can be listed").path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let relative = path.strip_prefix(root).expect("found under the root").to_string_lossy();
                let text = std::fs::read_to_string(&path).expect("a file that can be read");
                sources.push(Source::parse(&relative.replace('\\', "/"), &text));
            }
        }
    }
    sources
}

#[test]
fn rooms_import_lower_floors_only() {
    let product = read("src");
    let tests: BTreeSet<String> = product.iter().flat_map(|source| source.test_modules.clone()).collect();
    let breaches: Vec<String> = product
        .iter()
        .flat_map(|source| {
            let mut breaches = rules::floors(source);
            // A module for tests says so where it is declared, not in its own file.
            if source.is_in(&tests) {
                breaches.retain(|breach| !breach.ends_with("which only tests may"));
            }
            breaches
        })
        .collect();
    assert!(breaches.is_empty(), "\n{}", breaches.join("\n"));
}

#[test]
fn nothing_goes_round_env() {
    check(rules::seam, &["src"], true);
}

#[test]
fn no_unwrap_outside_tests() {
    check(rules::unwraps, &["src", "examples", "benches"], true);
}

#[test]
fn unsafe_has_its_homes() {
    check(rules::safety, &["src", "examples", "benches", "tests"], false);
}

#[test]
fn no_file_holds_two_ideas() {
    check(rules::length, &["src", "examples", "benches", "tests"], false);
}

#[test]
fn nothing_is_left_for_later() {
    check(rules::finished, &["src", "examples", "benches"], false);
}

#[test]
fn no_test_is_ignored() {
    // The other words of that rule stand in its own file.
    let ignored = |source: &Source| {
        let mut breaches = rules::finished(source);
        breaches.retain(|breach| breach.ends_with("`ignore`"));
        breaches
    };
    let breaches: Vec<String> = read("tests").iter().flat_map(ignored).collect();
    assert!(breaches.is_empty(), "\n{}", breaches.join("\n"));
}

/// What `rule` says of `text` as the content of `path`.
fn said(rule: Rule, path: &str, text: &str) -> Vec<String> {
    rule(&Source::parse(path, text))
}

#[track_caller]
fn caught(rule: Rule, path: &str, text: &str) {
    assert_eq!(
        said(rule, path, text).len(),
        1,
        "one breach in {text:?}: {:?}",
        said(rule, path, text)
    );
}

#[track_caller]
fn passes(rule: Rule, path: &str, text: &str) {
    assert_eq!(said(rule, path, text), Vec::<String>::new(), "{text:?}");
}

#[test]
fn the_floors_rule_catches() {
    let log = "src/log/frame.rs";
    passes(
        rules::floors,
        log,
        "use crate::env::Env; use crate::{sync::Mutex, hash}; use super::Log; use std::io;",
    );
    caught(rules::floors, log, "use crate::queue::Topic;");
    caught(rules::floors, log, "use crate::store::Store;"); // its own floor
    caught(rules::floors, log, "use crate::{env::{Env, Tick}, queue::{Topic}};");
    caught(rules::floors, log, "fn f() { crate::shard::route(); }");
    caught(rules::floors, log, "use super::super::queue::Topic;");
    caught(
        rules::floors,
        log,
        "mod inner { use super::super::super::queue::Topic; }",
    );
    passes(rules::floors, log, "mod inner { use super::super::Log; }");
    caught(rules::floors, "src/log/mod.rs", "use super::queue::Topic;");
    caught(rules::floors, log, "macro_rules! m { () => { $crate::queue::Topic } }");
    caught(
        rules::floors,
        log,
        "#[cfg(test)] mod tests { use crate::queue::Topic; }",
    );
    caught(rules::floors, log, "use crate::Topic;"); // the root is no room
    caught(rules::floors, log, "use crate::*;");
    caught(rules::floors, "src/attic/mod.rs", "use crate::env::Env;"); // a room without a floor
    caught(rules::floors, "src/sync.rs", "use crate::env::Env;");
    passes(rules::floors, "src/lib.rs", "pub use crate::queue::Topic;");
    passes(
        rules::floors,
        log,
        "/// [`crate::queue::Topic`]\nfn f() -> &'static str { \"crate::queue\" } // crate::queue",
    );
}

#[test]
fn the_floors_rule_keeps_the_simulation_beside() {
    let log = "src/log/frame.rs";
    caught(rules::floors, log, "use crate::sim::World;");
    caught(rules::floors, log, "#[cfg(feature = \"sim\")] use crate::sim::World;");
    caught(rules::floors, log, "#[cfg(not(test))] use crate::sim::World;");
    caught(
        rules::floors,
        log,
        "#[cfg(test)] mod tests { use super::*; } use crate::sim::World;",
    );
    caught(
        rules::floors,
        log,
        "struct S { #[cfg(test)] a: u8, b: crate::sim::World }",
    );
    passes(
        rules::floors,
        log,
        "#[cfg(test)] mod tests { use super::*; use crate::sim::World; }",
    );
    passes(
        rules::floors,
        log,
        "#[cfg(all(test, unix))] #[allow(dead_code)] fn f<A, B>() { crate::sim::f() }",
    );
    passes(
        rules::floors,
        "src/sim/world.rs",
        "use crate::{env::Env, log::Log, system::System};",
    );
}

#[test]
fn the_seam_rule_catches() {
    let log = "src/log/frame.rs";
    for round in [
        "fn f() { std::time::Instant::now(); }",
        "use std::time::SystemTime; fn f() { SystemTime::now(); }",
        "use std::thread; fn f() { thread::spawn(|| {}); }",
        "use std::thread::{sleep, Thread};",
        "fn f() { std::thread::Builder::new(); }",
        "use std::{io, fs::File};",
        "fn f() -> u8 { rand::random() }",
        "use rustix::{io::Errno, fs::open};",
        "use tokio::sync::mpsc;",
        "use std::hash::RandomState;",
        "use std::collections::{BTreeMap, HashMap};",
        "use std::collections::hash_map::HashMap as Map;",
        "fn f() { hashbrown::HashSet::<u8>::default(); }",
        "fn f() { select! { a = b => c } }",
        "fn f() { futures::select_biased! { a = b => c } }",
        "fn f() { std::env::var(\"HOME\"); }",
    ] {
        caught(rules::seam, log, round);
        caught(rules::seam, "src/sim/world.rs", round);
        passes(rules::seam, log, &format!("#[cfg(test)] mod tests {{ {round} }}"));
    }
    passes(
        rules::seam,
        log,
        "/// Instant::now()\nfn f(now: Tick) { env.now(); env.spawn(g()); \"std::fs\"; } // tokio::spawn",
    );
    passes(
        rules::seam,
        log,
        "use futures::future::select; fn f() { select(a, b); }",
    );
    passes(
        rules::seam,
        "src/env/system.rs",
        "use std::fs::File; fn f() { std::time::Instant::now(); }",
    );
    passes(rules::seam, "src/env/tokio.rs", "use tokio::runtime::Handle;");
    caught(rules::seam, "src/env/tokio.rs", "use std::fs::File;");
    caught(rules::seam, "src/env/mod.rs", "fn f() { std::time::Instant::now(); }");
}

#[test]
fn the_unwrap_rule_catches() {
    let path = "src/log/frame.rs";
    caught(rules::unwraps, path, "fn f() { g().unwrap(); }");
    caught(rules::unwraps, path, "fn f() { g().unwrap_err(); }");
    caught(rules::unwraps, path, "fn f() { g().map(Option::unwrap); }");
    caught(
        rules::unwraps,
        path,
        "#[cfg(test)] mod tests { fn f() {} } fn f() { g()\n.unwrap\n(); }",
    );
    passes(
        rules::unwraps,
        path,
        "/// g().unwrap()\nfn f() { g().unwrap_or(1); \".unwrap()\"; }",
    );
    passes(
        rules::unwraps,
        path,
        "#[cfg(test)] mod tests { fn f() { g().unwrap(); } }",
    );
    passes(
        rules::unwraps,
        path,
        "#[cfg(test)]\n#[allow(dead_code)]\nmod tests { fn f() { g().unwrap(); } }",
    );
}

#[test]
fn a_file_is_for_tests_only_where_it_is_declared_so() {
    let parent = Source::parse(
        "src/log/mod.rs",
        "mod frame; #[cfg(test)] mod tests; #[cfg(test)] mod model;",
    );
    assert!(Source::parse("src/log/tests.rs", "").is_in(&parent.test_modules));
    assert!(Source::parse("src/log/tests/crash.rs", "").is_in(&parent.test_modules));
    assert!(Source::parse("src/log/model.rs", "").is_in(&parent.test_modules));
    assert!(!Source::parse("src/log/frame.rs", "").is_in(&parent.test_modules));
    assert!(!Source::parse("src/log/tests_of_frames.rs", "").is_in(&parent.test_modules));
    assert!(!Source::parse("src/queue/tests.rs", "").is_in(&parent.test_modules));
    let leaf = Source::parse("src/log/frame.rs", "#[cfg(test)] mod tests;");
    assert!(Source::parse("src/log/frame/tests.rs", "").is_in(&leaf.test_modules));
    assert!(!Source::parse("src/log/tests.rs", "").is_in(&leaf.test_modules));
    let plain = Source::parse("src/log/mod.rs", "mod tests;");
    assert!(
        !Source::parse("src/log/tests.rs", "").is_in(&plain.test_modules),
        "its name alone proves nothing"
    );
}

#[test]
fn the_other_rules_catch() {
    let path = "src/log/frame.rs";
    caught(rules::safety, path, "#[allow(unsafe_code)] fn f() { unsafe { g() } }");
    passes(rules::safety, "src/sync/epoch.rs", "fn f() { unsafe { g() } }");
    caught(rules::length, path, &"\n".repeat(601));
    passes(rules::length, path, &"\n".repeat(600));
    caught(rules::finished, path, "fn f() { todo!() }");
    caught(rules::finished, path, "fn f() { unimplemented!() }");
    caught(rules::finished, path, "fn f() {} // FIXME: later");
    caught(rules::finished, path, "/* TODO later */ fn f() {}");
    caught(
        rules::finished,
        path,
        "#[cfg(test)] mod tests { #[test] #[ignore] fn f() {} }",
    );
    caught(rules::finished, path, "#[test] #[ignore = \"slow\"] fn f() {}");
    passes(rules::finished, path, "fn ignore() { todo.ignore(); HACKS; }");
}
