//! The file is walked by a small reader, which believes nothing.

use super::*;
use crate::api::etcd::proto::mvccpb;
use bytes::Bytes;
use std::collections::BTreeSet;

struct File<'file> {
    bytes: &'file [u8],
    /// Pages that something leads to; each may be met once.
    met: BTreeSet<u64>,
    tree_depth: usize,
}

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

fn u16_at(bytes: &[u8], at: usize) -> usize {
    u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap()).into()
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    usize::try_from(u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())).unwrap()
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

impl<'file> File<'file> {
    /// Looks at the front, and reads the buckets of the root.
    fn open(bytes: &'file [u8]) -> (Self, Pairs) {
        let mut file = Self { bytes, met: BTreeSet::new(), tree_depth: 0 };
        for (page, transaction) in [(0, 2), (1, 1)] {
            let meta = &bytes[4_096 * page..];
            assert_eq!((u64_at(meta, 0), u16_at(meta, 8)), (page as u64, 4));
            assert_eq!((u32_at(meta, 16), u32_at(meta, 20)), (0xED0C_DAED, 2));
            assert_eq!((u32_at(meta, 24), u32_at(meta, 28)), (4_096, 0));
            assert_eq!((u64_at(meta, 32), u64_at(meta, 40)), (3, 0), "the root");
            assert_eq!(u64_at(meta, 48), 2, "the list of free pages");
            assert_eq!(u64_at(meta, 56) * 4_096, bytes.len() as u64);
            assert_eq!(u64_at(meta, 64), transaction);
            // FNV-1a once more, as it is described.
            let mut hash = 14_695_981_039_346_656_037_u64;
            for byte in &meta[16..72] {
                hash ^= u64::from(*byte);
                hash = hash.wrapping_mul(1_099_511_628_211);
            }
            assert_eq!(u64_at(meta, 72), hash);
            file.met.insert(page as u64);
        }
        assert_eq!((u16_at(bytes, 2 * 4_096 + 8), u16_at(bytes, 2 * 4_096 + 10)), (0x10, 0));
        file.met.insert(2);
        let root = file.tree(3, 0, 1);
        (file, root)
    }

    /// All elements below a page, in order.
    fn tree(&mut self, id: u64, depth: usize, kind: usize) -> Pairs {
        let at = usize::try_from(id).unwrap() * 4_096;
        let pages = 1 + u32_at(self.bytes, at + 12);
        for page in id..id + pages as u64 {
            assert!(self.met.insert(page), "page {page} is met twice");
        }
        let page = &self.bytes[at..at + pages * 4_096];
        assert_eq!(u64_at(page, 0), id);
        if u16_at(page, 8) == 2 {
            self.tree_depth = self.tree_depth.max(depth);
            return leaf(page, kind);
        }
        assert_eq!((u16_at(page, 8), pages), (1, 1), "a branch");
        let mut pairs = Vec::new();
        for position in 0..u16_at(page, 10) {
            let element = &page[16 + 16 * position..];
            let key = &element[u32_at(element, 0)..][..u32_at(element, 4)];
            let child = self.tree(u64_at(element, 8), depth + 1, kind);
            assert_eq!(child[0].0, key, "a branch names the first key of each child");
            pairs.extend(child);
        }
        pairs
    }

    fn bucket(&mut self, root: &Pairs, name: &str) -> Pairs {
        let (_, value) = root.iter().find(|(key, _)| key == name.as_bytes()).expect("it is there");
        assert_eq!(u64_at(value, 8), 0);
        match u64_at(value, 0) {
            0 => leaf(&value[16..], 0),
            page => self.tree(page, 0, 0),
        }
    }
}

fn leaf(page: &[u8], kind: usize) -> Pairs {
    assert_eq!(u16_at(page, 8), 2, "a leaf");
    let pairs = (0..u16_at(page, 10)).map(|position| {
        let element = &page[16 + 16 * position..];
        assert_eq!(u32_at(element, 0), kind);
        let (at, key_bytes, value_bytes) = (u32_at(element, 4), u32_at(element, 8), u32_at(element, 12));
        let key = element[at..at + key_bytes].to_vec();
        (key, element[at + key_bytes..at + key_bytes + value_bytes].to_vec())
    });
    pairs.collect()
}

