//! Bugs planted on purpose, to prove that the simulations catch them.
//!
//! Only a build with `RUSTFLAGS="--cfg outgrow_mutants"` can have one, and then only the bug that the process's
//! environment names (`OUTGROW_MUTANT=AckBeforeSync`). In any other build [`planted`] is the constant `false`, and the
//! branch that asks it is gone. `./test.sh` plants each in turn and demands that a simulation fails.
#![allow(dead_code, reason = "a bug is asked for where its room has landed")]

/// One bug per promise that the simulations watch over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// The log acknowledges an append before its sync has returned.
    AckBeforeSync,
    /// A node takes records of a fenced, older epoch.
    SkipEpochCheck,
    /// Recovery keeps what follows a torn frame instead of cutting the log there.
    ForgetTornTail,
    /// A cached store keeps what a read found although a write has overtaken it.
    KeepOvertakenRead,
    /// A send that failed leaves the ids of its messages behind.
    KeepFailedIds,
    /// A delivery is settled by whoever had an earlier attempt at it.
    SettleAnyAttempt,
    /// Recovery cuts the log at any damage, whatever says that it was durable past it.
    IgnoreWitness,
}

/// Whether `mutant` is planted in this process.
#[cfg(not(outgrow_mutants))]
#[inline(always)]
pub(crate) const fn planted(_: Mutant) -> bool {
    false
}

/// Whether `mutant` is planted in this process.
///
/// # Panics
/// When `OUTGROW_MUTANT` names no bug: a misspelt name would otherwise pass for a bug that nothing caught.
#[cfg(outgrow_mutants)]
pub(crate) fn planted(mutant: Mutant) -> bool {
    static PLANTED: std::sync::OnceLock<Option<Mutant>> = std::sync::OnceLock::new();
    *PLANTED.get_or_init(|| match std::env::var("OUTGROW_MUTANT").as_deref() {
        Err(_) | Ok("") => None,
        Ok("AckBeforeSync") => Some(Mutant::AckBeforeSync),
        Ok("SkipEpochCheck") => Some(Mutant::SkipEpochCheck),
        Ok("ForgetTornTail") => Some(Mutant::ForgetTornTail),
        Ok("KeepOvertakenRead") => Some(Mutant::KeepOvertakenRead),
        Ok("KeepFailedIds") => Some(Mutant::KeepFailedIds),
        Ok("SettleAnyAttempt") => Some(Mutant::SettleAnyAttempt),
        Ok("IgnoreWitness") => Some(Mutant::IgnoreWitness),
        Ok(other) => panic!("OUTGROW_MUTANT names no planted bug: {other:?}"),
    }) == Some(mutant)
}
