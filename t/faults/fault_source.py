"""The source."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs, urlsplit

from fault import Fault
from feed_server import Handler, Line


class SourceRestarted(Fault):
    """source restarted"""

    seconds = 0.0

    def inject(self) -> None:
        for _ in range(4):
            self.host.network.go_down()
            time.sleep(self.chance.uniform(0, 0.4))
            self.host.network.restore()
            time.sleep(self.chance.uniform(0, 0.4))


class SourceUnreachable(Fault):
    """source unreachable"""

    sidecar_logs = (r'source "http.*" failed, trying again', r'source "http.*" is back')

    def last(self) -> None:
        self.host.stale_during(self.out_of_reach)

    @contextmanager
    def out_of_reach(self) -> Iterator[None]:
        self.host.network.go_down()
        yield
        self.host.network.restore()


class SourceSilent(SourceUnreachable):
    """source unreachable: connections stay, and nothing arrives"""

    @contextmanager
    def out_of_reach(self) -> Iterator[None]:
        self.host.network.go_dead()
        yield
        self.host.network.restore()


class _Answers(Fault):
    """All answers of the feed are of this kind."""

    seconds = 3.0

    is_over = False

    def inject(self) -> None:
        self.host.feed.faults.append(self.next)

    def next(self, handler: Handler) -> None:
        if self.is_over:
            handler.respond(query_of(handler))
        else:
            self.host.feed.faults.append(self.next)
            self.respond(handler)

    def respond(self, handler: Handler) -> None:
        raise NotImplementedError

    def heal(self) -> None:
        self.is_over = True


def query_of(handler: Handler) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(handler.path).query).items()}


class SourceSlow(_Answers):
    """source slow"""

    def respond(self, handler: Handler) -> None:
        time.sleep(self.chance.uniform(0.5, 1.5))
        handler.respond(query_of(handler))


class SourceHoles(_Answers):
    """source sending holes"""

    sidecar_logs = (r"taking a snapshot of the source: the feed continues from",)

    def respond(self, handler: Handler) -> None:
        query = query_of(handler)
        feed = self.host.feed
        after = int(query.get("after", feed.position))
        with feed.news:
            is_behind = feed.news.wait_for(lambda: feed.position > after + 1, 0.5)
        if "after" not in query or not is_behind:
            handler.respond(query)
            return
        last = max(feed.changes, key=lambda change: int(change["seq"]))
        cursor = int(last["seq"])
        handler.lines(last, {"op": "commit", "after": str(cursor - 1), "cursor": str(cursor), "more": False})


class SourceDuplicates(Fault):
    """source sending duplicates"""

    seconds = 3.0

    def inject(self) -> None:
        self.host.feed.arrange = self.arrange

    def arrange(self, changes: list[Line]) -> list[Line]:
        known = self.host.feed.changes
        old = self.chance.choices(known, k=20)
        return [*old[:10], *changes, *old[10:], *changes]

    def heal(self) -> None:
        self.host.feed.arrange = lambda changes: changes


class SourceDisorder(SourceDuplicates):
    """source sending disorder"""

    def arrange(self, changes: list[Line]) -> list[Line]:
        return self.chance.sample(changes, len(changes))


class SourceNewEpoch(Fault):
    """source sending a new epoch"""

    seconds = 0.0
    sidecar_logs = (r"taking a snapshot of the source: the feed has another epoch",)

    def inject(self) -> None:
        feed = self.host.feed
        for number in range(3):
            with feed.news:
                feed.epoch = f"epoch {number}"
                # Numbers begin anew.
                feed.changes = [{**line, "seq": seq} for seq, line in enumerate(feed.tokens(), 1)]
                feed.news.notify_all()
            time.sleep(self.chance.uniform(0.3, 1))
