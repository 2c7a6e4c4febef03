//! What `./bench.sh` tells a bench that does not use criterion.

/// The first word that is neither an option nor what an option of criterion takes: a part of the names to run.
pub(crate) fn filter(words: &[String]) -> &str {
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--warm-up-time" | "--measurement-time" => _ = words.next(),
            option if option.starts_with("--") => {}
            filter => return filter,
        }
    }
    ""
}

/// How many rounds to run.
pub(crate) fn rounds() -> usize {
    variable("OUTGROW_ROUNDS").map_or(3, |rounds| rounds.parse().expect("a number of rounds"))
}

/// Whether to be short.
pub(crate) fn quick() -> bool {
    variable("OUTGROW_QUICK").is_some()
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
