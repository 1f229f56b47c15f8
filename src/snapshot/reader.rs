//! Reads a snapshot, in pieces of any size, and believes nothing that does not fit.

use super::part::{BLOCK_BYTES, CLOSING_BYTES, Closing, Fields, HEADER_BYTES, Kind, Opening, PartsHash};
use crate::limits::SNAPSHOT_PART_BYTES_MAX;
use crate::raft::Position;

/// What a file is that was read whole and found sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The last entry that is in it.
    pub position: Position,
    /// Bytes of the whole file.
    pub bytes_count: u64,
    /// The hash that its closing holds: of equal hash, equal bytes.
    pub hash: u64,
}

/// Bytes that are no snapshot: what is wrong, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at byte {offset}: {fault}")]
pub struct Damage {
    /// Where the part begins that is damaged.
    pub offset: u64,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A length beyond the limit.
    #[error("a part of an impossible length")]
    ImpossibleLength,
    /// The bytes changed.
    #[error("a part whose checksum does not match")]
    WrongChecksum,
    /// A version or a kind of part that this build does not know, and a checksum that is right.
    #[error("a newer build wrote this")]
    Newer,
    /// A part of another snapshot.
    #[error("a part of another snapshot")]
    Foreign,
    /// A part in another's place.
    #[error("a part in the wrong place")]
    OutOfOrder,
    /// An opening that is none, or of another version.
    #[error("an opening that cannot be read")]
    BadOpening,
    /// The whole is not what its parts say.
    #[error("a closing that does not fit to what is before it")]
    BadClosing,
    /// Something follows the closing.
    #[error("something other than zeros to the end of the block after the closing")]
    Trailing,
    /// The file ends early.
    #[error("the end is missing")]
    CutShort,
}

