//! Requests of every kind, valid and invalid, from a seed.
//!
//! Left out is what `src/api/etcd/DIFFERENCES.md` lists: a put with an overlapping delete that etcd overlooks, a sort
//! without an order under a limit, numbers below 0 inside transactions.

use bytes::Bytes;
use mainstay::api::etcd::proto::etcdserverpb as pb;
use pb::request_op::Request;

/// A request of one of the services that are compared.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    Range(pb::RangeRequest),
    Put(pb::PutRequest),
    DeleteRange(pb::DeleteRangeRequest),
    Txn(pb::TxnRequest),
    Compact(pb::CompactionRequest),
    Grant(pb::LeaseGrantRequest),
    Revoke(pb::LeaseRevokeRequest),
    TimeToLive(pb::LeaseTimeToLiveRequest),
    Leases(pb::LeaseLeasesRequest),
}

const KEYS: [&[u8]; 12] =
    [b"a", b"b", b"ba", b"bb", b"c", b"d", b"e", b"\0", b"a\0", b"\xff", b"\xff\xff", b"f"];
const VALUES: [&[u8]; 6] = [b"", b"1", b"2", b"x", b"longer", b"\0\xff"];
const LEASES_COUNT: u64 = 5;

/// What a transaction may write, so that nothing is made that etcd overlooks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Writes {
    Puts,
    Deletes,
    /// Both, in lists without transactions in them.
    Flat,
}

#[derive(Debug)]
pub(crate) struct Generator {
    state: u64,
    /// The newest revision, as far as answers have told.
    pub(crate) revision: i64,
}

