//! What the fuzz targets may call.

pub use super::forge::{ForgedFrame, ForgedRows, ForgedSegment, Judged, forge, judged, rows};

use super::frame;
use super::index::Piece;
use super::recovery::{Recovered, Recovery};
use super::segment::{HEADER_LEN, Header, Place};
use bytes::Bytes;

/// Judges these segments, numbered from 1, and says how many numbers they cover with entries.
#[must_use]
pub fn recover(segments: &[&[u8]]) -> u64 {
    let found = judge(segments);
    let count = |piece| match piece {
        Piece::Frame(at) => u64::from(at.count),
        Piece::Hole(..) => 0,
    };
    found.index.walk(found.index.range()).map(count).sum()
}

pub(super) fn judge(segments: &[&[u8]]) -> Recovered {
    let mut recovery = Recovery::default();
    for (id, bytes) in (1..).zip(segments) {
        recovery.segment(id, bytes);
    }
    recovery.finish()
}

/// The entries that a reader would get from one segment, number 1.
#[must_use]
pub fn entries(segment: &[u8]) -> Vec<Vec<u8>> {
    let found = judge(&[segment]);
    let Some(header) = found.headers.first() else {
        return Vec::new();
    };
    let mut all = Vec::new();
    for piece in found.index.walk(found.index.range()) {
        let Piece::Frame(at) = piece else { continue };
        let bytes = &segment[at.place.offset as usize..];
        let seed = frame::seed(header.salt, at.place);
        if let Some(head) = frame::decode_head(bytes, seed) {
            all.extend(
                frame::rows(bytes, seed, head)
                    .flatten()
                    .map(|row| bytes[row.range].to_vec()),
            );
        }
    }
    all
}

/// A sound segment, number 1, with a mark behind it, and its entries.
#[must_use]
pub fn sample_segment() -> (Vec<u8>, Vec<Vec<u8>>) {
    let header = Header {
        id: 1,
        salt: 42,
        base: 1,
        floor: 1,
        prev: Place::default(),
        prev_base: 1,
    };
    let mut bytes = header.encode();
    debug_assert_eq!(bytes.len(), HEADER_LEN as usize);
    let mut all = Vec::new();
    for n in 0..20_u64 {
        let place = Place::new(1, bytes.len() as u32);
        let entry = Bytes::from(format!("entry {n} {}", "x".repeat(n as usize * 7)));
        frame::encode(
            &mut bytes,
            frame::seed(header.salt, place),
            n + 1,
            place,
            std::slice::from_ref(&entry),
        );
        all.push(entry.to_vec());
    }
    let place = Place::new(1, bytes.len() as u32);
    frame::encode_mark(&mut bytes, frame::seed(header.salt, place), 21, place);
    // What was made ahead and not written over.
    bytes.resize(bytes.len() + 100, 0);
    (bytes, all)
}
