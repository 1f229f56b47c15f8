//! As much of HPACK (RFC 7541) as a gRPC client needs who asked for no dynamic table: headers out, a status in.
//!
//! Headers go out as literals without indexing, the same bytes every time. What comes in is walked through, and only
//! `grpc-status` is understood, plain or in Huffman's code. What always holds: no input panics, and a reference to a
//! dynamic table, which a server may not make after `HEADER_TABLE_SIZE` 0, is an error and not a guess.

/// The last index of the static table.
const STATIC_INDEX_MAX: u64 = 61;

/// `:authority`, `:path` and `content-type` in the static table.
const AUTHORITY: u8 = 1;
const PATH: u8 = 4;
const CONTENT_TYPE: u8 = 31;

/// `:method: POST` and `:scheme: http`, whole.
const POST: u8 = 0x80 | 3;
const HTTP: u8 = 0x80 | 6;

const GRPC_STATUS: &[u8] = b"grpc-status";

/// The same in Huffman's code.
const GRPC_STATUS_HUFFMAN: &[u8] = &[0x9a, 0xca, 0xc8, 0xb2, 0x12, 0x34, 0xda, 0x8f];

/// Why a block of headers is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeaderDamage {
    #[error("a block of headers ends in the middle of one")]
    Cut,
    #[error("a number in a block of headers is too large")]
    TooLarge,
    #[error("a header refers to entry {0} of a table of which we asked for none")]
    DynamicIndex(u64),
    #[error("grpc-status is not a number")]
    Status,
}

/// The headers of every request for `path` to `authority`.
pub(crate) fn request_headers(authority: &str, path: &str) -> Vec<u8> {
    let mut block = vec![POST, HTTP];
    for (name, value) in [(PATH, path), (AUTHORITY, authority), (CONTENT_TYPE, "application/grpc")] {
        put_integer(&mut block, 0, 4, u64::from(name));
        put_string(&mut block, value);
    }
    block.push(0);
    put_string(&mut block, "te");
    put_string(&mut block, "trailers");
    block
}

/// The value of `grpc-status` in a block of headers, if it is there.
pub(crate) fn grpc_status(block: &[u8]) -> Result<Option<u8>, HeaderDamage> {
    let mut walk = Walk { rest: block };
    let mut status = None;
    while let Some(&first) = walk.rest.first() {
        let prefix_bits = match first {
            0x80.. => 7,
            0x40.. => 6,
            0x20.. => 5,
            0x00.. => 4,
        };
        let number = walk.integer(prefix_bits)?;
        if (0x20..0x40).contains(&first) {
            // A new size of the table: it can only be zero, and we keep none anyway.
            continue;
        }
        if number > STATIC_INDEX_MAX {
            return Err(HeaderDamage::DynamicIndex(number));
        }
        if first >= 0x80 {
            continue;
        }
        let is_status = number == 0 && walk.string()?.is(GRPC_STATUS, GRPC_STATUS_HUFFMAN);
        let value = walk.string()?;
        if is_status {
            status = Some(value.number().ok_or(HeaderDamage::Status)?);
        }
    }
    Ok(status)
}

struct Walk<'a> {
    rest: &'a [u8],
}

struct Text<'a> {
    is_huffman: bool,
    bytes: &'a [u8],
}

impl<'a> Walk<'a> {
    /// An integer whose first bits share a byte with something else (RFC 7541 §5.1).
    fn integer(&mut self, prefix_bits: u32) -> Result<u64, HeaderDamage> {
        let mask = (1_u64 << prefix_bits) - 1;
        let mut number = u64::from(self.byte()?) & mask;
        if number < mask {
            return Ok(number);
        }
        for shift in (0..28).step_by(7) {
            let byte = self.byte()?;
            number += u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(HeaderDamage::TooLarge)
    }

    fn string(&mut self) -> Result<Text<'a>, HeaderDamage> {
        let is_huffman = self.rest.first().is_some_and(|first| *first >= 0x80);
        let length = usize::try_from(self.integer(7)?).map_err(|_| HeaderDamage::TooLarge)?;
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(HeaderDamage::Cut)?;
        self.rest = rest;
        Ok(Text { is_huffman, bytes })
    }

    fn byte(&mut self) -> Result<u8, HeaderDamage> {
        let (&first, rest) = self.rest.split_first().ok_or(HeaderDamage::Cut)?;
        self.rest = rest;
        Ok(first)
    }
}

impl Text<'_> {
    fn is(&self, plain: &[u8], huffman: &[u8]) -> bool {
        self.bytes == if self.is_huffman { huffman } else { plain }
    }

    /// The number of one or two digits that this says.
    fn number(&self) -> Option<u8> {
        if self.is_huffman {
            return huffman_number(self.bytes);
        }
        std::str::from_utf8(self.bytes).ok()?.parse().ok()
    }
}

