//! Runs the programs among the examples.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The example called `name`, which cargo builds before it runs all tests, beside their folder.
fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows where it is");
    let target = test
        .parent()
        .and_then(Path::parent)
        .expect("tests are built into a folder of the target folder");
    let program = target
        .join("examples")
        .join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    // `cargo test --test NAME` builds no example, and would test an old one.
    let changed = |path: &Path| path.metadata().and_then(|meta| meta.modified());
    let built = changed(&program);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
    let source = changed(&source.join("main.rs"));
    assert!(
        built.is_ok_and(|built| source.is_ok_and(|source| source <= built)),
        "{} is missing or old: build it with `cargo test --no-run` or `cargo build --examples`",
        program.display()
    );
    program
}

/// Runs it to its end.
pub(crate) fn run(name: &str, args: &[&str]) -> Output {
    let program = program(name);
    let run = Command::new(&program).args(args).output();
    run.unwrap_or_else(|why| panic!("{}: {why}", program.display()))
}