/// One part, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// Which snapshot this is.
    Opening(Box<Opening>),
    /// Sessions.
    Sessions(&'a [u8]),
    /// Some of users and roles.
    Users(&'a [u8]),
    /// Some of the store.
    Store(&'a [u8]),
}

/// The first part of some bytes, and the rest of them.
type Split<'a> = (&'a [u8], &'a [u8]);

/// A snapshot being read.
#[derive(Debug)]
pub struct Reader {
    /// What was fed and is not read yet.
    waiting: Vec<u8>,
    /// Where in the file that begins.
    offset: u64,
    tag: u64,
    hash: PartsHash,
    parts_count: u32,
    last: Option<Kind>,
    position: Position,
}

impl Default for Reader {
    fn default() -> Self {
        Self::new()
    }
}

impl Reader {
    /// Nothing is read yet.
    pub const fn new() -> Self {
        Self {
            waiting: Vec::new(),
            offset: 0,
            tag: 0,
            hash: PartsHash(0),
            parts_count: 0,
            last: None,
            position: Position::START,
        }
    }

    /// Takes the next bytes of the file, and calls `take` with each part that is whole now.
    ///
    /// # Errors
    /// This is no snapshot, or a damaged one, or `take` says so.
    pub fn feed<E: From<Damage>>(
        &mut self,
        bytes: &[u8],
        mut take: impl FnMut(Part<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut rest = bytes;
        while self.last != Some(Kind::Closing) && !rest.is_empty() {
            // A part that began earlier is put together first; what is whole is read where it lies.
            if !self.waiting.is_empty() {
                let missing = self.missing()?;
                let (more, after) = rest.split_at(missing.min(rest.len()));
                self.waiting.reserve(missing);
                self.waiting.extend_from_slice(more);
                rest = after;
                if self.missing()? > 0 {
                    continue;
                }
                let mut part = core::mem::take(&mut self.waiting);
                let taken = self.take_part(&part, &mut take);
                // Its memory is for the next.
                part.clear();
                self.waiting = part;
                taken?;
                continue;
            }
            let Some((part, after)) = self.split(rest)? else {
                self.waiting.extend_from_slice(rest);
                return Ok(());
            };
            self.take_part(part, &mut take)?;
            rest = after;
        }
        if self.last == Some(Kind::Closing) {
            self.waiting.extend_from_slice(rest);
            let is_trailed = self.waiting.len() >= BLOCK_BYTES || self.waiting.iter().any(|byte| *byte != 0);
            if is_trailed {
                return Err(self.damage(Fault::Trailing).into());
            }
        }
        Ok(())
    }

    /// Reads a whole part.
    fn take_part<E: From<Damage>>(
        &mut self,
        part: &[u8],
        take: &mut impl FnMut(Part<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let read = self.part(part)?;
        self.offset += part.len() as u64;
        read.map_or(Ok(()), take)
    }

    /// How many bytes the part that is waiting lacks; of its header, as long as that is not there.
    fn missing(&self) -> Result<usize, Damage> {
        let waiting = self.waiting.len();
        let length = match self.waiting.get(..HEADER_BYTES) {
            Some(header) => HEADER_BYTES + self.length(header)?.unwrap_or(0),
            None => HEADER_BYTES,
        };
        Ok(length.saturating_sub(waiting))
    }

    /// What the file is, if it ends here and is whole.
    ///
    /// # Errors
    /// It is not.
    pub fn finish(self) -> Result<Verified, Damage> {
        if self.last != Some(Kind::Closing) {
            return Err(self.damage(Fault::CutShort));
        }
        let bytes_count = self.offset + self.waiting.len() as u64;
        if bytes_count != self.offset.next_multiple_of(BLOCK_BYTES as u64) {
            return Err(self.damage(Fault::CutShort));
        }
        Ok(Verified { position: self.position, bytes_count, hash: self.hash.0 })
    }

    fn damage(&self, fault: Fault) -> Damage {
        Damage { offset: self.offset, fault }
    }

    /// The first part of `bytes`, if it is whole, and what follows it.
    fn split<'a>(&self, bytes: &'a [u8]) -> Result<Option<Split<'a>>, Damage> {
        let length = self.length(bytes)?;
        Ok(length.and_then(|length| bytes.split_at_checked(HEADER_BYTES + length)))
    }

    /// How long the payload of a part is whose first bytes these are, if they say it.
    fn length(&self, bytes: &[u8]) -> Result<Option<usize>, Damage> {
        let mut fields = Fields(bytes);
        let (Some(_), Some(length)) = (fields.take::<4>(), fields.take().map(u32::from_le_bytes)) else {
            return Ok(None);
        };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > SNAPSHOT_PART_BYTES_MAX {
            return Err(self.damage(Fault::ImpossibleLength));
        }
        Ok(Some(length))
    }

    /// Checks a part; of the closing nothing is left to take.
    fn part<'a>(&mut self, part: &'a [u8]) -> Result<Option<Part<'a>>, Damage> {
        let mut fields = Fields(part);
        let checksum = fields.take().map(u32::from_le_bytes);
        if checksum != Some(crc32c::crc32c(fields.0)) {
            return Err(self.damage(Fault::WrongChecksum));
        }
        let header = (|| {
            let (_, tag) = (fields.take::<4>()?, fields.u64()?);
            let (number, [kind]) = (fields.take().map(u32::from_le_bytes)?, fields.take()?);
            let kind = Kind::from_number(kind).filter(|_| fields.take() == Some([0; 11]))?;
            Some((tag, number, kind))
        })();
        let (tag, number, kind) = header.ok_or(self.damage(Fault::Newer))?;
        let payload = fields.0;
        let follows = match self.last {
            None => kind == Kind::Opening,
            Some(last) => kind >= last && kind != Kind::Opening,
        };
        if number != self.parts_count || !follows {
            return Err(self.damage(Fault::OutOfOrder));
        }
        if kind == Kind::Opening {
            self.tag = PartsHash::tag(payload);
            self.hash = PartsHash(self.tag);
        }
        if tag != self.tag {
            return Err(self.damage(Fault::Foreign));
        }
        let read = match kind {
            Kind::Opening => {
                if Opening::is_newer(payload) {
                    return Err(self.damage(Fault::Newer));
                }
                let opening = Opening::decode(payload).ok_or(self.damage(Fault::BadOpening))?;
                self.position = opening.position;
                Some(Part::Opening(Box::new(opening)))
            }
            Kind::Sessions => Some(Part::Sessions(payload)),
            Kind::Users => Some(Part::Users(payload)),
            Kind::Store => Some(Part::Store(payload)),
            Kind::Closing => {
                let closing =
                    Closing { parts_count: self.parts_count, bytes_count: self.offset, hash: self.hash.0 };
                if payload.len() != CLOSING_BYTES || payload != closing.encode() {
                    return Err(self.damage(Fault::BadClosing));
                }
                None
            }
        };
        if kind != Kind::Closing {
            self.hash.absorb(part);
        }
        self.parts_count += 1;
        self.last = Some(kind);
        Ok(read)
    }
}
