"""Rows of Arrow tables by key."""

import pyarrow as pa

from cer_pipeline.arrow import rows_of


def test_rows_are_taken_in_the_wanted_order_and_none_is_taken_for_no_key() -> None:
    table = pa.table({"key": ["a", "b"], "n": [1, 2]})
    assert rows_of(table, "key", pa.array(["b", "a"])).column("n").to_pylist() == [2, 1]
    assert rows_of(table, "key", pa.array([], pa.string())).num_rows == 0
