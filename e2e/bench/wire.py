"""Requests by hand, and the connections that carry them: what those of groups and of transactions have in common."""

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


def create_topic(bootstrap, topic, partitions, replicas=1):
    """CreateTopics version 4."""
    body = struct.pack(">i", 1) + text(topic) + struct.pack(">ihii", partitions, replicas, 0, 0) + struct.pack(">ib", 60_000, 0)
    link = Connection(at(bootstrap))
    link.ask(frame(19, 4, body))
    link.close()
