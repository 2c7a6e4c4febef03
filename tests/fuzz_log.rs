//! Bytes from outside: the decoders of the log's segments and of the queue's records, under bolero. Run by `cargo test`
//! on random and mutated input for a moment, and for as long as wanted by `cargo bolero test`.

use outgrow::hooks;

#[test]
fn any_segment_is_judged() {
    bolero::check!().for_each(|bytes: &[u8]| {
        // No panic, no endless loop, and no more entries than there are bytes for.
        let entries = hooks::recover(&[bytes]);
        assert!(entries as usize <= bytes.len());
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
fn any_record_is_read_or_refused() {
    bolero::check!().for_each(|bytes: &[u8]| {
        if let Some(again) = hooks::recode(bytes) {
            assert_eq!(
                hooks::recode(&again).as_ref(),
                Some(&again),
                "what was read is written and read alike"
            );
        }
    });
}
