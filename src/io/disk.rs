//! The data directory: its lock, and the files of the log in it.
//!
//! Always: a directory has one user at a time, also while a killed one's last writes are still on their way,
//! because the lock is held by a file that the ring holds too (`Ring::hold`; catalogue 55); a file exists for the
//! caller only when its content, its length and its directory entry are durable (catalogue 43). Left out: what the
//! files hold, and which of them are needed.

use super::AlignedBuffer;
use super::buffer::BLOCK_BYTES;
use super::mapping::room_for;
use bytes::Bytes;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, fsync, open, openat};
use rustix::io::{Errno, pread, pwrite};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why a data directory cannot be used, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The directory is not there and cannot be made, or cannot be opened.
    #[error("the data directory {path} cannot be used ({source}): check that it may be read and written")]
    Directory {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Another process has it.
    #[error(
        "the data directory {path} is in use by another process: stop that one first, or give this member \
         a directory of its own"
    )]
    InUse {
        /// Which.
        path: PathBuf,
    },
    /// A file of the log could not be made, opened or read.
    #[error("{operation} of {path} failed: {source}")]
    File {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A data directory, locked.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    directory: OwnedFd,
    lock: OwnedFd,
    /// Whether files are opened with O_DIRECT.
    is_direct: bool,
}

impl DataDirectory {
    /// Opens and locks the directory at `path`, making it if it is not there.
    ///
    /// # Errors
    /// `Directory` or `InUse`.
    pub fn open(path: &Path) -> Result<Self, DiskError> {
        let unusable = |source: io::Error| DiskError::Directory { path: path.to_owned(), source };
        std::fs::create_dir_all(path).map_err(unusable)?;
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let directory = open(path, flags, Mode::empty()).map_err(|errno| unusable(errno.into()))?;
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
        let lock = openat(&directory, "lock", flags, Mode::RUSR | Mode::WUSR)
            .map_err(|errno| unusable(errno.into()))?;
        match lock_patiently(&lock) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(DiskError::InUse { path: path.to_owned() }),
            Err(errno) => return Err(unusable(errno.into())),
        }
        let is_direct = probe_direct(&directory);
        let this = Self { path: path.to_owned(), directory, lock, is_direct };
        this.settle().map_err(unusable)?;
        Ok(this)
    }

    /// Makes the names durable that an earlier life may have left undone: a file's in this directory, and
    /// this directory's own in those above it (catalogue 43). Removes files that were never finished.
    fn settle(&self) -> io::Result<()> {
        for name in self.file_names().map_err(io::Error::other)? {
            if name.ends_with(UNFINISHED) {
                rustix::fs::unlinkat(&self.directory, &name, rustix::fs::AtFlags::empty())?;
            }
        }
        fsync(&self.directory)?;
        let whole = std::fs::canonicalize(&self.path)?;
        for parent in whole.ancestors().skip(1) {
            let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
            match open(parent, flags, Mode::empty()).and_then(|parent| fsync(&parent)) {
                Ok(()) => {}
                // A directory that is not ours to open was not made by us either.
                Err(_) => break,
            }
        }
        Ok(())
    }

    /// The lock's file, for the ring to hold.
    pub fn lock(&self) -> &OwnedFd {
        &self.lock
    }

    /// Whether the file system takes O_DIRECT; without it writes are buffered, and still synced.
    pub fn is_direct(&self) -> bool {
        self.is_direct
    }

    /// Names of all files in the directory, sorted.
    ///
    /// # Errors
    /// `Directory`.
    pub fn file_names(&self) -> Result<Vec<String>, DiskError> {
        let unusable = |source| DiskError::Directory { path: self.path.clone(), source };
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(unusable)? {
            if let Ok(name) = entry.map_err(unusable)?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Makes a file of `bytes_count` zeros that is durable in every respect, under a temporary name first; gently, because the
    /// disk has other work to do at the same time, except while less is made than `bytes_needed`, which is asked before each
    /// piece.
    ///
    /// # Errors
    /// `File`, among them that the disk is full; then nothing is left behind.
    pub fn make_zeroed(
        &self,
        name: &str,
        bytes_count: u64,
        bytes_needed: impl Fn() -> u64,
    ) -> Result<OwnedFd, DiskError> {
        let temporary = format!("{name}{UNFINISHED}");
        let made = self.fill_zeroed(&temporary, bytes_count, bytes_needed).and_then(|()| {
            rustix::fs::renameat(&self.directory, &temporary, &self.directory, name)?;
            fsync(&self.directory)
        });
        if let Err(errno) = made {
            // The file is of no use half made; that it cannot be removed either changes nothing.
            let _ = rustix::fs::unlinkat(&self.directory, &temporary, rustix::fs::AtFlags::empty());
            return Err(self.failed("making", name, errno));
        }
        self.open_for_writing(name)
    }

    /// Makes a file of an old one that is needed no more, as it is, if it has this size. Durable in every respect.
    ///
    /// # Errors
    /// `File`; then the old one is gone.
    pub fn recycle(&self, old: &str, name: &str, bytes_count: u64) -> Result<OwnedFd, DiskError> {
        let file = self.open_for_writing(old)?;
        let size = rustix::fs::fstat(&file).map_err(|errno| self.failed("looking at", old, errno))?.st_size;
        if u64::try_from(size) != Ok(bytes_count) {
            drop(self.unlink(old)?);
            return Err(self.failed("recycling", old, Errno::INVAL));
        }
        self.rename(old, name)?;
        Ok(file)
    }

    fn fill_zeroed(
        &self,
        name: &str,
        bytes_count: u64,
        bytes_needed: impl Fn() -> u64,
    ) -> rustix::io::Result<()> {
        let flags = self.flags() | OFlags::CREATE | OFlags::TRUNC;
        let file = openat(&self.directory, name, flags, Mode::RUSR | Mode::WUSR)?;
        let zeros = AlignedBuffer::zeroed(ZEROS_BYTES);
        let mut offset = 0;
        while offset < bytes_count {
            let behind = bytes_needed().saturating_sub(offset);
            let left = usize::try_from(bytes_count - offset).unwrap_or(usize::MAX);
            let count = left.min(if behind >= ZEROS_BYTES as u64 { ZEROS_BYTES } else { GENTLE_BYTES });
            let began = super::now();
            offset += pwrite(&file, zeros.get(..count).unwrap_or(&zeros), offset)? as u64;
            if behind == 0 {
                let took = super::now().since(began);
                let pause =
                    GENTLE_MICROS.saturating_sub(took).max(GENTLE_PAUSES * took).min(PAUSE_MICROS_MAX);
                // Nobody unparks this thread: the disk is left to others.
                std::thread::park_timeout(Duration::from_micros(pause));
            }
        }
        fsync(&file)
    }

    /// Opens a file for writing.
    ///
    /// # Errors
    /// `File`.
    pub fn open_for_writing(&self, name: &str) -> Result<OwnedFd, DiskError> {
        openat(&self.directory, name, self.flags(), Mode::empty())
            .map_err(|errno| self.failed("opening", name, errno))
    }

    /// Reads a whole file, past the page cache where the file system allows.
    ///
    /// # Errors
    /// `File`.
    pub fn read(&self, name: &str) -> Result<Bytes, DiskError> {
        let file = self.open_for_writing(name)?;
        // What recovery believes must be on the disk, and not only on its way there.
        fsync(&file).map_err(|errno| self.failed("syncing", name, errno))?;
        let size = rustix::fs::fstat(&file).map_err(|errno| self.failed("looking at", name, errno))?.st_size;
        let size = usize::try_from(size).unwrap_or(0).next_multiple_of(BLOCK_BYTES);
        if size == 0 {
            return Ok(Bytes::new());
        }
        let no_room = |source| DiskError::File { operation: "reading", path: self.path.join(name), source };
        let mut room = room_for(size).map_err(no_room)?;
        let mut done = 0;
        while done < size {
            let rest = room.get_mut(done..size.min(done + READ_BYTES)).unwrap_or_default();
            let count = pread(file.as_fd(), rest, done as u64)
                .map_err(|errno| self.failed("reading", name, errno))?;
            done += count;
            if count == 0 || count % BLOCK_BYTES != 0 {
                break;
            }
        }
        Ok(Bytes::from_owner(room).slice(..done))
    }

    /// Writes some bytes of a file; at 0 the file is made anew. Offset and length are whole blocks. If `is_synced`, all of the
    /// file is durable then.
    ///
    /// # Errors
    /// `File`, among them that the disk is full.
    pub fn write_at(&self, name: &str, offset: u64, bytes: &[u8], is_synced: bool) -> Result<(), DiskError> {
        let made = if offset == 0 { OFlags::CREATE | OFlags::TRUNC } else { OFlags::empty() };
        self.write_into(name, made, (offset, bytes), is_synced)
    }

    /// Writes over some bytes of a file that is there, durably. Offset and length are whole blocks.
    ///
    /// # Errors
    /// `File`.
    pub fn overwrite_at(&self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.write_into(name, OFlags::empty(), (offset, bytes), true)
    }

    fn write_into(
        &self,
        name: &str,
        made: OFlags,
        (offset, bytes): (u64, &[u8]),
        is_synced: bool,
    ) -> Result<(), DiskError> {
        let write = || {
            let file = openat(&self.directory, name, self.flags() | made, Mode::RUSR | Mode::WUSR)?;
            let buffer = AlignedBuffer::copied(bytes);
            let mut done = 0;
            while done < buffer.len() {
                let count = pwrite(&file, buffer.get(done..).unwrap_or_default(), offset + done as u64)?;
                // What follows a short write could not be written past the page cache.
                if count == 0 || (count % BLOCK_BYTES != 0 && done + count < buffer.len()) {
                    return Err(Errno::IO);
                }
                done += count;
            }
            if is_synced { rustix::fs::fdatasync(&file) } else { Ok(()) }
        };
        write().map_err(|errno| self.failed("writing", name, errno))
    }

    /// Reads some bytes of a file, past the page cache where the file system allows: fewer than asked for only at its end.
    /// The offset is a whole number of blocks.
    ///
    /// # Errors
    /// `File`.
    pub fn read_at(&self, name: &str, offset: u64, bytes_count: usize) -> Result<Bytes, DiskError> {
        let file = self.open_for_writing(name)?;
        let mut buffer = AlignedBuffer::zeroed(bytes_count.next_multiple_of(BLOCK_BYTES));
        let mut done = 0;
        while done < bytes_count {
            let rest = buffer.get_mut(done..).unwrap_or_default();
            let count = pread(file.as_fd(), rest, offset + done as u64)
                .map_err(|errno| self.failed("reading", name, errno))?;
            done += count;
            if count == 0 || count % BLOCK_BYTES != 0 {
                break;
            }
        }
        Ok(Bytes::from_owner(buffer).slice(..done.min(bytes_count)))
    }

    /// Gives a file another name, durably, in place of any file of that name.
    ///
    /// # Errors
    /// `File`.
    pub fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        rustix::fs::renameat(&self.directory, from, &self.directory, to)
            .and_then(|()| fsync(&self.directory))
            .map_err(|errno| self.failed("renaming", from, errno))
    }

    /// Takes the name off a file. That it is gone need not be durable. What it takes of the disk it takes until the
    /// descriptor is closed, or given to [`shrink_gently`]; nothing if there is no such file.
    ///
    /// # Errors
    /// `File`, but not that there is none.
    pub fn unlink(&self, name: &str) -> Result<Option<OwnedFd>, DiskError> {
        let file = match openat(&self.directory, name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(self.failed("opening", name, errno)),
        };
        match rustix::fs::unlinkat(&self.directory, name, rustix::fs::AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(Some(file)),
            Err(errno) => Err(self.failed("removing", name, errno)),
        }
    }

    fn flags(&self) -> OFlags {
        let direct = if self.is_direct { OFlags::DIRECT } else { OFlags::empty() };
        OFlags::RDWR | OFlags::CLOEXEC | direct
    }

    fn failed(&self, operation: &'static str, name: &str, errno: Errno) -> DiskError {
        DiskError::File { operation, path: self.path.join(name), source: errno.into() }
    }
}

