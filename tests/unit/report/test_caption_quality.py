"""The quality of captions by view: every row is counted once."""

from __future__ import annotations

import pyarrow as pa

from cer_pipeline import tables
from cer_pipeline.report.caption_quality import caption_quality, quality_table
from tests.helpers.memory_inputs import rows, segment

VIEW = "qwen2.5-vl-7b_prompt2"


def captions(*values: tuple[str | None, str, str | None], view: str = VIEW) -> pa.Table:
    """Rows of text, status and reason."""
    made = [
        segment("v", i) | {"view": view, "text": text, "status": status, "reason": reason}
        for i, (text, status, reason) in enumerate(values)
    ]
    return rows(tables.CAPTIONS, made)


def test_every_row_is_counted_under_its_outcome() -> None:
    (view,) = caption_quality(
        [
            captions(
                ("He looks sad.", "ok", None),
                ("Sadly Fearful, and then surprise.", "ok", None),
                (None, "no_caption", "refused: I'm sorry"),
                (None, "no_caption", "cut_off: The man"),
            ),
            captions(
                ("It is Sadness: one two three four five six seven.", "ok", None),
                (None, "not_english", "wrong_language: Der Mann"),
                (None, "no_caption", "empty: the answer has no word"),
                (None, "no_caption", "too_long: The man"),
                (None, "no_caption", "label_only: Fear"),
                (None, "failed", "refused: a server that says so has not answered"),
                (None, "no_video", "the window has no picture"),
            ),
        ]
    )
    assert (view.view, view.rows, view.ok, view.words_median) == (VIEW, 11, 3, 5.0)
    assert view.one_label == 1 / 3
    outcomes = [view.refused, view.cut_off, view.wrong_language, view.empty, view.too_long, view.label_only]
    assert [*outcomes, view.without_answer, view.other] == [1] * 8


def test_a_view_without_a_text_has_no_lengths_and_outcomes_that_never_occur_are_not_shown() -> None:
    views = caption_quality([captions((None, "failed", "no server answers"))])
    assert views[0].words_p5 is None and views[0].one_label is None
    assert quality_table(views) == (
        ("view", "rows", "ok", "words p5", "words median", "words p95", "one label", "without answer"),
        [(VIEW, "1", "0", "-", "-", "-", "-", "1")],
    )


def test_views_are_sorted_and_those_that_no_model_wrote_are_left_out() -> None:
    made = [captions(("A man smiles.", "ok", None), view=view) for view in ("b", "describer", "a", "imported")]
    assert [view.view for view in caption_quality(made)] == ["a", "b"]
