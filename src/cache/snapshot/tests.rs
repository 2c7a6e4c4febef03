use super::hooks::{reseal_entries, sample_snapshot, sealed, snapshot};
use super::*;
use proptest::prelude::*;
use std::io::{self, Read, Write};

const NOW: WallTime = WallTime::from_millis(1_700_000_000_000);

/// An entry that owns what it holds.
#[derive(Clone, Debug, PartialEq)]
struct Owned {
    key: Vec<u8>,
    value: Vec<u8>,
    weight: u64,
    ttl_ms: Option<u64>,
    idle: Option<(u64, u64)>,
    tags: Vec<String>,
}

impl Owned {
    fn saved(&self) -> SavedEntry<'_> {
        SavedEntry {
            key: &self.key,
            value: &self.value,
            weight: self.weight,
            ttl_ms: self.ttl_ms,
            idle: self.idle.map(|(left_ms, period_ms)| SavedIdle { left_ms, period_ms }),
            tags: self.tags.iter().map(String::as_str).collect(),
        }
    }

    fn of(entry: &SavedEntry<'_>) -> Owned {
        Owned {
            key: entry.key.to_vec(),
            value: entry.value.to_vec(),
            weight: entry.weight,
            ttl_ms: entry.ttl_ms,
            idle: entry.idle.map(|idle| (idle.left_ms, idle.period_ms)),
            tags: entry.tags.iter().map(|tag| (*tag).to_owned()).collect(),
        }
    }
}

fn plain<'a>(key: &'a [u8], value: &'a [u8]) -> SavedEntry<'a> {
    SavedEntry {
        key,
        value,
        weight: 1,
        ttl_ms: None,
        idle: None,
        tags: Vec::new(),
    }
}

fn read(bytes: impl Read) -> Result<Vec<Owned>, SnapshotError> {
    let mut reader = SnapshotReader::new(bytes)?;
    let mut entries = Vec::new();
    while let Some(entry) = reader.next()? {
        entries.push(Owned::of(&entry));
    }
    assert_eq!(reader.finish()?, entries.len() as u64);
    Ok(entries)
}

fn owned() -> impl Strategy<Value = Owned> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..80);
    let time = any::<Option<u64>>;
    (
        bytes(),
        bytes(),
        any::<u64>(),
        time(),
        any::<Option<(u64, u64)>>(),
        prop::collection::vec(".{0,9}", 0..4),
    )
        .prop_map(|(key, value, weight, ttl_ms, idle, tags)| Owned {
            key,
            value,
            weight,
            ttl_ms,
            idle,
            tags,
        })
}

/// Gives and takes a few bytes at a time, as a socket does.
struct Trickle<T>(T, usize);

impl<T: Read> Read for Trickle<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = self.1.min(buffer.len());
        self.0.read(&mut buffer[..most])
    }
}

impl<T: Write> Write for Trickle<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(&bytes[..self.1.min(bytes.len())])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

proptest! {
    #[test]
    fn what_was_written_is_read(
        entries in prop::collection::vec(owned(), 0..40),
        part_len in 1_usize..2_000,
        at_once in 1_usize..50,
        now in any::<u64>(),
        schema in ".{0,20}",
    ) {
        let now = WallTime::from_millis(now);
        let out = Trickle(Vec::new(), at_once);
        let mut writer = SnapshotWriter::with_parts_of(out, now, &schema, part_len).unwrap();
        for entry in &entries {
            writer.push(&entry.saved()).unwrap();
        }
        let mut bytes = writer.finish().unwrap().0;
        let len = bytes.len();
        bytes.extend_from_slice(b"what follows");

        let reader = SnapshotReader::new(&bytes[..]).unwrap();
        prop_assert_eq!(reader.written(), now);
        prop_assert!(reader.expect_schema(&schema).is_ok());
        let mut rest = &bytes[..];
        prop_assert_eq!(read(Trickle(&mut rest, at_once)).unwrap(), entries);
        prop_assert_eq!(rest, &bytes[len..], "nothing past the end is read");
    }
}

