"""Sums do not depend on the version of Python, and no float of a table comes from the built-in sum."""

from __future__ import annotations

import functools
import operator

from hypothesis import given
from hypothesis import strategies as st

from cer_pipeline.sums import plain_sum


@given(st.lists(st.floats(-1e6, 1e6)))
def test_floats_are_added_one_after_the_other(values: list[float]) -> None:
    assert plain_sum(values) == functools.reduce(operator.add, values, 0.0)


def test_no_compensation_is_used() -> None:
    assert plain_sum([1.0, 1e100, 1.0, -1e100]) == 0.0  # the built-in sum gives 2.0 since Python 3.12
