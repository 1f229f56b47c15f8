//! Reads the protocol's basic types off a run of bytes, and says where and why it could not.
//!
//! What always holds: nothing is taken that is not there; a list's count is checked against the bytes that are
//! left before room is made for it; what `bytes` returns is a slice of the input.

use bytes::{BufMut, Bytes, BytesMut};

/// Bytes that are not what PROTOCOL.md allows: where, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at byte {offset}: {fault}")]
pub struct Malformed {
    /// Bytes from the start of the body (or of the command).
    pub offset: usize,
    /// What was expected there, and what was found.
    pub fault: Fault,
}

/// What was expected and what was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The bytes end in the middle of a value.
    #[error("expected {wanted} bytes of {what}, found the end after {left}")]
    Truncated {
        /// The value.
        what: &'static str,
        /// How many bytes it needs.
        wanted: usize,
        /// How many there are.
        left: usize,
    },
    /// The value is complete and more bytes follow.
    #[error("expected the end, found {left} more bytes")]
    Trailing {
        /// How many.
        left: usize,
    },
    /// A tag, kind or code that is not in the document, or not allowed at this place.
    #[error("expected a known {what}, found {found}")]
    Unknown {
        /// What it numbers.
        what: &'static str,
        /// The number.
        found: u64,
    },
    /// A truth value that is neither 0 nor 1.
    #[error("expected {what} to be 0 or 1, found {found}")]
    NotBoolean {
        /// The field.
        what: &'static str,
        /// What it is.
        found: u8,
    },
    /// A length or count beyond its limit.
    #[error("expected at most {limit} {what}, found {found}")]
    TooMany {
        /// What is counted.
        what: &'static str,
        /// The most there may be.
        limit: usize,
        /// How many are announced.
        found: usize,
    },
    /// Text that is not UTF-8.
    #[error("expected UTF-8 in {what}")]
    NotText {
        /// The text.
        what: &'static str,
    },
    /// A number that must be something else at this place.
    #[error("expected {what} to be {expected}, found {found}")]
    Mismatch {
        /// The field.
        what: &'static str,
        /// What it must be.
        expected: u64,
        /// What it is.
        found: u64,
    },
}

/// A place in a run of bytes.
pub(super) struct Cursor<'a> {
    bytes: &'a Bytes,
    offset: usize,
}

impl<'a> Cursor<'a> {
    pub(super) const fn new(bytes: &'a Bytes) -> Self {
        Self { bytes, offset: 0 }
    }

    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.offset..).unwrap_or_default()
    }

    /// Bytes from the start.
    pub(super) const fn offset(&self) -> usize {
        self.offset
    }

    /// A fault at the current place.
    pub(super) const fn fault(&self, fault: Fault) -> Malformed {
        Malformed { offset: self.offset, fault }
    }

    /// A tag, kind or code, just read in `width` bytes, that is not known.
    pub(super) fn unknown(&self, what: &'static str, width: usize, found: impl Into<u64>) -> Malformed {
        let fault = Fault::Unknown { what, found: found.into() };
        Malformed { offset: self.offset.saturating_sub(width), fault }
    }

    fn fixed<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Malformed> {
        let rest = self.rest();
        let Some(found) = rest.first_chunk::<N>() else {
            return Err(self.fault(Fault::Truncated { what, wanted: N, left: rest.len() }));
        };
        self.offset += N;
        Ok(*found)
    }

    pub(super) fn u8(&mut self, what: &'static str) -> Result<u8, Malformed> {
        self.fixed::<1>(what).map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self, what: &'static str) -> Result<u16, Malformed> {
        self.fixed(what).map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self, what: &'static str) -> Result<u32, Malformed> {
        self.fixed(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: &'static str) -> Result<u64, Malformed> {
        self.fixed(what).map(u64::from_le_bytes)
    }

    pub(super) fn bool(&mut self, what: &'static str) -> Result<bool, Malformed> {
        match self.u8(what)? {
            0 => Ok(false),
            1 => Ok(true),
            found => Err(Malformed {
                offset: self.offset.saturating_sub(1),
                fault: Fault::NotBoolean { what, found },
            }),
        }
    }

    /// A `u32` that says how many `what` follow, at most `limit`.
    fn announced(&mut self, what: &'static str, limit: usize) -> Result<usize, Malformed> {
        let start = self.offset;
        let announced = self.u32(what)?;
        match usize::try_from(announced) {
            Ok(found) if found <= limit => Ok(found),
            Ok(found) => Err(Malformed { offset: start, fault: Fault::TooMany { what, limit, found } }),
            Err(_) => {
                Err(Malformed { offset: start, fault: Fault::TooMany { what, limit, found: usize::MAX } })
            }
        }
    }

    /// A length and that many bytes, as a slice of the input.
    pub(super) fn bytes(&mut self, what: &'static str, limit: usize) -> Result<Bytes, Malformed> {
        let length = self.announced(what, limit)?;
        let left = self.rest().len();
        if length > left {
            return Err(self.fault(Fault::Truncated { what, wanted: length, left }));
        }
        let taken = self.bytes.slice(self.offset..self.offset + length);
        self.offset += length;
        Ok(taken)
    }

    pub(super) fn text(&mut self, what: &'static str, limit: usize) -> Result<String, Malformed> {
        let start = self.offset;
        let bytes = self.bytes(what, limit)?;
        match core::str::from_utf8(&bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(Malformed { offset: start, fault: Fault::NotText { what } }),
        }
    }

    /// A count and that many items, each at least `item_bytes_min` long, so that a count alone makes no room.
    pub(super) fn list<T>(
        &mut self,
        what: &'static str,
        limit: usize,
        item_bytes_min: usize,
        item: impl Fn(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let count = self.announced(what, limit)?;
        let left = self.rest().len();
        let wanted = count.saturating_mul(item_bytes_min);
        if wanted > left {
            return Err(self.fault(Fault::Truncated { what, wanted, left }));
        }
        (0..count).map(|_| item(self)).collect()
    }

    /// Everything that is left.
    pub(super) fn remainder(&mut self) -> Bytes {
        let taken = self.bytes.slice(self.offset.min(self.bytes.len())..);
        self.offset = self.bytes.len();
        taken
    }

    /// Says that nothing may be left.
    pub(super) fn finish(&self) -> Result<(), Malformed> {
        match self.rest().len() {
            0 => Ok(()),
            left => Err(self.fault(Fault::Trailing { left })),
        }
    }
}

/// Writes a length and the bytes.
pub(super) fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    put_count(out, bytes.len());
    out.put_slice(bytes);
}

/// Writes a count. Our own values are far below 4 GiB: every decoder and the store bound them.
pub(super) fn put_count(out: &mut BytesMut, count: usize) {
    let count = u32::try_from(count).expect("what fits in memory bounds is below 4 Gi");
    out.put_u32_le(count);
}
