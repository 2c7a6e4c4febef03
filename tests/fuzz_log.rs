//! Bytes from outside: the decoders of the log's segments and of the queue's records, under bolero. Run by `cargo test`
//! on random and mutated input for a moment, by `./test.sh --long` for a minute each, and for as long as wanted by
//! `cargo bolero test`.

use outgrow::hooks::{self, Drained, ForgedFrame, ForgedRows, ForgedSegment, Judged};
use std::collections::BTreeSet;

/// No panic, no endless loop, and a judgement that is one of whole numbers and of bytes that are there.
fn judge(segments: &[&[u8]]) -> Judged {
    let found = hooks::judged(segments);
    let mut next = found.range.start;
    let mut lost = Vec::new();
    for (seqs, there) in &found.pieces {
        // The first frame may begin with numbers that are released.
        let start = seqs.start.max(found.range.start);
        assert!(
            start == next && start < seqs.end,
            "each number is covered once, in order: {found:?}"
        );
        next = seqs.end;
        lost.extend((!there).then(|| seqs.clone()));
    }
    assert_eq!(next, found.range.end.max(found.range.start), "{found:?}");
    for hole in &lost {
        assert!(found.gaps.contains(hole), "{hole:?} is lost in silence: {found:?}");
    }
    assert!(found.gaps.is_sorted_by_key(|gap| gap.start));
    for gap in &found.gaps {
        assert!(
            found.range.start <= gap.start && gap.end <= found.range.end,
            "{found:?}"
        );
    }
    for (id, bytes) in &found.damaged {
        let len = segments[*id as usize - 1].len();
        assert!(
            bytes.start < bytes.end && bytes.end as usize <= len.next_multiple_of(8),
            "{found:?}"
        );
    }
    found
}

#[test]
fn any_segment_is_judged() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let half = bytes.len() / 2;
        for segments in [&[bytes][..], &[&bytes[..half], &bytes[half..]]] {
            let found = judge(segments);
            let entries: u64 = found
                .pieces
                .iter()
                .map(|(seqs, there)| if *there { seqs.end - seqs.start } else { 0 })
                .sum();
            assert!(
                entries as usize <= bytes.len(),
                "no more entries than there are bytes for"
            );
        }
    });
}

#[test]
fn any_change_of_a_segment_is_noticed() {
    let (sound, payloads) = hooks::sample_segment();
    bolero::check!()
        .with_type::<(u16, u8, u16)>()
        .for_each(|&(at, xor, len)| {
            let mut bytes = sound.clone();
            let at = usize::from(at) % bytes.len();
            bytes[at] ^= xor;
            bytes.truncate(bytes.len().saturating_sub(usize::from(len) % 2_000));
            for payload in hooks::entries(&bytes) {
                assert!(payloads.contains(&payload), "wrong bytes");
            }
        });
}

#[test]
fn any_frame_with_sound_checksums_is_read_or_refused() {
    bolero::check!().with_max_len(256).for_each(|bytes: &[u8]| {
        // Mostly a frame of the right length with a few rows: the rest of the input says what is in the rows.
        let mut bytes = bytes.to_vec();
        if bytes.len() >= 48 && bytes[0] & 7 != 0 {
            let len = bytes.len() as u32;
            bytes[8..12].copy_from_slice(&len.to_le_bytes());
            bytes[12] &= 3;
            (bytes[13], bytes[14]) = (0, 0);
            bytes[15] &= 1;
            (bytes[41], bytes[42]) = (0, 0);
            bytes[43] &= 0x80;
        }
        let Some(rows) = hooks::rows(&bytes) else { return };
        let mut end = 40;
        for row in rows {
            assert!(
                end <= row.start && row.start <= row.end && row.end <= bytes.len(),
                "the rows lie one behind the other"
            );
            end = row.end;
        }
    });
}

