"""Markdown tables have one line for each row, and text is wrapped without breaking words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cer_pipeline.markdown import WIDTH, bullets, paragraph, table


def test_a_table_has_a_heading_a_ruler_and_a_line_for_each_row() -> None:
    made = table(["name", "n"], [("a", 1), ("b|c", 2.5)], right=["n"])
    assert made.splitlines() == ["| name | n |", "|---|---:|", "| a | 1 |", "| b\\|c | 2.5 |"]
    assert table(["name"], []) == "| name |\n|---|"


def test_a_row_with_another_number_of_cells_is_refused() -> None:
    with pytest.raises(ValueError, match="1 cells for 2 columns"):
        table(["a", "b"], [("x",)])


@given(st.lists(st.text("ab-", min_size=1, max_size=200), min_size=1, max_size=40))
def test_wrapping_keeps_every_word_whole_and_in_order(words: list[str]) -> None:
    lines = paragraph(" ".join(words)).splitlines()
    assert " ".join(lines).split() == words
    assert all(len(line) <= WIDTH or " " not in line for line in lines)


def test_the_lines_of_an_item_are_indented() -> None:
    lines = bullets(["word " * 60, "two"]).splitlines()
    assert [line[:2] for line in lines] == ["- ", "  ", "  ", "- "]
