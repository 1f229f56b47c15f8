//! From a snapshot to the state that it holds, piece by piece, so that the file need not fit in memory beside it.
//!
//! Always: nothing is given out before the whole was read and found sound, its store and sessions included. The same code
//! reads at a start, from disk, and when a leader has sent a snapshot. Left out: which snapshot is read (`snapshots`,
//! `install`), and its bytes (`snapshot`).

use super::bootstrap::mix;
use super::sessions::Sessions;
use super::sessions_bytes::{self, SessionsRestorer};
use crate::auth::{self, Auth};
use crate::ids::{ClusterId, GroupId, LogIndex};
use crate::kv::{self, Store};
use crate::limits::{AUTH_STATE_BYTES_MAX, SNAPSHOT_CHUNK_BYTES_MAX};
use crate::raft::Position;
use crate::snapshot::{Damage, Fault, FileKind, FileName, Opening, Part, Reader, Verified};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Why a shard cannot start from what is on its disk, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CannotStart(pub String);

/// Why a snapshot is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{words}")]
pub struct BadSnapshot {
    words: String,
    /// It is no damage: a newer build wrote it.
    is_newer: bool,
}

impl BadSnapshot {
    fn damaged(words: String) -> Self {
        Self { words, is_newer: false }
    }
}

impl From<Damage> for BadSnapshot {
    fn from(damage: Damage) -> Self {
        Self { words: damage.to_string(), is_newer: damage.fault == Fault::Newer }
    }
}

impl From<kv::Malformed> for BadSnapshot {
    fn from(malformed: kv::Malformed) -> Self {
        Self { words: format!("its store: {malformed}"), is_newer: malformed.is_newer() }
    }
}

impl From<auth::Malformed> for BadSnapshot {
    fn from(malformed: auth::Malformed) -> Self {
        Self { words: format!("its users: {malformed}"), is_newer: malformed.is_newer() }
    }
}

impl From<sessions_bytes::Malformed> for BadSnapshot {
    fn from(malformed: sessions_bytes::Malformed) -> Self {
        Self::damaged(format!("its sessions: {malformed}"))
    }
}

/// The state that a snapshot holds.
#[derive(Debug)]
pub struct Restored {
    pub(super) verified: Verified,
    pub(super) opening: Opening,
    pub(super) sessions: Sessions,
    pub(super) users: Auth,
    pub(super) store: Store,
}

impl Restored {
    /// Of which group it is.
    pub const fn group(&self) -> GroupId {
        self.opening.group
    }

    /// What its opening says.
    pub const fn opening(&self) -> &Opening {
        &self.opening
    }

    /// The file that it was read from.
    pub const fn verified(&self) -> Verified {
        self.verified
    }

    /// The store in it.
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// Users and roles in it.
    pub const fn users(&self) -> &Auth {
        &self.users
    }

    /// How many sessions are in it.
    pub fn sessions_count(&self) -> usize {
        self.sessions.count()
    }

    /// The last entry that is in it.
    pub const fn index(&self) -> LogIndex {
        self.verified.position.index
    }
}

/// A state on its way from a snapshot.
#[derive(Debug)]
pub struct Restorer {
    reader: Reader,
    opening: Option<Opening>,
    sessions: SessionsRestorer,
    /// What is there of users and roles so far.
    users: Vec<u8>,
    store: kv::Restorer,
}

impl Restorer {
    /// Nothing is read yet. `seed`: this boot's.
    pub fn new(seed: u64) -> Self {
        Self {
            reader: Reader::new(),
            opening: None,
            sessions: SessionsRestorer::default(),
            users: Vec::new(),
            store: kv::Restorer::new(mix(seed ^ 0x6b65_7973)),
        }
    }

    /// Reads the next bytes of the file. `before`: the store that the one in it is to replace, if there is one.
    ///
    /// # Errors
    /// It is no sound snapshot.
    pub fn feed(&mut self, bytes: &[u8], before: Option<&Store>) -> Result<(), BadSnapshot> {
        let Self { reader, opening, sessions, users, store } = self;
        reader.feed(bytes, |part| {
            match part {
                Part::Opening(found) => *opening = Some(*found),
                Part::Sessions(part) => {
                    let applied = opening.as_ref().map_or(LogIndex(0), |opening| opening.position.index);
                    sessions.part(part.to_vec(), applied)?;
                }
                Part::Users(part) => {
                    users.extend_from_slice(part);
                    if users.len() > AUTH_STATE_BYTES_MAX {
                        return Err(BadSnapshot::damaged("its users: more than there can be".to_owned()));
                    }
                }
                Part::Store(slice) => store.slice(slice, before)?,
            }
            Ok(())
        })
    }

    /// What its opening says, once that was read.
    pub const fn opening(&self) -> Option<&Opening> {
        self.opening.as_ref()
    }