/// How often the lock is asked for, and how long apart.
///
/// Chosen: 5 s. A killed process keeps it until the kernel has taken its ring down, which happens after its end was
/// reported and took up to some tens of milliseconds where it was measured; a slow disk's last write may take longer.
const LOCK_TRIES_MAX: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Takes the lock, waiting for one that is on its way to be freed.
fn lock_patiently(lock: &OwnedFd) -> rustix::io::Result<()> {
    for _ in 1..LOCK_TRIES_MAX {
        match flock(lock, FlockOperation::NonBlockingLockExclusive) {
            // Nobody unparks this thread: it only lets some time pass.
            Err(Errno::WOULDBLOCK) => std::thread::park_timeout(LOCK_PAUSE),
            result => return result,
        }
    }
    flock(lock, FlockOperation::NonBlockingLockExclusive)
}

/// Bytes read with one call.
///
/// Chosen: a disk that was measured gave 144 MB/s in pieces of 256 KiB, 621 in those of 1 MiB and 687 in those of 8 MiB.
const READ_BYTES: usize = 4 * 1_024 * 1_024;

/// Bytes zeroed with one call.
///
/// Chosen: large enough that the call's cost does not matter.
const ZEROS_BYTES: usize = 1_024 * 1_024;

/// Bytes zeroed with one call when gently: what a write to the log may find in front of it at the disk.
///
/// Chosen: 128 KiB take about as long as a small write to the log does.
const GENTLE_BYTES: usize = 128 * 1_024;

