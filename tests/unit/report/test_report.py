"""Pictures and summaries show the content of the tables, with hostile names and missing values."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from cer_pipeline import tables
from cer_pipeline.chart_style import COLOURS, EMPTY, drawable, faded, figure, ink_on, png, printable, settings
from cer_pipeline.cli.output import status_counts
from cer_pipeline.compound.clear import Clear, clear_rows, named
from cer_pipeline.compound.ppa import ppa
from cer_pipeline.errors import CerError
from cer_pipeline.labels import BASIC, BASIC_COLUMNS, COMPOUND, COMPOUND_COLUMNS
from cer_pipeline.profiles import load_profile
from cer_pipeline.report import timeline as timeline_module
from cer_pipeline.report.plots import table_plot
from cer_pipeline.report.summary import VideoSummary, summarise
from cer_pipeline.report.terminal import summary_table, unavailable
from cer_pipeline.report.timeline import timeline
from tests.helpers.memory_inputs import rows, shard
from tests.unit.compound.test_compound import NAMES, run

RULE = Clear(least_expressed=0.5, least_confidence=0.1)
ALL = Clear(0.0, 0.0)
NONE = Clear(1.0, 1.0)
HOSTILE = "a $x_1$ [bold]\n\u202eb🦊 <b>"


def crop() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((64, 64, 3), (200, 30, 30), np.uint8)).save(stream, "JPEG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def made():
    """A shard of three videos: one with a hostile name, one with audio only, one without any value."""
    inputs = shard({"clip": 9.0, "silent": 3.0, "sound": 5.0}, NAMES, missing=0.2, seed=4)
    nothing = {"status": "no_face", "reason": "none"} | dict.fromkeys(BASIC_COLUMNS)
    for name in [f"probabilities/{n}" for n in NAMES]:
        table = inputs.tables[name]
        changed = [r | nothing if r["video_id"] == "silent" else r for r in table.to_pylist()]
        inputs.tables[name] = pa.Table.from_pylist(changed, schema=table.schema)
    frames = [
        r | {"frame_times": [], "status": "no_video"} if r["video_id"] == "sound" else r
        for r in inputs.tables["frames"].to_pylist()
    ]
    inputs.tables["frames"] = pa.Table.from_pylist(frames, schema=tables.FRAMES.schema)
    face = {"video_id": "clip", "face": 0, "is_subject": True, "verified": True, "crop": crop()}
    faces = [face | {"sample": k, "track": k // 30} for k in range(40)]
    faces.append({"video_id": "silent", "sample": 0, "status": "no_face"})
    faces.append({"video_id": "sound", "sample": 0, "status": "no_video"})
    inputs.tables["faces"] = rows(tables.FACES, faces)
    words = [{"word": w, "start_s": s, "end_s": s + 0.2, "probability": 0.9} for w, s in ((" so", 2.1), (HOSTILE, 2.5))]
    said = [{"segment_id": f"clip/{i}", "video_id": "clip", "segment": i, "words": words} for i in range(2)]
    inputs.tables["transcripts"] = rows(tables.TRANSCRIPTS, said)
    run(inputs, load_profile())
    for name, table in inputs.tables.items():
        at = table.schema.get_field_index("video_id")
        renamed = [HOSTILE if v == "clip" else v for v in table.column("video_id").to_pylist()]
        inputs.tables[name] = table.set_column(at, table.schema.field(at), pa.array(renamed, pa.string()))
    return inputs


@pytest.mark.parametrize("video", [HOSTILE, "silent", "sound"])
def test_every_video_has_a_picture_without_a_warning(made, video):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = Image.open(io.BytesIO(timeline(made, video, RULE)))
    assert picture.size == (1600, 900)
    colours = {c for _, c in picture.convert("RGB").getcolors(1600 * 900) or []}
    drawn = [name for name, code in COLOURS.items() if tuple(bytes.fromhex(code[1:])) in colours]
    assert len(drawn) == len(BASIC), "every label has its colour in the legend"


def test_a_face_is_drawn_at_the_time_of_its_frame(made):
    """The clip lasts 9 s: with frames at twice the rate, its 40 faces fill the first half of the lane."""
    usual = timeline_module.read_video(made, HOSTILE, RULE)
    frames = made.tables["frames"]
    at = frames.schema.get_field_index("time_s")
    halved = pa.array([t / 2 for t in frames.column("time_s").to_pylist()], pa.float64())
    faster = type(made)(made.tables | {"frames": frames.set_column(at, frames.schema.field(at), halved)})
    shifted = timeline_module.read_video(faster, HOSTILE, RULE)
    assert sorted(usual.faces) == list(range(13)), "samples 0 to 39 end at 7.8 s of 9 s"
    assert sorted(shifted.faces) == list(range(7))


def test_the_picture_is_the_same_on_every_run(made):
    assert timeline(made, "sound", RULE) == timeline(made, "sound", RULE)


def test_the_area_of_a_colour_is_its_probability(made):
    fill = tuple(bytes.fromhex(COLOURS["Neutral"][1:]))
    table = made.tables["fused"].to_pylist()
    (only,) = [r for r in table if r["video_id"] == "sound"][:1]
    pixels = np.asarray(Image.open(io.BytesIO(timeline(made, "sound", RULE))).convert("RGB"))
    column = (pixels[:, 300] == fill).all(axis=1)  # inside the first window
    longest = max(len(part) for part in "".join("x" if c else " " for c in column).split())
    assert longest / 350 == pytest.approx(only["p_neutral"], abs=0.03)  # the lane is about 350 pixels high


def test_an_unknown_video_is_a_user_error(made):
    with pytest.raises(CerError, match="no such video"):
        timeline(made, "unknown", RULE)


def test_the_summary_counts_people_and_words_and_takes_the_mean_basic_emotion(made):
    first, silent, sound = summarise(made, RULE)
    assert (first.faces, first.words, first.seconds) == (2, ("so", HOSTILE), None)
    frames = [r for r in made.tables["frame_predictions"].to_pylist() if r["video_id"] == first.video_id]
    known = [r for r in frames if r["status"] == "ok"]
    assert first.frames == len(known) > 0
    means = [sum(r[c] for r in known) / len(known) for c in BASIC_COLUMNS]
    assert first.basic == BASIC[int(np.argmax(means))]
    assert first.basic_probability == pytest.approx(max(means), abs=1e-12)
    assert first.expressed == pytest.approx(sum(r["expressed"] for r in known) / len(known), abs=1e-12)
    assert (silent.basic, silent.compound, silent.clear_share, silent.expressed) == (None, None, None, None)
    assert (silent.frames, silent.faces) == (0, 0)
    assert silent.coverage == dict.fromkeys(NAMES, 0.0)
    assert silent.statuses["text_minilm"] == {"no_face": 1}
    assert sound.frames == 0
    assert sound.basic is not None, "audio only is summarised from its segments"


@pytest.mark.parametrize("rule", [RULE, ALL, NONE])
def test_the_compound_of_a_video_is_the_one_that_is_clear_in_most_frames(made, rule):
    first, silent, sound = summarise(made, rule)
    frames = [r for r in made.tables["frame_predictions"].to_pylist() if r["video_id"] == first.video_id]
    known = [r for r in frames if r["status"] == "ok"]
    mapped = [r for r in made.tables["compound"].to_pylist() if (r["video_id"], r["method"]) == ("sound", "ppa")]
    segments = [r | {"compound_confidence": r["confidence"]} for r in mapped if r["status"] == "ok"]
    for summary, rows_ in ((first, known), (sound, segments)):
        clear: dict[str, list[float]] = {}
        for r in rows_:
            if r["expressed"] >= rule.least_expressed and r["compound_confidence"] >= rule.least_confidence:
                p = [r[c] for c in COMPOUND_COLUMNS]
                clear.setdefault(COMPOUND[int(np.argmax(p))], []).append(max(p))
        count = sum(map(len, clear.values()))
        assert summary.clear_share == pytest.approx(count / len(rows_))
        if not count:
            assert (summary.compound, summary.compound_probability, summary.compound_share) == (None, None, None)
            continue
        most = max(map(len, clear.values()))
        name = next(n for n in COMPOUND if len(clear.get(n, ())) == most)
        assert summary.compound == name
        assert summary.compound_share == pytest.approx(most / len(rows_))
        assert summary.compound_probability == pytest.approx(np.mean(clear[name]), abs=1e-12)
    assert silent.compound is None
    assert {NONE: 0.0, ALL: 1.0}.get(rule, first.clear_share) == first.clear_share


def shown(summaries, rule=None) -> str:
    from rich.console import Console

    stream = io.StringIO()
    Console(file=stream, width=400, force_terminal=False).print(summary_table(summaries, "", rule))
    return stream.getvalue()


def test_a_compound_that_is_not_clear_is_never_named(made):
    text = shown(summarise(made, NONE), NONE)
    assert text.count("no clear expression") == 2, "the third video has no value at all"
    assert not [name for name in COMPOUND if name in text]
    assert "settings: [report]" in text
    assert "no clear expression" not in shown(summarise(made, ALL), ALL)


def test_a_neutral_face_has_no_clear_expression_although_its_compounds_sum_to_one():
    """PPA drops Neutral and Other, so that the rest of a neutral face may have a high confidence."""
    neutral = np.array([[0.9, 0.07, 0.0, 0.0, 0.0, 0.03, 0.0, 0.0]])
    angry = np.array([[0.1, 0.5, 0.0, 0.1, 0.0, 0.3, 0.0, 0.0]])
    undecided = np.array([[0.1, 0.15, 0.15, 0.15, 0.15, 0.15, 0.15, 0.0]])
    for basic, clear in ((neutral, False), (angry, True), (undecided, False)):
        assert RULE.of_values(basic, ppa(basic)).tolist() == [clear]
        assert named(ppa(basic), np.array([clear])) == ["Sadly Angry" if clear else "no clear expression"]
    assert named(np.full((1, 7), np.nan), np.array([False])) == [None]


@pytest.mark.parametrize("wrong", ["least_expressed=1.5", "least_confidence=-0.1"])
def test_a_threshold_out_of_range_is_refused(wrong):
    with pytest.raises(CerError, match=f"report.{wrong.split('=')[0]}: Input should be"):
        Clear.of(load_profile(overrides=[f"report.{wrong}"]))


def test_the_thresholds_enter_no_row_key():
    from cer_pipeline.pipeline import stages

    assert not [spec.name for spec in stages(load_profile()) if "report" in spec.config]
    assert Clear.of(load_profile(overrides=["report.least_expressed=0.9"])).least_expressed == 0.9


def drawn(axis) -> np.ndarray:
    """The pixels of the figure of an axis [height, width, 3]."""
    return np.asarray(Image.open(io.BytesIO(png(axis.figure))).convert("RGB"))


def lane_colours(made, video, rule) -> set[str]:
    """Colours that cover more than 1 % of the lane of compounds."""
    with settings():
        axis = figure(600, 60).add_axes((0.0, 0.0, 1.0, 1.0))
        read = timeline_module.read_video(made, video, rule)
        axis.set_xlim(0, read.end_s)
        timeline_module._draw_compound(axis, read)
        pixels = drawn(axis).reshape(-1, 3)
    found, counts = np.unique(pixels, axis=0, return_counts=True)
    wide = found[counts > len(pixels) / 100].astype(np.uint8)
    return {"#" + bytes(c).hex().upper() for c in wide}


def test_the_lane_is_grey_where_no_expression_is_clear(made):
    coloured = {faded(c, s) for c in COLOURS.values() for s in (0.25, 1.0)}
    assert timeline_module.GREY in (grey := lane_colours(made, HOSTILE, NONE))
    assert not grey & coloured
    assert timeline_module.GREY not in lane_colours(made, HOSTILE, ALL)


def test_the_strength_of_a_colour_grows_with_the_confidence():
    strengths = [timeline_module._strength(lead) for lead in (0.0, 0.05, 0.15, 0.3, 0.9)]
    assert strengths == sorted(strengths) and strengths[0] > 0 and strengths[-2:] == [1.0, 1.0]
    for colour in COLOURS.values():
        assert faded(colour, 1.0) == colour and faded(colour, 0.0) == EMPTY


@pytest.mark.parametrize("room", [20, 60, 130, 400])
def test_a_label_that_does_not_fit_its_cell_is_left_out(room):
    """Text is measured as matplotlib draws it; a narrow character fits where a wide word does not."""
    with settings():
        for text in ("Disgustedly", "Surprised", "i"):
            axis = figure(500, 60).add_axes((0.0, 0.0, 1.0, 1.0))
            axis.set_xlim(0, 500)
            timeline_module._label(axis, [(text, 0.5, "#000000")], timeline_module.Cell(50, 50 + room, 0, 1), 9)
            inked = np.flatnonzero((drawn(axis) < 100).any(axis=(0, 2)))
            if len(inked):
                assert inked.min() >= 50 and inked.max() <= 50 + room
                assert inked.max() - inked.min() < room
            assert bool(len(inked)) == (room >= {"Disgustedly": 130, "Surprised": 130, "i": 20}[text])


def test_plots_and_ui_show_the_number_of_clear_rows(made):
    rows_ = [r for r in made.tables["compound"].to_pylist() if r["status"] == "ok"]
    clear = sum(r["expressed"] >= 0.5 and r["confidence"] >= 0.1 for r in rows_)
    assert clear_rows(made, "compound", RULE) == f"{clear} of {len(rows_)} clear"
    fused = [r for r in made.tables["fused"].to_pylist() if r["status"] == "ok"]
    enough = sum(r["expressed"] >= 0.5 for r in fused)
    assert clear_rows(made, "fused", RULE) == f"{enough} of {len(fused)} express enough"
    assert clear_rows(made, "frame_predictions", NONE).startswith("0 of ")
    assert clear_rows(made, "faces", RULE) == ""
    plain, noted = (table_plot(tables.COMPOUNDS, made, note) for note in ("", "3 of 9 clear"))
    assert plain != noted


def test_counts_by_status_put_statuses_without_an_action_in_brackets():
    assert status_counts({"not_applicable": 61, "ok": 61}) == "ok 61 (not_applicable 61)"
    assert status_counts({"no_face": 4, "ok": 16}) == "no_face 4, ok 16"
    assert status_counts({"not_applicable": 3}) == "(not_applicable 3)"
    assert status_counts({}) == ""


def test_the_terminal_shows_names_and_words_without_markup(made):
    from rich.console import Console

    stream = io.StringIO()
    Console(file=stream, width=400, force_terminal=False).print(summary_table(summarise(made, RULE), "[red]demo", RULE))
    text = stream.getvalue()
    assert "[red]demo" in text
    assert "[bold]\\n\\u202eb" in text
    assert "face_static, scene_minilm, text_minilm: no_face" in text
    assert "\u202e" not in text


def test_a_branch_without_a_model_is_named_once_and_not_with_every_video():
    from rich.console import Console

    statuses = {"on": {"no_face": 1}, "off": {"model_unavailable": 2}, "half": {"model_unavailable": 1, "ok": 1}}
    one = VideoSummary("v", 1.0, 0, (), 0, None, None, None, None, None, None, None, statuses, "ok", None)
    assert unavailable([one, one]) == ["off"]
    assert unavailable([]) == []
    stream = io.StringIO()
    Console(file=stream, width=300, force_terminal=False).print(summary_table([one, one]))
    text = stream.getvalue()
    assert text.count("off (model_unavailable)") == 1
    assert text.count("half: model_unavailable 1/2") == 2
    assert "off: model_unavailable" not in text


@pytest.mark.parametrize(
    "spec",
    [
        tables.VIDEOS,
        tables.FACES,
        tables.probabilities("text_minilm"),
        tables.COMPOUNDS,
        tables.FRAME_PREDICTIONS,
        tables.TRANSCRIPTS,
    ],
    ids=lambda s: s.name,
)
def test_every_table_has_a_small_plot(made, spec):
    picture = table_plot(spec, made)
    assert Image.open(io.BytesIO(picture)).format == "PNG"
    assert len(picture) < 60_000


def test_an_empty_table_has_no_plot(made):
    empty = type(made)({"videos": tables.VIDEOS.schema.empty_table()})
    assert table_plot(tables.VIDEOS, empty) == b""


@pytest.mark.parametrize("shown", [drawable, printable])
def test_untrusted_text_is_one_line_with_escapes_as_in_python(shown):
    escaped = "\\U0001f98a" if shown is drawable else "🦊"  # the font of pictures lacks it
    assert shown(HOSTILE) == f"a $x_1$ [bold]\\n\\u202eb{escaped} <b>"
    assert shown("\x1b[31m\udcff") == "\\x1b[31m\\xff", "a byte that is not UTF-8"
    assert shown("Zoë") == "Zoë"


def test_a_long_text_is_cut_in_the_middle_of_a_picture():
    assert drawable("x" * 200, 30) == "x" * 20 + "…" + "x" * 9


def test_a_dollar_sign_is_drawn_as_text_and_not_as_a_formula():
    with settings():
        one = figure(200, 50)
        one.text(0.1, 0.5, "$x^2$")
        plain = png(one)
    other = figure(200, 50)
    other.text(0.1, 0.5, "$x^2$", parse_math=True)
    assert plain != png(other)


def test_text_is_legible_on_every_colour():
    def luminance(colour):
        channels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        linear = np.where(channels <= 0.03928, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    for colour in COLOURS.values():
        pair = sorted([luminance(colour), luminance(ink_on(colour))])
        assert (pair[1] + 0.05) / (pair[0] + 0.05) > 3.8, colour