    /// The state, if all of it was read.
    ///
    /// # Errors
    /// Something is missing, or does not fit together.
    pub fn finish(self) -> Result<Restored, BadSnapshot> {
        let verified = self.reader.finish()?;
        let opening =
            self.opening.ok_or_else(|| BadSnapshot::damaged("its opening is missing".to_owned()))?;
        let (sessions, store) = (self.sessions.finish()?, self.store.finish()?);
        let users =
            if self.users.is_empty() { Auth::new() } else { Auth::from_bytes(&Bytes::from(self.users))? };
        let compacted = store.compacted().unwrap_or_default();
        if (store.revision(), compacted) != (opening.revision, opening.compacted) {
            return Err(BadSnapshot::damaged("its opening tells of another store".to_owned()));
        }
        Ok(Restored { verified, opening, sessions, users, store })
    }
}

/// A snapshot file as a starting member finds it.
#[derive(Debug)]
pub struct FoundSnapshot {
    /// Its name.
    pub name: FileName,
    /// What became of reading it.
    pub content: FoundContent,
}

/// What became of reading a snapshot file.
#[derive(Debug)]
pub enum FoundContent {
    /// The newest sound one of its group.
    Restored(Box<Restored>),
    /// It is newer, and damaged.
    Damaged(BadSnapshot),
    /// A newer build wrote it. Whoever goes on without it may lose what only it holds.
    Newer(BadSnapshot),
    /// It is older, and was not read.
    Unread,
    /// It was never finished.
    Unfinished,
}

/// Reads, of each group, the newest snapshot that is sound. `read` gives the bytes of a file from an offset on, at most so
/// many; none at its end, or if it cannot be read. `seed`: this boot's.
pub fn restore_newest(
    seed: u64,
    files: &[FileName],
    mut read: impl FnMut(FileName, u64, usize) -> Option<Bytes>,
) -> Vec<FoundSnapshot> {
    // What is distrusted is there for people only.
    let mut files: Vec<FileName> =
        files.iter().copied().filter(|name| name.kind != FileKind::Distrusted).collect();
    files.sort_unstable_by_key(|name| {
        core::cmp::Reverse((name.group, name.position.index, name.position.term))
    });
    let mut restored_groups = Vec::new();
    let mut found = Vec::new();
    for name in files {
        let content = if name.kind != FileKind::Whole {
            FoundContent::Unfinished
        } else if restored_groups.contains(&name.group) {
            FoundContent::Unread
        } else {
            match restore(seed, name, &mut read) {
                Ok(restored) => {
                    restored_groups.push(name.group);
                    FoundContent::Restored(Box::new(restored))
                }
                Err(bad) if bad.is_newer => {
                    restored_groups.push(name.group);
                    FoundContent::Newer(bad)
                }
                Err(bad) => FoundContent::Damaged(bad),
            }
        };
        found.push(FoundSnapshot { name, content });
    }
    found
}

fn restore(
    seed: u64,
    name: FileName,
    read: &mut impl FnMut(FileName, u64, usize) -> Option<Bytes>,
) -> Result<Restored, BadSnapshot> {
    let mut restorer = Restorer::new(seed);
    let mut offset = 0;
    loop {
        let bytes = read(name, offset, SNAPSHOT_CHUNK_BYTES_MAX)
            .ok_or_else(|| BadSnapshot::damaged(format!("it cannot be read at byte {offset}")))?;
        if bytes.is_empty() {
            break;
        }
        offset += bytes.len() as u64;
        restorer.feed(&bytes, None)?;
    }
    let restored = restorer.finish()?;
    if (restored.opening.group, restored.verified.position) != (name.group, name.position) {
        return Err(BadSnapshot::damaged("it is another one than its name says".to_owned()));
    }
    Ok(restored)
}

/// Of each group, the snapshot that was restored.
pub(super) fn restored_positions(found: &[FoundSnapshot]) -> BTreeMap<GroupId, Vec<Position>> {
    let restored = found.iter().filter(|found| matches!(found.content, FoundContent::Restored(_)));
    restored.map(|found| (found.name.group, vec![found.name.position])).collect()
}

/// What a newer build wrote is not for this one to pass over.
pub(super) fn refuse_newer(found: &[FoundSnapshot]) -> Result<(), CannotStart> {
    for found in found {
        if let FoundContent::Newer(bad) = &found.content {
            let file = found.name.text();
            return Err(CannotStart(format!("{file}: {bad}. Start the newer version of mainstay again")));
        }
    }
    Ok(())
}

/// A directory with snapshots and without a log is no new one: whoever starts in it may have voted.
pub(super) fn refuse_without_log(found: &[FoundSnapshot]) -> Result<(), CannotStart> {
    match found.iter().find(|found| found.name.kind == FileKind::Whole) {
        None => Ok(()),
        Some(found) => Err(CannotStart(format!(
            "the log is missing, and {} is there: this member has been founded and does not know any more how it \
             voted. Remove the member and add it again as a learner, with an empty directory",
            found.name.text()
        ))),
    }
}

/// A snapshot of another cluster got here by a person's mistake.
pub(super) fn refuse_of_another_cluster(found: &[FoundSnapshot], ours: ClusterId) -> Result<(), CannotStart> {
    for found in found {
        if let FoundContent::Restored(restored) = &found.content
            && restored.opening.cluster != ours
        {
            return Err(CannotStart(format!(
                "{} is of another cluster ({}, not {ours}): remove the file",
                found.name.text(),
                restored.opening.cluster
            )));
        }
    }
    Ok(())
}