#[test]
fn a_snapshot_of_version_1_is_read() {
    let fixture = include_bytes!("../../../tests/data/cache_snapshot.v1");
    let entries = read(&fixture[..]).unwrap();
    assert_eq!(entries.len(), 12);
    assert_eq!(
        entries[0],
        Owned {
            key: b"key 0".to_vec(),
            value: vec![],
            weight: 0,
            ttl_ms: Some(1),
            idle: Some((1, 60_000)),
            tags: vec![],
        }
    );
    assert_eq!(
        entries[11],
        Owned {
            key: b"key 11".to_vec(),
            value: b"value ".repeat(30),
            weight: 1_100,
            ttl_ms: None,
            idle: None,
            tags: vec!["org:7".into(), String::new(), "größe".into()],
        }
    );
    let reader = SnapshotReader::new(&fixture[..]).unwrap();
    assert_eq!(reader.written(), NOW);
    reader.expect_schema("a sample").unwrap();
    assert_eq!(sample_snapshot(), fixture, "this release writes version 1 too");
}

#[test]
fn a_snapshot_cut_anywhere_is_refused() {
    let sound = sample_snapshot();
    assert_eq!(snapshot(&sound), Some(12));
    for len in 0..sound.len() {
        let refused = read(&sound[..len]);
        assert!(
            matches!(refused, Err(SnapshotError::Truncated)),
            "at {len}: {refused:?}"
        );
    }
}

#[test]
fn a_snapshot_with_a_flipped_bit_is_refused() {
    let mut bytes = sample_snapshot();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            bytes[at] ^= 1 << bit;
            let refused = read(&bytes[..]).expect_err("a bit is flipped");
            let as_said = match at {
                0..8 => matches!(refused, SnapshotError::NotASnapshot),
                8..12 => matches!(refused, SnapshotError::Version { found } if found == 1 ^ 1 << (8 * (at - 8) + bit)),
                _ => matches!(
                    refused,
                    SnapshotError::Corrupt { .. } | SnapshotError::Truncated | SnapshotError::TooLarge { .. }
                ),
            };
            assert!(as_said, "bit {bit} of byte {at}: {refused:?}");
            bytes[at] ^= 1 << bit;
        }
    }
}

#[test]
fn parts_lost_doubled_or_out_of_place_are_noticed() {
    let sound = sample_snapshot();
    let mut ends = vec![MAGIC.len() + 4];
    while let Some(len) = sound.get(ends[ends.len() - 1]..).filter(|rest| !rest.is_empty()) {
        let len = u32::from_le_bytes(len[..4].try_into().unwrap()) as usize;
        ends.push(ends[ends.len() - 1] + PART_HEAD + len);
    }
    let parts: Vec<&[u8]> = ends.windows(2).map(|ends| &sound[ends[0]..ends[1]]).collect();
    let joined = |parts: &[&[u8]]| [&[&sound[..ends[0]]], parts].concat().concat();
    assert_eq!(joined(&parts), sound);
    assert!(parts.len() > 4, "there are parts to confuse");
    for at in 0..parts.len() {
        let without = [&parts[..at], &parts[at + 1..]].concat();
        let twice = [&parts[..=at], &parts[at..]].concat();
        assert!(read(&joined(&without)[..]).is_err(), "without part {at}");
        // Whatever follows the end is none of the snapshot's.
        assert_eq!(
            read(&joined(&twice)[..]).is_ok(),
            at == parts.len() - 1,
            "with part {at} twice"
        );
        if at > 0 {
            let mut swapped = parts.clone();
            swapped.swap(at - 1, at);
            assert!(read(&joined(&swapped)[..]).is_err(), "with part {at} too early");
        }
    }
}

