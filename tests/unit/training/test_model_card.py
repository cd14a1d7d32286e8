"""A model card has its sections in one order and prints every setting, digest and score that it is given."""

from __future__ import annotations

import re
from typing import Any

from cer_pipeline.training.model_card import class_table, model_card, score_table, score_text


def card(**changes: Any) -> str:
    parts: dict[str, Any] = {
        "data": ["Clips of a corpus, CC BY 4.0."],
        "digests": {"train.csv": "a" * 64},
        "settings": {"rate": 0.01, "seeds": (0, 1)},
        "protocol": ["Five folds."],
        "scores": [score_table(["split", "UAR"], [("dev", [40.0, 35.25, 45.5])])],
        "limits": "English only.",
    }
    return model_card("name: text -> classes", "A linear map.", **parts | changes)


def test_the_sections_stand_in_one_order_with_what_they_are_given() -> None:
    text = card()
    assert re.findall(r"^#+ .*", text, re.MULTILINE) == [
        "# name: text -> classes", "## Data and licence", "## Protocol", "## Scores, percent", "## Limits",
    ]  # fmt: skip
    assert f"- `train.csv` {'a' * 64}\n" in text
    assert '- Settings: `{"rate": 0.01, "seeds": [0, 1]}`.\n' in text
    assert "| dev | 40.00 [35.25, 45.50] |\n" in text
    assert text.endswith("\n") and "\n\n\n" not in text


def test_a_section_without_content_is_left_out() -> None:
    assert "## Limits" not in card(limits="")


def test_a_score_is_printed_with_two_decimals_and_with_its_interval_where_it_has_one() -> None:
    assert score_text(63.4) == "63.40"
    assert score_text([1, 0.5, 2.345]) == "1.00 [0.50, 2.35]"
    assert class_table({"Anger": 2.0}, {"Anger": [3.0, 2.0, 4.0]}).splitlines()[2:] == [
        "| Anger | 2.00 | 3.00 [2.00, 4.00] |"
    ]
