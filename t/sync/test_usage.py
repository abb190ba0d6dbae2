"""Use of tokens, from nginx through pat-sync to the platform: nothing is lost or counted twice, and nothing else suffers."""

from __future__ import annotations

import json
import random
import re
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from basics import DEADLINE, free_port, wait_until
from network import Network
from postgresql import Connection, Database, PostgreSQL, new_database, prepare
from sidecar import PatSync, once, pat_sync, scrape, value
from store import Store
from usage_server import Handler, UsageServer

FAST = ("--usage-interval", "0.05", "--query-timeout", "1")


@pytest.fixture
def nginx() -> Iterator[UsageServer]:
    with UsageServer() as made:
        yield made


def arguments(source: str, store: Store, nginx: UsageServer, *more: str) -> list[str]:
    return ["--source", source, "--store", str(store.folder), "--usage-url", nginx.url, "--edge", "e1", *FAST, *more]


def follow(database: Database, store: Store, nginx: UsageServer, *more: str) -> PatSync:
    return PatSync(*arguments(database.url("edge"), store, nginx, *more))


def make_tokens(connection: Connection, *ids: str) -> None:
    for id in ids:
        connection.execute(
            "INSERT INTO pat.token (digest, id, subject) VALUES (sha256(%s), %s, 'user:1')", (id.encode(), id)
        )


def uses(connection: Connection) -> Counter[str]:
    return Counter({id: count for id, count in connection.execute("SELECT id, uses FROM pat.tokens WHERE uses > 0")})


def last_batch(connection: Connection, edge: str = "e1") -> int:
    row = connection.execute("SELECT max(batch) FROM pat.edge WHERE name = %s", (edge,)).fetchone()
    return row[0] or 0 if row is not None else 0


def wait_until_counted(connection: Connection, nginx: UsageServer) -> None:
    """Wait a little longer, so that double counting would be noticed."""
    wait_until(lambda: sum(uses(connection).values()) >= sum(nginx.used.values()), "the uses are counted")
    asked = len(nginx.requests)
    wait_until(lambda: len(nginx.requests) >= asked + 3 and nginx.is_reported, "nothing more is to be reported")
    assert uses(connection) == nginx.used


# --- what the platform shows ---


def test_the_platform_shows_when_from_where_and_how_often(
    database: Database, store: Store, nginx: UsageServer
) -> None:
    def shown(id: str) -> tuple[object, ...]:
        rows = platform.execute(
            "SELECT extract(epoch FROM last_used_at)::bigint, host(last_used_from), uses FROM pat.tokens WHERE id = %s",
            (id,),
        ).fetchall()
        return tuple(rows[0])

    with database.connect("shop") as platform, database.connect() as owner:
        make_tokens(owner, "a", "b", "c")
        nginx.use("a", 3, 1700000000, "203.0.113.7")
        nginx.use("b", 1, 1700000001, "2001:db8::1")
        nginx.use("unknown", 5)
        nginx.used.pop("unknown")
        with follow(database, store, nginx):
            wait_until_counted(owner, nginx)
            assert shown("a") == (1700000000, "203.0.113.7", 3)
            assert shown("b") == (1700000001, "2001:db8::1", 1)
            assert shown("c") == (None, None, 0)

            # From a UNIX socket.
            nginx.use("a", 2, 1700000009, "")
            wait_until_counted(owner, nginx)
            assert shown("a") == (1700000009, None, 5)
        assert nginx.requests[-1]["after"] == str(last_batch(owner)) == "2"


def test_without_use_nothing_is_written(database: Database, store: Store, nginx: UsageServer) -> None:
    with database.connect() as owner:
        nginx.cursor = 7
        with follow(database, store, nginx) as sync:
            wait_until(lambda: len(nginx.requests) > 3, "some looks")
            assert {query["after"] for query in nginx.requests} == {"0"}
            assert not sync.find("use was|use is|bug")
        assert owner.execute("SELECT FROM pat.edge").fetchall() == []


