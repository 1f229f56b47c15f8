//! What the load asks for, and how one connection speaks, whatever the protocol.
//!
//! A conversation is sans-io: bytes received go in, bytes to send and answers come out. What always holds: an answer
//! names an operation that was sent and not answered before, which the caller holds it to; whatever ends a
//! conversation says why.

use bytes::{Bytes, BytesMut};
use std::borrow::Cow;
use std::rc::Rc;

/// Different values, so that no layer can fold them into one.
const VALUES_COUNT: usize = 64;

/// What one operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// Writes one key.
    Put,
    /// Reads one key, linearizably.
    Get,
    /// Reads one key as the member that is asked has it.
    GetSerializable,
    /// Reads one key, at most so many milliseconds old, or as the leader has it.
    GetMaxAge(u32),
    /// Reads one key at a revision or later, or as the leader has it.
    GetMinRevision,
    /// A transaction of one compare, which holds, and one put (else one get).
    TxnCas,
}

/// One operation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operation {
    /// Its number on its connection, from 1.
    pub(crate) number: u64,
    /// What it does.
    pub(crate) act: Act,
    /// The number of its key.
    pub(crate) key: u64,
    /// Every operation of the connection up to and including this one has been answered.
    pub(crate) answered_up_to: u64,
}

/// The end of one operation.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Which.
    pub(crate) number: u64,
    /// Whether it was served, or the stable word for why not.
    pub(crate) result: Result<(), Cow<'static, str>>,
}

/// Why a connection is of no more use.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Broken(pub(crate) String);

/// One side of one connection.
pub(crate) trait Conversation {
    /// What is said first.
    fn begin(&mut self, out: &mut Vec<u8>);

    /// Whether operations may be sent.
    fn is_ready(&self) -> bool;

    /// Whether the operation of this number may be sent now, everything up to `answered_up_to` having been answered; if
    /// not, something that is received later makes room for it.
    fn has_room(&self, number: u64, answered_up_to: u64) -> bool;

    /// Makes the operation's request ready to be sent.
    fn send(&mut self, operation: &Operation, out: &mut Vec<u8>);

    /// Takes what has come off `received`, as far as it is complete.
    fn receive(
        &mut self,
        received: &mut BytesMut,
        out: &mut Vec<u8>,
        answers: &mut Vec<Answer>,
    ) -> Result<(), Broken>;
}

/// The keys and values of a load, made beforehand.
#[derive(Debug)]
pub(crate) struct Material {
    values: Vec<Bytes>,
}

impl Material {
    /// Values of `value_bytes` bytes that do not compress.
    pub(crate) fn new(value_bytes: usize) -> Rc<Self> {
        let mut random = Random::new(0x6d61_696e_7374_6179);
        let value = |_| (0..value_bytes).map(|_| random.next().to_le_bytes()[0]).collect();
        Rc::new(Self { values: (0..VALUES_COUNT).map(value).collect() })
    }

    /// Bytes of a value.
    pub(crate) fn value_bytes(&self) -> usize {
        self.values[0].len()
    }

    /// The value that an operation writes.
    pub(crate) fn value(&self, operation: &Operation) -> &Bytes {
        let at = operation.number.wrapping_add(operation.key) % VALUES_COUNT as u64;
        &self.values[usize::try_from(at).unwrap_or(0)]
    }
}

/// Bytes of a key.
pub(crate) const KEY_BYTES: usize = 9;

/// The key with this number: `k00000042`.
pub(crate) fn key(number: u64) -> [u8; KEY_BYTES] {
    let mut key = *b"k00000000";
    let mut rest = number;
    for place in key.iter_mut().skip(1).rev() {
        *place = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
    }
    key
}

/// Numbers that look like chance and are the same in every run (splitmix64).
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

#[cfg(test)]
mod tests {
    use super::{Material, Random, key};

    #[test]
    fn keys_are_nine_bytes_of_letter_and_digits() {
        assert_eq!(&key(42), b"k00000042");
        assert_eq!(&key(99_999_999), b"k99999999");
    }

    #[test]
    fn values_have_their_length_and_differ() {
        let material = Material::new(256);
        assert!(material.values.iter().all(|value| value.len() == 256));
        assert_ne!(material.values[0], material.values[1]);
        let mut random = Random::new(1);
        assert!((0..1_000).all(|_| random.below(10) < 10));
    }
}
