"""A store is open in one PID namespace at a time: LMDB knows processes by their PIDs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from basics import DEADLINE, PATCTL, wait_until
from nginx import Nginx
from store import Store

OTHER_NAMESPACE = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
SKIPPED = "NOT RUN: PID namespaces are not permitted here."
HTTP = "auth_pat_store STORE; server { listen 127.0.0.1:PORT; location / { auth_pat API; try_files /nowhere =204; } }"

pytestmark = pytest.mark.skipif(
    subprocess.run([*OTHER_NAMESPACE, "true"], stderr=subprocess.DEVNULL).returncode != 0, reason=SKIPPED
)


def nginx(folder: Path, store: Store) -> Nginx:
    return Nginx(folder, HTTP, STORE=store.folder)


def assert_refused(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 3, done
    assert "another PID namespace" in done.stderr
    assert "shareProcessNamespace: true" in done.stderr
    assert "one service for both" in done.stderr


def test_a_writer_beside_nginx(folder: Path, store: Store) -> None:
    token = store.issue()
    with nginx(folder / "nginx", store) as server:
        assert server.request("/", "a", headers=token.header) == 204
        for command in (["revoke", token.id], ["list"]):
            inside = [*OTHER_NAMESPACE, PATCTL, "--store", str(store.folder), *command]
            assert_refused(subprocess.run(inside, capture_output=True, text=True, timeout=DEADLINE))
        assert server.request("/", "a", headers=token.header) == 204
        store.revoke(token)
        assert server.request("/", "a", headers=token.header) == 401


def test_nginx_beside_a_writer(folder: Path, store: Store) -> None:
    token = store.issue()
    inside = [*OTHER_NAMESPACE, PATCTL, "--store", str(store.folder), "apply"]
    with subprocess.Popen(inside, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdin is not None and writer.stdout is not None
        assert '"opened"' in writer.stdout.readline()
        with nginx(folder / "nginx", store) as server:
            server.logged(r"\[crit\].*another PID namespace")
            assert server.request("/", "a", headers=token.header) == 503
            assert_refused(
                subprocess.run(
                    [PATCTL, "--store", str(store.folder), "revoke", token.id],
                    capture_output=True,
                    text=True,
                    timeout=DEADLINE,
                )
            )
            writer.stdin.close()
            assert writer.wait(DEADLINE) == 0
            wait_until(lambda: server.request("/", "a", headers=token.header) == 204, "nginx serves the store")
            store.revoke(token)
            assert server.request("/", "a", headers=token.header) == 401


def test_two_nginx(folder: Path, store: Store) -> None:
    token = store.issue()
    first = nginx(folder / "first", store)
    second = nginx(folder / "second", store)
    with first:
        inside = subprocess.Popen([*OTHER_NAMESPACE, *second.command], stderr=subprocess.DEVNULL)
        try:
            second.logged(r"\[crit\].*another PID namespace")
            assert second.request("/", "a", headers=token.header) == 503
            assert first.request("/", "a", headers=token.header) == 204
            first.reload()
            first.stop()
            wait_until(lambda: second.request("/", "a", headers=token.header) == 204, "the second serves the store")
        finally:
            inside.kill()
            inside.wait(DEADLINE)
