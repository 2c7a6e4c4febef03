//! Reading entries that lie far apart: of each frame only the table that says where they are, and their own bytes.

use super::LogError;
use super::frame::{self, HEAD, ROW, Row};
use super::index::FrameAt;
use super::reader::{Output, Plan, Step, check, put_pieces, put_run, read};
use super::shared::{Segment, State};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::io;

/// Up to this length a frame is read as a whole, which takes one read and not two.
const SMALL: u32 = 4 << 10;
/// How much of what nobody wants is read along with two entries that it lies between.
const BETWEEN: usize = 1 << 10;

/// Plans to read the entries of these numbers, which are in order, or nothing when nothing is there.
pub(super) fn plan(state: &State, seqs: &[u64]) -> Result<Option<Plan>, LogError> {
    let (Some(&first), Some(&last)) = (seqs.first(), seqs.last()) else {
        return Ok(None);
    };
    let end = check(state, first)?;
    let (mut steps, mut pieces) = (Vec::new(), BTreeMap::new());
    let mut rest = seqs;
    while let Some(&seq) = rest.first().filter(|seq| **seq < end) {
        let mine = match state.index.find(seq) {
            None => {
                steps.push(Step::Hole(seq..seq + 1));
                1
            }
            Some(at) => {
                let mine = rest.partition_point(|seq| *seq < at.end());
                put_pieces(&state.segments, &state.held, at, &mut pieces);
                if at.len <= SMALL || 2 * mine > at.count as usize {
                    put_run(&state.segments, at, &mut steps);
                } else {
                    let segment = state.segments[&at.place.segment].clone();
                    let seqs = rest[..mine].to_vec();
                    steps.push(Step::Some { segment, at, seqs });
                }
                mine
            }
        };
        rest = &rest[mine..];
    }
    Ok((!steps.is_empty()).then(|| Plan {
        wanted: first..last + 1,
        only: seqs[..seqs.len() - rest.len()].to_vec(),
        steps,
        pieces,
    }))
}

impl Output {
    /// Reads some entries of a frame; all of it, if anything there is not as it should be.
    pub(super) async fn some(&mut self, segment: &Segment, at: FrameAt, seqs: &[u64]) -> io::Result<()> {
        let Some(entries) = exact(segment, at, seqs).await? else {
            return self.run(segment, &[at]).await;
        };
        for (seq, bytes, in_pieces) in entries {
            self.put(seq, Some((bytes, in_pieces))).await?;
        }
        Ok(())
    }
}

/// Some entries of a frame, each with its number and whether its bytes say where its pieces are, if they are sound.
async fn exact(segment: &Segment, at: FrameAt, seqs: &[u64]) -> io::Result<Option<Vec<(u64, Bytes, bool)>>> {
    let seed = frame::seed(segment.salt, at.place);
    let table = read(segment, at.place.offset, HEAD as u32 + at.count * ROW as u32).await?;
    let Some(rows) = rows(&table, seed, at, seqs) else {
        return Ok(None);
    };
    let mut entries = Vec::with_capacity(rows.len());
    let is_near = |one: &(u64, Row, u32), next: &(u64, Row, u32)| next.1.range.start - one.1.range.end <= BETWEEN;
    for near in rows.chunk_by(is_near) {
        let start = near[0].1.range.start;
        let len = near[near.len() - 1].1.range.end - start;
        let bytes = read(segment, at.place.offset + start as u32, len as u32).await?;
        for (seq, row, crc) in near {
            let entry = bytes.slice(row.range.start - start..row.range.end - start);
            if crc32c::crc32c(&entry) != *crc {
                return Ok(None);
            }
            entries.push((*seq, entry, row.in_pieces));
        }
    }
    Ok(Some(entries))
}

/// Where some entries of a frame lie, by its head and its table, and what their checksums are, if these are sound.
fn rows(table: &[u8], seed: u32, at: FrameAt, seqs: &[u64]) -> Option<Vec<(u64, Row, u32)>> {
    let head = frame::decode_head(table, seed).filter(|head| at.is_of(head) && head.rows == at.count)?;
    let mut seqs = seqs.iter().copied().peekable();
    let mut rows = Vec::with_capacity(seqs.len());
    for (seq, (row, crc)) in (at.first_seq..).zip(frame::table(table, seed, head)?) {
        let Some(wanted) = seqs.peek() else { break };
        if seq == *wanted {
            seqs.next();
            let is_within = row.range.end <= at.len as usize;
            is_within.then(|| rows.push((seq, row, crc)))?;
        }
    }
    Some(rows)
}
