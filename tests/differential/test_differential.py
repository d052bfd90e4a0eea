"""Random programs give the same trace on asyncio and on aioxide, under the same virtual clock."""

import asyncio
import gc
import os
import sys
from collections.abc import Iterator

import aioxide
import aioxide.testing
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from .program import Program, programs, run
from .virtual import StockLoop, ordered_sets

EXAMPLES = int(os.environ.get("EXAMPLES", "2000"))
FUZZ = bool(os.environ.get("FUZZ"))


def names_of_stock() -> object:
    """asyncio itself; this test never installs aioxide."""
    assert asyncio.Lock.__module__ == "asyncio.locks"
    return asyncio


@pytest.fixture(autouse=True)
def leftovers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forgotten tasks are closed when they are collected, after their loop; what they say then is nobody's concern."""
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    yield
    gc.collect()


@pytest.mark.skipif(
    sys.version_info < (3, 14), reason="older asyncio differs where CPython has since been mended; 3.14 and 3.15 judge"
)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=not FUZZ,
    database=None,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)
@given(programs())
def test_same_trace(program: Program) -> None:
    with ordered_sets():
        expected = run(program, names_of_stock(), StockLoop)
        actual = run(program, aioxide, aioxide.testing.new_virtual_loop)
    assert actual == expected
