//! What changes the queue, and so needs it alone: redrive and repair.

use crate::look::numbers;
use crate::text::size;
use crate::{Outcome, Result, holder};
use outgrow::env::Env;
use outgrow::queue::{DurableQueue, Error, Retention};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

/// Longer than any window for repetitions.
const ALWAYS: Duration = Duration::from_secs(10 * 365 * 86_400);
/// More ids than any such window has, as they take 50 bytes of memory each.
const MANY_IDS: usize = 20_000_000;

/// Opens the queue so that nothing in it goes for want of the settings that its own process has.
async fn open(dir: &Path) -> Result<DurableQueue> {
    let is_segment = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.is_ok_and(|entry| entry.path().extension().is_some_and(|ending| ending == "seg"))
    };
    let there = std::fs::read_dir(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    if !{ there }.any(is_segment) {
        return Err(format!("{}: there is no queue", dir.display()).into());
    }
    let builder = DurableQueue::builder().env(Env::system()).retention(Retention::all());
    let builder = builder.max_bytes(u64::MAX).max_subscriptions(usize::MAX).find_damage();
    let opened = builder.dedup_window(ALWAYS).dedup_ids(MANY_IDS).open(dir).await;
    opened.map_err(|error| match error {
        Error::Locked => {
            let by = holder::of(dir).map_or_else(|| "another process".to_owned(), |holder| holder.to_string());
            format!(
                "{}: {by} has the queue open, and holds its lock until it closes it or ends",
                dir.display()
            )
            .into()
        }
        error => format!("{}: {error}", dir.display()).into(),
    })
}

pub(crate) async fn redrive(
    dir: &Path,
    topic: &str,
    subscription: Option<&str>,
    max: usize,
    out: &mut impl Write,
) -> Result<Outcome> {
    let queue = open(dir).await?;
    let from = queue.topic(topic);
    let moved = match subscription {
        Some(subscription) => from.redrive_of(subscription, max).await,
        None => from.redrive(max).await,
    };
    let left = queue
        .stats()
        .topics
        .get(&format!("{topic}.dead"))
        .map_or(0, |dead| dead.messages);
    queue.close().await;
    writeln!(out, "{topic}: {} sent again, {left} dead letters left", moved?)?;
    Ok(Outcome::Sound)
}

pub(crate) async fn repair(dir: &Path, out: &mut impl Write) -> Result<Outcome> {
    let queue = open(dir).await?;
    let report = queue.opened().clone();
    queue.close().await;
    writeln!(
        out,
        "{}: opened; it has {} messages in {}",
        dir.display(),
        report.messages,
        size(report.bytes)
    )?;
    if report.torn_bytes > 0 {
        let torn = size(report.torn_bytes);
        writeln!(
            out,
            "{torn} at the end, which a crash cut short, no longer count; nobody was told of them"
        )?;
    }
    for place in &report.damaged {
        writeln!(out, "damaged: {place}")?;
    }
    for lost in &report.lost {
        writeln!(out, "lost: {}: {}", numbers(lost.seqs.start, lost.seqs.end), lost.why)?;
    }
    if report.damaged.is_empty() && report.lost.is_empty() {
        writeln!(out, "nothing is damaged")?;
        return Ok(Outcome::Sound);
    }
    match &report.quarantined {
        Ok(0) => writeln!(out, "the damaged bytes were in quarantine/ already")?,
        Ok(copies) => writeln!(out, "copied the damaged bytes into quarantine/, {copies} files")?,
        Err(why) => return Err(format!("the damaged bytes could not be copied into quarantine/: {why}").into()),
    }
    let lost: u64 = report.lost.iter().map(|lost| lost.seqs.end - lost.seqs.start).sum();
    writeln!(
        out,
        "it cost {lost} entries; of those that were acknowledgements, the messages come again"
    )?;
    writeln!(
        out,
        "the damaged bytes stay where they are, and verify tells of them, until their file is freed"
    )?;
    Ok(Outcome::Sound)
}
