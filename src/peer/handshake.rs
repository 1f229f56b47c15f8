//! The first bytes on a connection between members: who speaks, which versions, and how others reach it.
//!
//! ```text
//! magic "MSPH" | crc u32 | length u32 | version min u8 | version max u8 | cluster u64 | from u64 | to u64 |
//! incarnation u64 | name | native | client | peer         (texts: length u16, then UTF-8)
//! ```
//!
//! The one who connects greets first, the other answers with a greeting of its own; then frames flow one way,
//! from the one who connected. The crc covers everything behind it. Always: lengths are bounded before anything is
//! waited for. Left out: whether to believe it. Until TLS comes, an address is all that stands for an identity.

use super::PeerDamage;
use crate::ids::{ClusterId, MemberId};
use crate::limits::GREETING_BYTES_MAX;
use bytes::{Buf, BufMut, Bytes, BytesMut};

const MAGIC: [u8; 4] = *b"MSPH";
const HEAD_BYTES: usize = 12;

/// The versions of the peer protocol that this build speaks: the lowest and the highest.
///
/// Version 2 knows snapshots. A member of version 1 would take a chunk for damage whenever it needs one, so the two
/// refuse each other when they greet, in words, rather than then. Version 3 knows who asks: that is said only where there are
/// users. A member of version 2 refuses a forward that says so, and takes no entry that changes users: so no leader proposes the
/// first of those unless every other voter is known to speak version 3. Version 4 waits for others' leases when it comes to lead,
/// and knows space alarms that are raised by hand: no leader proposes one unless every other voter is known to speak it.
pub const PEER_VERSIONS: (u8, u8) = (2, 4);

/// The version from which on a new leader commits nothing while a leader before it may answer reads alone. No leader does
/// that unless every other voter is known to speak it.
pub const PEER_VERSION_WAITING: u8 = 4;

/// The version from which on a member takes entries that change users and roles, and what there is once there are users.
pub const PEER_VERSION_USERS: u8 = 3;

/// What a member says of itself at the start of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Greeting {
    /// The lowest and the highest version it speaks.
    pub versions: (u8, u8),
    /// Its cluster; 0 before the founding.
    pub cluster: ClusterId,
    /// Who it is.
    pub from: MemberId,
    /// Whom it means to speak to.
    pub to: MemberId,
    /// Which boot of it this is.
    pub incarnation: u64,
    /// Its name.
    pub name: String,
    /// Where native clients reach it.
    pub native: String,
    /// Where etcd clients reach it.
    pub client: String,
    /// Where its peers reach it.
    pub peer: String,
}

impl Greeting {
    /// The greeting's bytes. Texts beyond 255 bytes are cut.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(256);
        out.put_slice(&MAGIC);
        out.put_u64(0);
        out.put_u8(self.versions.0);
        out.put_u8(self.versions.1);
        for number in [self.cluster.0, self.from.0, self.to.0, self.incarnation] {
            out.put_u64_le(number);
        }
        for text in [&self.name, &self.native, &self.client, &self.peer] {
            let cut = text.get(..text.floor_char_boundary(255)).unwrap_or_default();
            out.put_u16_le(u16::try_from(cut.len()).expect("a cut text is short"));
            out.put_slice(cut.as_bytes());
        }
        let length = u32::try_from(out.len()).expect("a greeting is short");
        out[8..12].copy_from_slice(&length.to_le_bytes());
        let crc = crc32c::crc32c(&out[8..]);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        out.freeze()
    }

    /// Takes a whole greeting off the front of `buffer`; `None` while it is not all there.
    ///
    /// # Errors
    /// `PeerDamage`: the bytes are not a greeting.
    pub fn decode(buffer: &mut BytesMut) -> Result<Option<Self>, PeerDamage> {
        let Some(head) = buffer.get(..HEAD_BYTES) else { return Ok(None) };
        let mut cursor = head;
        let magic: [u8; 4] = cursor.get_u32().to_be_bytes();
        if magic != MAGIC {
            return Err(PeerDamage::Magic { found: magic });
        }
        let claimed = cursor.get_u32_le();
        let length = cursor.get_u32_le() as usize;
        if !(HEAD_BYTES + 42..=GREETING_BYTES_MAX).contains(&length) {
            return Err(PeerDamage::Greeting { what: "length" });
        }
        if buffer.len() < length {
            return Ok(None);
        }
        let whole = buffer.split_to(length).freeze();
        if crc32c::crc32c(whole.get(8..).unwrap_or_default()) != claimed {
            return Err(PeerDamage::Greeting { what: "checksum" });
        }
        fields(whole.slice(HEAD_BYTES..)).map(Some).ok_or(PeerDamage::Greeting { what: "fields" })
    }
}

fn fields(mut body: Bytes) -> Option<Greeting> {
    let versions = (body.try_get_u8().ok()?, body.try_get_u8().ok()?);
    let mut number = || body.try_get_u64_le().ok();
    let (cluster, from, to, incarnation) = (number()?, number()?, number()?, number()?);
    let mut text = || {
        let length = usize::from(body.try_get_u16_le().ok()?);
        let bytes = (length <= body.len()).then(|| body.split_to(length))?;
        String::from_utf8(bytes.to_vec()).ok()
    };
    Some(Greeting {
        versions,
        cluster: ClusterId(cluster),
        from: MemberId(from),
        to: MemberId(to),
        incarnation,
        name: text()?,
        native: text()?,
        client: text()?,
        peer: text()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn greeting() -> Greeting {
        Greeting {
            versions: PEER_VERSIONS,
            cluster: ClusterId(77),
            from: MemberId(1),
            to: MemberId(2),
            incarnation: 9,
            name: "n1".to_owned(),
            native: "127.0.0.1:2378".to_owned(),
            client: String::new(),
            peer: "127.0.0.1:2380".to_owned(),
        }
    }

    #[test]
    fn a_greeting_comes_back_whole_however_it_is_cut() {
        let bytes = greeting().encode();
        for cut in 0..bytes.len() {
            let mut buffer = BytesMut::from(&bytes[..cut]);
            assert_eq!(Greeting::decode(&mut buffer), Ok(None), "{cut} bytes");
            buffer.extend_from_slice(&bytes[cut..]);
            assert_eq!(Greeting::decode(&mut buffer), Ok(Some(greeting())));
            assert!(buffer.is_empty());
        }
    }

    #[test]
    fn a_flipped_bit_is_never_taken_for_a_greeting() {
        let bytes = greeting().encode();
        for bit in 0..bytes.len() * 8 {
            let mut buffer = BytesMut::from(&bytes[..]);
            buffer[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches!(Greeting::decode(&mut buffer), Ok(Some(_))), "bit {bit}");
        }
    }
}
