//! What the snapshots in a data directory hold: `mainstay inspect snapshot DIR`, and for `inspect wal` which are sound.
//!
//! Always: a snapshot is sound here only if a member would restore it, and is the one that its name says.

use crate::cli::snapshot_file::Contents;
use crate::snapshot::{FileKind, FileName};
use crate::wal::Restorable;
use serde::Serialize;
use std::io::{self, Write};
use std::path::Path;

/// One snapshot file.
#[derive(Debug, Serialize)]
pub(super) struct Snapshot {
    file: String,
    #[serde(flatten)]
    contents: Contents,
    #[serde(skip)]
    name: FileName,
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
            let contents = Contents::of_file(&entry.path())?;
            snapshots.push(Snapshot { file: name.text(), contents, name });
        }
    }
    snapshots.sort_by(|left, right| left.file.cmp(&right.file));
    Ok(snapshots)
}

/// Of each group in a directory, the snapshots that a member would restore.
///
/// # Errors
/// As `read_all`.
pub(in crate::cli) fn restorable(directory: &Path) -> io::Result<Restorable> {
    read_all(directory).map(|snapshots| positions(&snapshots))
}

/// Of each group, those of some snapshots that a member would restore.
pub(super) fn positions(snapshots: &[Snapshot]) -> Restorable {
    let mut positions = Restorable::new();
    for snapshot in snapshots.iter().filter(|snapshot| snapshot.is_sound()) {
        positions.entry(snapshot.name.group).or_default().push(snapshot.name.position);
    }
    positions
}

impl Snapshot {
    /// Whether a member would start from it.
    pub(super) fn is_sound(&self) -> bool {
        self.name.kind == FileKind::Whole && self.contents.is_sound && !self.is_misnamed()
    }

    /// Whether it should be whole and is not.
    pub(super) fn is_damaged(&self) -> bool {
        self.name.kind == FileKind::Whole && !self.is_sound()
    }

    fn is_misnamed(&self) -> bool {
        let named = (self.name.position.index.0, self.name.position.term.0);
        self.contents.position().is_some_and(|position| position != named)
    }

    /// A few lines for people.
    pub(super) fn tell(&self, out: &mut impl Write) -> io::Result<()> {
        write!(out, "{}", self.file)?;
        self.contents.tell(out)?;
        match self.name.kind {
            FileKind::Whole if self.is_misnamed() => {
                writeln!(out, "  damaged: it is another one than its name says")
            }
            FileKind::Whole => self.contents.tell_verdict(out),
            FileKind::Distrusted => {
                writeln!(out, "  distrusted: most members had another state; no member uses it")
            }
            FileKind::Part | FileKind::Incoming => {
                writeln!(out, "  unfinished: removed when the member starts")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::snapshot_file::tests::snapshot;

    fn told(name: FileName, bytes: &[u8]) -> (Snapshot, String) {
        let contents = Contents::of(bytes).expect("memory can be read");
        let snapshot = Snapshot { file: name.text(), contents, name };
        let mut text = Vec::new();
        snapshot.tell(&mut text).expect("memory takes it");
        (snapshot, String::from_utf8(text).expect("text"))
    }

    #[test]
    fn a_snapshot_is_sound_if_it_is_whole_and_what_its_name_says() {
        let (name, bytes) = snapshot();
        let (sound, text) = told(name, &bytes);
        assert!(sound.is_sound() && !sound.is_damaged(), "{text}");
        let other = FileName::parse("snap-00000001-0000000000000008-0000000000000002.snap").expect("a name");
        let (misnamed, text) = told(other, &bytes);
        assert!(misnamed.is_damaged() && text.contains("its name"), "{text}");
        let unfinished = FileName { kind: FileKind::Incoming, ..name };
        let (unfinished, text) = told(unfinished, &bytes[..40]);
        assert!(!unfinished.is_sound() && !unfinished.is_damaged() && text.contains("unfinished"), "{text}");
    }
}
