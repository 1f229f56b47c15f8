//! What the snapshots in a data directory hold: `mainstay inspect snapshot DIR`, and for `inspect wal` which are sound.
//!
//! Always: a snapshot is sound here only if every part, the whole hash and the store in it are.

use crate::io::MappedFile;
use crate::kv::{Malformed, Restorer};
use crate::snapshot::{Damage, FileKind, FileName, Opening, Part, Reader};
use serde::Serialize;
use std::io::{self, Write};
use std::path::Path;

/// Bytes read at once.
const PIECE_BYTES: usize = 1_024 * 1_024;

/// One snapshot file.
#[derive(Debug, Serialize)]
pub(super) struct Snapshot {
    file: String,
    is_sound: bool,
    /// What is wrong with it.
    damage: Option<String>,
    group: u32,
    index: u64,
    term: u64,
    bytes: usize,
    parts: usize,
    opening: Option<OpeningReport>,
    /// What its store holds, if all of it can be read.
    store: Option<StoreReport>,
    #[serde(skip)]
    name: FileName,
}

#[derive(Debug, Serialize)]
struct OpeningReport {
    cluster_id: String,
    revision: u64,
    compacted_revision: u64,
    state_hash: String,
    members: Vec<String>,
}

#[derive(Debug, Serialize)]
struct StoreReport {
    keys: usize,
    changes: u64,
    leases: usize,
    is_full: bool,
}

#[derive(Debug, thiserror::Error)]
enum Bad {
    #[error(transparent)]
    File(#[from] Damage),
    #[error("its store: {0}")]
    Store(#[from] Malformed),
}

/// Reads every snapshot in a directory, oldest first.
///
/// # Errors
/// The directory or a file cannot be read.
pub(super) fn read_all(directory: &Path) -> io::Result<Vec<Snapshot>> {
    let mut snapshots = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if let Some(name) = FileName::parse(&entry.file_name().to_string_lossy()) {
            snapshots.push(Snapshot::read(name, &MappedFile::open(&entry.path())?));
        }
    }
    snapshots.sort_by(|left, right| left.file.cmp(&right.file));
    Ok(snapshots)
}

impl Snapshot {
    fn read(name: FileName, bytes: &[u8]) -> Self {
        let mut this = Self {
            file: name.text(),
            is_sound: false,
            damage: None,
            group: name.group.0,
            index: name.position.index.0,
            term: name.position.term.0,
            bytes: bytes.len(),
            parts: 0,
            opening: None,
            store: None,
            name,
        };
        match this.read_parts(bytes) {
            Ok(()) => this.is_sound = name.kind == FileKind::Whole,
            Err(bad) => this.damage = Some(bad.to_string()),
        }
        this
    }

    fn read_parts(&mut self, bytes: &[u8]) -> Result<(), Bad> {
        let (mut reader, mut store) = (Reader::new(), Restorer::new(0));
        for piece in bytes.chunks(PIECE_BYTES) {
            reader.feed(piece, |part| {
                self.parts += 1;
                match part {
                    Part::Opening(opening) => self.opening = Some(OpeningReport::of(&opening)),
                    Part::Sessions(_) => {}
                    Part::Store(slice) => store.slice(&slice)?,
                }
                Ok::<_, Bad>(())
            })?;
        }
        reader.finish()?;
        let store = store.finish()?;
        self.store = Some(StoreReport {
            keys: store.key_count(),
            changes: store.version_count(),
            leases: store.lease_count(),
            is_full: store.is_full(),
        });
        Ok(())
    }

    /// Whether a member would start from it.
    pub(super) const fn is_sound(&self) -> bool {
        self.is_sound
    }

    /// Whether it should be whole and is not.
    pub(super) fn is_damaged(&self) -> bool {
        self.name.kind == FileKind::Whole && !self.is_sound
    }

    /// Its name, which says of which group and entry it is.
    pub(super) const fn name(&self) -> FileName {
        self.name
    }

    /// A few lines for people.
    pub(super) fn tell(&self, out: &mut impl Write) -> io::Result<()> {
        let Self { file, group, index, term, bytes, parts, .. } = self;
        writeln!(out, "{file} group={group} index={index} term={term} bytes={bytes} parts={parts}")?;
        if let Some(opening) = &self.opening {
            let OpeningReport { cluster_id, revision, compacted_revision, state_hash, members } = opening;
            writeln!(
                out,
                "  cluster={cluster_id} revision={revision} compacted={compacted_revision} state={state_hash} members={}",
                members.join(",")
            )?;
        }
        if let Some(StoreReport { keys, changes, leases, is_full }) = &self.store {
            let full = if *is_full { " full" } else { "" };
            writeln!(out, "  keys={keys} changes={changes} leases={leases}{full}")?;
        }
        match (&self.damage, self.name.kind) {
            (Some(damage), FileKind::Whole) => writeln!(out, "  damaged: {damage}"),
            (None, FileKind::Whole) => writeln!(out, "  sound"),
            (_, FileKind::Part | FileKind::Incoming) => {
                writeln!(out, "  unfinished: removed when the member starts")
            }
        }
    }
}

impl OpeningReport {
    fn of(opening: &Opening) -> Self {
        let members = opening.configuration.members.iter();
        Self {
            cluster_id: format!("{:016x}", opening.cluster.0),
            revision: opening.revision.0,
            compacted_revision: opening.compacted.0,
            state_hash: format!("{:016x}", opening.state_hash),
            members: members.map(|member| format!("{:016x}", member.id)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ClusterId, Revision};
    use crate::kv::Store;
    use crate::snapshot::{Kind, Writer};

    fn snapshot() -> (FileName, Vec<u8>) {
        let name = "snap-00000001-0000000000000009-0000000000000002.snap";
        let name = FileName::parse(name).expect("a name");
        let (mut writer, mut bytes) = Writer::new(&Opening {
            cluster: ClusterId(7),
            group: name.group,
            position: name.position,
            state_hash: 5,
            revision: Revision(1),
            compacted: Revision(0),
            configuration: wal_format::Configuration::default(),
        });
        let mut store = Store::new();
        let mut cut = store.cut();
        let mut told = Vec::new();
        while let Some(slice) = cut.slice(&store, 10_000, 10) {
            told.extend(slice);
        }
        bytes.extend(writer.part(Kind::Store, &told));
        bytes.extend(writer.finish().0);
        (name, bytes)
    }

    fn told(name: FileName, bytes: &[u8]) -> (Snapshot, String) {
        let snapshot = Snapshot::read(name, bytes);
        let mut text = Vec::new();
        snapshot.tell(&mut text).expect("memory takes it");
        (snapshot, String::from_utf8(text).expect("text"))
    }

    #[test]
    fn a_sound_snapshot_is_told_and_a_damaged_one_named() {
        let (name, mut bytes) = snapshot();
        let (snapshot, text) = told(name, &bytes);
        assert!(snapshot.is_sound(), "{text}");
        assert!(text.contains("index=9") && text.contains("revision=1") && text.contains("keys=0"), "{text}");
        bytes[70] ^= 1;
        let (snapshot, text) = told(name, &bytes);
        assert!(!snapshot.is_sound() && text.contains("damaged: at byte 0"), "{text}");
        let unfinished = FileName { kind: FileKind::Incoming, ..name };
        assert!(told(unfinished, &bytes[..40]).1.contains("unfinished"));
    }
}
