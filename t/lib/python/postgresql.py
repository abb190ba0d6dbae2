"""A real PostgreSQL in a temporary folder, which tests start, stop, kill and put to sleep."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

import psycopg
from basics import ROOT, free_port, wait_until

INSTALL_SQL = ROOT / "scripts" / "postgres" / "install.sql"


def _newest_server() -> str:
    """Debian has the programs of each version in a separate folder."""
    servers = Path("/usr/lib/postgresql").glob("*/bin/postgres")
    return str(max((server.parent for server in servers), key=lambda folder: float(folder.parent.name), default=""))


POSTGRESQL_BIN = Path(os.environ.get("POSTGRESQL_BIN") or _newest_server())

Connection = psycopg.Connection[tuple[Any, ...]]

# An option of connections, for tests in which no statement is to wait for another.
NOT_FOR_EVER = "-c statement_timeout=20s"

# Other users of this host reach ports of 127.0.0.1, too. What they don't have is this file, which libpq looks into.
PASSWORD = secrets.token_urlsafe(24)
_password_file = tempfile.NamedTemporaryFile("w", prefix="pat-pgpass-")
_password_file.write(f"*:*:*:*:{PASSWORD}\n")
_password_file.flush()
os.environ["PGPASSFILE"] = _password_file.name


def _stat_of(pid: int) -> list[str]:
    """What the kernel says of a process, from its state on; nothing if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


