"""Options from the command line, the environment and a file, and their validation."""

from __future__ import annotations

import argparse
import errno
import functools
import os
import re
import shutil
import socket
import stat
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import configargparse  # type: ignore[import]

from pat_sync import VERSION, log
from pat_sync.errors import ConfigurationError, NotReady
from pat_sync.sources import KINDS, enumerate_words, find_kind
from pat_sync.sources.source import Kind
from pat_sync.url import has_secret, is_exposed, is_loopback, redact, split

DEFAULT_FILE = Path("/etc/nginx-auth-pat/pat-sync.conf")

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_BROKEN = 3

# How many symbolic links the kernel follows in a path.
_MOST_LINKS = 40

_DESCRIPTION = """\
Keeps the token store that nginx reads in sync with a source: a PostgreSQL database, an HTTP feed, or a file."""

_EPILOG = """\
"pat-sync status" reports problems; "pat-sync compare" compares the store with a database. Each option can also be set by
a line "name = value" in the configuration file, or by an environment variable such as PAT_SYNC_SOURCE. Exit status: 0
done or stopped; 1 failed (--once), or problems found (status, compare); 2 wrong usage or configuration; 3 a prerequisite
is missing, or pat-sync hung. See docs/pat-sync.md."""


@dataclass(frozen=True)
class Settings:
    command: str
    as_json: bool
    source: str
    store: Path
    patctl: Path
    once: bool
    batch: int
    poll_interval: float
    heartbeat_interval: float
    query_timeout: float
    pooler: str
    settle: float
    ca_file: Path | None
    client_cert: Path | None
    client_key: Path | None
    password: str | None
    token: str | None
    insecure_http: bool
    file_format: str | None
    usage_url: str | None
    usage_interval: float
    edge: str
    metrics_listen: tuple[str, int] | None
    metrics_textfile: Path | None

    @property
    def source_name(self) -> str:
        """The source without password and parameters, fit for logs."""
        return redact(self.source)


def read(arguments: list[str]) -> Settings:
    """Exit with EXIT_USAGE on wrong options; raise ConfigurationError on unusable values."""
    _refuse_secrets(arguments)

    options, file = _parse(arguments)
    if not options.source or not options.store:
        raise ConfigurationError(f"no --{'store' if options.source else 'source'} is given")
    if options.patctl is not None and os.path.isfile(options.patctl):
        _require_trusted(options.patctl, _stat(options.patctl))
    for path in (options.ca_file, options.client_cert):
        if path is not None and os.path.isfile(path):
            require_trusted_file(path)
    kind = find_kind(options.source)
    kind.check(options.source, options.insecure_http)
    if options.usage_url is not None:
        _check_usage_url(options.usage_url, kind, options.insecure_http)
    if file is not None and has_secret(options.source) and options.source in file.text:
        _warn_if_readable(file.path, _stat(file.path), "it has a password, and ")

    if (options.client_cert is None) != (options.client_key is None):
        raise ConfigurationError("--client-cert and --client-key belong together")
    if options.client_key is not None:
        require_trusted_file(options.client_key, is_key=True)
    for path in (options.ca_file, options.client_cert):
        if path is not None and not os.access(path, os.R_OK):
            raise NotReady(f'cannot read "{path}"')

    return Settings(
        command=options.command,
        as_json=options.json,
        source=options.source,
        store=options.store,
        patctl=_find_patctl(options.patctl),
        once=options.once,
        batch=options.batch,
        poll_interval=options.poll_interval,
        heartbeat_interval=options.heartbeat_interval,
        query_timeout=options.query_timeout,
        pooler=options.pooler,
        settle=options.settle,
        ca_file=options.ca_file,
        client_cert=options.client_cert,
        client_key=options.client_key,
        password=_read_secret(options.password_file),
        token=_read_token(options.token_file),
        insecure_http=options.insecure_http,
        file_format=options.file_format,
        usage_url=options.usage_url,
        usage_interval=options.usage_interval,
        edge=_edge(options.edge),
        metrics_listen=_metrics_address(options.metrics_listen, options.metrics_allow_remote),
        metrics_textfile=options.metrics_textfile,
    )