def test_full_batches_follow_each_other_at_once(database: Database, store: Store, nginx: UsageServer) -> None:
    ids = [f"t{number}" for number in range(2500)]
    with database.connect() as owner, owner.transaction():
        make_tokens(owner, *ids)
    for id in ids:
        nginx.use(id)
    with database.connect() as owner, follow(database, store, nginx, "--usage-interval", "3600"):
        wait_until(lambda: uses(owner) == nginx.used, "all are counted")
        assert [query["after"] for query in nginx.requests] == ["0", "1", "2"]

        # And this was not a full one.
        nginx.use("t0")
        time.sleep(0.5)
        assert len(nginx.requests) == 3


def test_counts_of_millions_are_exact(database: Database, store: Store, nginx: UsageServer) -> None:
    with database.connect() as owner:
        make_tokens(owner, "a", "b", "c")
        for id, times in (("a", 1_000_000), ("b", 1_000_001), ("c", 4_000_000_003)):
            nginx.use(id, times)
        with follow(database, store, nginx):
            wait_until_counted(owner, nginx)


def test_an_edge_is_named_after_its_host(database: Database, store: Store, nginx: UsageServer) -> None:
    nginx.use("unknown")
    given = arguments(database.url("edge"), store, nginx)
    at = given.index("--edge")
    assert once(*given[:at], *given[at + 2 :]).returncode == 0
    with database.connect() as owner:
        assert last_batch(owner, socket.gethostname()) == 1


# --- what gets lost on the way ---


@pytest.mark.parametrize("fault", ["lose", "cut"])
def test_an_answer_that_does_not_arrive_is_asked_for_again(
    fault: str, database: Database, store: Store, nginx: UsageServer
) -> None:
    with database.connect() as owner:
        make_tokens(owner, "a", "b")
        with follow(database, store, nginx) as sync:
            for number in range(5):
                nginx.use("a", 2)
                nginx.use("b")
                nginx.faults.append(getattr(nginx, fault))
                sync.wait_for_line("warning: last use was not reported, trying again in", number + 1)
            wait_until_counted(owner, nginx)
            sync.wait_for_line("info: last use is reported again after")


def test_a_report_that_arrives_late_is_counted_once(database: Database, store: Store, nginx: UsageServer) -> None:
    """pat-sync has closed its connection and reports again while the server still works on the first report."""
    with Network(database.server.port) as network, database.connect() as owner:
        make_tokens(owner, "a")
        nginx.use("a", 3)
        source = f"postgresql://edge@127.0.0.1:{network.port}/{database.name}"
        with PatSync(*arguments(source, store, nginx)) as sync:
            wait_until_counted(owner, nginx)
            with database.connect(autocommit=False) as blocking:
                blocking.execute("SELECT FROM pat.token_use FOR UPDATE")
                nginx.use("a", 5)
                wait_until(lambda: reports(owner) == 1, "a report waits")
                network.cut()
                sync.wait_for_line("use was not reported")
                nginx.use("a", 7)
                wait_until(lambda: reports(owner) == 2, "another report waits for the first")
                blocking.commit()
            wait_until_counted(owner, nginx)


def reports(connection: Connection) -> int:
    """How many reports are being recorded now."""
    rows = connection.execute(
        "SELECT FROM pg_stat_activity WHERE state = 'active' AND query ~ 'pat.record_use' AND pid <> pg_backend_pid()"
        " AND datname = current_database()"
    )
    return len(rows.fetchall())


def test_killed_before_it_learns_that_its_report_was_taken(
    database: Database, store: Store, nginx: UsageServer
) -> None:
    with database.connect() as owner:
        make_tokens(owner, "a")
        with follow(database, store, nginx):
            nginx.use("a", 3)
            wait_until_counted(owner, nginx)
        with database.connect(autocommit=False) as blocking:
            blocking.execute("SELECT FROM pat.token_use FOR UPDATE")
            nginx.use("a", 5)
            with follow(database, store, nginx, "--query-timeout", "60") as sync:
                wait_until(lambda: reports(owner) == 1, "a report waits")
                sync.kill()
            nginx.use("a", 7)
            blocking.commit()
        wait_until(lambda: reports(owner) == 0, "the report is taken")
        assert uses(owner)["a"] == 8
        with follow(database, store, nginx):
            wait_until_counted(owner, nginx)


