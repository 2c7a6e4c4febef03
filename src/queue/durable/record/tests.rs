use super::*;

fn samples() -> Vec<Record> {
    let sent = WallTime::from_millis(1_700_000_000_000);
    let message = Message::new("payload").key("k").header("a", "1").header("", "");
    let message = message
        .deliver_at(sent + Duration::from_secs(5))
        .ttl(Duration::from_millis(300))
        .priority(Priority::Urgent)
        .dedup_id("id");
    vec![
        Record::Message {
            topic: "mail".into(),
            sent,
            message,
        },
        Record::Message {
            topic: "t".into(),
            sent,
            message: Message::new("").dedup_id("").key(""),
        },
        Record::Subscribed {
            id: 7,
            topic: "mail".into(),
            name: "mailer".into(),
            from: Some(300),
        },
        Record::Subscribed {
            id: 8,
            topic: "mail".into(),
            name: String::new(),
            from: None,
        },
        Record::Delivered {
            id: 1,
            attempts: vec![(1, 1), (1 << 40, 3)],
        },
        Record::Acked {
            id: u32::MAX - 1,
            seqs: vec![5, u64::MAX - 1],
        },
        Record::Standing {
            id: 9,
            topic: "mail".into(),
            name: "ä".into(),
            part: 2..9,
            open: Run::of([(3, 0), (4, 2), (5, 2), (8, 2)]),
        },
        Record::AckedThrough { id: 3, seq: 1 << 40 },
        Record::Dropped {
            topic: "mail".into(),
            before: 300,
        },
        Record::Moved {
            topic: "mail.dead".into(),
            seqs: vec![7, 1 << 40],
        },
        Record::Ids {
            secret: (1, u64::MAX),
            ids: vec![Noted {
                id: Id::from_words(3, 1 << 63),
                seq: 9,
                sent,
            }],
        },
        Record::Copy {
            seq: 300,
            entry: encode_message("mail", sent, &Message::new("once more")),
        },
        Record::Copied {
            topic: "mail".into(),
            messages: vec![(300, vec![(1, 0), (u32::MAX - 1, 7)]), (1 << 40, vec![])],
        },
    ]
}

#[test]
fn records_round_trip_and_no_prefix_passes() {
    for record in samples() {
        let bytes = record.encode();
        // The payload is the rest of a message's entry, which is as long as the log says.
        let payload = match &record {
            Record::Message { message, .. } => message.payload.len(),
            // Whether what is copied is whole is told when it is opened.
            Record::Copy { entry, .. } => entry.len() - 1,
            _ => 0,
        };
        assert_eq!(Record::decode(&bytes), Ok(record));
        for len in 0..bytes.len() - payload {
            assert!(Record::decode(&bytes.slice(..len)).is_err());
        }
    }
}

#[test]
fn standings_of_one_record_each_are_still_read() {
    let mut old = vec![STANDING_WHOLE, 7];
    put_bytes(&mut old, b"mail");
    put_bytes(&mut old, b"mailer");
    put_varint(&mut old, 300);
    put_attempts(&mut old, &[(3, 0), (4, 0), (5, 1), (299, 1)]);
    let read = Record::Standing {
        id: 7,
        topic: "mail".into(),
        name: "mailer".into(),
        part: 0..300,
        open: Run::of([(3, 0), (4, 0), (5, 1), (299, 1)]),
    };
    assert_eq!(Record::decode(&old.into()), Ok(read));
}

#[test]
fn a_plain_message_costs_a_few_bytes() {
    let sent = WallTime::from_millis(1_700_000_000_000);
    let entry = encode_message("mail", sent, &Message::new(vec![7; 100]));
    assert_eq!(entry.len(), 100 + "mail".len() + 9);
    let end = entry.as_ptr_range().end;
    let (at, message) = open_message(entry).unwrap();
    assert_eq!(message.payload.as_ptr_range().end, end, "it is no copy");
    assert_eq!((at, message), (sent, Message::new(vec![7; 100])));
}

#[test]
fn times_are_absolute_and_never_early() {
    let sent = WallTime::from_millis(5_000);
    let at = |message: Message| due(&message, sent).map(WallTime::as_millis);
    let delayed = |nanos| Message::new("").deliver_in(Duration::from_nanos(nanos));
    assert_eq!(at(delayed(1)), Some(5_001), "rounded up");
    assert_eq!(at(delayed(2_000_000)), Some(5_002));
    assert_eq!(at(delayed(0)), None);
    assert_eq!(
        at(Message::new("").deliver_at(WallTime::from_millis(4_999))),
        None,
        "at once"
    );
    assert_eq!(at(Message::new("").deliver_in(Duration::MAX)), Some(u64::MAX));
    let short = Message::new("").ttl(Duration::from_nanos(1));
    assert_eq!(expires(&short, sent), Some(WallTime::from_millis(5_001)));
}