/// Reads what to do from the input; zeros when that is used up.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((byte, rest)) => {
                self.0 = rest;
                *byte
            }
            None => 0,
        }
    }

    /// Mostly a small number.
    fn number(&mut self) -> u64 {
        match self.byte() {
            255 => u64::MAX - u64::from(self.byte()),
            254 => u64::from(self.byte()) << (self.byte() % 56),
            small => u64::from(small % 64),
        }
    }

    /// Mostly a place where something is.
    fn place(&mut self) -> (u64, usize) {
        match self.byte() {
            255 => (self.number(), usize::from(self.byte())),
            byte => (u64::from(byte >> 4 & 3), usize::from(byte & 15)),
        }
    }

    fn bytes(&mut self) -> Vec<u8> {
        vec![self.byte(); usize::from(self.byte() % 32)]
    }

    fn frame(&mut self, next: &mut u64) -> ForgedFrame {
        let (kind, follows) = (self.byte(), !self.byte().is_multiple_of(8));
        let first = if follows { *next } else { self.number() };
        let what = match kind % 8 {
            0 => ForgedRows::Raw(self.bytes()),
            1 => ForgedRows::Piece(self.bytes()),
            2 => ForgedRows::InPieces(
                (0..self.byte() % 4)
                    .map(|_| (self.place(), u32::from(self.byte())))
                    .collect(),
            ),
            3 => ForgedRows::Entries(Vec::new()),
            _ => ForgedRows::Entries((0..=self.byte() % 3).map(|_| self.bytes()).collect()),
        };
        let count = match &what {
            ForgedRows::Entries(entries) => entries.len() as u64,
            ForgedRows::InPieces(_) => 1,
            ForgedRows::Piece(_) | ForgedRows::Raw(_) => 0,
        };
        *next = first.saturating_add(count);
        ForgedFrame {
            first,
            durable: self.place(),
            what,
        }
    }

    fn segment(&mut self, next: &mut u64) -> ForgedSegment {
        let follows = !self.byte().is_multiple_of(4);
        let base = if follows { *next } else { self.number() };
        *next = base;
        ForgedSegment {
            base,
            floor: if self.byte().is_multiple_of(4) {
                self.number()
            } else {
                0
            },
            prev: self.place(),
            prev_base: self.number(),
            frames: (0..self.byte() % 8).map(|_| self.frame(next)).collect(),
        }
    }
}

/// Segments whose checksums are sound and whose headers, places and numbers are whatever the input says, and then a few
/// bytes that are not as they were written.
#[test]
fn any_log_with_sound_checksums_is_judged() {
    bolero::check!().with_max_len(512).for_each(|bytes: &[u8]| {
        let mut script = Script(bytes);
        let mut next = 1;
        let many = 1 + script.byte() % 3;
        let segments: Vec<_> = (0..many).map(|_| script.segment(&mut next)).collect();
        let mut segments = hooks::forge(&segments);
        for _ in 0..script.byte() % 4 {
            let at = usize::from(script.byte()) % segments.len();
            let segment = &mut segments[at];
            let byte = usize::from(script.byte()) << 8 | usize::from(script.byte());
            let byte = byte % segment.len();
            segment[byte] ^= script.byte();
        }
        judge(&segments.iter().map(Vec::as_slice).collect::<Vec<_>>());
    });
}

/// Reads a record; what was read is written and read alike.
fn reads_alike(bytes: &[u8]) {
    if let Some(again) = hooks::recode(bytes) {
        assert_eq!(hooks::recode(&again).as_ref(), Some(&again));
    }
}

#[test]
fn any_record_is_read_or_refused() {
    bolero::check!().for_each(reads_alike);
}

#[test]
fn any_change_of_a_record_is_read_or_refused() {
    let samples = hooks::sample_records();
    bolero::check!()
        .with_type::<(u8, [(u8, u8); 3], u8, u8)>()
        .for_each(|&(which, changes, insert, cut)| {
            let mut bytes = samples[usize::from(which) % samples.len()].clone();
            for (at, xor) in changes {
                let at = usize::from(at) % bytes.len();
                bytes[at] ^= xor & xor >> 4;
            }
            if cut.is_multiple_of(4) {
                bytes.insert(usize::from(insert) % bytes.len(), cut);
            }
            if cut % 4 == 1 {
                bytes.truncate(bytes.len() - usize::from(cut / 4) % bytes.len());
            }
            reads_alike(&bytes);
        });
}

/// Names are few, so that records speak of the same things.
fn put_name(out: &mut Vec<u8>, script: &mut Script<'_>) {
    out.extend([1, b'a' + script.byte() % 2]);
}