@dataclass(frozen=True)
class _File:
    """A configuration file and its content."""

    path: Path
    text: str


def _parse(arguments: list[str]) -> tuple[argparse.Namespace, _File | None]:
    """Parse the options, and return them with the configuration file, if there is one."""
    # configargparse would read --config in addition to the default file: find the name first, then pass it the text.
    named, _ = _parser(None).parse_known_args(arguments, config_file_contents="")
    file = _find_file(named.config)
    parser = _parser(None if file is None else file.path)
    return parser.parse_args(arguments, config_file_contents="" if file is None else file.text), file


def _find_file(name: str | None) -> _File | None:
    """The named file, which must exist, or else the default file, if it exists."""
    if name == "":
        raise ConfigurationError("--config is empty; to use no file, set --config /dev/null")
    path = DEFAULT_FILE if name is None else Path(name)
    try:
        with path.open(encoding="utf-8") as file:
            status = os.fstat(file.fileno())
            if stat.S_ISREG(status.st_mode):
                _require_trusted(path, status)
                _require_trusted_folders(path)
            return _File(path, file.read())
    except UnicodeDecodeError:
        raise ConfigurationError(f'"{path}" is not UTF-8') from None
    except OSError as error:
        if name is None and isinstance(error, FileNotFoundError):
            return None
        raise NotReady(f'cannot read "{path}": {error.strerror}') from None


class _FileParser(configargparse.DefaultConfigFileParser):  # type: ignore[misc]
    def __init__(self, path: Path | None) -> None:
        super().__init__()
        self._path = path

    def parse(self, stream: Iterable[str]) -> dict[str, Any]:
        """Refuse repeated names: settings of two platforms in one file, as in sections, would be mixed up."""
        items: dict[str, Any] = {}
        for number, line in enumerate(stream, 1):
            place = f'"{self._path}", line {number}'
            try:
                found = super().parse([line])
            except configargparse.ConfigFileParserException:
                raise configargparse.ConfigFileParserException(f'{place} is not of the form "name = value"') from None
            for name, value in found.items():
                name = name.lstrip("-")
                if name in items:
                    raise configargparse.ConfigFileParserException(f'{place}: "{name}" is given twice')
                if name == "config":
                    raise configargparse.ConfigFileParserException(f"{place}: \"config\" cannot be set in a configuration file")
                items[name] = value
        return items


class _Parser(configargparse.ArgumentParser):  # type: ignore[misc]
    def error(self, message: object) -> NoReturn:
        """Scrub the message, which may quote a line of the configuration file."""
        print(f"pat-sync: {log.scrub(str(message))}; see pat-sync --help", file=sys.stderr)
        sys.exit(EXIT_USAGE)


class _Once(argparse.Action):
    """An option that may be given only once."""

    def __call__(self, parser: object, namespace: argparse.Namespace, values: Any, option: str | None = None) -> None:
        if getattr(namespace, self.dest) is not None:
            raise argparse.ArgumentError(self, "it is given twice")
        setattr(namespace, self.dest, values)


