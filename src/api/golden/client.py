"""A client of the native protocol, written from PROTOCOL.md alone. Needs nothing but Python 3.

    client.py HOST:PORT

Speaks to one member of a running cluster: handshake, session, stamped writes and their retry, reads, a
transaction, pipelining, a lease, watches, refusals. Prints `ok` and exits with 0 if everything was as the document
says.
"""
import os
import socket
import struct
import sys
import time

CRC_TABLE = []
for n in range(256):
    for _ in range(8):
        n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
    CRC_TABLE.append(n)

# Refusals after which a read or a stamped write is sent again: section 8.
TRY_AGAIN = {1, 2, 3, 4, 11, 12}

def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF

# Section 1 and 6: values as bytes.

def u(count, value):
    return value.to_bytes(count, "little")

def text(value):
    return u(4, len(value)) + value

def items(values):
    return u(4, len(values)) + b"".join(values)

def put(key, value, wants_previous=False, lease=0):
    return u(1, 1) + text(key) + text(value) + u(8, lease) + u(1, wants_previous)

def grant(ttl_ms):
    return u(1, 8) + u(8, 0) + u(8, ttl_ms)

def delete(key):
    return u(1, 2) + u(1, 1) + text(key) + u(1, False)

def get(key):
    return u(1, 4) + u(1, 1) + text(key) + u(8, 0) + u(8, 0) + u(1, False) + u(1, False)

def touch(key):
    return u(1, 16) + text(key) + text(b"") + u(8, 0) + u(1, False) + u(1, True) + u(1, False)

def last_changed(start, end):
    span = u(1, 2) + text(start) + text(end)
    newest_first = u(1, True) + u(1, 4) + u(1, 2)
    return u(1, 17) + span + u(8, 1) + u(8, 0) + u(1, False) + u(1, False) + newest_first + u(8, 0) * 4

def get_at(key, revision):
    return u(1, 4) + u(1, 1) + text(key) + u(8, 0) + u(8, revision) + u(1, False) + u(1, False)

def compact(revision):
    return u(1, 5) + u(8, revision)

def mod_equals(key, revision):
    return u(1, 1) + text(key) + u(1, 1) + u(1, 3) + u(8, revision)

def txn(compares, success, failure):
    return u(1, 3) + items(compares) + items(success) + items(failure)

