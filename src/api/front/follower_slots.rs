//! Limits how many streams of events are open, in all and for each principal: each holds a
//! connection for hours.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::error::{ApiError, ApiResult};
use crate::domain::actor::Actor;

/// Streams of all principals.
const MOST: usize = 1000;
/// Streams of one principal: a service key may stand for a console with many readers.
const MOST_OF_ONE: usize = 250;
/// `Retry-After` in seconds.
const RETRY_SECS: u64 = 10;

/// The open streams of each principal.
#[derive(Clone, Debug, Default)]
pub struct FollowerSlots(Arc<Mutex<HashMap<Actor, usize>>>);

/// A permit; released when dropped.
#[derive(Debug)]
pub struct FollowerSlot {
    slots: FollowerSlots,
    actor: Actor,
}

impl FollowerSlots {
    /// Takes a permit for `actor`.
    ///
    /// # Errors
    /// 429 if it has too many streams, 503 if all have.
    pub fn take(&self, actor: &Actor) -> ApiResult<FollowerSlot> {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.get(actor).is_some_and(|count| *count >= MOST_OF_ONE) {
            let detail = format!("{actor} has {MOST_OF_ONE} streams of events, which is the most; end one");
            return Err(ApiError::too_many(detail, RETRY_SECS));
        }
        if slots.values().sum::<usize>() >= MOST {
            let detail = format!("{MOST} streams of events are open, which is the most");
            return Err(ApiError::unavailable(detail, RETRY_SECS));
        }
        *slots.entry(actor.clone()).or_insert(0) += 1;
        Ok(FollowerSlot { slots: self.clone(), actor: actor.clone() })
    }
}

impl Drop for FollowerSlot {
    fn drop(&mut self) {
        let mut slots = self.slots.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = slots.get_mut(&self.actor) {
            *count -= 1;
            if *count == 0 {
                slots.remove(&self.actor);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_principal_cannot_take_the_streams_of_others() {
        let slots = FollowerSlots::default();
        let name = |number: usize| Actor::Key(number.to_string());
        let first: Vec<_> = (0..MOST_OF_ONE).map(|_| slots.take(&name(0)).unwrap()).collect();
        assert_eq!(slots.take(&name(0)).unwrap_err().status().as_u16(), 429);
        let rest: Vec<_> = (MOST_OF_ONE..MOST).map(|number| slots.take(&name(number)).unwrap()).collect();
        assert_eq!(slots.take(&name(1)).unwrap_err().status().as_u16(), 503);
        drop(first);
        assert!(slots.take(&name(0)).is_ok());
        drop(rest);
        assert!(slots.0.lock().unwrap().is_empty());
    }
}