/// A number as records have it: seven bits a byte, the low ones first.
fn put_number(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

impl Script<'_> {
    /// Mostly one that is there.
    fn seq(&mut self, at: u64) -> u64 {
        match self.byte() {
            byte if byte >= 250 => self.number(),
            byte => 1 + u64::from(byte) % at.saturating_sub(1).max(1),
        }
    }

    /// A subscription by number, topic and name. Mostly a number has always the same names.
    fn subscription(&mut self, out: &mut Vec<u8>) {
        let number = self.id();
        put_number(out, number);
        match self.byte() {
            255 => (0..2).for_each(|_| put_name(out, self)),
            _ => out.extend([1, b'a' + number as u8 % 2, 1, b'a' + (number / 2 % 2) as u8]),
        }
    }

    fn id(&mut self) -> u64 {
        match self.byte() {
            255 => self.small(),
            byte => u64::from(1 + byte % 3),
        }
    }

    fn small(&mut self) -> u64 {
        match self.byte() {
            255 => u64::from(u32::MAX - u32::from(self.byte() % 4)),
            byte => u64::from(byte % 4),
        }
    }

    /// The entry of a message that asks for anything but headers.
    fn message(&mut self, out: &mut Vec<u8>) {
        let flags = self.byte() & 0b0111_1101;
        out.extend([1, flags]);
        put_name(out, self);
        (0..1 + (flags >> 2 & 1) + (flags >> 3 & 1)).for_each(|_| put_number(out, self.number()));
        for _ in 0..(flags & 1) + (flags >> 6 & 1) {
            put_name(out, self);
        }
        out.push(self.byte());
    }

    /// A record of the queue at number `at` of the log.
    fn record(&mut self, at: u64) -> Vec<u8> {
        let mut out = Vec::new();
        let kind = self.byte() % 20;
        let count = u64::from(self.byte() % 4);
        match kind {
            // A subscription is made.
            2 | 14..=16 => {
                out.push(2);
                self.subscription(&mut out);
                let from = if count == 0 { 0 } else { self.seq(at) };
                put_number(&mut out, from);
            }
            // Delivered, acknowledged, acknowledged through.
            kind @ (3 | 4 | 9) => {
                out.push(kind);
                put_number(&mut out, self.id());
                if kind != 9 {
                    put_number(&mut out, count);
                }
                for _ in 0..if kind == 9 { 1 } else { count } {
                    put_number(&mut out, self.seq(at));
                    if kind == 3 {
                        put_number(&mut out, self.small());
                    }
                }
            }
            // Where a subscription stands, as it was written once and is now.
            kind @ (5 | 10) => {
                out.push(kind);
                self.subscription(&mut out);
                (5..=kind).step_by(5).for_each(|_| put_number(&mut out, self.seq(at)));
                put_number(&mut out, count);
                for _ in 0..count {
                    put_number(&mut out, self.small());
                    put_number(&mut out, self.small());
                    if kind == 10 {
                        put_number(&mut out, self.small());
                    }
                }
            }
            // Dropped before a number, and moved elsewhere.
            6 => {
                out.push(6);
                put_name(&mut out, self);
                put_number(&mut out, self.seq(at));
            }
            7 => {
                out.push(7);
                put_name(&mut out, self);
                put_number(&mut out, count);
                (0..count).for_each(|_| put_number(&mut out, self.seq(at)));
            }
            // Ids against repetitions.
            8 => {
                out.push(8);
                out.extend([7; 16]);
                put_number(&mut out, count);
                for _ in 0..count {
                    out.extend([self.byte() % 4; 16]);
                    put_number(&mut out, self.number());
                    put_number(&mut out, self.number());
                }
            }
            // The copy of a message, and what is open of copies.
            11 => {
                out.push(11);
                put_number(&mut out, self.seq(at));
                self.message(&mut out);
            }
            12 => {
                out.push(12);
                put_name(&mut out, self);
                put_number(&mut out, count);
                for _ in 0..count {
                    put_number(&mut out, self.seq(at));
                    let open = u64::from(self.byte() % 3);
                    put_number(&mut out, open);
                    for _ in 0..open {
                        put_number(&mut out, self.id());
                        put_number(&mut out, self.small());
                    }
                }
            }
            // Anything.
            13 => out.extend(self.bytes()),
            _ => self.message(&mut out),
        }
        out
    }
}

/// A log whose records are well-formed and say whatever the input says: it is refused, or every subscription gets each
/// message once at most, and nothing remains.
#[test]
fn any_records_are_replayed_or_refused() {
    bolero::check!().with_max_len(512).for_each(|bytes: &[u8]| {
        let mut script = Script(bytes);
        let damaged = script.byte().is_multiple_of(2);
        let many = 1 + u64::from(script.byte() % 32);
        let entries: Vec<_> = (1..=many).map(|at| script.record(at)).collect();
        let Some(drained) = hooks::replayed(&entries, damaged) else {
            return;
        };
        for Drained { names, seqs, backlog } in drained {
            let once: BTreeSet<_> = seqs.iter().collect();
            assert_eq!(once.len(), seqs.len(), "{names:?} got one twice: {seqs:?}");
            assert!(seqs.iter().all(|seq| *seq <= many), "{names:?}: {seqs:?}");
            assert_eq!(backlog, 0, "{names:?} got {seqs:?}");
        }
    });
}