/// Digits in Huffman's code: 0, 1 and 2 are five bits, `00000` and up, the others six, `011001` and up; ones fill up.
fn huffman_number(bytes: &[u8]) -> Option<u8> {
    let bits: u32 = bytes.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte));
    let mut left = u32::try_from(bytes.len()).ok().filter(|length| (1..=2).contains(length))? * 8;
    let mut number = 0_u8;
    while left >= 5 {
        let five = bits >> (left - 5) & 0x1f;
        let (digit, length) = match five {
            0..=2 => (five, 5),
            12..=15 if left >= 6 => ((bits >> (left - 6) & 0x3f).checked_sub(22)?, 6),
            _ => break,
        };
        number = number.checked_mul(10)?.checked_add(u8::try_from(digit).ok()?)?;
        left -= length;
    }
    let is_filled_up = left < 8 && bits & ((1 << left) - 1) == (1 << left) - 1;
    is_filled_up.then_some(number)
}

fn put_integer(out: &mut Vec<u8>, first: u8, prefix_bits: u32, number: u64) {
    let mask = (1_u64 << prefix_bits) - 1;
    if number < mask {
        out.push(first | low_byte(number));
        return;
    }
    out.push(first | low_byte(mask));
    let mut rest = number - mask;
    while rest >= 0x80 {
        out.push(low_byte(rest & 0x7f) | 0x80);
        rest >>= 7;
    }
    out.push(low_byte(rest));
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    put_integer(out, 0, 7, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

const fn low_byte(number: u64) -> u8 {
    number.to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::{HeaderDamage, grpc_status, huffman_number, request_headers};

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        let pairs = digits.chunks(2).map(|pair| std::str::from_utf8(pair).expect("ASCII"));
        pairs.map(|pair| u8::from_str_radix(pair, 16).expect("hexadecimal")).collect()
    }

    #[test]
    fn a_status_is_found_plain_and_in_code() {
        // grpc-status: 0 and an empty grpc-message, as grpc-go sends them after HEADER_TABLE_SIZE 0.
        assert_eq!(
            grpc_status(&hex("20 00 88 9acac8b21234da8f 01 30 00 89 9acac8b5254207317f 00")),
            Ok(Some(0))
        );
        assert_eq!(grpc_status(b"\x00\x0bgrpc-status\x0213"), Ok(Some(13)));
        // :status 200 and a content-type: no status yet.
        assert_eq!(grpc_status(&hex("88 5f 03 616263")), Ok(None));
        // `14` in Huffman's code: 00001 011010 and five ones.
        assert_eq!(grpc_status(&hex("00 88 9acac8b21234da8f 82 0b5f")), Ok(Some(14)));
    }

    #[test]
    fn every_code_of_grpc_is_read_in_huffmans_code() {
        let codes = ["07", "0f", "17", "67", "6b", "6f", "73", "77", "7b", "7f"];
        for (number, code) in codes.iter().enumerate() {
            assert_eq!(huffman_number(&hex(code)).map(usize::from), Some(number), "{code}");
        }
        assert_eq!(huffman_number(&hex("083f")), Some(10));
        assert_eq!(huffman_number(&hex("0b9f")), Some(16));
        assert_eq!(huffman_number(&hex("ff")), None, "nothing but filling");
        assert_eq!(huffman_number(&hex("00")), None, "filled up with zeros");
        assert_eq!(huffman_number(&[]), None);
    }

    #[test]
    fn a_block_cut_anywhere_or_of_other_tables_is_an_error_and_no_panic() {
        let whole = b"\x00\x0bgrpc-status\x0213";
        for length in 1..whole.len() {
            assert_eq!(grpc_status(&whole[..length]), Err(HeaderDamage::Cut), "{length} bytes");
        }
        assert_eq!(grpc_status(&[0xbe]), Err(HeaderDamage::DynamicIndex(62)));
        assert_eq!(grpc_status(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), Err(HeaderDamage::TooLarge));
        assert_eq!(grpc_status(b"\x00\x0bgrpc-status\x01x"), Err(HeaderDamage::Status));
        for first in 0..=255_u8 {
            for second in 0..=255_u8 {
                // Whatever comes of it, it comes without a panic.
                let _ = grpc_status(&[first, second, 0x7f, 0x81, second, first]);
            }
        }
    }

    #[test]
    fn requests_carry_what_a_server_of_grpc_wants() {
        let block = request_headers("127.0.0.1:2379", "/etcdserverpb.KV/Put");
        assert!(block.starts_with(&[0x83, 0x86, 0x04, 20]));
        let text = String::from_utf8_lossy(&block);
        for part in ["/etcdserverpb.KV/Put", "127.0.0.1:2379", "application/grpc", "te", "trailers"] {
            assert!(text.contains(part), "{part}");
        }
        assert_eq!(grpc_status(&block), Ok(None), "and can be walked through");
    }
}