/// How long each such call and the pause after it take.
///
/// Chosen: 16 MiB/s, a small part of any disk; a segment is then made in four seconds, by a member without load.
const GENTLE_MICROS: u64 = 8_000;

/// The pause is at least so many times as long as the call took.
///
/// Chosen: a third of a slow disk at the most.
const GENTLE_PAUSES: u64 = 2;

/// No pause is longer, so that it is soon heard when more is needed.
///
/// Chosen: a log of 100 MB/s takes three times as long for half of a segment.
const PAUSE_MICROS_MAX: u64 = 100_000;

/// Bytes by which a file that is removed shrinks at a time, and the pause after that.
///
/// Chosen: 160 MiB/s, more than a log and its snapshots bring for long. A file system that is told to discard what it frees does so in
/// one piece: 1 GiB removed at once held up writes to the log for 200 ms together, 54 ms at the longest, and so for 2 ms.
const SHRINK_BYTES: u64 = 2 * 1_024 * 1_024;
const SHRINK_PAUSE: Duration = Duration::from_micros(12_500);

/// Gives back what an unlinked file takes of the disk, so slowly that writes to other files hardly notice. Whatever goes wrong, the
/// rest is given back at the end.
pub fn shrink_gently(file: OwnedFd) {
    let mut bytes_count = rustix::fs::fstat(&file).map_or(0, |stat| u64::try_from(stat.st_size).unwrap_or(0));
    while bytes_count > SHRINK_BYTES {
        bytes_count -= SHRINK_BYTES;
        if rustix::fs::ftruncate(&file, bytes_count).is_err() {
            break;
        }
        std::thread::park_timeout(SHRINK_PAUSE);
    }
    drop(file);
}

