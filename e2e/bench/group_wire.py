"""The requests of group coordinators, by hand: what e2e/bench/groups plays its clients with. It checks nothing but error codes."""

import socket
import struct

CLIENT = b"bench"


def text(value):
    value = value.encode()
    return struct.pack(">h", len(value)) + value


def data(value):
    return struct.pack(">i", len(value)) + value


NULL = struct.pack(">h", -1)


def frame(api, version, body, flexible=False):
    head = struct.pack(">hhi", api, version, 1) + struct.pack(">h", len(CLIENT)) + CLIENT + (b"\0" if flexible else b"")
    return data(head + body)


class Connection:
    """A connection, on which one request is answered before the next is sent."""

    def __init__(self, address):
        self.socket = socket.create_connection(address, timeout=120)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request):
        self.socket.sendall(request)
        return self.reply()

    def reply(self):
        return self._exactly(int.from_bytes(self._exactly(4), "big"))

    def _exactly(self, count):
        received = bytearray()
        while len(received) < count:
            chunk = self.socket.recv(count - len(received))
            if not chunk:
                raise ConnectionError("the broker closed the connection")
            received += chunk
        return bytes(received)

    async def ask_async(self, loop, request):
        self.socket.setblocking(False)
        await loop.sock_sendall(self.socket, request)
        size = int.from_bytes(await self._exactly_async(loop, 4), "big")
        return await self._exactly_async(loop, size)

    async def _exactly_async(self, loop, count):
        received = bytearray()
        while len(received) < count:
            chunk = await loop.sock_recv(self.socket, count - len(received))
            if not chunk:
                raise ConnectionError("the broker closed the connection")
            received += chunk
        return bytes(received)

    def close(self):
        self.socket.close()


def at(bootstrap):
    host, port = bootstrap.split(",")[0].rsplit(":", 1)
    return host, int(port)


def coordinator(bootstrap, group):
    """FindCoordinator version 0: error, host and port."""
    link = Connection(at(bootstrap))
    reply = link.ask(frame(10, 0, text(group)))
    link.close()
    error, _, length = struct.unpack_from(">hih", reply, 4)
    host = reply[12 : 12 + length].decode()
    return error, host, struct.unpack_from(">i", reply, 12 + length)[0]


def commit(group, topic, offset):
    """OffsetCommit version 7 of one partition, by nobody; as arguments of `call`."""
    body = text(group) + struct.pack(">i", -1) + text("") + NULL + struct.pack(">i", 1) + text(topic)
    return (frame(8, 7, body + struct.pack(">iiqi", 1, 0, offset, -1) + NULL),)


def call(address, request):
    """Sends one request whose reply ends in an error code, and returns that."""
    link = Connection(address)
    reply = link.ask(request)
    link.close()
    return struct.unpack(">h", reply[-2:])[0]


def create_topic(bootstrap, topic, partitions):
    """CreateTopics version 4, with one replica."""
    body = struct.pack(">i", 1) + text(topic) + struct.pack(">ihii", partitions, 1, 0, 0) + struct.pack(">ib", 60_000, 0)
    link = Connection(at(bootstrap))
    link.ask(frame(19, 4, body))
    link.close()


def subscription(topic):
    return struct.pack(">hi", 0, 1) + text(topic) + struct.pack(">i", -1)


def assignment(topic, partitions):
    partitions = list(partitions)
    body = struct.pack(">hi", 0, 1) + text(topic) + struct.pack(">i", len(partitions))
    return body + b"".join(struct.pack(">i", index) for index in partitions) + struct.pack(">i", -1)


def join(group, member, topic):
    """JoinGroup version 5."""
    body = text(group) + struct.pack(">ii", 60_000, 60_000) + text(member) + NULL + text("consumer")
    return frame(11, 5, body + struct.pack(">i", 1) + text("range") + data(subscription(topic)))


def join_reply(reply):
    """Error, generation, leader, own id, and all ids for the leader."""
    error, generation = struct.unpack_from(">hi", reply, 8)
    place, texts = 14, []

    def taken():
        nonlocal place
        length = struct.unpack_from(">h", reply, place)[0]
        place += 2
        value = reply[place : place + max(length, 0)].decode()
        place += max(length, 0)
        return value

    texts = [taken() for _ in range(3)]
    count = struct.unpack_from(">i", reply, place)[0]
    place += 4
    others = []
    for _ in range(count):
        others.append(taken())
        taken()
        place += 4 + struct.unpack_from(">i", reply, place)[0]
    return error, generation, texts[1], texts[2], others


def sync(group, generation, member, shares):
    """SyncGroup version 3."""
    body = text(group) + struct.pack(">i", generation) + text(member) + NULL + struct.pack(">i", len(shares))
    return frame(14, 3, body + b"".join(text(other) + data(share) for other, share in shares))


def varint(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out) + bytes([value])


def compact(value):
    value = value.encode()
    return varint(len(value) + 1) + value


def array(items):
    return b"\0" if items is None else varint(len(items) + 1) + b"".join(items)


def heartbeat(group, member, epoch, topics, owned):
    """ConsumerGroupHeartbeat version 0; a full one has topics and what is owned, as pairs of a topic's id and its partitions."""
    topics = None if topics is None else [compact(topic) for topic in topics]
    owned = None if owned is None else [topic + array([struct.pack(">i", index) for index in indexes]) + b"\0" for topic, indexes in owned]
    timeout = 60_000 if epoch == 0 else -1
    body = compact(group) + compact(member) + struct.pack(">i", epoch) + b"\0\0" + struct.pack(">i", timeout)
    return frame(68, 0, body + array(topics) + b"\0" + array(owned) + b"\0", flexible=True)


def heartbeat_reply(reply):
    """Error, epoch, interval and, if there is one, the assignment by topic."""
    place = 5 + 4

    def number():
        nonlocal place
        value, shift = 0, 0
        while True:
            byte = reply[place]
            place += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    error = struct.unpack_from(">h", reply, place)[0]
    place += 2
    for _ in range(2):
        length = number() - 1
        place += max(length, 0)
    epoch, interval_ms = struct.unpack_from(">ii", reply, place)
    place += 8
    told = {"error": error, "epoch": epoch, "interval_ms": interval_ms, "assignment": None}
    place += 1
    if reply[place - 1] == 1:
        told["assignment"] = {}
        for _ in range(number() - 1):
            topic = reply[place : place + 16]
            place += 16
            count = number() - 1
            told["assignment"][topic] = set(struct.unpack_from(f">{count}i", reply, place))
            place += 4 * count + 1
    return told
