"""What the drivers share: random choices from a seed, and how long to go on."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest


class Dice(random.Random):
    """Counts what was tried. The same FUZZ_SEED gives the same choices."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.tried = 0
        self._ends_at = time.monotonic() + float(os.environ.get("FUZZ_SECONDS", "3"))

    def rounds(self) -> Iterator[None]:
        """At least one, and others until the time is up."""
        yield
        while time.monotonic() < self._ends_at:
            yield

    def mutate(self, text: bytes, words: list[bytes]) -> bytes:
        """Changes a few places: bytes that are lost, repeated, swapped or others, and words that are put in."""
        result = bytearray(text)
        for _ in range(self.choice((1, 1, 1, 2, 2, 3, 5, 8))):
            start = self.randrange(len(result) + 1)
            end = min(len(result), start + self.choice((0, 1, 1, 2, 4, 16)))
            match self.randrange(6):
                case 0:
                    del result[start:end]
                case 1:
                    result[start:start] = result[start:end]
                case 2:
                    result[start:end] = self.randbytes(end - start)
                case 3:
                    result[start:end] = reversed(result[start:end])
                case 4:
                    result[start:end] = self.choice(words)
                case _:
                    result[start:start] = self.choice(words)
        return bytes(result)


@pytest.fixture
def dice() -> Iterator[Dice]:
    seed = int(os.environ.get("FUZZ_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"FUZZ_SEED={seed}")
    made = Dice(seed)
    yield made
    if figures := os.environ.get("FUZZ_FIGURES"):
        file = Path(figures)
        file.write_text(json.dumps(made.tried + (json.loads(file.read_text()) if file.exists() else 0)))
