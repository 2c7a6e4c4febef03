//! Entries that are too long for one frame: their pieces are written ahead, one at a time.

use super::LogError;
use super::entry::{Entry, Hold, MAX_ENTRY, MAX_WHOLE, PIECE, Piece};
use super::shared::Shared;
use super::wait::Wait;
use bytes::Bytes;
use std::sync::Arc;

/// Writes the pieces of `bytes`.
pub(super) async fn stage(shared: &Arc<Shared>, bytes: Bytes) -> Result<Entry, LogError> {
    let len = bytes.len();
    if len > MAX_ENTRY {
        return Err(LogError::TooLarge { len, max: MAX_ENTRY });
    }
    if len <= MAX_WHOLE {
        return Ok(bytes.into());
    }
    let mut pieces = Vec::with_capacity(len.div_ceil(PIECE));
    let mut hold: Option<Arc<Hold>> = None;
    for piece in bytes.chunks(PIECE) {
        let wait = loop {
            match put(shared, piece, &mut hold) {
                Err(LogError::Busy { len, .. }) => shared.wait_for_room(len).await,
                put => break put?,
            }
        };
        pieces.push(wait.0);
        // One at a time is in the buffer, so that others wait for no more than that.
        wait.1.await?;
    }
    Ok(Entry::in_pieces_at(&pieces, hold.expect("it has pieces")))
}

fn put(shared: &Arc<Shared>, piece: &[u8], hold: &mut Option<Arc<Hold>>) -> Result<(Piece, Wait), LogError> {
    let mut state = shared.state.lock();
    state.check_open()?;
    state.check_room(piece.len(), false, &shared.options)?;
    if hold.as_ref().is_some_and(|hold| hold.oldest().is_none()) {
        return Err(state.gone());
    }
    let piece = state.put_piece(piece, false, &shared.options);
    match hold {
        Some(_) => {}
        None => {
            let new = Arc::new(Hold::new(piece.place.segment));
            state.staged.retain(|hold| hold.strong_count() > 0);
            state.staged.push(Arc::downgrade(&new));
            *hold = Some(new);
        }
    }
    let group = Arc::clone(&state.batch.group);
    Ok((piece, Wait::new(shared, group, u64::MAX)))
}
