//! What can be wrong with bytes, each with a name, so that a report of damage says what to look at.

use core::fmt;

/// Bytes that are not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Where, in bytes from the start of what was given to the decoder.
    pub offset: usize,
    /// What.
    pub kind: DamageKind,
}

/// The kinds of damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DamageKind {
    /// The bytes end before the thing does.
    CutShort,
    /// The magic number is not there: nothing was written here, or its start is gone.
    NotAFrame,
    /// A length is impossible: smaller than its header, larger than its bound, or beyond what holds it.
    ImpossibleLength,
    /// A frame of another segment, or of an earlier life of this one.
    OtherSalt,
    /// The bytes do not have the checksum they name.
    WrongChecksum,
    /// A version that this build does not know; the checksum is right, so a newer build wrote it.
    UnknownVersion(u16),
    /// A kind of frame, section, run, member or entry that has no meaning (here, or at all).
    UnknownKind(u8),
    /// Bytes that must be zero are not.
    NotZero,
    /// Parts that contradict each other: a run whose entries are not the ones it announces.
    Contradiction,
    /// A name or an address that is not UTF-8.
    NotText,
}

impl Damage {
    /// The same damage, seen from `base` bytes further up.
    #[must_use]
    pub(crate) const fn moved_by(self, base: usize) -> Self {
        Self { offset: self.offset.saturating_add(base), kind: self.kind }
    }
}

impl fmt::Display for DamageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CutShort => write!(f, "cut short"),
            Self::NotAFrame => write!(f, "no frame starts here"),
            Self::ImpossibleLength => write!(f, "an impossible length"),
            Self::OtherSalt => write!(f, "the salt of another segment"),
            Self::WrongChecksum => write!(f, "a wrong checksum"),
            Self::UnknownVersion(version) => write!(f, "version {version}, which this build does not know"),
            Self::UnknownKind(kind) => write!(f, "kind {kind}, which has no meaning"),
            Self::NotZero => write!(f, "bytes that must be zero and are not"),
            Self::Contradiction => write!(f, "parts that contradict each other"),
            Self::NotText => write!(f, "text that is not UTF-8"),
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.kind, self.offset)
    }
}

impl core::error::Error for Damage {}
