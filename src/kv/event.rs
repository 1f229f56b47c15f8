//! A change as watches tell it: which key, what it became, and what it was before.
//!
//! What always holds: an event is made from the history alone, so whoever is told of a revision late is told exactly
//! what whoever was there heard, and every member tells the same. What the key was before is told unless it was nothing
//! or the revision before is out of reach (etcd's rule): how far forgetting has come, which is each member's own affair,
//! does not show.

use super::command::KeyValue;
use super::history::Version;
use super::keys::Seen;
use crate::ids::{LeaseId, Revision};
use bytes::Bytes;

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The pair as it was written; of a deletion only its key and `mod_revision`, the revision that deleted it.
    pub pair: KeyValue,
    /// Whether the key was deleted.
    pub is_deletion: bool,
    /// The pair as it was before, if that is wanted, was something, and is still known.
    pub previous: Option<KeyValue>,
}

/// A change as it lies in the history, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct Changed<'store> {
    key: &'store [u8],
    version: &'store Version,
    before: Option<Seen<'store>>,
}

impl<'store> Changed<'store> {
    pub(super) const fn new(
        key: &'store [u8],
        version: &'store Version,
        before: Option<Seen<'store>>,
    ) -> Self {
        Self { key, version, before }
    }

    /// Without what can be seen only by revisions before `compacted`.
    pub(super) fn with_history_from(mut self, compacted: Revision) -> Self {
        if self.version.made.revision <= compacted {
            self.before = None;
        }
        self
    }

    /// The key that changed.
    pub const fn key(&self) -> &'store [u8] {
        self.key
    }

    /// Whether the key was deleted.
    pub const fn is_deletion(&self) -> bool {
        self.version.pair.is_none()
    }

    /// The event. Values are shared, not copied.
    pub fn to_event(self, wants_previous: bool) -> Event {
        let revision = self.version.made.revision;
        let pair = match &self.version.pair {
            Some(pair) => KeyValue {
                key: Bytes::copy_from_slice(self.key),
                value: pair.value.clone(),
                create_revision: pair.create_revision,
                mod_revision: revision,
                version: pair.version,
                lease: pair.lease,
            },
            None => KeyValue {
                key: Bytes::copy_from_slice(self.key),
                value: Bytes::new(),
                create_revision: Revision(0),
                mod_revision: revision,
                version: 0,
                lease: LeaseId(0),
            },
        };
        let previous = self.before.filter(|_| wants_previous).map(Seen::to_key_value);
        Event { pair, is_deletion: self.is_deletion(), previous }
    }
}