def test_killed_between_reporting_and_asking_for_more(database: Database, store: Store, nginx: UsageServer) -> None:
    with database.connect() as owner:
        make_tokens(owner, "a", *(f"t{number}" for number in range(1000)))
        for number in range(1000):
            nginx.use(f"t{number}")
        # The next request follows at once, as the batch is full.
        nginx.faults.extend([lambda handler, answer: handler.answer(200, answer), nginx.hang])
        with follow(database, store, nginx) as sync:
            wait_until(lambda: len(nginx.requests) == 2, "the next request")
            sync.kill()
        nginx.use("a", 2)
        nginx.requests.clear()
        with follow(database, store, nginx):
            wait_until_counted(owner, nginx)
        assert nginx.requests[0]["after"] == "1"


def test_killed_again_and_again(database: Database, store: Store, nginx: UsageServer) -> None:
    dice = random.Random(4)
    ending = threading.Event()

    def use() -> None:
        turns = random.Random(5)
        while not ending.wait(0.001):
            nginx.use(f"t{turns.randrange(30)}", turns.randrange(1, 4))

    with database.connect() as owner:
        make_tokens(owner, *(f"t{number}" for number in range(30)))
        user = threading.Thread(target=use)
        user.start()
        try:
            for _ in range(12):
                with follow(database, store, nginx, "--usage-interval", "0.01") as sync:
                    asked = len(nginx.requests)
                    # By the second time, a batch is recorded.
                    wait_until(lambda: len(nginx.requests) > asked + 1, "it asks twice")
                    time.sleep(dice.uniform(0, 0.1))
                    sync.kill()
        finally:
            ending.set()
            user.join()
        with follow(database, store, nginx):
            wait_until_counted(owner, nginx)
        assert last_batch(owner) >= 12


def test_a_platform_that_crashes(store: Store, nginx: UsageServer) -> None:
    with PostgreSQL() as server:
        server.start()
        prepare(server)
        with new_database(server, "crashing") as database:
            with database.connect() as owner:
                make_tokens(owner, "a")
            with follow(database, store, nginx, "--usage-interval", "0.01") as sync:
                for _ in range(3):
                    for _ in range(200):
                        nginx.use("a")
                        time.sleep(0.001)
                    server.kill()
                    nginx.use("a")
                    sync.wait_for_line("use was not reported")
                    server.start()
                with database.connect() as owner:
                    wait_until_counted(owner, nginx)


def test_an_nginx_that_starts_anew(database: Database, store: Store, nginx: UsageServer) -> None:
    """Its cursors start at a later time, or at an earlier one if its clock was set back."""
    with database.connect() as owner:
        make_tokens(owner, "a")
        with follow(database, store, nginx) as sync:
            for cursor in (1000, 2000, 1500):
                nginx.cursor = cursor
                nginx.use("a", 2)
                wait_until_counted(owner, nginx)
                nginx.stop()
                sync.wait_for_line(f'use was not reported.*nginx at "{nginx.url}": Connection refused')
                nginx.start()
            assert last_batch(owner) == 2002


def test_a_platform_that_was_put_back_to_an_older_state(database: Database, store: Store, nginx: UsageServer) -> None:
    with database.connect() as owner:
        make_tokens(owner, "a")
        with follow(database, store, nginx):
            for _ in range(3):
                nginx.use("a", 2)
                wait_until_counted(owner, nginx)
            owner.execute("UPDATE pat.edge SET batch = 1; UPDATE pat.token_use SET uses = 2")
            nginx.used["a"] = 2
            nginx.use("a", 5)
            wait_until_counted(owner, nginx)


# --- answers that are none ---

USE = '{"id":"a","at":1700000000,"from":"203.0.113.7","count":3}\n'
CURSOR = '{"cursor":9}\n'

