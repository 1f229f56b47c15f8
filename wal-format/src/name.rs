//! The name of a segment's file, which repeats what its opening says, so that a rotted opening does not make
//! the segment unreadable.

use alloc::format;
use alloc::string::String;

/// What a segment's file name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentName {
    /// The shard whose log this is part of.
    pub shard: u16,
    /// The segment's number in that log; numbers only grow.
    pub number: u64,
    /// The random number that every frame of this life of the file is salted with.
    pub salt: u64,
}

/// The file name of a segment: `wal-<shard>-<number>-<salt>.log`, the shard in 4, the others in 16
/// hexadecimal digits, so that names sort as the log runs.
pub fn segment_file_name(name: &SegmentName) -> String {
    format!("wal-{:04x}-{:016x}-{:016x}.log", name.shard, name.number, name.salt)
}

/// Reads a file name; `None` if it is not exactly one that [`segment_file_name`] gives.
pub fn parse_segment_file_name(file_name: &str) -> Option<SegmentName> {
    let mut parts = file_name.strip_prefix("wal-")?.strip_suffix(".log")?.split('-');
    let name = SegmentName {
        shard: u16::try_from(hexadecimal(parts.next()?, 4)?).ok()?,
        number: hexadecimal(parts.next()?, 16)?,
        salt: hexadecimal(parts.next()?, 16)?,
    };
    if parts.next().is_some() { None } else { Some(name) }
}

fn hexadecimal(text: &str, digits: usize) -> Option<u64> {
    let is_lower = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if text.len() != digits || !is_lower {
        return None;
    }
    u64::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: SegmentName = SegmentName { shard: 1, number: 0x2a, salt: 0x0123_4567_89ab_cdef };

    #[test]
    fn a_name_reads_back_as_itself() {
        let text = segment_file_name(&NAME);
        assert_eq!(text, "wal-0001-000000000000002a-0123456789abcdef.log");
        assert_eq!(parse_segment_file_name(&text), Some(NAME));
    }

    #[test]
    fn no_other_spelling_is_a_name() {
        let text = segment_file_name(&NAME);
        for wrong in [
            text.to_uppercase(),
            text.replace("wal", "log"),
            text.replace("0001", "001"),
            text.replace("0001", "+001"),
            text.replace(".log", "-00.log"),
            String::from("wal-.log"),
            String::new(),
        ] {
            assert_eq!(parse_segment_file_name(&wrong), None, "{wrong}");
        }
    }
}
