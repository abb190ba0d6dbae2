"""A network between a client and a server that can be cut or go silent."""

from __future__ import annotations

import selectors
import socket
import threading
from contextlib import suppress
from types import TracebackType

_PART = 65536


class Network:
    """Forwards connections from its own port to a port on 127.0.0.1."""

    def __init__(self, to_port: int) -> None:
        self._to = ("127.0.0.1", to_port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])

        self._lock = threading.Lock()
        self._peers: dict[socket.socket, socket.socket] = {}
        self._is_dead = False
        self._is_down = False
        self._ends = False

        # A byte wakes the thread up.
        self._waker, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self) -> Network:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self._ends = True
        self._wake()
        self._thread.join()
        self._close_all()
        for one in (self._listener, self._waker, self._woken):
            one.close()

    def cut(self) -> None:
        """Close all connections; new ones are possible at once."""
        with self._lock:
            self._close_all()
        self._wake()

    def go_down(self) -> None:
        """Close all connections, and refuse new ones until restore()."""
        self._is_down = True
        self.cut()

    def go_dead(self) -> None:
        """Silently forward nothing until restore()."""
        self._is_dead = True
        self._wake()

    def restore(self) -> None:
        self._is_dead = self._is_down = False
        self._wake()

    def _wake(self) -> None:
        self._waker.send(b"!")

    def _close_all(self) -> None:
        for one in list(self._peers):
            one.close()
        self._peers.clear()

    def _run(self) -> None:
        while not self._ends:
            with selectors.DefaultSelector() as selector:
                selector.register(self._woken, selectors.EVENT_READ)
                selector.register(self._listener, selectors.EVENT_READ)
                with self._lock:
                    if not self._is_dead:
                        for peer in self._peers:
                            selector.register(peer, selectors.EVENT_READ)
                ready = [key.fileobj for key, _ in selector.select()]
            for one in ready:
                assert isinstance(one, socket.socket)
                if one is self._woken:
                    one.recv(_PART)
                elif one is self._listener:
                    self._accept()
                else:
                    self._pass_on(one)

    def _accept(self) -> None:
        client = self._listener.accept()[0]
        if self._is_down:
            client.close()
            return
        try:
            server = socket.create_connection(self._to, 5)
        except OSError:
            client.close()
            return
        for one in (client, server):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            one.settimeout(1)
        with self._lock:
            self._peers |= {client: server, server: client}

    def _pass_on(self, one: socket.socket) -> None:
        with self._lock:
            peer = self._peers.get(one)
            if peer is None or self._is_dead:
                return
            part = b""
            with suppress(OSError):
                part = one.recv(_PART)
                peer.sendall(part)
            if not part:
                for end in (one, peer):
                    self._peers.pop(end, None)
                    end.close()