#[test]
fn once_refused_it_stays_refused() {
    let mut bytes = sample_snapshot();
    let sound = read(&bytes[..]).unwrap();
    for at in 12..bytes.len() {
        bytes[at] ^= 1;
        if let Ok(mut reader) = SnapshotReader::new(&bytes[..]) {
            let mut yielded = 0;
            while let Ok(entry) = reader.next() {
                let entry = entry.expect("the end is not believed");
                assert_eq!(Owned::of(&entry), sound[yielded], "with byte {at} changed");
                yielded += 1;
            }
            assert!((0..5).all(|_| reader.next().is_err()), "with byte {at} changed");
            assert!(reader.finish().is_err());
        }
        bytes[at] ^= 1;
    }
}

#[test]
fn bytes_that_a_checksum_vouches_for_are_still_judged() {
    let mut entry = Vec::new();
    plain(b"key", b"value").encode(&mut entry);
    assert_eq!(reseal_entries(&entry), Some(entry.clone()));
    for (body, entries, why) in [
        (&[][..], 0, "no kind"),
        (&[HEAD], 0, "a second head"),
        (&[END, 1], 0, "an end that counts too many"),
        (&[END, 0, 0], 0, "an end with more behind it"),
        (&[9], 0, "an unknown kind"),
        (&[&[ENTRIES], &entry[..]].concat(), 2, "one entry said to be two"),
        (&[&[ENTRIES], &entry[..]].concat(), 0, "one entry said to be none"),
        (&[ENTRIES, 8, 1, 0, 0], 1, "an unknown mark"),
        (
            &[ENTRIES, HAS_TAGS, 1, 0, 0, 0],
            1,
            "marked for tags that are not there",
        ),
        (&[ENTRIES, HAS_TAGS, 1, 0, 0, 1, 1, 0xff], 1, "a tag that is not text"),
        (
            &[&[ENTRIES, HAS_TAGS, 1, 0, 0, 0x80, 0x80, 4], &[0; MAX_TAGS + 1][..]].concat(),
            1,
            "65,536 tags",
        ),
        (&[ENTRIES, 0, 1, 0xff, 0xff, 0xff, 0xff, 0x0f], 1, "a key of 4 GiB"),
    ] {
        let refused = read(&sealed(body, entries)[..]);
        assert!(
            matches!(refused, Err(SnapshotError::Corrupt { .. })),
            "{why}: {refused:?}"
        );
    }
}

#[test]
fn lengths_that_lie_take_no_memory() {
    let start = sample_snapshot();
    let head_end = 12 + PART_HEAD + u32::from_le_bytes(start[12..16].try_into().unwrap()) as usize;
    let with_len = |len: u32| [&start[..head_end], &len.to_le_bytes(), &[0; 4], &[7; 10_000]].concat();

    let bytes = with_len(MAX_PART as u32);
    let mut reader = SnapshotReader::new(&bytes[..]).unwrap();
    assert!(matches!(reader.next(), Err(SnapshotError::Truncated)));
    assert!(reader.memory() <= 2 * PART_LEN, "{} bytes", reader.memory());

    let bytes = with_len(MAX_PART as u32 + 1);
    let mut reader = SnapshotReader::new(&bytes[..]).unwrap();
    assert!(matches!(reader.next(), Err(SnapshotError::TooLarge { .. })));
    assert!(reader.memory() <= 2 * PART_LEN);
}

#[test]
fn a_large_entry_has_a_part_for_itself_and_its_memory_comes_back() {
    let large = vec![3; 5 * PART_LEN];
    let mut writer = SnapshotWriter::new(Vec::new(), NOW, "").unwrap();
    for value in [b"small", &large[..], b"small"] {
        writer.push(&plain(b"key", value)).unwrap();
        assert!(writer.memory() <= 2 * PART_LEN);
    }
    let bytes = writer.finish().unwrap();
    let mut reader = SnapshotReader::new(&bytes[..]).unwrap();
    for len in [5, large.len(), 5] {
        assert_eq!(reader.next().unwrap().unwrap().value.len(), len);
        assert!(reader.memory() <= 2 * len.max(PART_LEN));
    }
    assert_eq!(reader.finish().unwrap(), 3);
}

