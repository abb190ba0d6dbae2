#!/usr/bin/python3
"""Applications for FastCGI, uwsgi and SCGI that answer with the parameters they get, one a line.

cgi_peer.py PROTOCOL PORT
"""

from __future__ import annotations

import socketserver
import struct
import sys
from typing import BinaryIO


def exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise EOFError
    return data


def read_fastcgi(stream: BinaryIO) -> list[tuple[bytes, bytes]]:
    """All records of a request; the parameters of it (FastCGI 1.0, 3.3 and 3.4)."""
    params = b""
    while True:
        _, kind, _, length, padding, _ = struct.unpack(">BBHHBB", exactly(stream, 8))
        content = exactly(stream, length)
        exactly(stream, padding)
        if kind == 4:
            params += content
        if kind == 5 and not content:
            break

    def take_length(at: int) -> tuple[int, int]:
        if params[at] < 0x80:
            return params[at], at + 1
        return struct.unpack(">I", params[at : at + 4])[0] & 0x7FFFFFFF, at + 4

    pairs, at = [], 0
    while at < len(params):
        name, at = take_length(at)
        value, at = take_length(at)
        pairs.append((params[at : at + name], params[at + name : at + name + value]))
        at += name + value
    return pairs


def read_uwsgi(stream: BinaryIO) -> list[tuple[bytes, bytes]]:
    _, size, _ = struct.unpack("<BHB", exactly(stream, 4))
    block = exactly(stream, size)
    words, at = [], 0
    while at < len(block):
        (length,) = struct.unpack("<H", block[at : at + 2])
        words.append(block[at + 2 : at + 2 + length])
        at += 2 + length
    return list(zip(words[::2], words[1::2], strict=True))


def read_scgi(stream: BinaryIO) -> list[tuple[bytes, bytes]]:
    digits = b""
    while (byte := exactly(stream, 1)) != b":":
        digits += byte
    words = exactly(stream, int(digits) + 1).removesuffix(b",").split(b"\0")[:-1]
    return list(zip(words[::2], words[1::2], strict=True))


READ = {"fastcgi": read_fastcgi, "uwsgi": read_uwsgi, "scgi": read_scgi}


class Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        protocol = sys.argv[1]
        text = b"".join(b"%s=%s\n" % pair for pair in READ[protocol](self.rfile))
        answer = b"Status: 200 OK\r\nContent-Type: text/plain\r\n\r\n" + text
        if protocol == "uwsgi":
            answer = b"HTTP/1.0 200 OK\r\n" + answer
        if protocol == "fastcgi":
            answer = (struct.pack(">BBHHBB", 1, 6, 1, len(answer), 0, 0) + answer
                      + struct.pack(">BBHHBB", 1, 3, 1, 8, 0, 0) + bytes(8))  # fmt: skip
        self.wfile.write(answer)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


with Server(("127.0.0.1", int(sys.argv[2])), Handler) as server:
    print("ready", flush=True)
    server.serve_forever()