impl Generator {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed, revision: 1 }
    }

    /// The next number, by the generator `SplitMix64`.
    fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.number() % bound
    }

    /// True once in `bound` times.
    pub(crate) fn once_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }

    pub(crate) fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        let place = self.below(all.len() as u64);
        all[usize::try_from(place).expect("a place in a list")]
    }

    pub(crate) fn next(&mut self) -> Ask {
        match self.below(100) {
            0..30 => Ask::Range(self.range(false)),
            30..55 => Ask::Put(self.put()),
            55..65 => Ask::DeleteRange(self.delete(true)),
            65..90 => {
                let writes = self.one_of(&[Writes::Puts, Writes::Deletes, Writes::Flat]);
                Ask::Txn(self.txn(writes, 0))
            }
            90..92 => Ask::Compact(self.compaction()),
            92..95 => Ask::Grant(self.grant()),
            95..97 => Ask::Revoke(pb::LeaseRevokeRequest { id: self.lease() }),
            97..99 => Ask::TimeToLive(pb::LeaseTimeToLiveRequest { id: self.lease(), keys: self.once_in(2) }),
            _ => Ask::Leases(pb::LeaseLeasesRequest {}),
        }
    }

    /// One that writes, if it is let in.
    pub(crate) fn write(&mut self) -> Ask {
        match self.below(4) {
            0..2 => Ask::Put(self.put()),
            2 => Ask::DeleteRange(self.delete(true)),
            _ => {
                let writes = self.one_of(&[Writes::Puts, Writes::Deletes, Writes::Flat]);
                Ask::Txn(self.txn(writes, 0))
            }
        }
    }

    fn key(&mut self) -> Bytes {
        if self.once_in(50) { Bytes::new() } else { Bytes::from_static(self.one_of(&KEYS)) }
    }

    fn value(&mut self) -> Bytes {
        Bytes::from_static(self.one_of(&VALUES))
    }

    fn lease(&mut self) -> i64 {
        i64::try_from(self.below(LEASES_COUNT)).expect("a small number")
    }

    fn revision(&mut self) -> i64 {
        match self.below(10) {
            0..5 => 0,
            5..8 => (self.revision - i64::try_from(self.below(20)).expect("small")).max(1),
            8 => self.revision,
            _ => self.revision + i64::try_from(self.below(3)).expect("small"),
        }
    }

    /// The end of a range from `key` on.
    fn range_end(&mut self, has_from_key: bool) -> Bytes {
        match self.below(6) {
            0..3 => Bytes::new(),
            3 if has_from_key => Bytes::from_static(b"\0"),
            _ => Bytes::from_static(self.one_of(&KEYS[..7])),
        }
    }

    pub(crate) fn range(&mut self, is_in_txn: bool) -> pb::RangeRequest {
        let revision = if !is_in_txn && self.once_in(20) { -1 } else { self.revision() };
        let mut range = pb::RangeRequest {
            key: self.key(),
            range_end: self.range_end(true),
            revision,
            keys_only: self.once_in(6),
            count_only: self.once_in(6),
            serializable: self.once_in(4),
            ..Default::default()
        };
        if self.once_in(2) {
            range.limit = self.one_of(&[1, 1, 2, 3, 5, 100, -1]);
        }
        if self.once_in(3) {
            range.sort_order = self.one_of(&[0, 1, 2]);
            range.sort_target = self.one_of(&[0, 1, 2, 3, 4]);
            if range.sort_order == 0 && range.sort_target != 0 {
                range.limit = 0;
            }
        }
        let bound = |this: &mut Self| {
            if this.once_in(8) { this.revision - i64::try_from(this.below(20)).expect("small") } else { 0 }
        };
        range.min_mod_revision = bound(self);
        range.max_mod_revision = bound(self);
        range.min_create_revision = bound(self);
        range.max_create_revision = bound(self);
        range
    }

    fn put(&mut self) -> pb::PutRequest {
        let mut put = pb::PutRequest {
            key: self.key(),
            value: self.value(),
            prev_kv: self.once_in(3),
            ignore_value: self.once_in(8),
            ignore_lease: self.once_in(8),
            ..Default::default()
        };
        if self.once_in(4) {
            put.lease = self.lease();
        }
        if put.ignore_value && !self.once_in(5) {
            put.value = Bytes::new();
        }
        if put.ignore_lease && !self.once_in(5) {
            put.lease = 0;
        }
        put
    }

    fn delete(&mut self, has_from_key: bool) -> pb::DeleteRangeRequest {
        pb::DeleteRangeRequest {
            key: self.key(),
            range_end: self.range_end(has_from_key && self.state.is_multiple_of(7)),
            prev_kv: self.once_in(3),
        }
    }

    fn txn(&mut self, writes: Writes, depth: u64) -> pb::TxnRequest {
        let compares = self.below(3);
        let compare = (0..compares).map(|_| self.compare()).collect();
        let success = self.list(writes, depth);
        let failure = self.list(writes, depth);
        pb::TxnRequest { compare, success, failure }
    }

    fn list(&mut self, writes: Writes, depth: u64) -> Vec<pb::RequestOp> {
        let count = if depth == 0 && self.once_in(200) { 129 } else { self.below(4) };
        (0..count).map(|_| self.operation(writes, depth)).collect()
    }

    fn operation(&mut self, writes: Writes, depth: u64) -> pb::RequestOp {
        let request = match self.below(10) {
            0..4 => Request::RequestRange(self.range(true)),
            4 if self.once_in(10) => return pb::RequestOp { request: None },
            4..6 if writes != Writes::Flat && depth < 3 => Request::RequestTxn(self.txn(writes, depth + 1)),
            _ => match writes {
                Writes::Puts => Request::RequestPut(self.put()),
                Writes::Deletes => Request::RequestDeleteRange(self.delete(true)),
                Writes::Flat if self.once_in(2) => Request::RequestPut(self.put()),
                Writes::Flat => Request::RequestDeleteRange(self.delete(false)),
            },
        };
        pb::RequestOp { request: Some(request) }
    }

    fn compare(&mut self) -> pb::Compare {
        use pb::compare::TargetUnion;
        let near = |this: &mut Self| {
            let back = i64::try_from(this.below(6)).expect("small");
            if this.once_in(3) { this.one_of(&[0, -1, 1]) } else { this.revision - back }
        };
        let target = self.one_of(&[0, 1, 2, 3, 4]);
        let given = match target {
            0 => TargetUnion::Version(self.one_of(&[0, 1, 2, 3, -1])),
            1 => TargetUnion::CreateRevision(near(self)),
            2 => TargetUnion::ModRevision(near(self)),
            3 => TargetUnion::Value(self.value()),
            _ => TargetUnion::Lease(self.lease()),
        };
        pb::Compare {
            result: self.one_of(&[0, 1, 2, 3]),
            target,
            key: self.key(),
            range_end: self.range_end(true),
            target_union: if self.once_in(12) { None } else { Some(given) },
        }
    }

    fn compaction(&mut self) -> pb::CompactionRequest {
        let back = self.one_of(&[0, 3, 10, 20, 20, 40, -1]);
        pb::CompactionRequest { revision: self.revision - back, physical: false }
    }

    fn grant(&mut self) -> pb::LeaseGrantRequest {
        let id = self.lease().max(1);
        let ttl = self.one_of(&[10_000, 20_000, 9_000_000_000, 9_000_000_001]);
        pb::LeaseGrantRequest { ttl, id }
    }
}
