"""A real PgBouncer in a temporary folder, in front of a PostgreSQL."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import psycopg
from basics import free_port, wait_until
from postgresql import LOGINS, PASSWORD, Connection, Database, PostgreSQL

PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin") or "pgbouncer"


class PgBouncer:
    """Has at most `size` servers per login and database. The next client of a server sees state that was left on it."""

    def __init__(self, server: PostgreSQL, mode: str, size: int = 4) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pat-pb-", dir="/tmp"))
        self._server = server
        self._mode = mode
        self._size = size
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> PgBouncer:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def start(self) -> None:
        for _ in range(5):
            self.port = self.port or free_port()
            if self._start_once():
                return
            self.port = 0
        raise RuntimeError(f"PgBouncer does not start: {(self.folder / 'log').read_text()[-2000:]}")

    def _start_once(self) -> bool:
        (self.folder / "users").write_text("".join(f'"{login}" "{PASSWORD}"\n' for login in LOGINS))
        (self.folder / "pgbouncer.ini").write_text(
            f"[databases]\n* = host=127.0.0.1 port={self._server.port}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = scram-sha-256\nauth_file = {self.folder / 'users'}\n"
            f"pool_mode = {self._mode}\ndefault_pool_size = {self._size}\nserver_reset_query =\n"
        )
        # It refuses to run as root, and nobody else is to read the passwords.
        user = self._server.user
        if user is not None:
            for path in (self.folder, *self.folder.iterdir()):
                os.chown(path, user, -1)
        with (self.folder / "log").open("wb") as log:
            process = subprocess.Popen([PGBOUNCER, str(self.folder / "pgbouncer.ini")], user=user,
                                       stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        self._process = process

        def answers() -> bool:
            with suppress(psycopg.OperationalError):
                self.connect("edge", "postgres").close()
                return True
            return process.poll() is not None

        wait_until(answers, "PgBouncer answers")
        return process.poll() is None

    def stop(self) -> None:
        if self._process is not None:
            # What SIGTERM and SIGQUIT mean differs between releases.
            self._process.kill()
            self._process.wait(60)
            self._process = None

    def connect(self, user: str, dbname: str, **options: Any) -> Connection:
        return psycopg.connect(host="127.0.0.1", port=self.port, user=user, dbname=dbname, **options)

    def url(self, database: Database, role: str = "edge") -> str:
        return f"postgresql://{role}@127.0.0.1:{self.port}/{database.name}"

    def states(self, database: Database, servers: int, role: str = "edge") -> set[tuple[Any, ...]]:
        """The session state that this many clients find on as many servers, held at the same time."""
        clients = [self.connect(role, database.name, prepare_threshold=None) for _ in range(servers)]
        try:
            # Each is in a transaction from here on.
            return {
                client.execute(
                    "SELECT pg_backend_pid(), current_setting('statement_timeout'), current_setting('lock_timeout'),"
                    " (SELECT count(*) FROM pg_prepared_statements), (SELECT count(*) FROM pg_listening_channels()),"
                    " (SELECT count(*) FROM pg_cursors), current_setting('search_path'),"
                    " (SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory')"
                ).fetchone()
                or ()
                for client in clients
            }
        finally:
            for client in clients:
                client.close()
