//! What `Snapshot` carries: a file of etcd's database with the pairs of one revision, as etcd 3.5 reads it.
//!
//! Its buckets, all of the root: `key` with the pairs, `lease` with the leases, `meta` with what was compacted, and the empty
//! ones that etcd would make by itself. A pair's key there is a revision: 8 bytes, `_`, 8 bytes for its place within.
//!
//! Always: the pairs stand in the order of their own keys, as they are read, and so all under the one revision that was
//! read at; what etcd tells of a pair (its revisions, its version, its lease) stands with the pair and is its own. To have
//! them under the revisions that wrote them, all of them would have to be sorted, in memory or on a disk as large as they
//! are. Nobody can tell the difference but who looks into the file: that revision counts as compacted, so no earlier one is
//! ever asked for, and a watch from it on leaves out pairs whose own revision is older.
//!
//! Left out: history, what remains of leases' time (each has all of it), alarms, users and roles, members: whoever restores
//! the file says which members there are.

use super::bolt::{Bucket, FRONT_PAGES, PAGE_BYTES, Tree, front};
use super::key_value;
use crate::ids::{LeaseId, Revision};
use crate::kv::KeyValue;
use prost::Message;

/// What the front of a file has to name of what comes behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatabaseLayout {
    revision: Revision,
    pairs_root: u64,
    leases_root: u64,
    pages_count: u64,
}

impl DatabaseLayout {
    /// Bytes of the whole file.
    pub const fn bytes(&self) -> u64 {
        self.pages_count * PAGE_BYTES as u64
    }

    /// What comes before the pairs.
    pub fn front(&self) -> Vec<u8> {
        let compacted = revision_key(self.revision, 0).to_vec();
        let meta = match self.revision {
            // Nothing was ever written, so nothing is missing.
            Revision(..=1) => Vec::new(),
            _ => vec![("finishedCompactRev", compacted.clone()), ("scheduledCompactRev", compacted)],
        };
        let empty = || Bucket::Within(Vec::new());
        let buckets = [
            ("alarm", empty()),
            ("auth", empty()),
            ("authRoles", empty()),
            ("authUsers", empty()),
            ("cluster", empty()),
            ("key", Bucket::Tree(self.pairs_root)),
            ("lease", Bucket::Tree(self.leases_root)),
            ("members", empty()),
            ("members_removed", empty()),
            ("meta", Bucket::Within(meta)),
        ];
        front(&buckets, self.pages_count)
    }
}

/// What comes behind the front: made twice, the first time for the layout and the second time for its bytes.
#[derive(Debug)]
pub struct DatabaseBody {
    revision: Revision,
    pairs: Tree,
    pairs_count: u64,
}

impl DatabaseBody {
    /// A body without pairs so far, of this revision.
    pub const fn new(revision: Revision) -> Self {
        Self { revision, pairs: Tree::new(FRONT_PAGES), pairs_count: 0 }
    }

    /// The next pair. What is complete by that is put into `out`, here and below.
    pub fn pair(&mut self, pair: KeyValue, out: &mut Vec<u8>) {
        let key = revision_key(self.revision, self.pairs_count);
        self.pairs.push(&key, &key_value(pair).encode_to_vec(), out);
        self.pairs_count += 1;
    }

    /// The leases, in ascending order, each with how many seconds a renewal makes it last; and the end.
    pub fn finish(
        mut self,
        leases: impl IntoIterator<Item = (LeaseId, i64)>,
        out: &mut Vec<u8>,
    ) -> DatabaseLayout {
        if self.pairs_count == 0 && self.revision > Revision(1) {
            // A deletion of no key, so that the revision can be seen.
            let key = [revision_key(self.revision, 0).as_slice(), b"t"].concat();
            self.pairs.push(&key, &[], out);
        }
        let (pairs_root, next_page) = self.pairs.finish(out);
        let mut tree = Tree::new(next_page);
        for (LeaseId(id), seconds) in leases {
            let lease = Lease { id: id.cast_signed(), seconds };
            tree.push(&id.to_be_bytes(), &lease.encode_to_vec(), out);
        }
        let (leases_root, pages_count) = tree.finish(out);
        DatabaseLayout { revision: self.revision, pairs_root, leases_root, pages_count }
    }
}

/// A lease as etcd keeps it; how much of its time remains is left out.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct Lease {
    #[prost(int64, tag = "1")]
    id: i64,
    #[prost(int64, tag = "2")]
    seconds: i64,
}

fn revision_key(revision: Revision, place: u64) -> [u8; 17] {
    let mut key = [b'_'; 17];
    key[..8].copy_from_slice(&revision.0.to_be_bytes());
    key[9..].copy_from_slice(&place.to_be_bytes());
    key
}

#[cfg(test)]
#[path = "database_tests.rs"]
mod tests;
