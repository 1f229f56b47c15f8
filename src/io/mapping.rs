//! A file that nobody writes, seen as memory, for those who look at a stopped member's files; and memory for a whole file.
//!
//! Always: a file is seen read-only. Left out on purpose: everything a running member does with a mapped file. An error of the disk
//! under a mapping is a signal and not a result, and the page cache may be behind what O_DIRECT wrote, so recovery reads (`disk`).

use memmap2::{Mmap, MmapMut};
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;

/// A file's content, read as it is looked at and not before.
#[derive(Debug)]
pub struct MappedFile(Mmap);

impl MappedFile {
    /// Maps the file at `path`. Whoever shortens or changes it meanwhile shows through.
    ///
    /// # Errors
    /// The kernel's, among them that the file is not there or may not be read.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        // SAFETY: the mapping is read-only and private to this value. That the file does not change is the promise of
        // whoever inspects a stopped member; bytes that change all the same are decoded without trust, as any are.
        let mapping = unsafe { Mmap::map(&file) }?;
        Ok(Self(mapping))
    }
}

/// Zeroed memory for a large file, block-aligned, of which only what is touched is taken; it goes back to the kernel as a whole.
///
/// # Errors
/// The kernel's: there is not so much.
pub(super) fn room_for(bytes_count: usize) -> io::Result<MmapMut> {
    MmapMut::map_anon(bytes_count)
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