#[test]
fn nonsense_is_refused_without_allocating_for_it() {
    // A count of 2^63 acknowledgements, none of them there.
    let mut many = vec![ACKED, 1];
    put_varint(&mut many, 1 << 63);
    for bytes in [&[][..], &[0], &[99, 1], &[MESSAGE, UNKNOWN, 1, b'x', 2], &many] {
        assert!(Record::decode(&Bytes::copy_from_slice(bytes)).is_err(), "{bytes:?}");
    }
}

/// Numbers from 0 to 2^64 - 2 are those of messages; each is one less than another number.
#[test]
fn numbers_that_no_message_has_are_refused() {
    let read = |kind: u8, numbers: &[u64]| {
        let mut bytes = vec![kind];
        numbers.iter().for_each(|n| put_varint(&mut bytes, *n));
        Record::decode(&bytes.into())
    };
    for seq in [7, u64::MAX - 1, u64::MAX] {
        let reads = [
            read(DELIVERED, &[1, 1, seq, 0]).is_ok(),
            read(ACKED, &[1, 1, seq]).is_ok(),
            read(ACKED_THROUGH, &[1, seq]).is_ok(),
            read(MOVED, &[0, 1, seq]).is_ok(),
            read(COPY, &[seq, MESSAGE.into()]).is_ok(),
            read(COPIED, &[0, 1, seq, 0]).is_ok(),
        ];
        assert_eq!(reads, [seq < u64::MAX; 6], "{seq}");
    }
}

#[test]
fn standings_of_one_record_each_tell_messages_in_order() {
    let read = |open: &[(u64, u32)]| {
        let mut old = vec![STANDING_WHOLE, 7, 0, 0];
        put_varint(&mut old, 300);
        put_attempts(&mut old, open);
        Record::decode(&old.into())
    };
    assert!(read(&[]).is_ok() && read(&[(3, 0), (4, 1)]).is_ok());
    for open in [&[(4, 0), (3, 0)][..], &[(3, 0), (3, 1)], &[(1, 0), (5, 0), (2, 0)]] {
        assert!(read(open).is_err(), "{open:?}");
    }
}

#[test]
fn a_record_tells_of_nothing_that_is_not_before_it() {
    let of = |record: Record| {
        let allows = |at| record.check(at).is_ok();
        (1..20)
            .find(|at| allows(*at))
            .inspect(|at| assert!((*at..20).all(allows)))
    };
    let topic = || String::from("mail");
    let id = 1;
    let standing = |open| Record::Standing {
        id,
        topic: topic(),
        name: topic(),
        part: 0..50,
        open,
    };
    let subscribed = Record::Subscribed {
        id,
        topic: topic(),
        name: topic(),
        from: Some(50),
    };
    let entry = || Bytes::from_static(&[MESSAGE]);
    let delivered = vec![(3, 1), (7, 1), (5, 1)];
    assert_eq!(
        of(Record::Delivered {
            id,
            attempts: delivered
        }),
        Some(8)
    );
    assert_eq!(of(Record::Acked { id, seqs: vec![7, 3] }), Some(8));
    assert_eq!(of(Record::AckedThrough { id, seq: 7 }), Some(8));
    let seqs = vec![3, 7];
    assert_eq!(of(Record::Moved { topic: topic(), seqs }), Some(8));
    assert_eq!(of(Record::Copy { seq: 7, entry: entry() }), Some(8));
    let messages = vec![(7, vec![(9, 9)]), (3, vec![])];
    assert_eq!(
        of(Record::Copied {
            topic: topic(),
            messages
        }),
        Some(8)
    );
    assert_eq!(
        of(Record::Dropped {
            topic: topic(),
            before: 8
        }),
        Some(8)
    );
    assert_eq!(of(standing(Run::of([(3, 0), (6, 0), (7, 0)]))), Some(8));
    // These may name numbers that are to come.
    assert_eq!(of(standing(Vec::new())), Some(1));
    assert_eq!(of(subscribed), Some(1));
}
