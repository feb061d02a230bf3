"""Requests by hand, and the connections that carry them: what those of groups and of transactions have in common."""

import contextlib
import socket
import struct
import time

CLIENT = b"bench"
PATIENCE_S = 120


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

    def __init__(self, address, timeout_s=PATIENCE_S):
        self.socket = socket.create_connection(address, timeout=timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request):
        self.socket.sendall(request)
        return self.reply()

    def ask_all(self, requests):
        """Sends all of them, and yields the replies in their order. No more of them than a connection's window takes."""
        self.socket.sendall(b"".join(requests))
        for _ in requests:
            yield self.reply()

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


GROUP, TRANSACTION = 0, 1


def coordinator(bootstrap, key, kind=GROUP):
    """FindCoordinator version 1: error, host and port."""
    link = Connection(at(bootstrap))
    reply = link.ask(frame(10, 1, text(key) + bytes([kind])))
    link.close()
    error, length = struct.unpack_from(">hh", reply, 8)
    place = 12 + max(length, 0) + 4
    length = struct.unpack_from(">h", reply, place)[0]
    host = reply[place + 2 : place + 2 + length].decode()
    return error, host, struct.unpack_from(">i", reply, place + 2 + length)[0]


def call(address, request):
    """Sends one request whose reply ends in an error code, and returns that."""
    link = Connection(address)
    reply = link.ask(request)
    link.close()
    return struct.unpack(">h", reply[-2:])[0]


def await_coordinator(cluster, key, kind=GROUP, takes=None, pause_s=0.05):
    """Who coordinates a group or a transactional id, once somebody does and takes this request, if there is one. Every broker is asked: some may be gone."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        for bootstrap in cluster.bootstrap().split(","):
            with contextlib.suppress(OSError):
                error, host, port = coordinator(bootstrap, key, kind)
                if error == 0 and (takes is None or call((host, port), takes) == 0):
                    return host, port
        time.sleep(pause_s)
    raise TimeoutError(f"nobody coordinates {key}")


def list_offsets(address, topic, partitions):
    """ListOffsets version 4 of all partitions of a topic; their error codes."""
    body = struct.pack(">ibi", -1, 0, 1) + text(topic) + struct.pack(">i", partitions)
    body += b"".join(struct.pack(">iiq", p, -1, -1) for p in range(partitions))
    with contextlib.closing(Connection(address, timeout_s=10)) as link:
        reply = link.ask(frame(2, 4, body))
    at = 4 + 4 + 4 + 2 + len(topic.encode()) + 4
    return [struct.unpack_from(">h", reply, at + 26 * p + 4)[0] for p in range(partitions)]


def create_topic(bootstrap, topic, partitions, replicas=1):
    """CreateTopics version 4."""
    body = struct.pack(">i", 1) + text(topic) + struct.pack(">ihii", partitions, replicas, 0, 0) + struct.pack(">ib", 60_000, 0)
    link = Connection(at(bootstrap))
    link.ask(frame(19, 4, body))
    link.close()