Fault = Callable[[Handler, str], None]


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (UsageServer.say(401, ""), "it answers 401 Unauthorized: does its location allow this host's address"),
        (UsageServer.say(403, ""), "it answers 403 Forbidden: does its location allow this host's address"),
        (UsageServer.say(404, ""), "it answers 404 Not Found: is the URL right, and does its location have auth_pat_usage?"),
        (UsageServer.say(500, ""), "it answers 500 Internal Server Error: nginx's error log may say why"),
        (UsageServer.say(301, "", Location="/x"), "it answers 301 Moved Permanently"),
        (UsageServer.say(204, ""), "it answers 204 No Content"),
        (UsageServer.say(200, USE + CURSOR, Content_Type="text/html"), 'its Content-Type is "text/html", not'),
        (UsageServer.say(200, USE + CURSOR, Content_Encoding="gzip"), 'the Content-Encoding "gzip", which was not requested'),
        (UsageServer.say(200, ""), "its answer was cut off: the last line has no end"),
        (UsageServer.say(200, USE), "its answer was cut off: the last line has no cursor"),
        (UsageServer.say(200, USE + CURSOR[:-1]), "its answer was cut off: the last line has no end"),
        (UsageServer.say(200, USE + CURSOR + "\n"), "line 3 of its answer is not a JSON object"),
        (UsageServer.say(200, "<html>\n" + CURSOR), "line 1 of its answer is not a JSON object"),
        (UsageServer.say(200, "[" * 100000 + "\n" + CURSOR), "line 1 of its answer is not a JSON object"),
        (UsageServer.say(200, USE + "[]\n" + CURSOR), "line 2 of its answer is not a JSON object"),
        (UsageServer.say(200, CURSOR + CURSOR), "line 1 of its answer does not have a valid id"),
        (UsageServer.say(200, USE.replace('"a"', "1") + CURSOR), "line 1 of its answer does not have a valid id"),
        (UsageServer.say(200, USE.replace("3}", "0}") + CURSOR), "line 1 of its answer does not have a valid id"),
        (UsageServer.say(200, USE.replace("3}", "true}") + CURSOR), "line 1 of its answer does not have a valid id"),
        (UsageServer.say(200, USE.replace("3}", "10000000001}") + CURSOR), "line 1 of its answer does not have a valid id"),
        (UsageServer.say(200, USE.replace("1700000000", "1.5") + CURSOR), "line 1 of its answer does not have a valid id"),
        (UsageServer.say(200, USE.replace('"203.0.113.7"', "null") + CURSOR), "line 1 of its answer does not have a valid id"),
        (UsageServer.say(200, USE + '{"cursor":"9"}\n'), "the last line has no cursor"),
        (UsageServer.say(200, USE + '{"cursor":0}\n'), "the batch after 0, it answers with the cursor 0"),
        (UsageServer.say(200, '{"cursor":-1}\n'), "the batch after 0, it answers with the cursor -1"),
        (UsageServer.say(200, USE + f'{{"cursor":{1 << 63}}}\n'), "it answers with the cursor 9223372036854775808"),
        (UsageServer.say(200, "x" * (2 << 20)), "its answer is longer than 1 MB"),
        (None, "it did not answer in time"),
    ],
)
def test_a_bad_answer_is_told_and_nothing_is_recorded(
    fault: Fault | None, cause: str, database: Database, store: Store, nginx: UsageServer
) -> None:
    nginx.faults.append(fault or nginx.hang)
    with database.connect() as owner:
        make_tokens(owner, "a")
        done = once(*arguments(database.url("edge"), store, nginx))
        assert f'warning: last use was not reported: nginx at "{nginx.url}": ' in done.stderr.splitlines()[-1]
        assert cause in done.stderr.splitlines()[-1]
        assert owner.execute("SELECT FROM pat.edge").fetchall() == []


