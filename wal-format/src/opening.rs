//! What an opening frame says beyond group tails: whose log this is, and each hosted group with its
//! configuration.

use crate::damage::{Damage, DamageKind};
use crate::reader::{Reader, length_u32};
use crate::section::{GroupTail, Position};
use alloc::string::String;
use alloc::vec::Vec;

/// Bytes of the longest name or address in a configuration.
///
/// Chosen: a host name has at most 253 bytes (RFC 1035), and a port follows it.
pub const NAME_BYTES_MAX: usize = 1_024;

/// Bytes of a member with no name and no address.
const MEMBER_BYTES_MIN: usize = 28;

/// Whose log this is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The random number that tells one life of the data directory from another.
    pub directory: u64,
    /// The cluster; 0 before bootstrap.
    pub cluster: u64,
    /// The member.
    pub member: u64,
    /// The shard whose log this is.
    pub shard: u16,
}

/// What a member of a configuration is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MemberKind {
    /// Votes; in the old and in the new configuration while joint.
    Voter,
    /// Votes only in the old configuration of a joint one.
    Outgoing,
    /// Votes only in the new configuration of a joint one.
    Incoming,
    /// Receives the log and is never counted.
    Learner,
}

impl MemberKind {
    const fn number(self) -> u8 {
        match self {
            Self::Voter => 1,
            Self::Outgoing => 2,
            Self::Learner => 3,
            Self::Incoming => 4,
        }
    }

    const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Voter),
            2 => Some(Self::Outgoing),
            3 => Some(Self::Learner),
            4 => Some(Self::Incoming),
            _ => None,
        }
    }
}

/// One member of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: u64,
    /// The directory that counts as this member; votes from another do not. 0 if not yet known.
    pub directory: u64,
    /// What it is there for.
    pub kind: MemberKind,
    /// Its name, for people.
    pub name: String,
    /// Where its peers reach it.
    pub address: String,
}

/// A group's configuration, as of the entry that brought it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// The index of that entry; 0 for the one the cluster started with.
    pub index: u64,
    /// Its members.
    pub members: Vec<Member>,
}

/// What an opening says of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupOpening {
    /// Hard state and the end of the log, before any batch of the same frame.
    pub tail: GroupTail,
    /// The newest verified snapshot's position; index 0 for none.
    pub snapshot: Position,
    /// The group was found so damaged that its votes and acknowledgements mean nothing until it is added
    /// again.
    pub counts_for_nothing: bool,
    /// A hint for tools and for a group whose log is still empty. Recovery derives the true one from snapshot
    /// and log.
    pub configuration: Configuration,
}

impl Identity {
    pub(crate) fn encode(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.directory.to_le_bytes());
        to.extend_from_slice(&self.cluster.to_le_bytes());
        to.extend_from_slice(&self.member.to_le_bytes());
        to.extend_from_slice(&self.shard.to_le_bytes());
        to.extend_from_slice(&[0; 6]);
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, Damage> {
        let identity = Self {
            directory: reader.u64()?,
            cluster: reader.u64()?,
            member: reader.u64()?,
            shard: reader.u16()?,
        };
        reader.zeros(6)?;
        Ok(identity)
    }
}

impl Configuration {
    /// Appends the encoded configuration to `to`; also the body of a configuration entry.
    pub fn encode(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.index.to_le_bytes());
        to.extend_from_slice(&length_u32(self.members.len()).to_le_bytes());
        for member in &self.members {
            to.extend_from_slice(&member.id.to_le_bytes());
            to.extend_from_slice(&member.directory.to_le_bytes());
            to.extend_from_slice(&[member.kind.number(), 0, 0, 0]);
            encode_text(&member.name, to);
            encode_text(&member.address, to);
        }
    }

    /// Decodes a configuration that fills `bytes`.
    ///
    /// # Errors
    ///
    /// Names what is wrong, and where from the start of `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        let mut reader = Reader::new(bytes, 0);
        let configuration = Self::read(&mut reader)?;
        reader.end()?;
        Ok(configuration)
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Damage> {
        let index = reader.u64()?;
        let impossible = reader.damage(DamageKind::ImpossibleLength);
        let count = reader.length()?;
        if count > reader.rest().len() / MEMBER_BYTES_MIN {
            return Err(impossible);
        }
        let mut members = Vec::with_capacity(count);
        for _ in 0..count {
            members.push(Member::read(reader)?);
        }
        Ok(Self { index, members })
    }

    pub(crate) fn bytes_count(&self) -> usize {
        let members = self.members.iter();
        12 + members.map(|member| MEMBER_BYTES_MIN + member.name.len() + member.address.len()).sum::<usize>()
    }
}

impl Member {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Damage> {
        let id = reader.u64()?;
        let directory = reader.u64()?;
        let at_kind = *reader;
        let number = reader.u8()?;
        let kind = MemberKind::from_number(number).ok_or(at_kind.damage(DamageKind::UnknownKind(number)))?;
        reader.zeros(3)?;
        Ok(Self { id, directory, kind, name: read_text(reader)?, address: read_text(reader)? })
    }
}

/// A byte that is 0 or 1.
pub(crate) fn read_flag(reader: &mut Reader<'_>) -> Result<bool, Damage> {
    let at_flag = *reader;
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(at_flag.damage(DamageKind::UnknownKind(other))),
    }
}

fn encode_text(text: &str, to: &mut Vec<u8>) {
    assert!(text.len() <= NAME_BYTES_MAX, "names and addresses were checked when they came in");
    to.extend_from_slice(&length_u32(text.len()).to_le_bytes());
    to.extend_from_slice(text.as_bytes());
}

fn read_text(reader: &mut Reader<'_>) -> Result<String, Damage> {
    let impossible = reader.damage(DamageKind::ImpossibleLength);
    let count = reader.length()?;
    if count > NAME_BYTES_MAX {
        return Err(impossible);
    }
    let not_text = reader.damage(DamageKind::NotText);
    let text = core::str::from_utf8(reader.take(count)?).map_err(|_| not_text)?;
    Ok(String::from(text))
}