class _Process:
    """A process by its number and the time it began: never another one that has the same number later."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._began = self._read_began()

    def _read_began(self) -> str:
        stat = _stat_of(self.pid)
        return stat[19] if stat and stat[0] != "Z" else ""

    def runs(self) -> bool:
        return self._began != "" and self._read_began() == self._began

    def send(self, number: signal.Signals) -> None:
        if self.runs():
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


def _children_of(pid: int) -> list[_Process]:
    numbers = (int(entry) for entry in os.listdir("/proc") if entry.isdecimal())
    return [_Process(number) for number in numbers if _stat_of(number)[1:2] == [str(pid)]]


class PostgreSQL:
    """A cluster with a server of its own: a Unix socket in its folder, and a port of 127.0.0.1.

    It runs as the user postgres (or nobody) if the tests run as root, which PostgreSQL refuses. By the socket, whoever
    gets into the folder may log in as anybody: this user, and root. By the port, logins need the password of the tests.
    `fsync=False` is for tests that neither kill it nor measure it.
    """

    def __init__(self, *, fsync: bool = True, settings: Mapping[str, str] | None = None) -> None:
        # A short path: that of a socket has at most 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="pat-pg-", dir="/tmp"))
        self.data = self.folder / "data"
        self.log = self.folder / "log"
        self.port = 0
        self._settings = {"fsync": "on" if fsync else "off", **(settings or {})}
        self._server: subprocess.Popen[bytes] | None = None
        self._paused: list[_Process] = []

        self.user: int | None = None
        self._group: int | None = None
        self._extra_groups: list[int] | None = None
        if os.geteuid() == 0:
            users = {entry.pw_name: entry for entry in pwd.getpwall()}
            account = users.get("postgres", users["nobody"])
            self.user, self._group, self._extra_groups = account.pw_uid, account.pw_gid, []
            os.chown(self.folder, self.user, self._group)

    def __enter__(self) -> PostgreSQL:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    # Life and death

    def initialise(self) -> None:
        self._run("initdb", "--pgdata", str(self.data), "--auth-local=trust", "--auth-host=scram-sha-256",
                  "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync")

    def become_standby_of(self, primary: PostgreSQL) -> None:
        self._run("pg_basebackup", "--pgdata", str(self.data), "--write-recovery-conf", "--checkpoint=fast",
                  "--no-sync", "--dbname", primary.socket_url("postgres"))

    def start(self) -> PostgreSQL:
        """Starts it, on the port it had before, and waits until it answers."""
        if not self.data.exists():
            self.initialise()

        keep_port = self.port != 0
        for _ in range(20):
            self.port = self.port if keep_port else free_port()
            if self._start_once():
                return self
            if keep_port or "in use" not in self.log.read_text(errors="replace"):
                break
        raise RuntimeError(f"PostgreSQL does not start:\n{self.log.read_text(errors='replace')[-4000:]}")

    def _start_once(self) -> bool:
        options = {"listen_addresses": "127.0.0.1", "port": str(self.port), "unix_socket_directories": str(self.folder),
                   **self._settings}
        arguments = [argument for name, value in options.items() for argument in ("-c", f"{name}={value}")]
        with self.log.open("ab") as log:
            log.truncate(0)
            server = subprocess.Popen([POSTGRESQL_BIN / "postgres", "-D", self.data, *arguments],
                                      stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder,
                                      start_new_session=True, user=self.user, group=self._group,
                                      extra_groups=self._extra_groups)
        self._server = server

        def answers() -> bool:
            if server.poll() is not None:
                return True
            with suppress(psycopg.OperationalError):
                self.connect().close()
                return True
            return False

        wait_until(answers, "PostgreSQL starts", 180)
        if server.poll() is not None:
            self._server = None
            return False
        return True

    def stop(self, mode: str = "fast") -> None:
        """Stops it in PostgreSQL's sense: `smart` waits for clients, `fast` sends them away, `immediate` is a crash."""
        server = self._server
        if server is None:
            return
        self.resume()
        server.send_signal({"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}[mode])
        server.wait(60)
        self._server = None

    def kill(self) -> None:
        """Kills the server and everything it has started, and returns when all of it is gone."""
        server = self._server
        if server is None:
            return
        server.send_signal(signal.SIGSTOP)  # so that it starts nothing more
        children = _children_of(server.pid)
        server.kill()
        server.wait()
        for child in children:
            child.send(signal.SIGKILL)
        wait_until(lambda: not any(child.runs() for child in children), "the backends are gone")
        self._server = None
        self._paused = []

    def restart(self, mode: str = "fast") -> None:
        self.stop(mode)
        self.start()

    def pause(self) -> None:
        """Stops all its processes where they are: connections stay, and nobody answers."""
        if self._server is not None and not self._paused:
            postmaster = _Process(self._server.pid)
            postmaster.send(signal.SIGSTOP)
            self._paused = [postmaster, *_children_of(postmaster.pid)]
            for process in self._paused:
                process.send(signal.SIGSTOP)

    def resume(self) -> None:
        for process in reversed(self._paused):
            process.send(signal.SIGCONT)
        self._paused = []

    def configure(self, name: str, value: str) -> None:
        """Sets what has no place on the command line. It counts from the next start on."""
        with (self.data / "postgresql.auto.conf").open("a") as configuration:
            configuration.write(f"{name} = '{value}'\n")

    def catch_up(self, primary: PostgreSQL) -> None:
        """Waits until this standby has all that its primary has committed."""
        wanted = primary.psql("SELECT pg_current_wal_lsn()").strip()
        wait_until(lambda: self.psql(f"SELECT pg_last_wal_replay_lsn() >= '{wanted}'").strip() == "t", "the standby")

    def promote(self) -> None:
        self.psql("SELECT pg_promote()")

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def is_running(self) -> bool:
        return self._server is not None and self._server.poll() is None

    # The files of a cluster that is stopped

    def save(self, name: str) -> None:
        shutil.copytree(self.data, self.folder / name, symlinks=True)
        self._give_away(self.folder / name)

    def put_back(self, name: str) -> None:
        shutil.rmtree(self.data)
        shutil.copytree(self.folder / name, self.data, symlinks=True)
        self._give_away(self.data)

    def _give_away(self, folder: Path) -> None:
        if self.user is not None and self._group is not None:
            for path in [folder, *folder.rglob("*")]:
                os.chown(path, self.user, self._group, follow_symlinks=False)

    # Clients

    def connect(self, *, user: str = "postgres", dbname: str = "postgres", **options: Any) -> Connection:
        return psycopg.connect(host=str(self.folder), port=self.port, user=user, dbname=dbname, **options)

    def create_login(self, name: str, role: str | None = None) -> None:
        """A login for the port, too."""
        self.psql(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'" + (f" IN ROLE {role}" if role else ""))

    def url(self, role: str, dbname: str = "postgres") -> str:
        """By the port: for logins that create_login() has made."""
        return f"postgresql://{quote(role)}@127.0.0.1:{self.port}/{quote(dbname)}"

    def socket_url(self, role: str, dbname: str = "postgres") -> str:
        return f"postgresql:///{quote(dbname)}?host={self.folder}&port={self.port}&user={quote(role)}"

    def psql(self, sql: str, *, dbname: str = "postgres", user: str = "postgres") -> str:
        """Runs SQL, or a script of psql; what it prints, unaligned."""
        return self._psql(["-f", "-"], sql, dbname, user)

    def install(self, dbname: str, *, user: str = "postgres") -> str:
        """What it warned of."""
        return self._run_psql(["-f", str(INSTALL_SQL)], "", dbname, user).stderr

    def dump(self, dbname: str, *options: str) -> str:
        return self._run("pg_dump", *options, "--dbname", self.socket_url("postgres", dbname))

    def _psql(self, arguments: list[str], sql: str, dbname: str, user: str) -> str:
        return self._run_psql(arguments, sql, dbname, user).stdout

    def _run_psql(
        self, arguments: list[str], sql: str, dbname: str, user: str
    ) -> subprocess.CompletedProcess[str]:
        # As the user of the tests, who can read the repository.
        done = subprocess.run([POSTGRESQL_BIN / "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d",
                               self.socket_url(user, dbname),
                               *arguments], input=sql, capture_output=True, text=True, timeout=120)
        self._output("psql", done)
        return done

    def _run(self, program: str, *arguments: str, input: str = "") -> str:
        """Runs a program of PostgreSQL's as the user of the server."""
        done = subprocess.run([POSTGRESQL_BIN / program, *arguments], input=input, capture_output=True, text=True,
                              timeout=120, cwd=self.folder, user=self.user, group=self._group,
                              extra_groups=self._extra_groups)
        return self._output(program, done)

    @staticmethod
    def _output(program: str, done: subprocess.CompletedProcess[str]) -> str:
        if done.returncode != 0:
            raise RuntimeError(f"{program}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout


class Database:
    """A database with the schema pat, on a server that others use, too."""

    def __init__(self, server: PostgreSQL, name: str) -> None:
        self.server = server
        self.name = name

    def connect(self, user: str = "postgres", **options: Any) -> Connection:
        """A connection that commits each statement, unless said otherwise."""
        return self.server.connect(user=user, dbname=self.name, **{"autocommit": True, **options})

    def url(self, role: str) -> str:
        return self.server.url(role, self.name)

    def install(self, user: str = "postgres") -> str:
        return self.server.install(self.name, user=user)

    def psql(self, sql: str, user: str = "postgres") -> str:
        return self.server.psql(sql, dbname=self.name, user=user)


def one(connection: Connection, query: str, *arguments: Any) -> Any:
    """The first value of the only row."""
    (row,) = connection.execute(query, arguments).fetchall()
    return row[0]


def issue(connection: Connection, subject: str = "alice", **options: Any) -> tuple[str, str]:
    """The id and the token."""
    named = "".join(f", {name} => %({name})s" for name in options)
    (row,) = connection.execute(f"SELECT id, token FROM pat.issue(%(subject)s{named})", {"subject": subject, **options})
    return row[0], row[1]


LOGINS = {"shop": "pat_platform", "edge": "pat_edge", "profile": "pat_profile", "admin": "pat_admin",
          "auditor": "pat_auditor", "stranger": None}


def prepare(server: PostgreSQL, template: str = "pat_template") -> None:
    """Makes a template of databases with the schema, and logins: one for each role, and one without any."""
    server.psql(f"CREATE DATABASE {template}")
    server.install(template)
    for login, role in LOGINS.items():
        server.create_login(login, role)


@contextmanager
def new_database(server: PostgreSQL, name: str, template: str | None = "pat_template") -> Iterator[Database]:
    """A database that is dropped afterwards; without a template, it is empty."""
    server.psql(f"CREATE DATABASE {name}" + (f" TEMPLATE {template}" if template else ""))
    try:
        yield Database(server, name)
    finally:
        if server.is_running:
            server.psql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
