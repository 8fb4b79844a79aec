//! Ids are UUIDv7, which sort by creation time.

use riposte_protocol::time::Timestamp;
use std::sync::{Mutex, PoisonError};
use uuid::{ContextV7, Uuid};

/// Keeps ids monotonic within a millisecond, where a UUIDv7 alone is random (RFC 9562 §6.2).
static CONTEXT: Mutex<Option<ContextV7>> = Mutex::new(None);

/// Creates an id with the time `now`.
pub fn new_id(now: Timestamp) -> Uuid {
    let millis = u64::try_from(now.as_millis()).unwrap_or(0);
    let nanos = u32::try_from(millis % 1000).unwrap_or(0) * 1_000_000;
    let mut context = CONTEXT.lock().unwrap_or_else(PoisonError::into_inner);
    let context = context.get_or_insert_with(ContextV7::new);
    Uuid::new_v7(uuid::Timestamp::from_unix(&*context, millis / 1000, nanos))
}

/// The creation time in an id; `None` if it is not a UUIDv7.
pub fn made_at(id: Uuid) -> Option<Timestamp> {
    let (secs, nanos) = id.get_timestamp()?.to_unix();
    let millis = secs.checked_mul(1000)?.checked_add(u64::from(nanos / 1_000_000))?;
    i64::try_from(millis).ok().map(Timestamp::from_millis)
}

/// The bound below every id that was created at `at` or later.
pub fn bound_at(at: Timestamp) -> Uuid {
    let millis = u128::try_from(at.as_millis()).unwrap_or(0);
    Uuid::from_u128(millis << 80)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_rise_within_a_millisecond() {
        let now = Timestamp::from_millis(1_795_514_400_123);
        let ids: Vec<Uuid> = (0..1000).map(|_| new_id(now)).collect();
        assert!(ids.is_sorted() && ids[0] != ids[999]);
        assert!(ids.iter().all(|id| made_at(*id) == Some(now)));
        let later = Timestamp::from_millis(now.as_millis() + 1);
        assert!(ids.iter().all(|id| *id > bound_at(now) && *id < bound_at(later)));
    }
}