def test_an_answer_that_drips_is_given_up(database: Database, store: Store, nginx: UsageServer) -> None:
    def drip(handler: Handler, _: str) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "application/x-ndjson")
        handler.end_headers()
        # Until nobody reads it.
        while True:
            handler.wfile.write(b" ")
            time.sleep(0.05)

    nginx.faults.append(drip)
    done = once(*arguments(database.url("edge"), store, nginx))
    assert "it did not answer in time" in done.stderr


def test_numbers_with_thousands_of_digits_are_no_bug(database: Database, store: Store, nginx: UsageServer) -> None:
    nginx.faults.append(UsageServer.say(200, '{"cursor":' + "9" * 5000 + "}\n"))
    done = once(*arguments(database.url("edge"), store, nginx))
    assert "line 1 of its answer is not a JSON object" in done.stderr


# --- what does not suffer ---


def test_use_that_can_not_be_reported_delays_no_revocation(
    database: Database, store: Store, nginx: UsageServer
) -> None:
    nginx.faults.extend([nginx.hang] * 100)
    with database.connect() as owner:
        make_tokens(owner, "a")
        with follow(database, store, nginx) as sync:
            wait_until(lambda: store.tokens() == {"a": "ok"}, "the token")
            wait_until(lambda: len(nginx.requests) > 0, "a request that hangs")
            owner.execute("UPDATE pat.token SET revoked_at = now()")
            wait_until(lambda: store.tokens() == {"a": "revoked"}, "the revocation", 2)
            sync.wait_for_line("use was not reported")
            done = status(database, store, nginx)
            assert done.returncode == 0
            assert f'usage      cannot be reported: nginx at "{nginx.url}": it did not answer in time' in done.stdout
            assert done.stdout.splitlines()[-1] == "all is well, except for last use"

            wait_until(lambda: len(nginx.requests) > 1, "a request that hangs")
            started = time.monotonic()
            sync.process.send_signal(signal.SIGTERM)
            assert sync.process.wait(DEADLINE) == 0
            # The request would hang for longer.
            assert time.monotonic() - started < 10


def status(database: Database, store: Store, nginx: UsageServer, *more: str) -> subprocess.CompletedProcess[str]:
    return pat_sync("status", *arguments(database.url("edge"), store, nginx, *more))


def test_status_tells_what_waits_and_changes_nothing(database: Database, store: Store, nginx: UsageServer) -> None:
    with database.connect() as owner:
        make_tokens(owner, "a", "b")
        with follow(database, store, nginx, "--usage-interval", "3600") as sync:
            wait_until(lambda: len(nginx.requests) == 1, "a look")
            wait_until(lambda: status(database, store, nginx).returncode == 0, "all is well")
            nginx.use("a", 3)
            nginx.use("b")
            for _ in range(2):
                done = status(database, store, nginx)
                assert "usage      tokens with use to report: 2" in done.stdout
                assert done.stdout.splitlines()[-1] == "all is well"
                nginx.use("a")
            assert json.loads(status(database, store, nginx, "--json").stdout)["usage_answers"] is True
            assert uses(owner) == {}
            sync.kill()
        with follow(database, store, nginx):
            wait_until_counted(owner, nginx)


def test_a_report_that_waits_delays_no_revocation(database: Database, store: Store, nginx: UsageServer) -> None:
    with database.connect() as owner:
        make_tokens(owner, "a")
        with follow(database, store, nginx):
            nginx.use("a")
            wait_until_counted(owner, nginx)
            with database.connect(autocommit=False) as blocking:
                blocking.execute("SELECT FROM pat.token_use FOR UPDATE")
                nginx.use("a")
                wait_until(lambda: reports(owner) == 1, "a report waits")
                owner.execute("UPDATE pat.token SET revoked_at = now()")
                wait_until(lambda: store.tokens() == {"a": "revoked"}, "the revocation", 2)
            wait_until_counted(owner, nginx)


