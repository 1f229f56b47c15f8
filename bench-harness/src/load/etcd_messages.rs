//! The three requests of etcd's API that a load makes, as gRPC messages, field by field.
//!
//! What always holds: they are what a generated encoder would write (field numbers from etcd's `rpc.proto`), checked
//! byte by byte in the tests. What it leaves out: answers.

/// The transaction's compare holds for every key: none is ever at this revision.
const NEVER: u64 = 1 << 62;

/// Bytes before a message: whether it is compressed (never), and its length.
const PREFIX_BYTES: usize = 5;

/// Bytes of any of these messages beyond the value, at most.
const BYTES_BEYOND_VALUE_MAX: usize = 128;

/// The longest message with a value of so many bytes, its prefix included.
pub(crate) const fn bytes_max(value_bytes: usize) -> usize {
    BYTES_BEYOND_VALUE_MAX + value_bytes
}

/// `PutRequest`.
pub(crate) fn put(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let begun = begin(out);
    put_fields(out, key, value);
    finish(out, begun);
}

/// `RangeRequest` for one key.
pub(crate) fn range(out: &mut Vec<u8>, key: &[u8], is_serializable: bool) {
    let begun = begin(out);
    bytes_field(out, 1, key);
    if is_serializable {
        number_field(out, 7, 1);
    }
    finish(out, begun);
}

/// `TxnRequest`: if the key's mod revision is not one that never is, put, else get.
pub(crate) fn compare_and_put(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let begun = begin(out);
    // Compare { result = NOT_EQUAL, target = MOD, key, mod_revision }
    let mut compare = Vec::with_capacity(64);
    number_field(&mut compare, 1, 3);
    number_field(&mut compare, 2, 2);
    bytes_field(&mut compare, 3, key);
    number_field(&mut compare, 6, NEVER);
    bytes_field(out, 1, &compare);
    // RequestOp { request_put }
    let mut request = Vec::with_capacity(key.len() + value.len() + 16);
    put_fields(&mut request, key, value);
    operation_field(out, 2, 2, &request);
    // RequestOp { request_range }
    let mut request = Vec::with_capacity(key.len() + 2);
    bytes_field(&mut request, 1, key);
    operation_field(out, 3, 1, &request);
    finish(out, begun);
}

fn put_fields(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    bytes_field(out, 1, key);
    if !value.is_empty() {
        bytes_field(out, 2, value);
    }
}

/// A `RequestOp` whose member number `which` is `request`.
fn operation_field(out: &mut Vec<u8>, field: u8, which: u8, request: &[u8]) {
    let mut operation = Vec::with_capacity(request.len() + 8);
    bytes_field(&mut operation, which, request);
    bytes_field(out, field, &operation);
}

/// Leaves room for the prefix; returns where it is.
fn begin(out: &mut Vec<u8>) -> usize {
    out.extend_from_slice(&[0; PREFIX_BYTES]);
    out.len()
}

fn finish(out: &mut [u8], begun: usize) {
    let length = u32::try_from(out.len() - begun).expect("values are at most a mebibyte");
    out[begun - 4..begun].copy_from_slice(&length.to_be_bytes());
}

fn number_field(out: &mut Vec<u8>, field: u8, number: u64) {
    out.push(field << 3);
    varint(out, number);
}

fn bytes_field(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

#[cfg(test)]
mod tests {
    use super::{bytes_max, compare_and_put, put, range};

    #[test]
    fn requests_are_what_a_generated_encoder_writes() {
        let mut out = Vec::new();
        put(&mut out, b"key", &[b'v'; 200]);
        assert!(out.starts_with(b"\0\0\0\0\xd0\x0a\x03key\x12\xc8\x01vvv"));
        assert_eq!(out.len(), 5 + 5 + 3 + 200);
        out.clear();
        range(&mut out, b"key", false);
        assert_eq!(out, b"\0\0\0\0\x05\x0a\x03key");
        out.clear();
        range(&mut out, b"key", true);
        assert_eq!(out, b"\0\0\0\0\x07\x0a\x03key\x38\x01");
        out.clear();
        compare_and_put(&mut out, b"k", b"v");
        let compare = b"\x0a\x11\x08\x03\x10\x02\x1a\x01k\x30\x80\x80\x80\x80\x80\x80\x80\x80\x40";
        let branches = b"\x12\x08\x12\x06\x0a\x01k\x12\x01v\x1a\x05\x0a\x03\x0a\x01k";
        assert_eq!(&out[5..], [compare.as_slice(), branches].concat());
        assert_eq!(usize::from(out[4]), out.len() - 5);
    }

    #[test]
    fn no_request_is_longer_than_it_may_be() {
        for value_bytes in [0, 256, 1_048_576] {
            let mut out = Vec::new();
            compare_and_put(&mut out, &[b'k'; 9], &vec![0; value_bytes]);
            assert!(out.len() <= bytes_max(value_bytes));
        }
    }
}
