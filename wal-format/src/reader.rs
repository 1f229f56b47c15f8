//! Reads little-endian integers from bytes that cannot be trusted, and knows where it is for reports of
//! damage.

use crate::damage::{Damage, DamageKind};

/// A place in bytes from outside. Every read is checked against what is left.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    /// Reads `bytes`, which start at `offset` of whatever damage is reported against.
    pub(crate) const fn new(bytes: &'a [u8], offset: usize) -> Self {
        Self { rest: bytes, offset }
    }

    pub(crate) const fn offset(&self) -> usize {
        self.offset
    }

    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) const fn damage(&self, kind: DamageKind) -> Damage {
        Damage { offset: self.offset, kind }
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], Damage> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(self.damage(DamageKind::CutShort))?;
        self.rest = rest;
        self.offset += count;
        Ok(taken)
    }

    fn array<const COUNT: usize>(&mut self) -> Result<[u8; COUNT], Damage> {
        let (taken, rest) =
            self.rest.split_first_chunk::<COUNT>().ok_or(self.damage(DamageKind::CutShort))?;
        self.rest = rest;
        self.offset += COUNT;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Damage> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Damage> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Damage> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Damage> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A length or count, as the type that slices use.
    pub(crate) fn length(&mut self) -> Result<usize, Damage> {
        let damage = self.damage(DamageKind::ImpossibleLength);
        usize::try_from(self.u32()?).map_err(|_| damage)
    }

    /// Bytes that are zero in every version so far.
    pub(crate) fn zeros(&mut self, count: usize) -> Result<(), Damage> {
        let damage = self.damage(DamageKind::NotZero);
        let zeros = self.take(count)?;
        // Whole chunks are joined before they are looked at: padding is most of a small frame.
        let (chunks, rest) = zeros.as_chunks::<64>();
        let is_zero = |bytes: &[u8]| bytes.iter().fold(0, |all, byte| all | byte) == 0;
        if chunks.iter().all(|chunk| is_zero(chunk)) && is_zero(rest) { Ok(()) } else { Err(damage) }
    }

    /// Nothing is left.
    pub(crate) const fn end(&self) -> Result<(), Damage> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.damage(DamageKind::ImpossibleLength)) }
    }
}

/// A length that our own encoder writes. Ours to keep in bounds, so it is asserted.
pub(crate) fn length_u32(count: usize) -> u32 {
    u32::try_from(count).expect("what is encoded is far smaller than 4 GiB")
}
