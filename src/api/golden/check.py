"""Reads every golden frame by the rules of PROTOCOL.md alone, and prints what it says.

Needs nothing but Python 3. It is also the shortest example of a decoder. Exits with an error at the first
byte that is not as the document says.
"""
import pathlib
import sys

CRC_TABLE = []
for n in range(256):
    for _ in range(8):
        n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
    CRC_TABLE.append(n)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


class Reader:
    """The types of section 1."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        assert self.at + count <= len(self.data), f"byte {self.at}: {count} more bytes expected"
        self.at += count
        return self.data[self.at - count:self.at]

    def number(self, count):
        return int.from_bytes(self.take(count), "little")

    def u8(self):
        return self.number(1)

    def u16(self):
        return self.number(2)

    def u32(self):
        return self.number(4)

    def u64(self):
        return self.number(8)

    def bool(self):
        value = self.u8()
        assert value in (0, 1), f"byte {self.at - 1}: a bool is 0 or 1, not {value}"
        return bool(value)

    def bytes(self):
        return self.take(self.u32())

    def text(self):
        return self.bytes().decode("utf-8")

    def list(self, item):
        return [item() for _ in range(self.u32())]

    def optional(self, item):
        return item() if self.bool() else None

    def union(self, cases):
        tag = self.u8()
        assert tag in cases, f"byte {self.at - 1}: no tag {tag} here"
        name, item = cases[tag]
        return {name: item()}

    def end(self):
        assert self.at == len(self.data), f"byte {self.at}: the end expected"

    def struct(self, **fields):
        return {name: read() for name, read in fields.items()}

    # Section 6.

    def key_range(self):
        return self.union({
            1: ("key", self.bytes),
            2: ("span", lambda: self.struct(start=self.bytes, end=self.bytes)),
            3: ("from", self.bytes),
        })

    def put(self):
        return self.struct(key=self.bytes, value=self.bytes, lease=self.u64, wants_previous=self.bool)

    def put_with_options(self):
        put = {**self.put(), **self.struct(keeps_value=self.bool, keeps_lease=self.bool)}
        assert put["keeps_value"] or put["keeps_lease"], f"byte {self.at}: without options it is tag 1"
        return put

    def delete_range(self):
        return self.struct(keys=self.key_range, wants_previous=self.bool)

    def range(self):
        return self.struct(keys=self.key_range, limit=self.u64, revision=self.u64, keys_only=self.bool,
                           count_only=self.bool)

    def range_with_options(self):
        targets = {1: "key", 2: "version", 3: "create", 4: "mod", 5: "value"}
        orders = {1: "ascending", 2: "descending"}
        sort = lambda: self.struct(by=lambda: targets[self.u8()], order=lambda: orders[self.u8()])
        options = self.struct(sort=lambda: self.optional(sort), mod_min=self.u64, mod_max=self.u64,
                              create_min=self.u64, create_max=self.u64)
        assert any(options.values()), f"byte {self.at}: without options it is tag 4"
        return options

    def compare(self):
        names = {1: "equal", 2: "not equal", 3: "greater", 4: "less"}
        return self.struct(keys=self.key_range, operator=lambda: names[self.u8()], target=lambda: self.union({
            1: ("version", self.u64), 2: ("create", self.u64), 3: ("mod", self.u64), 4: ("value", self.bytes),
            5: ("lease", self.u64)}))

    def operation(self):
        return self.union({1: ("put", self.put), 2: ("delete_range", self.delete_range), 3: ("txn", self.transaction),
                           4: ("range", self.range), 16: ("put", self.put_with_options),
                           17: ("range", lambda: {**self.range(), **self.range_with_options()})})

    def transaction(self):
        operations = lambda: self.list(self.operation)
        return self.struct(compares=lambda: self.list(self.compare), success=operations, failure=operations)

    def command(self):
        return self.union({1: ("put", self.put), 2: ("delete_range", self.delete_range),
                           3: ("txn", self.transaction), 5: ("compact", lambda: self.struct(revision=self.u64)),
                           8: ("lease_grant", self.grant), 9: ("lease_revoke", lambda: self.struct(lease=self.u64)),
                           10: ("lease_expire", self.life), 12: ("lease_renew", self.life),
                           11: ("lease_checkpoint", lambda: self.list(lambda: {**self.life(), "remaining_ms": self.u64()})),
                           16: ("put", self.put_with_options),
                           18: ("space_alarm", lambda: self.struct(is_raised=self.bool)),
                           19: ("space_alarm", lambda: self.struct(number=self.u64, is_raised=self.bool))})

    def grant(self):
        return self.struct(lease=self.u64, ttl_ms=self.u64)

    def life(self):
        return self.struct(lease=self.u64, grant=self.u64)

    def query(self):
        return self.union({3: ("txn", self.transaction), 4: ("range", self.range), 13: ("leases", lambda: {}),
                           17: ("range", lambda: {**self.range(), **self.range_with_options()})})

    def read_mode(self):
        return self.union({1: ("linearizable", lambda: {}), 2: ("serializable", lambda: {}),
                           4: ("at most so old", lambda: self.struct(max_age_ms=self.u32, asks_leader=self.bool)),
                           5: ("at least", lambda: self.struct(revision=self.u64, asks_leader=self.bool))})

    # Section 7.

    def pair(self):
        return self.struct(key=self.bytes, value=self.bytes, create_revision=self.u64, mod_revision=self.u64,
                           version=self.u64, lease=self.u64)

    def results(self):
        pairs = lambda: self.list(self.pair)
        return {
            1: ("put", lambda: self.struct(previous=lambda: self.optional(self.pair))),
            2: ("delete_range", lambda: self.struct(deleted=self.u64, previous=pairs)),
            3: ("txn", self.transaction_result),
            4: ("range", lambda: self.struct(more=self.bool, count=self.u64, pairs=pairs)),
        }

    def transaction_result(self):
        return self.struct(succeeded=self.bool, results=lambda: self.list(lambda: self.union(self.results())))

    def outcome(self):
        return self.union({**self.results(), 5: ("compacted", lambda: {}), 255: ("refused", self.u16),
                           8: ("granted", self.grant), 18: ("space_alarm", lambda: self.struct(is_raised=self.bool)),
                           19: ("space_alarm", lambda: self.struct(number=self.u64, is_raised=self.bool)), 9: ("revoked", lambda: {}), 11: ("checkpointed", lambda: {}),
                           12: ("renewed", lambda: self.struct(ttl_ms=self.u64)),
                           13: ("leases", lambda: self.list(self.u64)),
                           14: ("time_to_live", lambda: self.optional(lambda: self.struct(
                               ttl_ms=self.u64, remaining_ms=self.u64, keys=lambda: self.list(self.bytes))))})

    def event(self):
        previous = lambda: self.optional(self.pair)
        return self.union({
            1: ("put", lambda: self.struct(pair=self.pair, previous=previous)),
            2: ("deletion", lambda: self.struct(key=self.bytes, mod_revision=self.u64, previous=previous)),
        })

    # Sections 3, 5, 7 and 8: each kind's body.

    def body(self, kind):
        stamp = lambda: self.struct(session=self.u64, sequence=self.u64, low_water=self.u64)
        return {
            0x01: lambda: self.struct(version_min=self.u8, version_max=self.u8, features=self.u64, cluster=self.u64),
            0x02: lambda: self.struct(keyspace=self.u32),
            0x03: lambda: self.struct(keyspace=self.u32, session=self.u64),
            0x04: lambda: self.struct(keyspace=self.u32, stamp=lambda: self.optional(stamp), command=self.command),
            0x05: lambda: self.struct(keyspace=self.u32, mode=self.read_mode, query=self.query),
            0x06: lambda: {},
            0x20: lambda: self.struct(keyspace=self.u32, lease=self.u64),
            0x21: lambda: self.struct(keyspace=self.u32, lease=self.u64, wants_keys=self.bool),
            0x48: lambda: self.struct(keyspace=self.u32),
            0x49: lambda: self.struct(keyspace=self.u32, index=self.u64, term=self.u64, offset=self.u64, bytes=self.u32),
            0xC8: lambda: self.struct(index=self.u64, term=self.u64, bytes=self.u64, hash=self.u64),
            0xC9: lambda: self.struct(piece=self.bytes),
            0x10: lambda: self.struct(
                keyspace=self.u32, keys=self.key_range, start=self.u64, skips_puts=self.bool,
                skips_deletions=self.bool, wants_previous=self.bool, wants_progress=self.bool),
            0x11: lambda: self.struct(watch=self.u64),
            0x12: lambda: self.struct(watch=self.u64),
            0x90: lambda: self.struct(revision=self.u64),
            0x91: lambda: {},
            0x92: lambda: self.struct(revision=self.u64),
            0x93: lambda: self.struct(revision=self.u64, is_partial=self.bool, events=lambda: self.list(self.event)),
            0x94: lambda: self.struct(compacted=self.u64),
            0x81: lambda: self.struct(
                version=self.u8, cluster=self.u64, member=self.u64, features=self.u64, request_bytes_max=self.u32,
                response_bytes_max=self.u32, key_bytes_max=self.u32, txn_operations_max=self.u32,
                requests_in_flight_max=self.u32, sequence_window=self.u32),
            0x82: lambda: self.struct(session=self.u64),
            0x83: lambda: {},
            0x84: lambda: self.struct(revision=self.u64, outcome=self.outcome),
            0x85: lambda: self.struct(age_micros=self.u64, revision=self.u64, outcome=self.outcome),
            0x86: lambda: self.struct(
                member=self.u64, role=self.u8, term=self.u64, leader=self.u64, last_index=self.u64,
                commit_index=self.u64, applied_index=self.u64, revision=self.u64, waiting_for=self.text,
                cluster=self.u64, version=self.text, sync_p50_micros=self.u64, sync_p99_micros=self.u64,
                members=lambda: self.list(lambda: self.struct(
                    id=self.u64, name=self.text, native=self.text, client=self.text, peer=self.text,
                    is_reachable=self.bool)),
                stages=lambda: self.list(lambda: self.struct(
                    name=self.text, count=self.u64, p50_micros=self.u64, p99_micros=self.u64,
                    max_micros=self.u64)),
                counters=lambda: self.list(lambda: self.struct(name=self.text, value=self.u64))),
            0xFF: lambda: self.struct(code=self.u16, certainty=self.u8, leader=self.u64, leader_address=self.text,
                                      words=self.text),
        }[kind]()


def frame(data):
    header = Reader(data)
    assert header.take(4) == b"MSTY", "magic"
    assert header.u32() == crc32c(data[8:]), "crc"
    version, kind, flags, length, request = (
        header.u8(), header.u8(), header.u16(), header.u32(), header.u64())
    assert (version, flags, length) == (1, 0, len(data) - 24), "version, flags or body length"
    body = Reader(data[24:])
    said = body.body(kind)
    body.end()
    return f"kind {kind:#04x} request {request} {said}"


def command(data):
    reader = Reader(data)
    said = reader.command()
    reader.end()
    return said


def main():
    assert crc32c(b"123456789") == 0xE3069283, "crc32c"
    paths = sorted(pathlib.Path(__file__).parent.glob("*.hex"))
    assert paths, "no golden frames"
    for path in paths:
        lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
        data = bytes.fromhex("".join(lines))
        print(f"{path.stem}: {command(data) if path.stem.startswith('command-') else frame(data)}")


if __name__ == "__main__":
    sys.exit(main())
