//! What only looks: status, peek, verify and dump.

use crate::progress::Bar;
use crate::text::{age, hex, short, size, table, text, time};
use crate::{Outcome, Result, holder};
use outgrow::env::Env;
use outgrow::queue::{DeliverAt, DurableQueue, Inspection, MessageView};
use serde_json::{Map, Value, json};
use std::io::Write;
use std::path::Path;

/// How much of a payload, a key or a header is shown on a line.
const SHOWN: usize = 60;

async fn inspect(dir: &Path, from_device: bool) -> Result<Inspection> {
    let mut inspector = DurableQueue::inspector().env(Env::system());
    if from_device {
        inspector = inspector.from_device();
    }
    let mut bar = Bar::new("reading", from_device);
    let found = inspector
        .look_with(dir, |progress| bar.at(progress.done, progress.of))
        .await;
    bar.end();
    let found = found.map_err(|error| format!("{}: {error}", dir.display()))?;
    if found.segments().is_empty() {
        return Err(format!("{}: there is no queue", dir.display()).into());
    }
    Ok(found)
}

pub(crate) async fn status(dir: &Path, out: &mut impl Write) -> Result<Outcome> {
    let found = inspect(dir, false).await?;
    let holder = holder::of(dir).map_or_else(|| "open nowhere".to_owned(), |holder| format!("open in {holder}"));
    let (files, bytes) = (found.segments().len(), size(found.bytes()));
    writeln!(
        out,
        "{}: {bytes} in {files} segments, {} entries; {holder}\n",
        dir.display(),
        found.entries()
    )?;
    let mut rows = Vec::new();
    for (name, topic) in found.topics() {
        let messages = topic.messages.to_string();
        let dead = topic.dead_letters.to_string();
        rows.push(vec![name.clone(), String::new(), messages, size(topic.bytes), dead]);
        for (subscription, of) in &topic.subscriptions {
            let oldest = of
                .oldest
                .map_or(String::new(), |seq| format!("{seq}, {}", age(of.oldest_age)));
            let numbers = [of.tried, of.delayed, of.lag].map(|number| number.to_string());
            let none = String::new();
            let mut row = vec![
                none.clone(),
                subscription.clone(),
                of.backlog.to_string(),
                none.clone(),
                none,
            ];
            row.extend(numbers);
            row.push(oldest);
            rows.push(row);
        }
    }
    let heading = [
        "topic",
        "subscription",
        ">messages",
        ">bytes",
        ">dead",
        ">tried",
        ">delayed",
        ">lag",
        "oldest",
    ];
    writeln!(out, "{}", table(&heading, &rows))?;
    let rows: Vec<Vec<String>> = found
        .segments()
        .iter()
        .map(|segment| {
            let first = segment.first.map_or("unknown".to_owned(), |first| first.to_string());
            let damaged = segment.damaged.to_string();
            vec![
                format!("{:016x}.seg", segment.segment),
                first,
                size(segment.bytes),
                size(segment.file_bytes),
                damaged,
            ]
        })
        .collect();
    write!(
        out,
        "{}",
        table(&["file", ">first", ">used", ">size", ">damaged"], &rows)
    )?;
    if found.unfinished_bytes() > 0 {
        let unfinished = size(found.unfinished_bytes());
        writeln!(
            out,
            "\n{unfinished} at the end are being written, or were cut short by a crash; nobody was told of them"
        )?;
    }
    damage(&found, out)
}

pub(crate) async fn verify(dir: &Path, out: &mut impl Write) -> Result<Outcome> {
    let found = inspect(dir, true).await?;
    let (bytes, files) = (size(found.bytes()), found.segments().len());
    writeln!(
        out,
        "{}: {bytes} in {files} segments, {} entries",
        dir.display(),
        found.entries()
    )?;
    let outcome = damage(&found, out)?;
    if outcome == Outcome::Sound {
        writeln!(out, "everything is as it was written")?;
    }
    Ok(outcome)
}

/// Tells what is damaged.
fn damage(found: &Inspection, out: &mut impl Write) -> Result<Outcome> {
    for place in found.damaged() {
        let lost: Vec<String> = place.lost.iter().map(|seqs| numbers(seqs.start, seqs.end)).collect();
        let lost = match lost.is_empty() {
            true => "nothing that counts is lost".to_owned(),
            false => format!("lost: {}", lost.join(", ")),
        };
        let (file, bytes) = (place.segment, &place.bytes);
        writeln!(
            out,
            "damaged: {file:016x}.seg, bytes {} to {}; {lost}",
            bytes.start, bytes.end
        )?;
    }
    for lost in found.lost() {
        writeln!(out, "lost: {}: {}", numbers(lost.seqs.start, lost.seqs.end), lost.why)?;
    }
    Ok(match found.damaged().is_empty() && found.lost().is_empty() {
        true => Outcome::Sound,
        false => Outcome::Damaged,
    })
}

