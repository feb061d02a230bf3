"""The requests of group coordinators, by hand: what e2e/bench/groups plays its clients with. It checks nothing but error codes."""

import struct

from wire import NULL, data, frame, text


def commit(group, topic, offset):
    """OffsetCommit version 7 of one partition, by nobody. Its reply ends in the error code."""
    body = text(group) + struct.pack(">i", -1) + text("") + NULL + struct.pack(">i", 1) + text(topic)
    return frame(8, 7, body + struct.pack(">iiqi", 1, 0, offset, -1) + NULL)


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