def _parser(file: Path | None) -> _Parser:
    parser = _Parser(
        prog="pat-sync",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        config_file_parser_class=functools.partial(_FileParser, file),
        auto_env_var_prefix="PAT_SYNC_",
        add_env_var_help=False,
        add_config_file_help=False,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("command", nargs="?", choices=["run", "status", "compare"], default="run", help='"run" (the default) follows the source')
    add("--version", action="version", version=f"pat-sync {VERSION}", help="print the version and exit")
    add("--json", action="store_true", help='print the result of "status" or "compare" as JSON')
    add("--config", action=_Once, metavar="FILE", help=f"configuration file; {DEFAULT_FILE}")
    add("--source", metavar="URL", help=enumerate_words(kind.example for kind in KINDS))
    add("--store", type=Path, metavar="DIR", help="folder of the store")
    add("--patctl", type=Path, metavar="FILE", help="patctl program; beside pat-sync, or in PATH")
    add("--once", action="store_true", help="exit once the store has everything that the source has")
    add("--batch", type=_positive_int, default=5000, metavar="N", help="changes per query; %(default)s")
    add("--poll-interval", type=_seconds, default=1.0, metavar="S", help="seconds between polls; %(default)s")
    add("--heartbeat-interval", type=_seconds, default=5.0, metavar="S", help="seconds between heartbeats; %(default)s")
    add("--query-timeout", type=_seconds, default=10.0, metavar="S", help="timeout of the source in seconds; %(default)s")
    add("--pooler", choices=["transaction", "session"], default="transaction", help="pool mode of a pooler; %(default)s")
    add("--settle", type=_seconds, default=1.0, metavar="S", help="seconds without a change before a file is read; %(default)s")
    add("--ca-file", type=Path, metavar="FILE", help="certificates to trust instead of the system's")
    add("--client-cert", type=Path, metavar="FILE", help="client certificate for the source")
    add("--client-key", type=Path, metavar="FILE", help="key of the client certificate")
    add("--password-file", type=Path, metavar="FILE", help="file with the PostgreSQL password on its first line")
    add("--token-file", type=Path, metavar="FILE", help="file with the feed's bearer token on its first line")
    add("--insecure-http", action="store_true", help="allow http:// to other hosts, without encryption or authentication")
    add("--file-format", choices=["jsonl", "csv"], help="format of a file:// source; by its extension")
    add("--usage-url", metavar="URL", help="nginx location with auth_pat_usage, to store last use in PostgreSQL")
    add("--usage-interval", type=_seconds, default=10.0, metavar="S", help="seconds between queries of --usage-url; %(default)s")
    add("--edge", default=socket.gethostname(), metavar="NAME", help="name under which last use is reported; the host's name")
    add("--metrics-listen", metavar="HOST:PORT", help="serve metrics for Prometheus on this address")
    add("--metrics-allow-remote", action="store_true", help="allow --metrics-listen on other addresses than loopback")
    add("--metrics-textfile", type=Path, metavar="FILE", help="write metrics to FILE, whose name should end in .prom")
    return parser


def _positive_int(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not 0.01 <= number <= 3600:
        raise ValueError
    return number


def _refuse_secrets(arguments: list[str]) -> None:
    """Refuse secrets on the command line, which every user of the host can read."""
    for argument in arguments:
        url = re.search(r"[a-z]+://.*", argument)
        if url and has_secret(url[0]):
            raise ConfigurationError(
                "a password on the command line is visible to every user: use --password-file or PGPASSFILE"
                " (PostgreSQL), --token-file (feed), the configuration file, or the environment variable"
                " PAT_SYNC_SOURCE"
            )


def _check_usage_url(url: str, kind: Kind, insecure_http: bool) -> None:
    if not kind.keeps_usage:
        raise ConfigurationError("--usage-url needs a source postgresql://, which stores last use")
    parts = split(url, "--usage-url")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError("--usage-url is not of the form http://127.0.0.1:PORT/usage")
    if has_secret(url):
        raise ConfigurationError("--usage-url must not contain a credential: allow this host's address in the location instead")
    if is_exposed(parts) and not insecure_http:
        raise ConfigurationError(
            f'--usage-url: "{redact(url)}" is not encrypted: use https://, or --insecure-http if others on the network'
            " may read and change last use"
        )


def _edge(name: str) -> str:
    """Check the name against the limits of pat.edge."""
    if not name.isprintable() or not 0 < len(name.encode()) <= 255:
        raise ConfigurationError("--edge must have 1 to 255 bytes, and only printable characters")
    return name


def _metrics_address(text: str | None, allow_remote: bool) -> tuple[str, int] | None:
    if text is None:
        return None
    host, _, port = text.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    if not re.fullmatch("[0-9]+", port) or not 0 < int(port) < 65536:
        raise ConfigurationError(f'--metrics-listen: "{text}" is not of the form HOST:PORT')
    if not allow_remote and not is_loopback(host):
        raise ConfigurationError(
            f'--metrics-listen: "{host}" is not a loopback address; allow it with --metrics-allow-remote'
        )
    return host, int(port)


def _require_trusted(path: Path, status: os.stat_result) -> None:
    """Refuse files that others can change: they decide which tokens are valid, or which program runs."""
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigurationError(f'"{path}": others can change it; chmod go-w "{path}"')
    if status.st_uid not in (0, os.geteuid()):
        raise ConfigurationError(f'"{path}": it belongs to another user, who can change it; chown root "{path}"')


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise NotReady(f'cannot read "{path}": {error.strerror}') from None


def _require_trusted_folders(path: Path) -> None:
    """Refuse paths in which others can rename the file, a folder or a symbolic link, and so replace the file."""
    place = Path("/")
    left = [*reversed(path.absolute().parts[1:])]
    links = 0
    while left:
        _require_trusted_folder(path, place, is_last=len(left) == 1)
        name = left.pop()
        if name == "..":
            place = place.parent
            continue
        place = place / name
        try:
            status = place.lstat()
            if not stat.S_ISLNK(status.st_mode):
                continue
            target = Path(os.readlink(place))
        except OSError as error:
            raise NotReady(f'cannot read "{path}": {error.strerror}') from None
        _require_trusted_owner(path, place, status)
        links += 1
        if links > _MOST_LINKS:
            raise NotReady(f'cannot read "{path}": {os.strerror(errno.ELOOP)}')
        place = Path("/") if target.is_absolute() else place.parent
        left += reversed(target.parts[1:] if target.is_absolute() else target.parts)


def _require_trusted_folder(path: Path, folder: Path, is_last: bool) -> None:
    status = _stat(folder)
    writable = stat.S_IWOTH | (stat.S_IWGRP if is_last else 0)
    if status.st_mode & writable and not status.st_mode & stat.S_ISVTX:
        raise ConfigurationError(f'"{path}": others can replace it; chmod go-w "{folder}"')
    _require_trusted_owner(path, folder, status)


def _require_trusted_owner(path: Path, place: Path, status: os.stat_result) -> None:
    if status.st_uid not in (0, os.geteuid()):
        raise ConfigurationError(
            f'"{path}": "{place}" belongs to another user, who can replace it; chown -h root "{place}"'
        )


def require_trusted_file(path: Path, is_key: bool = False) -> None:
    """Check a file that TLS relies on; others should not be able to read a key."""
    status = _stat(path)
    _require_trusted(path, status)
    _require_trusted_folders(path)
    if is_key:
        _warn_if_readable(path, status)


def _warn_if_readable(path: Path, status: os.stat_result, why: str = "") -> None:
    """Only warn: orchestrators mount secrets readable for all, in containers without other users."""
    if status.st_mode & stat.S_IROTH:
        log.log.warning(
            '"%s": %sothers can read it: run chmod o= on it, unless this host or container has no other users', path, why
        )


def _read_secret(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        with path.open() as file:
            status = os.fstat(file.fileno())
            if stat.S_ISREG(status.st_mode):
                _require_trusted(path, status)
                _require_trusted_folders(path)
                _warn_if_readable(path, status)
            lines = file.read().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise NotReady(f'cannot read "{path}": {type(error).__name__}') from None
    if not lines[0].strip():
        raise NotReady(f'"{path}": the first line is empty')
    log.hide(lines[0].strip())
    return lines[0].strip()


def _read_token(path: Path | None) -> str | None:
    token = _read_secret(path)
    if token is not None and not re.fullmatch("[\x21-\x7e]+", token):
        raise ConfigurationError(f'"{path}": a token has only printable ASCII characters, and no spaces')
    return token


def _find_patctl(given: Path | None) -> Path:
    here = Path(sys.argv[0]).resolve().parent
    beside = [here / "patctl", here.parent / "build" / "patctl"]
    in_path = shutil.which("patctl")
    candidates = [given] if given is not None else [*beside, *([Path(in_path)] if in_path else [])]
    for candidate in candidates:
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate
    raise NotReady(f'"{given}" is not a program' if given else "patctl was not found; set --patctl")
