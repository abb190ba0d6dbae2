"""A certificate authority, and a certificate for 127.0.0.1 that it signed."""

from __future__ import annotations

import subprocess
from pathlib import Path


class Authority:
    """Its files are in a folder, which it makes."""

    def __init__(self, folder: Path) -> None:
        self.ca = folder / "ca.pem"
        self.certificate = folder / "server.pem"
        self.key = folder / "server.key"
        folder.mkdir()
        new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        # Python 3.13 demands it.
        usage = ["-addext", "keyUsage=critical,keyCertSign"]
        _run(*new, *usage, "-subj", "/CN=ca", "-keyout", folder / "ca.key", "-out", self.ca)
        _run(
            *new, "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
            "-addext", "basicConstraints=critical,CA:FALSE",
            "-CA", self.ca, "-CAkey", folder / "ca.key", "-keyout", self.key, "-out", self.certificate,
        )  # fmt: skip


def _run(*arguments: str | Path) -> None:
    subprocess.run(list(map(str, arguments)), check=True, capture_output=True, timeout=60)