def test_a_schema_of_before_is_told_and_followed(database: Database, store: Store, nginx: UsageServer) -> None:
    with database.connect() as owner:
        make_tokens(owner, "a")
        owner.execute("DROP FUNCTION pat.last_batch(text)")
        nginx.use("a")
        with follow(database, store, nginx) as sync:
            sync.wait_for_line("use was not reported.*last_batch.* does not exist: update its schema with inst")
            wait_until(lambda: store.tokens() == {"a": "ok"}, "the token")
            database.install()
            wait_until_counted(owner, nginx)


def test_two_edges_of_one_name_are_told(database: Database, store: Store, nginx: UsageServer) -> None:
    with database.connect() as owner:
        make_tokens(owner, "a")
        with follow(database, store, nginx) as sync:
            nginx.use("a")
            wait_until_counted(owner, nginx)
            assert not sync.find("another pat-sync reports")
            with database.connect("edge") as edge:
                edge.execute("SELECT pat.record_use('e1', 100, '[]')")
            sync.wait_for_line('warning: another pat-sync reports last use as edge "e1", and uses get lost: give each its own --edge')
            nginx.use("a")
            wait_until_counted(owner, nginx)
            assert len(sync.find("another pat-sync reports")) == 1


def test_metrics_say_what_was_reported(database: Database, store: Store, nginx: UsageServer) -> None:
    port = free_port()
    nginx.stop()
    with database.connect() as owner:
        make_tokens(owner, "a", "b")
        with follow(database, store, nginx, "--metrics-listen", f"127.0.0.1:{port}") as sync:
            sync.wait_for_line("use was not reported", 2)
            text = scrape(port)
            assert value(text, "pat_sync_usage_failures_total") >= 2
            assert value(text, "pat_sync_usage_batches_total") == 0
            assert not re.search("^pat_sync_usage_last_success", text, re.MULTILINE)

            nginx.start()
            nginx.use("a", 3)
            wait_until_counted(owner, nginx)
            nginx.use("a", 2)
            nginx.use("b", 2)
            wait_until_counted(owner, nginx)
            text = scrape(port)
            assert value(text, "pat_sync_usage_uses_total") == 7
            assert value(text, "pat_sync_usage_batches_total") in (2, 3)
            assert abs(value(text, "pat_sync_usage_last_success_timestamp_seconds") - time.time()) < 10


def test_failing_is_no_busy_loop(database: Database, store: Store, nginx: UsageServer) -> None:
    nginx.stop()
    with follow(database, store, nginx) as sync:
        started = time.monotonic()
        sync.wait_for_line("use was not reported, trying again", 4)
        wait_until(lambda: time.monotonic() > started + 3, "three seconds")
        waited = [float(text) for line in sync.log for text in re.findall("trying again in ([0-9.]+) s", line)]
        assert all(seconds <= 0.05 + 0.1 * 2**number for number, seconds in enumerate(waited))
        assert 4 <= len(waited) < 30


# --- once ---


def test_once_reports_what_there_is(database: Database, store: Store, nginx: UsageServer) -> None:
    ids = [f"t{number}" for number in range(1001)]
    with database.connect() as owner:
        with owner.transaction():
            make_tokens(owner, *ids)
        for id in ids:
            nginx.use(id)
        assert once(*arguments(database.url("edge"), store, nginx)).returncode == 0
        assert uses(owner) == nginx.used
        assert once(*arguments(database.url("edge"), store, nginx)).returncode == 0
        assert uses(owner) == nginx.used


def test_once_is_a_success_if_only_the_use_was_not_reported(
    database: Database, store: Store, nginx: UsageServer
) -> None:
    """nginx may not run yet."""
    nginx.stop()
    with database.connect() as owner:
        make_tokens(owner, "a")
    done = once(*arguments(database.url("edge"), store, nginx))
    assert done.returncode == 0
    assert done.stderr.splitlines()[-1].endswith("Connection refused")
    assert store.tokens() == {"a": "ok"}


def test_once_reports_nothing_if_it_failed(store: Store, nginx: UsageServer) -> None:
    done = once(*arguments(f"postgresql://edge@127.0.0.1:{free_port()}/p", store, nginx))
    assert done.returncode == 1
    assert "use was not reported" not in done.stderr
    assert nginx.requests == []