fn pair(number: u64, value_bytes: usize) -> KeyValue {
    KeyValue {
        key: Bytes::from(format!("key{number:08}")),
        value: Bytes::from(vec![b'v'; value_bytes]),
        create_revision: Revision(2),
        mod_revision: Revision(3 + number % 7),
        version: 1 + number % 3,
        lease: LeaseId(number % 2),
    }
}

/// The file, made as a server makes it.
fn made(revision: u64, pairs: &[KeyValue], leases: &[(LeaseId, i64)]) -> Vec<u8> {
    let body = || {
        let (mut body, mut out) = (DatabaseBody::new(Revision(revision)), Vec::new());
        for pair in pairs {
            body.pair(pair.clone(), &mut out);
        }
        let layout = body.finish(leases.iter().copied(), &mut out);
        (layout, out)
    };
    let (layout, bytes) = body();
    assert_eq!(body(), (layout, bytes.clone()), "the second walk does as the first one");
    let file = [layout.front(), bytes].concat();
    assert_eq!(layout.bytes(), file.len() as u64);
    file
}

/// Reads a file, and compares it with what it was made of; how deep the tree of its pairs is.
fn assert_holds(file: &[u8], revision: u64, pairs: &[KeyValue], leases: &[(LeaseId, i64)]) -> usize {
    let (mut file, root) = File::open(file);
    let names: Vec<_> = root.iter().map(|(name, _)| std::str::from_utf8(name).unwrap()).collect();
    assert!(names.is_sorted() && names.len() == 10, "{names:?}");
    let found = file.bucket(&root, "key");
    let depth = file.tree_depth;
    assert!(found.iter().map(|(key, _)| key).is_sorted());
    assert_eq!(found.len(), pairs.len());
    for ((key, value), pair) in found.iter().zip(pairs) {
        assert_eq!((key.len(), &key[..8], key[8]), (17, &revision.to_be_bytes()[..], b'_'));
        let message = mvccpb::KeyValue::decode(value.as_slice()).expect("a message");
        assert_eq!(message, key_value(pair.clone()));
    }
    let found = file.bucket(&root, "lease");
    let expected = leases.iter().map(|(lease, seconds)| {
        let lease_message = Lease { id: lease.0.cast_signed(), seconds: *seconds };
        (lease.0.to_be_bytes().to_vec(), lease_message.encode_to_vec())
    });
    assert_eq!(found, expected.collect::<Vec<_>>());
    assert_eq!(file.bucket(&root, "meta").len(), if revision == 1 { 0 } else { 2 });
    assert_eq!(file.bucket(&root, "members"), Vec::new());
    assert_eq!(file.met.len() * 4_096, file.bytes.len(), "every page is led to");
    depth
}

#[test]
fn a_reader_of_pages_finds_what_the_file_was_made_of() {
    let leases: Vec<_> = (1..=300).map(|id| (LeaseId(id * 7), 60)).collect();
    for (count, value_bytes, depth) in
        [(1, 1, 0), (3, 5_000, 1), (2, 1_048_576, 1), (80, 1, 1), (10_000, 20, 2), (16_000, 3_000, 3)]
    {
        let pairs: Vec<_> = (0..count).map(|number| pair(number, value_bytes)).collect();
        let file = made(9, &pairs, &leases);
        assert_eq!(assert_holds(&file, 9, &pairs, &leases), depth, "{count} of {value_bytes} bytes");
        assert_holds(&made(9, &pairs, &[]), 9, &pairs, &[]);
    }
}

#[test]
fn values_of_every_length_around_a_page_take_the_pages_they_need() {
    for value_bytes in (3_900..4_100).chain(8_000..8_200) {
        let pairs: Vec<_> = (0..3).map(|number| pair(number, value_bytes)).collect();
        let file = made(9, &pairs, &[]);
        assert_holds(&file, 9, &pairs, &[]);
    }
}

#[test]
fn a_file_without_pairs_is_a_file_too() {
    assert_holds(&made(1, &[], &[]), 1, &[], &[]);
    // Its revision can still be seen: by a deletion.
    let file = made(12, &[], &[(LeaseId(5), 10)]);
    let (mut file, root) = File::open(&file);
    let found = file.bucket(&root, "key");
    assert_eq!(found, [(b"\0\0\0\0\0\0\0\x0c_\0\0\0\0\0\0\0\0t".to_vec(), Vec::new())]);
}
