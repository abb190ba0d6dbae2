"""A leak is found however small it is beside the noise, and what is none is not taken for one."""

from __future__ import annotations

import random

import pytest
from trend import Figure

SAMPLES = 240


def figure(values: list[float], sign: int = 1) -> Figure:
    made = Figure("memory", "KiB", "requests", 128, sign)
    for number, value in enumerate(values):
        made.add("life", 100 * number, value)
    return made


def noise(chance: random.Random, scale: float = 200) -> list[float]:
    return [5000 + chance.uniform(0, scale) for _ in range(SAMPLES)]


@pytest.mark.parametrize("seed", range(20))
def test_noise_is_no_trend(seed: int) -> None:
    assert not figure(noise(random.Random(seed), 1000)).is_trend(SAMPLES)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("scale", [0, 200])
def test_a_leak_is_a_trend(seed: int, scale: int) -> None:
    """Of 4 KiB a sample, 480 KiB in the second half; pages of 4 KiB at a time."""
    values = noise(random.Random(seed), scale)
    assert figure([value + 4 * number for number, value in enumerate(values)]).is_trend(SAMPLES)


def test_a_leak_of_a_page_now_and_then_is_a_trend() -> None:
    assert figure([5000 + 40 * (number // 10) for number in range(SAMPLES)]).is_trend(SAMPLES)


@pytest.mark.parametrize("at", range(10, SAMPLES, 10))
def test_a_step_is_no_trend(at: int) -> None:
    """An arena that is taken once, whenever that is."""
    assert not figure([5000 + 4000 * (number >= at) for number in range(SAMPLES)]).is_trend(SAMPLES)


def test_what_grows_in_the_first_half_is_no_trend() -> None:
    assert not figure([5000 + 50 * min(number, SAMPLES // 2) for number in range(SAMPLES)]).is_trend(SAMPLES)


@pytest.mark.parametrize("period", [7, 30, 60])
def test_a_saw_is_no_trend(period: int) -> None:
    """What is collected now and then."""
    assert not figure([5000 + 20 * (number % period) for number in range(SAMPLES)]).is_trend(SAMPLES)


def test_lives_are_not_compared_with_each_other_and_short_ones_not_judged() -> None:
    made = Figure("memory", "KiB", "requests", 128)
    for life in range(10):
        for number in range(SAMPLES // 10):
            made.add(life, number, 1000 * life + 100 * number)
    assert made.growth(SAMPLES) is None
    assert not made.is_trend(SAMPLES)


def test_of_several_lives_the_worst_counts() -> None:
    made = Figure("memory", "KiB", "requests", 128)
    for number in range(SAMPLES // 2):
        made.add("good", number, 5000)
    for number in range(SAMPLES // 2):
        made.add("bad", number, 5000 + 10 * number)
    assert made.is_trend(SAMPLES)


def test_work_counts_and_not_time() -> None:
    """A process that did nothing in its second half has shown nothing."""
    made = Figure("memory", "KiB", "requests", 128)
    for number in range(SAMPLES):
        made.add("life", min(number, SAMPLES // 2), 5000 + 10 * number)
    assert made.growth(SAMPLES) is None


def test_a_figure_that_must_not_shrink() -> None:
    shrinking = [5000.0 - 4 * number for number in range(SAMPLES)]
    assert figure(shrinking, sign=-1).is_trend(SAMPLES)
    assert not figure(shrinking).is_trend(SAMPLES)