# --- a standby as the source ---


def test_use_goes_to_the_primary(store: Store, nginx: UsageServer) -> None:
    with PostgreSQL(fsync=False) as primary, PostgreSQL(fsync=False) as standby:
        primary.start()
        prepare(primary)
        standby.become_standby_of(primary)
        standby.start()
        with new_database(primary, "shop_use") as database, database.connect() as owner:
            make_tokens(owner, "a")
            standby.catch_up(primary)
            nginx.use("a", 3)
            url = f"/{database.name}"
            hosts = f"127.0.0.1:{standby.port}", f"127.0.0.1:{primary.port}"
            with PatSync(*arguments(f"postgresql://edge@{hosts[0]}{url}", store, nginx)) as sync:
                wait_until(lambda: store.tokens() == {"a": "ok"}, "the token")
                line = sync.wait_for_line("use was not reported", 2)[-1]
                assert f'source "postgresql://edge@{hosts[0]}{url}": ' in line
                assert "only the primary stores last use: list it in the source too, as in postgresql://user@standby,prim" in line
                assert not sync.find('source "[^"]*" failed')
            assert nginx.requests == []
            with PatSync(*arguments(f"postgresql://edge@{','.join(hosts)}{url}", store, nginx)) as sync:
                wait_until_counted(owner, nginx)
                assert not sync.find("warning")
                backends = standby.psql("SELECT count(*) FROM pg_stat_activity WHERE usename = 'edge'")
                assert int(backends) == 1


# --- options ---


@pytest.mark.parametrize(
    ("source", "arguments", "cause"),
    [
        ("https://x/", ["--usage-url", "http://127.0.0.1/usage"], "--usage-url needs a source postgresql://"),
        ("file:///x", ["--usage-url", "http://127.0.0.1/usage"], "--usage-url needs a source postgresql://"),
        ("postgresql://h/", ["--usage-url", "/usage"], "--usage-url is not of the form http://127.0.0.1:PORT/usage"),
        ("postgresql://h/", ["--usage-url", "file:///usage"], "--usage-url is not of the form"),
        ("postgresql://h/", ["--usage-url", "http:///usage"], "--usage-url is not of the form"),
        ("postgresql://h/", ["--usage-url", "http://127.0.0.1:x/usage"], "--usage-url is not a URL"),
        ("postgresql://h/", ["--usage-url", "http://h.example/usage"], '--usage-url: "http://h.example/usage" is not enc'),
        ("postgresql://h/", ["--usage-interval", "0"], "--usage-interval"),
        ("postgresql://h/", ["--edge", ""], "--edge must have 1 to 255 bytes"),
        ("postgresql://h/", ["--edge", "ä" * 128], "--edge must have 1 to 255 bytes"),
        ("postgresql://h/", ["--edge", "a\tb"], "only printable characters"),
        ("postgresql://h/", ["--edge", "\udcff"], "only printable characters"),
    ],
)
def test_wrong_options_are_told(source: str, arguments: list[str], cause: str) -> None:
    done = once("--source", source, "--store", "/x", *arguments)
    assert done.returncode == 2
    assert cause in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("url", ["http://u:s3cr3t@127.0.0.1/usage", "http://127.0.0.1/usage?token=s3cr3t"])
def test_a_usage_url_with_a_credential_is_refused(url: str) -> None:
    done = once("--source", "postgresql://h/", "--store", "/x", env={"PAT_SYNC_USAGE_URL": url})
    assert done.returncode == 2
    assert "--usage-url must not contain a credential" in done.stderr
    assert "s3cr3t" not in done.stderr


@pytest.mark.parametrize("url", ["https://h.example/usage", "http://localhost/usage", "http://[::1]:1/usage?x=1"])
def test_a_usage_url_of_this_host_or_with_tls_is_taken(url: str, store: Store) -> None:
    done = once("--source", f"postgresql://edge@127.0.0.1:{free_port()}/p", "--store", store.folder, "--usage-url", url)
    assert done.returncode == 1
    assert "Connection refused" in done.stderr
