//! Limits each agent's concurrent requests, so that one host cannot exhaust shared capacity.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use uuid::Uuid;

use super::error::{ApiError, ApiResult};

/// Kinds of limited requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestKind {
    /// A poll that is being read.
    Reading,
    /// A poll until its response.
    Poll,
    /// A stream until its connection is closed.
    Stream,
}

impl RequestKind {
    /// Maximum per agent.
    const fn most(self) -> u8 {
        match self {
            // A second one, in case the first hangs in a dead connection.
            Self::Reading => 2,
            Self::Poll => 4,
            // A newer stream ends the older ones, but a dead connection takes long to close.
            Self::Stream => 16,
        }
    }

    const fn what(self) -> &'static str {
        match self {
            Self::Reading => "this agent already has two polls being read",
            Self::Poll => "this agent already has four open polls",
            Self::Stream => "this agent already has sixteen open streams",
        }
    }
}

/// Open requests of each agent.
#[derive(Clone, Debug, Default)]
pub struct PollSlots(Arc<Mutex<HashMap<(Uuid, RequestKind), u8>>>);

/// A permit; released when dropped.
#[derive(Debug)]
pub struct PollSlot {
    poll_slots: PollSlots,
    key: (Uuid, RequestKind),
}

impl PollSlots {
    /// Takes a permit.
    ///
    /// # Errors
    /// 429 if the agent has none left.
    pub fn take(&self, agent: Uuid, kind: RequestKind) -> ApiResult<PollSlot> {
        let (key, mut poll_slots) = ((agent, kind), self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let count = poll_slots.entry(key).or_insert(0);
        if *count >= kind.most() {
            return Err(ApiError::too_many(kind.what(), 1));
        }
        *count += 1;
        Ok(PollSlot { poll_slots: self.clone(), key })
    }
}

impl Drop for PollSlot {
    fn drop(&mut self) {
        let mut poll_slots = self.poll_slots.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = poll_slots.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                poll_slots.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promise_11_one_agent_cannot_take_the_permits_of_others() {
        let poll_slots = PollSlots::default();
        let [one, other] = [1, 2].map(Uuid::from_u128);
        for kind in [RequestKind::Reading, RequestKind::Poll, RequestKind::Stream] {
            let taken: Vec<PollSlot> = (0..kind.most()).map(|_| poll_slots.take(one, kind).unwrap()).collect();
            assert_eq!(poll_slots.take(one, kind).unwrap_err().status().as_u16(), 429);
            assert!(poll_slots.take(other, kind).is_ok());
            drop(taken);
            assert!(poll_slots.take(one, kind).is_ok());
        }
        assert!(poll_slots.0.lock().unwrap().is_empty());
    }
}