class Reader:
    """Bytes as values."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        assert self.at + count <= len(self.data), f"byte {self.at}: {count} more bytes expected"
        self.at += count
        return self.data[self.at - count:self.at]

    def u(self, count):
        return int.from_bytes(self.take(count), "little")

    def text(self):
        return self.take(self.u(4))

    def items(self, item):
        return [item() for _ in range(self.u(4))]

    def pair(self):
        key, value = self.text(), self.text()
        return (key, value, *(self.u(8) for _ in range(4)))

    def event(self):
        changed = self.pair() if self.u(1) == 1 else (self.text(), None, 0, self.u(8), 0, 0)
        return {"pair": changed, "previous": self.pair() if self.u(1) else None}

    def result(self, tag):
        if tag == 1:
            return {"previous": self.pair() if self.u(1) else None}
        if tag == 2:
            return {"deleted": self.u(8), "previous": self.items(self.pair)}
        if tag == 3:
            return {"succeeded": self.u(1), "results": self.items(lambda: self.result(self.u(1)))}
        assert tag == 4, f"tag {tag}"
        return {"more": self.u(1), "count": self.u(8), "pairs": self.items(self.pair)}

    def outcome(self):
        tag = self.u(1)
        if tag == 255:
            return {"refused": self.u(2)}
        if tag == 5:
            return {"compacted": True}
        if tag == 8:
            return {"lease": self.u(8), "ttl_ms": self.u(8)}
        if tag == 9:
            return {"ended": True}
        if tag == 12:
            return {"ttl_ms": self.u(8)}
        if tag == 14:
            known = self.u(1)
            return dict(ttl_ms=self.u(8), left_ms=self.u(8), keys=self.items(self.text)) if known else {"left_ms": None}
        return self.result(tag)

    def answer(self, kind):
        if kind == 0x82:
            return {"session": self.u(8)}
        if kind == 0x84:
            return {"revision": self.u(8), **self.outcome()}
        if kind == 0x86:
            names = ("member", "role", "term", "leader", "last", "commit", "applied", "revision")
            head = {name: self.u(1 if name == "role" else 8) for name in names}
            member = lambda: (self.u(8), *(self.text() for _ in range(4)), self.u(1))
            return dict(head, waiting_for=self.text(), cluster=self.u(8), version=self.text(), p50=self.u(8),
                        p99=self.u(8), members=self.items(member),
                        stages=self.items(lambda: (self.text(), *(self.u(8) for _ in range(4)))),
                        counters=self.items(lambda: (self.text(), self.u(8))))
        if kind in (0x90, 0x92):
            return {"revision": self.u(8)}
        if kind == 0x93:
            return {"revision": self.u(8), "is_partial": self.u(1), "events": self.items(self.event)}
        if kind == 0x94:
            return {"compacted": self.u(8)}
        if kind == 0xFF:
            return dict(code=self.u(2), certainty=self.u(1), leader=self.u(8), address=self.text(), words=self.text())
        assert kind in (0x83, 0x91), f"kind {kind:#x}"
        return {}

class Connection:
    """Sections 2 and 3: frames and the handshake."""

    def __init__(self, address, cluster=0):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=10)
        self.stream, self.request, self.answers, self.told = self.socket.makefile("rb"), 0, {}, []
        self.send_frame(0x01, 0, u(1, 1) + u(1, 1) + u(8, 1 | 2 | 4) + u(8, cluster))
        kind, _, body = self.receive_frame()
        self.hello = struct.unpack_from("<BQQQIIIIII", body) if kind == 0x81 else None
        self.refusal = Reader(body).answer(kind) if kind == 0xFF else None

    def send_frame(self, kind, request, body):
        checked = struct.pack("<BBHIQ", 1, kind, 0, len(body), request) + body
        self.socket.sendall(b"MSTY" + u(4, crc32c(checked)) + checked)

    def receive_frame(self):
        head = self.stream.read(24)
        assert len(head) == 24, "the member closed the connection"
        magic, crc, version, kind, flags, length, request = struct.unpack("<4sIBBHIQ", head)
        assert (magic, version, flags) == (b"MSTY", 1, 0), f"header {head.hex()}"
        body = self.stream.read(length)
        assert crc == crc32c(head[8:] + body), "crc"
        return kind, request, body

    def send(self, kind, body=b""):
        self.request += 1
        self.send_frame(kind, self.request, body)
        return self.request

    def receive(self):
        kind, answered, body = self.receive_frame()
        reader = Reader(body)
        answer = reader.answer(kind)
        assert reader.at == len(body), "bytes left over"
        if kind in (0x93, 0x94):
            self.told.append((answered, answer))
        else:
            self.answers[answered] = answer

    def answer_to(self, request):
        while request not in self.answers:
            self.receive()
        return self.answers.pop(request)

    def events_of(self, watch, count):
        """The first so many events that a watch is told (section 10)."""
        while sum(len(told["events"]) for request, told in self.told if request == watch) < count:
            self.receive()
        return [event for request, told in self.told if request == watch for event in told["events"]]

    def call(self, kind, body=b""):
        """An answer that is not `later, perhaps elsewhere`. Reads and stamped writes may be repeated (section 9)."""
        for _ in range(100):
            answer = self.answer_to(self.send(kind, body))
            if answer.get("code") not in TRY_AGAIN:
                return answer
            time.sleep(0.1)
        raise AssertionError(f"never served: {answer}")

    def read(self, query, mode=1):
        return self.call(0x05, u(4, 0) + u(1, mode) + query)

def main(address):
    assert crc32c(b"123456789") == 0xE3069283, "crc32c"
    member = Connection(address)
    assert member.hello and member.hello[0] == 1 and member.hello[2] != 0, member.refusal
    assert member.hello[3] == 1 | 2 | 4, "the options, nested transactions, compaction, watches and leases used below"
    session = member.call(0x02, u(4, 0))["session"]
    stamped = lambda sequence, command: u(4, 0) + u(1, True) + u(8, session) + u(8, sequence) + u(8, 0) + command
    write = lambda sequence, command: member.call(0x04, stamped(sequence, command))
    key = b"proof/" + os.urandom(8).hex().encode()

    first = write(1, put(key, b"one"))
    assert first["previous"] is None, first
    assert write(1, put(key, b"one")) == first, "a retry gets the first answer, with the revision of then"
    pair = member.read(get(key))["pairs"]
    assert pair == [(key, b"one", first["revision"], first["revision"], 1, 0)], pair
    swap = txn([mod_equals(key, first["revision"])], [put(key, b"two"), get(key)], [get(key)])
    swapped = write(2, swap)
    assert swapped["succeeded"] and swapped["results"][1]["pairs"][0][1] == b"two", swapped
    assert not write(3, swap)["succeeded"], "the key has changed since"
    before = write(4, put(key, b"three", wants_previous=True))
    assert before["previous"][1] == b"two", before

    requests = [member.send(0x04, stamped(5 + n, put(key + b"/%d" % n, b"x"))) for n in range(20)]
    answers = [member.answer_to(request) for request in reversed(requests)]
    again = [write(5 + n, put(key + b"/%d" % n, b"x")) for n in range(20)]
    assert all("previous" in answer for answer in again), (answers, again)
    assert write(25, delete(key))["deleted"] == 1
    assert member.read(get(key))["count"] == 0

    assert write(26, put(b"", b"x"))["refused"] == 1001, "an empty key is a refusal of the store"
    nested = write(27, txn([], [put(key, b"four"), txn([mod_equals(key, 0)], [get(key)], [])], []))
    assert nested["results"][1]["results"][0]["pairs"][0][1] == b"four", "compares see the state before"
    assert write(28, touch(key))["revision"] > nested["revision"]
    newest = member.read(last_changed(key, key + b"0"))
    assert (newest["count"], newest["more"]) == (21, 1) and newest["pairs"][0][1] == b"four", newest
    assert write(29, touch(key + b"/gone"))["refused"] == 1009, "nothing is there to be kept"
    assert write(30, compact(nested["revision"]))["compacted"], "a revision of our own"
    assert member.read(get_at(key, nested["revision"]))["pairs"][0][1] == b"four"
    assert member.read(get_at(key, nested["revision"] - 1))["refused"] == 1002, "it is compacted"
    lease = write(31, grant(60_000))["lease"]
    write(32, put(key + b"/leased", b"x", lease=lease))
    about = u(4, 0) + u(8, lease)
    assert member.call(0x20, about)["ttl_ms"] == 60_000, "it lasts for a minute again"
    known = member.call(0x21, about + u(1, True))
    assert known["keys"] == [key + b"/leased"] and 50_000 < known["left_ms"] <= 60_000, known
    assert write(33, u(1, 9) + u(8, lease))["ended"], "and its key with it"
    assert member.read(get(key + b"/leased"))["count"] == 0
    assert member.call(0x20, about)["ttl_ms"] == 0 and member.call(0x21, about + u(1, 0))["left_ms"] is None
    create = lambda start, wants_previous: u(4, 0) + u(1, 1) + text(key) + u(8, start) + u(2, 0) + u(1, wants_previous) + u(1, 0)
    watch = member.send(0x10, create(newest["pairs"][0][3], True))
    assert member.answer_to(watch)["revision"] >= newest["pairs"][0][3]
    deleted = write(34, delete(key))["revision"]
    events = member.events_of(watch, 2)
    assert [event["pair"][3] for event in events] == [newest["pairs"][0][3], deleted], events
    assert events[1]["previous"][1] == b"four" and events[1]["pair"][1] is None, events
    assert member.call(0x12, u(8, watch))["revision"] >= deleted, "everything before it was told"
    gone = member.send(0x10, create(nested["revision"] - 1, False))
    member.answer_to(gone)
    assert member.call(0x12, u(8, gone))["code"] == 16, "it has ended: what it would begin with is compacted"
    assert (gone, {"compacted": nested["revision"]}) in member.told, member.told
    assert member.call(0x11, u(8, watch)) == {}
    assert member.call(0x7F)["code"] == 5, "an unknown kind is malformed, and the connection goes on"
    unknown = member.call(0x04, u(4, 0) + u(1, True) + u(8, 1 << 40) + u(8, 1) + u(8, 0) + put(key, b"x"))
    assert (unknown["code"], unknown["certainty"]) == (8, 2), unknown
    status = member.call(0x06)
    assert status["member"] == member.hello[2] and status["revision"] > first["revision"], status
    assert Connection(address, status["cluster"] ^ 1).refusal["code"] == 14, "another cluster is refused"
    assert member.call(0x03, u(4, 0) + u(8, session)) == {}
    print("ok")
if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
