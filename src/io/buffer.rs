//! Memory as O_DIRECT wants it: a whole number of blocks at a block-aligned address.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// The alignment that every Linux file system accepts for O_DIRECT: a page.
pub(super) const BLOCK_BYTES: usize = 4_096;

/// A block-aligned buffer of a whole number of blocks, zeroed when made.
#[derive(Debug)]
pub struct AlignedBuffer {
    start: NonNull<u8>,
    bytes_count: usize,
}

// SAFETY: the buffer is plain memory that it alone owns, so it may move to another thread.
unsafe impl Send for AlignedBuffer {}

impl AlignedBuffer {
    /// A zeroed buffer of at least `bytes_count` bytes, rounded up to whole blocks; at least one.
    pub fn zeroed(bytes_count: usize) -> Self {
        let bytes_count = bytes_count.max(1).next_multiple_of(BLOCK_BYTES);
        let layout = Self::layout(bytes_count);
        // SAFETY: the layout is not empty, which is all that `alloc_zeroed` asks for.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        Self { start, bytes_count }
    }

    /// A buffer that begins with these bytes, rounded up to whole blocks with zeros; at least one.
    pub fn copied(bytes: &[u8]) -> Self {
        let bytes_count = bytes.len().max(1).next_multiple_of(BLOCK_BYTES);
        let layout = Self::layout(bytes_count);
        // SAFETY: the layout is not empty, which is all that `alloc` asks for.
        let start = unsafe { alloc(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        // SAFETY: both are as long as `bytes`, and new memory overlaps nothing.
        unsafe { bytes.as_ptr().copy_to_nonoverlapping(start.as_ptr(), bytes.len()) };
        // SAFETY: `bytes` is no longer than the buffer.
        let rest = unsafe { start.add(bytes.len()) };
        // SAFETY: this is the rest of the buffer, so that all of it is initialised.
        unsafe { rest.write_bytes(0, bytes_count - bytes.len()) };
        Self { start, bytes_count }
    }

    fn layout(bytes_count: usize) -> Layout {
        Layout::from_size_align(bytes_count, BLOCK_BYTES)
            .expect("buffers are far smaller than the address space")
    }
}

impl AsRef<[u8]> for AlignedBuffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Deref for AlignedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `start` points at `bytes_count` initialised bytes, owned by `self` and borrowed with it.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.bytes_count) }
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` makes the borrow exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes_count) }
    }
}

impl Drop for AlignedBuffer {
    fn drop(&mut self) {
        // SAFETY: `start` came from `alloc` or `alloc_zeroed` with this very layout, and is freed once.
        unsafe { dealloc(self.start.as_ptr(), Self::layout(self.bytes_count)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_aligned_zeroed_and_a_whole_number_of_blocks() {
        let mut buffer = AlignedBuffer::zeroed(BLOCK_BYTES + 1);
        assert_eq!(buffer.len(), 2 * BLOCK_BYTES);
        assert_eq!(buffer.as_ptr().align_offset(BLOCK_BYTES), 0);
        assert!(buffer.iter().all(|byte| *byte == 0));
        buffer.fill(7);
        assert!(buffer.iter().all(|byte| *byte == 7));
        for count in [0, 1, BLOCK_BYTES, BLOCK_BYTES + 1] {
            let bytes = vec![7; count];
            let copied = AlignedBuffer::copied(&bytes);
            assert_eq!(copied.len(), count.max(1).next_multiple_of(BLOCK_BYTES));
            assert_eq!(copied.as_ptr().align_offset(BLOCK_BYTES), 0);
            assert_eq!(copied[..count], bytes);
            assert!(copied[count..].iter().all(|byte| *byte == 0));
        }
    }
}