pub(crate) fn numbers(start: u64, end: u64) -> String {
    match end - start {
        1 => format!("number {start}"),
        _ => format!("numbers {start} to {}", end - 1),
    }
}

pub(crate) async fn peek(
    dir: &Path,
    topic: &str,
    subscription: Option<&str>,
    count: usize,
    out: &mut impl Write,
) -> Result<Outcome> {
    let mut found = inspect(dir, false).await?;
    if !found.topics().contains_key(topic) {
        return Err(format!("there is no topic {topic:?}").into());
    }
    let messages = match subscription {
        Some(subscription) => found.peek(topic, subscription, count).await?,
        None => oldest(&mut found, topic, count).await?,
    };
    for message in &messages {
        write!(out, "{}", shown(message))?;
    }
    if messages.is_empty() {
        writeln!(out, "nothing waits")?;
    }
    Ok(Outcome::Sound)
}

async fn oldest(found: &mut Inspection, topic: &str, count: usize) -> Result<Vec<MessageView>> {
    let mut oldest = Vec::new();
    let mut messages = found.messages(Some(topic));
    while oldest.len() < count
        && let Some(message) = messages.next().await?
    {
        oldest.extend(message.kept.then_some(message));
    }
    Ok(oldest)
}

/// A message on a few lines.
fn shown(view: &MessageView) -> String {
    let message = &view.message;
    let mut out = format!("{}  {}", view.seq, time(view.enqueued_at));
    if let Some(key) = &message.key {
        out += &format!("  key {}", short(key, SHOWN));
    }
    if let Some(DeliverAt::At(due)) = message.deliver {
        out += &format!("  due {}", time(due));
    }
    let open: Vec<String> = view
        .open
        .iter()
        .map(|(subscription, attempts)| format!("{subscription} (tried {attempts} times)"))
        .collect();
    if !open.is_empty() {
        out += &format!("  open to {}", open.join(", "));
    }
    out.push('\n');
    for (name, value) in &message.headers {
        out += &format!("    {name}: {}\n", short(value, SHOWN));
    }
    out += &format!("    {}\n", short(&message.payload, SHOWN));
    out
}

pub(crate) async fn dump(dir: &Path, topic: Option<&str>, settled_too: bool, out: &mut impl Write) -> Result<Outcome> {
    let mut found = inspect(dir, false).await?;
    let mut messages = found.messages(topic);
    while let Some(message) = messages.next().await? {
        if message.kept || settled_too {
            serde_json::to_writer(&mut *out, &line(&message))?;
            writeln!(out)?;
        }
    }
    Ok(Outcome::Sound)
}

/// A message as JSON. What is no text is in hexadecimal digits, under a name that says so.
fn line(view: &MessageView) -> Value {
    let message = &view.message;
    let mut line = Map::new();
    line.insert("seq".into(), view.seq.into());
    line.insert("topic".into(), view.topic.as_str().into());
    line.insert("enqueued_at".into(), time(view.enqueued_at).into());
    line.insert(
        "open".into(),
        view.open
            .iter()
            .map(|(name, attempts)| (name.clone(), json!(attempts)))
            .collect(),
    );
    put(&mut line, "key", message.key.as_deref());
    put(&mut line, "dedup_id", message.dedup_id.as_deref());
    let headers = message.headers.iter().map(|(name, value)| {
        let mut header = Map::new();
        header.insert("name".into(), name.as_str().into());
        put(&mut header, "value", Some(value));
        Value::Object(header)
    });
    line.insert("headers".into(), headers.collect());
    line.insert(
        "priority".into(),
        format!("{:?}", message.priority).to_lowercase().into(),
    );
    if let Some(DeliverAt::At(due)) = message.deliver {
        line.insert("deliver_at".into(), time(due).into());
    }
    if let Some(ttl) = message.ttl {
        line.insert("ttl_ms".into(), json!(ttl.as_millis() as u64));
    }
    put(&mut line, "payload", Some(&message.payload));
    Value::Object(line)
}

fn put(object: &mut Map<String, Value>, name: &str, bytes: Option<&[u8]>) {
    let Some(bytes) = bytes else { return };
    match text(bytes) {
        Some(text) => object.insert(name.into(), text.into()),
        None => object.insert(format!("{name}_hex"), hex(bytes).into()),
    };
}