#[test]
fn what_is_too_large_is_refused_alone() {
    let mut writer = SnapshotWriter::new(Vec::new(), NOW, "").unwrap();
    writer.push(&plain(b"1", b"")).unwrap();
    let refused = writer.push(&plain(b"2", &vec![0; MAX_ENTRY]));
    assert!(matches!(refused, Err(SnapshotError::TooLarge { limit, .. }) if limit == MAX_ENTRY as u64));
    let mut tagged = plain(b"3", b"");
    tagged.tags = vec!["t"; MAX_TAGS + 1];
    assert!(matches!(writer.push(&tagged), Err(SnapshotError::TooLarge { .. })));
    tagged.tags.pop();
    writer.push(&tagged).unwrap();
    let entries = read(&writer.finish().unwrap()[..]).unwrap();
    assert_eq!(entries.iter().map(|entry| entry.key[0]).collect::<Vec<_>>(), b"13");
    assert_eq!(entries[1].tags.len(), MAX_TAGS);

    let refused = SnapshotWriter::new(Vec::new(), NOW, &"s".repeat(MAX_SCHEMA + 1));
    assert!(matches!(refused, Err(SnapshotError::TooLarge { .. })));
}

#[test]
fn another_schema_is_refused() {
    let bytes = sample_snapshot();
    let reader = SnapshotReader::new(&bytes[..]).unwrap();
    let refused = reader.expect_schema("another").unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the snapshot holds `a sample` where `another` is read"
    );
}

/// Takes so many bytes, then fails once, then takes the rest.
struct Hiccup {
    room: usize,
    failed: bool,
}

impl Write for Hiccup {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.failed {
            return Ok(bytes.len());
        }
        self.failed = self.room == 0;
        if self.failed {
            return Err(io::Error::other("full"));
        }
        let taken = bytes.len().min(self.room);
        self.room -= taken;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_writer_that_failed_once_makes_no_snapshot() {
    fn write<W: Write>(out: W) -> Result<W, SnapshotError> {
        let mut writer = SnapshotWriter::with_parts_of(out, NOW, "a sample", 100)?;
        for _ in 0..12 {
            // Whoever does not look at what became of one entry is told at the end.
            let _unseen = writer.push(&plain(b"key", &[1; 40]));
        }
        writer.finish()
    }
    let needed = write(Vec::new()).unwrap().len();
    for room in 0..needed {
        let refused = write(Hiccup { room, failed: false }).map(drop);
        assert!(matches!(refused, Err(SnapshotError::Io(_))), "with room for {room}");
    }
    write(Hiccup {
        room: needed,
        failed: false,
    })
    .map(drop)
    .unwrap();
}

#[test]
fn what_is_left_never_grows_whichever_way_the_clock_jumps() {
    let at = WallTime::from_millis;
    let written = at(10_000);
    for (now, left, expected) in [
        (10_000, 500, Some(500)),
        (10_001, 500, Some(499)),
        (10_499, 500, Some(1)),
        (10_500, 500, None),
        (10_501, 500, None),
        (u64::MAX, 500, None),
        (9_999, 500, Some(500)),
        (0, 500, Some(500)),
        (10_000, 0, None),
        (0, 0, None),
        (u64::MAX, u64::MAX, Some(10_000)),
    ] {
        assert_eq!(remaining(written, at(now), left), expected, "{left} at {now}");
    }
}

#[test]
fn an_entry_ends_with_the_first_of_its_times() {
    let at = WallTime::from_millis;
    let entry = SavedEntry {
        ttl_ms: Some(500),
        idle: Some(SavedIdle {
            left_ms: 300,
            period_ms: 400,
        }),
        ..plain(b"key", b"value")
    };
    let aged = entry.clone().aged(at(1_000), at(1_299)).unwrap();
    assert_eq!(aged.ttl_ms, Some(201));
    assert_eq!(aged.idle.map(|idle| (idle.left_ms, idle.period_ms)), Some((1, 400)));
    assert_eq!(entry.clone().aged(at(1_000), at(1_300)), None);
    assert_eq!(entry.clone().aged(at(1_000), at(1)), Some(entry));
    assert_eq!(plain(b"", b"").aged(at(0), at(u64::MAX)), Some(plain(b"", b"")));
}
