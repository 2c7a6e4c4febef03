//! Every command on a queue made for that: one that is open, then the same with a flipped bit.

use crate::cli::{self, Request};
use crate::{Outcome, Result};
use futures::executor::block_on;
use outgrow::env::Env;
use outgrow::queue::{DurableQueue, Message};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A folder that goes when it is done with.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

pub(crate) fn run(out: &mut impl Write) -> Result<()> {
    let folder = Folder(std::env::temp_dir().join(format!("outgrow-queuectl-{}", std::process::id())));
    let dir = folder.0.as_path();
    block_on(async {
        let queue = DurableQueue::builder().env(Env::system()).open(dir).await?;
        fill(&queue).await?;
        expect(
            out,
            dir,
            &["status"],
            Outcome::Sound,
            &["mail", "mailer", "0000000000000001.seg", "open in"],
        )
        .await?;
        let peek = ["peek", "mail", "--subscription", "mailer", "--count", "1"];
        expect(out, dir, &peek, Outcome::Sound, &["to Grace", "key grace"]).await?;
        expect(
            out,
            dir,
            &["verify"],
            Outcome::Sound,
            &["everything is as it was written"],
        )
        .await?;
        expect(
            out,
            dir,
            &["dump", "mail"],
            Outcome::Sound,
            &["\"payload\":\"to Grace\""],
        )
        .await?;
        refused(out, dir, &["redrive", "mail"]).await?;
        queue.close().await;
        let redrive = ["redrive", "mail", "--subscription", "mailer"];
        expect(
            out,
            dir,
            &redrive,
            Outcome::Sound,
            &["1 sent again, 0 dead letters left"],
        )
        .await?;

        writeln!(out, "(now a bit of a message is flipped)\n")?;
        flip(dir, b"to Grace")?;
        let place = "damaged: 0000000000000001.seg, bytes ";
        expect(out, dir, &["verify"], Outcome::Damaged, &[place, "lost: number "]).await?;
        expect(
            out,
            dir,
            &["repair"],
            Outcome::Sound,
            &["quarantine/, 1 files", "it cost 1 entries"],
        )
        .await?;
        Ok(())
    })
}

/// Three mails, of which the first can never be sent; and a message for later.
async fn fill(queue: &DurableQueue) -> Result<()> {
    let mail = queue.topic("mail");
    for to in ["Ada", "Grace", "Mary"] {
        let message = Message::new(format!("to {to}")).key(to.to_lowercase());
        mail.send(message.header("from", "outgrow")).await?;
    }
    let tomorrow = Message::new(vec![0xff, 0, 0xfe]).deliver_in(Duration::from_secs(86_400));
    queue.topic("reminders").send(tomorrow).await?;
    queue.topic("reminders").subscribe("clock").build().await?;
    let mut jobs = mail.subscribe("mailer").build().await?;
    let first = jobs.next().await.ok_or("the queue is open")??;
    Ok(first.dead_letter("no such mailbox").await?)
}

/// Runs a command and says whether it did what it should.
async fn expect(out: &mut impl Write, dir: &Path, args: &[&str], outcome: Outcome, words: &[&str]) -> Result<()> {
    let (done, said) = command(out, dir, args).await?;
    let missing = words.iter().find(|word| !said.contains(**word));
    match (done? == outcome, missing) {
        (true, None) => Ok(()),
        (true, Some(missing)) => Err(format!("{args:?} did not say {missing:?}").into()),
        (false, _) => Err(format!("{args:?} did not end as {outcome:?}").into()),
    }
}

/// Runs a command that another who has the queue open stands in the way of.
async fn refused(out: &mut impl Write, dir: &Path, args: &[&str]) -> Result<()> {
    let Err(why) = command(out, dir, args).await?.0 else {
        return Err(format!("{args:?} opened a queue that is open").into());
    };
    writeln!(out, "error: {why}\n")?;
    match why.to_string().contains("has the queue open") {
        true => Ok(()),
        false => Err(why),
    }
}

/// Runs a command; how it ended, and what it said.
async fn command(out: &mut impl Write, dir: &Path, args: &[&str]) -> Result<(Result<Outcome>, String)> {
    writeln!(out, "$ queuectl DIR {}", args.join(" "))?;
    let words = [dir.as_os_str().to_owned()];
    let words = words.into_iter().chain(args.iter().map(Into::into));
    let Request::Run(dir, command) = cli::parse(words)? else {
        return Err("a command of the demonstration is none".into());
    };
    let mut said = Vec::new();
    let done = crate::run(&dir, &command, &mut said).await;
    let said = String::from_utf8(said)?;
    writeln!(out, "{said}")?;
    Ok((done, said))
}

/// Flips the lowest bit of the first letter of some bytes in the oldest segment.
fn flip(dir: &Path, bytes: &[u8]) -> Result<()> {
    let path = dir.join("0000000000000001.seg");
    let mut file = std::fs::read(&path)?;
    let at = file.windows(bytes.len()).position(|found| found == bytes);
    let at = at.ok_or("the message is in the oldest segment")?;
    file[at] ^= 1;
    Ok(std::fs::write(&path, file)?)
}
