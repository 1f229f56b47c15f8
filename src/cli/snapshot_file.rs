//! What a snapshot file holds, as `inspect snapshot` and `snapshot verify` tell it.
//!
//! Always: it is sound here only if a member would restore it: the same code decides. Left out: which files there are.

use crate::replica::Restorer;
use crate::snapshot::{BLOCK_BYTES, Opening};
use serde::Serialize;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

/// Bytes read at once.
const PIECE_BYTES: usize = 256 * BLOCK_BYTES;

/// What is in one file.
#[derive(Debug, Default, Serialize)]
pub(super) struct Contents {
    pub(super) is_sound: bool,
    /// What is wrong with it, and where.
    damage: Option<String>,
    bytes: u64,
    opening: Option<OpeningReport>,
    /// What follows the opening, if all of it can be read.
    state: Option<StateReport>,
}

#[derive(Debug, Serialize)]
struct OpeningReport {
    cluster_id: String,
    group: u32,
    index: u64,
    term: u64,
    revision: u64,
    compacted_revision: u64,
    state_hash: String,
    members: Vec<String>,
}

#[derive(Debug, Serialize)]
struct StateReport {
    keys: usize,
    changes: u64,
    leases: usize,
    sessions: usize,
    is_full: bool,
    /// The hash of all parts, which the closing holds.
    hash: String,
}

impl Contents {
    /// Reads a file to its end.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn of_file(path: &Path) -> io::Result<Self> {
        Self::of(File::open(path)?)
    }

    /// Reads bytes to their end. What is behind damage is counted and not looked at.
    ///
    /// # Errors
    /// They cannot be read.
    pub(super) fn of(mut bytes: impl Read) -> io::Result<Self> {
        // Nobody can choose keys against a table that is only looked at, so any seed will do.
        let mut restorer = Restorer::new(0);
        let mut this = Self::default();
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let count = match bytes.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            this.bytes += count as u64;
            if this.damage.is_none() {
                let fed = restorer.feed(piece.get(..count).unwrap_or_default(), None);
                this.damage = fed.err().map(|bad| bad.to_string());
            }
        }
        this.opening = restorer.opening().map(OpeningReport::of);
        if this.damage.is_none() {
            match restorer.finish() {
                Ok(restored) => {
                    this.state = Some(StateReport {
                        keys: restored.store().key_count(),
                        changes: restored.store().version_count(),
                        leases: restored.store().lease_count(),
                        sessions: restored.sessions_count(),
                        is_full: restored.store().is_full(),
                        hash: format!("{:016x}", restored.verified().hash),
                    });
                    this.is_sound = true;
                }
                Err(bad) => this.damage = Some(bad.to_string()),
            }
        }
        Ok(this)
    }

    /// The last log entry that is in it, and its term, as its opening says.
    pub(super) fn position(&self) -> Option<(u64, u64)> {
        self.opening.as_ref().map(|opening| (opening.index, opening.term))
    }

    /// A few lines for people, behind the name of the file.
    pub(super) fn tell(&self, out: &mut impl Write) -> io::Result<()> {
        match &self.opening {
            None => writeln!(out, " bytes={}", self.bytes)?,
            Some(opening) => {
                let OpeningReport { cluster_id, group, index, term, .. } = opening;
                let OpeningReport { revision, compacted_revision, state_hash, members, .. } = opening;
                writeln!(out, " group={group} index={index} term={term} bytes={}", self.bytes)?;
                writeln!(
                    out,
                    "  cluster={cluster_id} revision={revision} compacted={compacted_revision} state={state_hash} \
                     members={}",
                    members.join(",")
                )?;
            }
        }
        if let Some(StateReport { keys, changes, leases, sessions, is_full, hash }) = &self.state {
            let full = if *is_full { " full" } else { "" };
            writeln!(
                out,
                "  keys={keys} changes={changes} leases={leases} sessions={sessions} hash={hash}{full}"
            )?;
        }
        Ok(())
    }

    /// One line: whether a member would restore it.
    pub(super) fn tell_verdict(&self, out: &mut impl Write) -> io::Result<()> {
        match &self.damage {
            Some(damage) => writeln!(out, "  damaged: {damage}"),
            None => writeln!(out, "  sound"),
        }
    }
}

impl OpeningReport {
    fn of(opening: &Opening) -> Self {
        let members = opening.configuration.members.iter();
        Self {
            cluster_id: format!("{:016x}", opening.cluster.0),
            group: opening.group.0,
            index: opening.position.index.0,
            term: opening.position.term.0,
            revision: opening.revision.0,
            compacted_revision: opening.compacted.0,
            state_hash: format!("{:016x}", opening.state_hash),
            members: members.map(|member| format!("{:016x}", member.id)).collect(),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ids::{ClusterId, Revision};
    use crate::kv::Store;
    use crate::snapshot::{FileName, Kind, Writer};
    use bytes::BytesMut;

    /// A snapshot of nothing.
    pub(in crate::cli) fn snapshot() -> (FileName, Vec<u8>) {
        let name = "snap-00000001-0000000000000009-0000000000000002.snap";
        let name = FileName::parse(name).expect("a name");
        let opening = Opening {
            cluster: ClusterId(7),
            group: name.group,
            position: name.position,
            state_hash: 5,
            revision: Revision(1),
            compacted: Revision(0),
            lease_micros: 0,
            lease_drift_ppm: 0,
            configuration: wal_format::Configuration::default(),
        };
        let mut bytes = BytesMut::new();
        let mut writer = Writer::new(&opening, &mut bytes);
        let mut end_of_sessions = vec![3];
        end_of_sessions.extend([0; 16]);
        writer.part(Kind::Sessions, &end_of_sessions, &mut bytes);
        let mut store = Store::new();
        let mut cut = store.cut();
        let mut told = BytesMut::new();
        while cut.slice(&store, 10_000, 10, &mut told) {}
        writer.part(Kind::Store, &told, &mut bytes);
        writer.finish(&mut bytes);
        (name, bytes.to_vec())
    }

    fn told(bytes: &[u8]) -> (Contents, String) {
        let contents = Contents::of(bytes).expect("memory can be read");
        let mut text = Vec::new();
        contents.tell(&mut text).and_then(|()| contents.tell_verdict(&mut text)).expect("memory takes it");
        (contents, String::from_utf8(text).expect("text"))
    }

    #[test]
    fn a_sound_snapshot_is_told_and_damage_is_named_with_its_place() {
        let (_, bytes) = snapshot();
        let (contents, text) = told(&bytes);
        assert!(contents.is_sound, "{text}");
        for words in ["index=9", "term=2", "revision=1", "keys=0", "sessions=0", "sound"] {
            assert!(text.contains(words), "{text}");
        }
        for place in [70, bytes.len() / 2, bytes.len() - 1] {
            let mut bytes = bytes.clone();
            bytes[place] ^= 1;
            let (contents, text) = told(&bytes);
            assert!(!contents.is_sound && text.contains("damaged: at byte "), "{text}");
        }
        for length in [0, 1, 40, bytes.len() - 4_096, bytes.len() - 1] {
            let (contents, text) = told(&bytes[..length]);
            assert!(!contents.is_sound && text.contains("damaged: at byte "), "{length}: {text}");
        }
    }
}
