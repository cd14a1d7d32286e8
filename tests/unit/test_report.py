"""Pictures and summaries say what the tables hold, whatever the names are and whatever is missing."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pyarrow as pa
import pytest
from memory_inputs import rows, shard
from PIL import Image
from test_compound import NAMES, run

from cer_pipeline import tables
from cer_pipeline.errors import CerError
from cer_pipeline.labels import BASIC, BASIC_COLUMNS, COMPOUND, COMPOUND_COLUMNS
from cer_pipeline.profiles import load_profile
from cer_pipeline.report.plots import table_plot
from cer_pipeline.report.style import COLOURS, figure, ink_on, png, safe, settings
from cer_pipeline.report.summary import VideoSummary, summarise
from cer_pipeline.report.terminal import summary_table, unavailable
from cer_pipeline.report.timeline import timeline

NASTY = "a $x_1$ [bold]\n\u202eb🦊 <b>"


def crop() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((64, 64, 3), (200, 30, 30), np.uint8)).save(stream, "JPEG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def made():
    """Three videos: one with a nasty name, one with sound alone, one with nothing at all."""
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
    seen = {"video_id": "clip", "face": 0, "is_subject": True, "verified": True, "crop": crop()}
    faces = [seen | {"sample": k, "track": k // 30} for k in range(40)]
    faces.append({"video_id": "silent", "sample": 0, "status": "no_face"})
    faces.append({"video_id": "sound", "sample": 0, "status": "no_video"})
    inputs.tables["faces"] = rows(tables.FACES, faces)
    words = [{"word": w, "start_s": s, "end_s": s + 0.2, "probability": 0.9} for w, s in ((" so", 2.1), (NASTY, 2.5))]
    said = [{"segment_id": f"clip/{i}", "video_id": "clip", "segment": i, "words": words} for i in range(2)]
    inputs.tables["transcripts"] = rows(tables.TRANSCRIPTS, said)
    run(inputs, load_profile())
    for name, table in inputs.tables.items():
        at = table.schema.get_field_index("video_id")
        renamed = [NASTY if v == "clip" else v for v in table.column("video_id").to_pylist()]
        inputs.tables[name] = table.set_column(at, table.schema.field(at), pa.array(renamed, pa.string()))
    return inputs


@pytest.mark.parametrize("video", [NASTY, "silent", "sound"])
def test_every_video_has_a_picture_without_a_warning(made, video):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = Image.open(io.BytesIO(timeline(made, video)))
    assert picture.size == (1600, 900)
    colours = {c for _, c in picture.convert("RGB").getcolors(1600 * 900) or []}
    drawn = [name for name, code in COLOURS.items() if tuple(bytes.fromhex(code[1:])) in colours]
    assert len(drawn) == len(BASIC), "every label has its colour in the legend"


def test_the_picture_is_the_same_on_every_run(made):
    assert timeline(made, "sound") == timeline(made, "sound")


def test_the_area_of_a_colour_is_its_probability(made):
    fill = tuple(bytes.fromhex(COLOURS["Neutral"][1:]))
    table = made.tables["fused"].to_pylist()
    (only,) = [r for r in table if r["video_id"] == "sound"][:1]
    pixels = np.asarray(Image.open(io.BytesIO(timeline(made, "sound"))).convert("RGB"))
    column = (pixels[:, 300] == fill).all(axis=1)  # inside the first window
    longest = max(len(part) for part in "".join("x" if c else " " for c in column).split())
    assert longest / 350 == pytest.approx(only["p_neutral"], abs=0.03)  # the lane is about 350 pixels high


def test_an_unknown_video_is_a_user_error(made):
    with pytest.raises(CerError, match="no such video"):
        timeline(made, "nobody")


def test_the_summary_counts_people_words_and_takes_the_mean_over_frames(made):
    first, silent, sound = summarise(made)
    assert (first.faces, first.words, first.seconds) == (2, ("so", NASTY), None)
    frames = [r for r in made.tables["frame_predictions"].to_pylist() if r["video_id"] == first.video_id]
    known = [r for r in frames if r["status"] == "ok"]
    assert first.frames == len(known) > 0
    for labels, columns, name, value in (
        (BASIC, BASIC_COLUMNS, first.basic, first.basic_probability),
        (COMPOUND, COMPOUND_COLUMNS, first.compound, first.compound_probability),
    ):
        means = [sum(r[c] for r in known) / len(known) for c in columns]
        assert name == labels[int(np.argmax(means))]
        assert value == pytest.approx(max(means), abs=1e-12)
    assert (silent.basic, silent.compound, silent.frames, silent.faces) == (None, None, 0, 0)
    assert silent.coverage == dict.fromkeys(NAMES, 0.0)
    assert silent.statuses["text_minilm"] == {"no_face": 1}
    assert sound.frames == 0
    assert sound.basic is not None, "sound alone is summed up from its segments"


def test_the_terminal_shows_names_and_words_as_they_are(made):
    from rich.console import Console

    stream = io.StringIO()
    Console(file=stream, width=400, force_terminal=False).print(summary_table(summarise(made), "[red]demo"))
    text = stream.getvalue()
    assert "[red]demo" in text
    assert "[bold]\\n\\u202eb" in text
    assert "face_static, scene_minilm, text_minilm: no_face" in text
    assert "\u202e" not in text


def test_a_branch_without_a_model_is_told_once_and_not_with_each_video():
    from rich.console import Console

    statuses = {"on": {"no_face": 1}, "off": {"model_unavailable": 2}, "half": {"model_unavailable": 1, "ok": 1}}
    one = VideoSummary("v", 1.0, 0, (), 0, None, None, None, None, statuses, "ok", None)
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


def test_untrusted_text_is_one_line_that_shows_what_it_holds():
    assert safe(NASTY) == "a $x_1$ [bold]\\x0a\\u{202e}b\\u{1f98a} <b>"
    assert safe("\udcff") == "\\xff", "a byte that is no UTF-8"
    assert safe("x" * 200, 30) == "x" * 20 + "…" + "x" * 9
    assert safe("Zoë 日") == "Zoë \\u{65e5}"


def test_a_dollar_sign_is_drawn_and_not_set_as_a_formula():
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
