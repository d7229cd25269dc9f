"""How often something is timed."""

import itertools

import pytest

from keras_lpd import timing


@pytest.fixture
def clock(monkeypatch):
    """One on which each run takes as many seconds as this says."""
    clock = type("Clock", (), {"now": 0.0, "perf_counter": lambda self: self.now})()
    monkeypatch.setattr(timing, "time", clock)
    return clock


@pytest.mark.parametrize("seconds, expected", [(0.5, 5), (0.75, 4), (1.0, 3), (7.0, 1)])
def test_no_more_runs_than_asked_for_or_than_fit_into_three_seconds(
    clock, seconds, expected
):
    def run():
        clock.now += seconds

    assert timing.times(run, 5) == [seconds] * expected
    assert clock.now == seconds * (10 + expected)  # with those that warm up


def test_those_that_warm_up_are_not_timed(clock):
    slower_first = itertools.chain([100.0], itertools.repeat(0.25))

    def run():
        clock.now += next(slower_first)

    assert timing.times(run, 3) == [0.25] * 3
