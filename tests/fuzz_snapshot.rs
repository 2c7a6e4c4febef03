//! Bytes from outside: the decoder of a cache's snapshots, under bolero. Run by `cargo test` on random and mutated input
//! for a moment, and for as long as wanted by `cargo bolero test`.

use outgrow::hooks;

#[test]
fn any_snapshot_is_read_or_refused() {
    bolero::check!().for_each(|bytes: &[u8]| {
        // No panic, no endless loop, and no more entries than there are bytes for.
        if let Some(entries) = hooks::snapshot(bytes) {
            assert!(entries as usize <= bytes.len());
        }
    });
}

#[test]
fn any_change_of_a_snapshot_is_refused() {
    let sound = hooks::sample_snapshot();
    assert_eq!(hooks::snapshot(&sound), Some(12));
    bolero::check!()
        .with_type::<(u16, u8, u16)>()
        .for_each(|&(at, xor, cut)| {
            let mut bytes = sound.clone();
            bytes[usize::from(at) % sound.len()] ^= xor;
            bytes.truncate(sound.len() - usize::from(cut) % sound.len());
            assert_eq!(hooks::snapshot(&bytes).is_some(), bytes == sound);
        });
}

#[test]
fn any_entries_are_read_or_refused() {
    bolero::check!().for_each(|bytes: &[u8]| {
        if let Some(again) = hooks::reseal_entries(bytes) {
            assert_eq!(
                hooks::reseal_entries(&again).as_ref(),
                Some(&again),
                "what was read is written and read alike"
            );
        }
    });
}
