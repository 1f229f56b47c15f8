//! The alarms that a keyspace is full: one that goes by the bytes that are used, and those raised by hand, by their numbers.
//!
//! What always holds: each is raised once at the most, and no more than [`ALARMS_BY_HAND_MAX`] are raised by hand. It leaves out
//! who raises them, and when (`replica`, `server`).

use super::command::{SpaceAlarm, StoreRefusal};
use super::hash::RollingHash;
use crate::limits::ALARMS_BY_HAND_MAX;
use std::collections::BTreeSet;

/// The alarms that are raised.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Alarms {
    is_by_bytes: bool,
    by_hand: BTreeSet<u64>,
}

impl Alarms {
    /// Those of a snapshot. None if there are too many.
    pub(super) fn restored(is_by_bytes: bool, by_hand: BTreeSet<u64>) -> Option<Self> {
        (by_hand.len() <= ALARMS_BY_HAND_MAX).then_some(Self { is_by_bytes, by_hand })
    }

    pub(super) fn is_any(&self) -> bool {
        self.is_by_bytes || !self.by_hand.is_empty()
    }

    pub(super) const fn is_by_bytes(&self) -> bool {
        self.is_by_bytes
    }

    /// In ascending order.
    pub(super) const fn by_hand(&self) -> &BTreeSet<u64> {
        &self.by_hand
    }

    /// Raises an alarm or calls it off, which may be so already.
    ///
    /// # Errors
    /// There is no room for a further one.
    pub(super) fn set(&mut self, alarm: SpaceAlarm, hash: &mut RollingHash) -> Result<(), StoreRefusal> {
        let SpaceAlarm { by_hand, is_raised } = alarm;
        let is_news = match by_hand {
            None => core::mem::replace(&mut self.is_by_bytes, is_raised) != is_raised,
            Some(number) if is_raised => {
                let has_room = self.by_hand.len() < ALARMS_BY_HAND_MAX || self.by_hand.contains(&number);
                has_room.then_some(()).ok_or(StoreRefusal::NoSpace)?;
                self.by_hand.insert(number)
            }
            Some(number) => self.by_hand.remove(&number),
        };
        if is_news {
            // No compaction is of a revision that large, so nothing else is absorbed alike.
            hash.absorb_word(0);
            let kind = if by_hand.is_some() { 2 } else { 0 };
            hash.absorb_word(u64::MAX - kind - u64::from(is_raised));
            if let Some(number) = by_hand {
                hash.absorb_word(number);
            }
        }
        Ok(())
    }
}
