"""Whether a figure grows with the work that is done.

A figure is a series of lives: a process that is replaced begins a new one, and figures of different processes are not
compared. Of each life that lasted at least a quarter of the run, the second half is judged; the first half is for what
grows once: heaps, caches, arenas, a zone that fills up.

The second half is cut into blocks, of which the medians are taken, against noise. The slope is Theil and Sen's, over
work (requests, changes, reloads), not over time: a busy machine does less, and leaks less. Of the slopes between all
pairs of blocks, the lower quartile is taken, not the median: a heap that grows by one step in the middle moves half of
the pairs, and a leak moves all of them. The growth is that slope times the work of the second half. It is a trend if it
exceeds the tolerance.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from itertools import combinations
from statistics import median
from typing import NamedTuple

BLOCKS = 12


class Sample(NamedTuple):
    work: float
    value: float


@dataclass
class Figure:
    name: str
    unit: str
    #: What the figure is compared with: "requests", …
    work: str
    #: How much it may grow while the second half of a life is judged.
    tolerance: float
    #: -1 for a figure that must not shrink.
    sign: int = 1
    lives: dict[Hashable, list[Sample]] = field(default_factory=dict)

    def add(self, life: Hashable, work: float, value: float) -> None:
        self.lives.setdefault(life, []).append(Sample(work, value))

    @property
    def first(self) -> float:
        return next(iter(self.lives.values()))[0].value

    @property
    def last(self) -> float:
        return next(reversed(self.lives.values()))[-1].value

    def judged(self, samples_of_run: int) -> list[list[Sample]]:
        """The second halves that are judged."""
        halves = [samples[len(samples) // 2 :] for samples in self.lives.values() if 4 * len(samples) >= samples_of_run]
        return [half for half in halves if len(half) >= BLOCKS and half[-1].work > half[0].work]

    def growth(self, samples_of_run: int) -> float | None:
        """The largest of those of its lives, or shrinkage; None if there is nothing to judge."""
        return max((growth(half, self.sign) for half in self.judged(samples_of_run)), default=None)

    def is_trend(self, samples_of_run: int) -> bool:
        found = self.growth(samples_of_run)
        return found is not None and found > self.tolerance


def growth(samples: list[Sample], sign: int = 1) -> float:
    ends = [len(samples) * number // BLOCKS for number in range(BLOCKS + 1)]
    blocks = [samples[begin:end] for begin, end in zip(ends, ends[1:], strict=False)]
    points = [Sample(median(one.work for one in block), median(one.value for one in block)) for block in blocks]
    slopes = sorted(
        sign * (later.value - earlier.value) / (later.work - earlier.work)
        for earlier, later in combinations(points, 2)
        if later.work > earlier.work
    )
    return slopes[len(slopes) // 4] * (samples[-1].work - samples[0].work)