/// The end of the name of a file that is being made.
const UNFINISHED: &str = ".new";

/// Whether the file system of `directory` takes O_DIRECT, by trying.
fn probe_direct(directory: &OwnedFd) -> bool {
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::DIRECT | OFlags::CLOEXEC;
    let name = "direct-probe";
    let opened = openat(directory, name, flags, Mode::RUSR | Mode::WUSR);
    let _ = rustix::fs::unlinkat(directory, name, rustix::fs::AtFlags::empty());
    opened.is_ok_and(|file| pwrite(&file, &AlignedBuffer::zeroed(BLOCK_BYTES), 0).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn scratch(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("mainstay-disk-{name}-{}", std::process::id()))
    }

    #[test]
    fn a_directory_has_one_user_at_a_time() {
        let path = scratch("lock");
        let first = DataDirectory::open(&path).expect("a new directory");
        assert!(matches!(DataDirectory::open(&path), Err(DiskError::InUse { .. })));
        drop(first);
        assert!(DataDirectory::open(&path).is_ok());
        std::fs::remove_dir_all(&path).expect("removed");
    }

    #[test]
    fn what_was_written_at_a_place_is_read_back_under_its_new_name() {
        let path = scratch("places");
        let directory = DataDirectory::open(&path).expect("a new directory");
        directory.write_at("a.part", 0, &[7; 3 * BLOCK_BYTES], false).expect("made anew");
        directory.write_at("a.part", 0, &[1; 2 * BLOCK_BYTES], false).expect("made anew again");
        directory.write_at("a.part", 2 * BLOCK_BYTES as u64, &[2; BLOCK_BYTES], true).expect("written");
        directory.rename("a.part", "a").expect("renamed");
        let read = |offset, count| directory.read_at("a", offset, count).expect("read");
        assert_eq!(read(BLOCK_BYTES as u64, 2 * BLOCK_BYTES), [[1; BLOCK_BYTES], [2; BLOCK_BYTES]].concat());
        assert_eq!(read(2 * BLOCK_BYTES as u64, 9 * BLOCK_BYTES), [2; BLOCK_BYTES][..]);
        assert_eq!(read(3 * BLOCK_BYTES as u64, BLOCK_BYTES).len(), 0);
        assert!(directory.read_at("a.part", 0, BLOCK_BYTES).is_err());
        let unlinked = directory.unlink("a").expect("unlinked").expect("it was there");
        assert!(directory.unlink("a").expect("it was gone").is_none());
        let left = rustix::fs::fstat(&unlinked).expect("open still").st_size;
        assert_eq!(usize::try_from(left), Ok(3 * BLOCK_BYTES), "only its name is gone");
        shrink_gently(unlinked);
        assert_eq!(directory.file_names().expect("listed"), vec!["lock"]);
        std::fs::remove_dir_all(&path).expect("removed");
    }

    #[test]
    fn what_a_removed_file_takes_is_given_back_before_its_descriptor_is_closed() {
        let path = scratch("shrinks");
        let directory = DataDirectory::open(&path).expect("a new directory");
        drop(directory.make_zeroed("a", 3 * SHRINK_BYTES, || u64::MAX).expect("made"));
        let unlinked = directory.unlink("a").expect("unlinked").expect("it was there");
        let other = unlinked.try_clone().expect("another descriptor of the same file");
        shrink_gently(unlinked);
        let left = rustix::fs::fstat(&other).expect("open still").st_size;
        assert_eq!(u64::try_from(left), Ok(SHRINK_BYTES), "the last piece goes with the file");
        std::fs::remove_dir_all(&path).expect("removed");
    }

    #[test]
    fn a_made_file_is_all_zeros_and_of_the_asked_length() {
        let path = scratch("zeros");
        let directory = DataDirectory::open(&path).expect("a new directory");
        // It becomes urgent on the way.
        let pieces = Cell::new(0);
        let bytes_needed = || if pieces.replace(pieces.get() + 1) > 4 { u64::MAX } else { 0 };
        directory.make_zeroed("segment", 3 * 1_024 * 1_024, bytes_needed).expect("made");
        let bytes = directory.read("segment").expect("read");
        assert_eq!(bytes.len(), 3 * 1_024 * 1_024);
        assert!(bytes.iter().all(|byte| *byte == 0));
        assert_eq!(directory.file_names().expect("listed"), vec!["lock", "segment"]);
        std::fs::remove_dir_all(&path).expect("removed");
    }
}
