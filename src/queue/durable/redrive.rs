//! How dead letters go back to where they came from.

use super::consume::{message, plain};
use super::record::Record;
use super::shell::{Core, Effect, Shell};
use crate::queue::{DEAD_SUBSCRIPTION, DurableQueue, Result, Topic, dead_letters};
use bytes::Bytes;
use futures::future::join_all;
use std::sync::Arc;

/// Letters on their way at once.
const AT_ONCE: usize = 64;

impl Topic<DurableQueue> {
    /// Sends dead letters of this topic to it again, the oldest first and at most `max`, and says how many; see
    /// [`DurableQueue::redrive`].
    ///
    /// # Errors
    /// As [`DurableQueue::redrive`].
    ///
    /// # Cancel safety
    /// As [`DurableQueue::redrive`].
    pub async fn redrive(&self, max: usize) -> Result<usize> {
        self.queue().shell().redrive(self.name(), None, max).await
    }

    /// As [`redrive`](Topic::redrive), of those letters that `subscription` gave up. Every subscription of the topic gets
    /// them, as always.
    ///
    /// ```
    /// # use futures::StreamExt;
    /// # use outgrow::queue::DurableQueue;
    /// # let dir = std::env::temp_dir().join(format!("outgrow-doc-redrive-of-{}", std::process::id()));
    /// # futures::executor::block_on(async {
    /// # let queue = DurableQueue::open(&dir).await?;
    /// let mail = queue.topic("mail");
    /// let mut jobs = mail.subscribe("mailer").build().await?;
    /// mail.send("to Ada").await?;
    /// jobs.next().await.expect("the queue is open")?.dead_letter("no such host").await?;
    ///
    /// assert_eq!(mail.redrive_of("audit", 10).await?, 0);
    /// assert_eq!(mail.redrive_of("mailer", 10).await?, 1);
    /// # drop(jobs);
    /// # queue.close().await;
    /// # Ok::<(), outgrow::queue::Error>(()) }).unwrap();
    /// # std::fs::remove_dir_all(&dir).unwrap();
    /// ```
    ///
    /// # Errors
    /// As [`DurableQueue::redrive`].
    ///
    /// # Cancel safety
    /// As [`DurableQueue::redrive`].
    pub async fn redrive_of(&self, subscription: &str, max: usize) -> Result<usize> {
        self.queue().shell().redrive(self.name(), Some(subscription), max).await
    }
}

impl DurableQueue {
    /// Sends all dead letters of `topic` to it again, and says how many: each is a new message with no attempts, without
    /// the headers that told of its death, and leaves the dead letters in the same write. Every subscription of the topic
    /// gets it, also those that had dealt with the first one.
    ///
    /// Letters that a consumer of the dead letters has settled, or holds, are left alone. One that is taken while it
    /// moves may be both dealt with and sent again.
    ///
    /// ```
    /// use futures::StreamExt;
    /// use outgrow::queue::DurableQueue;
    /// # let dir = std::env::temp_dir().join(format!("outgrow-doc-redrive-{}", std::process::id()));
    /// # futures::executor::block_on(async {
    /// # let queue = DurableQueue::open(&dir).await?;
    /// let mail = queue.topic("mail");
    /// let mut jobs = mail.subscribe("mailer").build().await?;
    /// mail.send("to Ada").await?;
    /// let job = jobs.next().await.expect("the queue is open")?;
    /// job.dead_letter("no such host").await?;
    ///
    /// assert_eq!(queue.redrive("mail").await?, 1); // the host is back
    /// let job = jobs.next().await.expect("the queue is open")?;
    /// assert_eq!((job.payload().as_ref(), job.attempt()), (b"to Ada".as_slice(), 1));
    /// # queue.close().await;
    /// # Ok::<(), outgrow::queue::Error>(()) }).unwrap();
    /// # std::fs::remove_dir_all(&dir).unwrap();
    /// ```
    ///
    /// # Errors
    /// As for a send. Those letters that had gone by then have gone.
    ///
    /// # Cancel safety
    /// Dropping the future leaves each letter either there or sent again.
    pub async fn redrive(&self, topic: &str) -> Result<usize> {
        self.shell().redrive(topic, None, usize::MAX).await
    }
}

impl Shell {
    async fn redrive(self: &Arc<Self>, topic: &str, of: Option<&str>, max: usize) -> Result<usize> {
        let from: Arc<str> = dead_letters(topic).into();
        let (mut moved, mut after) = (0, 0);
        while moved < max {
            let letters = self.letters(&from, after, AT_ONCE.min(max - moved))?;
            let Some(last) = letters.last() else { break };
            after = *last;
            // Read together, so that they go back in their order.
            let entries = self.entries(&letters).await?;
            let there = letters.iter().zip(&entries);
            let there = there.filter_map(|(seq, entry)| Some((*seq, entry.as_ref()?)));
            let move_each = there.map(|(seq, entry)| self.move_back((&from, seq, entry), topic, of));
            for done in join_all(move_each).await {
                moved += usize::from(done?);
            }
        }
        Ok(moved)
    }

    /// Some letters after number `after` that nobody has dealt with.
    fn letters(&self, from: &str, after: u64, max: usize) -> Result<Vec<u64>> {
        self.check()?;
        Ok(self.core.lock().state.undealt(from, after, max))
    }

    /// Moves a letter, if it is one `of` the subscription; whether it was still there.
    async fn move_back(
        self: &Arc<Self>,
        (from, seq, entry): (&Arc<str>, u64, &Bytes),
        topic: &str,
        of: Option<&str>,
    ) -> Result<bool> {
        let letter = message(entry.clone())?.1;
        let given_up_by = letter.get(DEAD_SUBSCRIPTION);
        if of.is_some_and(|of| given_up_by.is_none_or(|by| by != of)) {
            return Ok(false);
        }
        let message = self.copy_of(topic, &plain(letter)).await?;
        let gone = Record::Moved {
            topic: from.to_string(),
            seqs: vec![seq],
        };
        let Some(mut moving) = Moving::new(self, seq) else {
            return Ok(false);
        };
        let make = |core: &mut Core| {
            // Somebody may have taken it meanwhile.
            if core.state.undealt(from, seq - 1, 1) != [seq] {
                return None;
            }
            let mut entries = message.entries();
            entries.push(gone.encode().into());
            let (from, message) = (Arc::clone(from), message.clone());
            Some((entries, Effect::Redriven { from, seq, message }))
        };
        let Some(append) = self.append(make).await? else {
            return Ok(false);
        };
        // From now on what becomes of the append lets it go.
        moving.shell = None;
        append.done().await?;
        Ok(true)
    }
}

/// A letter that is being moved, so that nobody else moves it.
struct Moving<'a> {
    shell: Option<&'a Shell>,
    seq: u64,
}

impl<'a> Moving<'a> {
    /// Nothing, if somebody is at it.
    fn new(shell: &'a Shell, seq: u64) -> Option<Moving<'a>> {
        let free = shell.core.lock().moving.insert(seq);
        free.then_some(Moving {
            shell: Some(shell),
            seq,
        })
    }
}

impl Drop for Moving<'_> {
    fn drop(&mut self) {
        if let Some(shell) = self.shell {
            shell.core.lock().moving.remove(&self.seq);
        }
    }
}
