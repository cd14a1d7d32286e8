"""A captioner that a plug-in adds: found by its name, with its settings, run by the stage `captions`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from cer_pipeline import tables
from cer_pipeline.cli.app import app
from cer_pipeline.errors import CerError
from cer_pipeline.perception.captions import registry
from cer_pipeline.perception.captions.captioner import Caption, CaptionerSpec, Segment, with_frames
from cer_pipeline.perception.captions.registry import captioner_of
from cer_pipeline.perception.captions.specs import captions_stage
from cer_pipeline.pipeline import stages
from cer_pipeline.profiles import Profile, load_profile
from cer_pipeline.profiles.explain import explain
from cer_pipeline.stage import placeholder_rows
from cer_pipeline.status import Status
from cer_pipeline.store.fingerprint import stage_fingerprint
from tests.helpers.memory_inputs import MemoryInputs, NoWeights, context, rows, segment

EXAMPLES = Path(__file__).resolve().parents[3] / "docs" / "examples"
ENTRY_POINTS = """
[cer_pipeline.captioners]
brightness = captioner:CAPTIONER
misnamed = captioner:CAPTIONER
[cer_pipeline.profile_sections]
brightness = captioner:Brightness
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The example, installed: a folder with its metadata, and the module, on the search path."""
    info = tmp_path / "brightness-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: brightness\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    for folder in (tmp_path, EXAMPLES):
        monkeypatch.syspath_prepend(str(folder))
    yield
    sys.modules.pop("captioner", None)


def brightness(*overrides: str) -> Profile:
    return load_profile(overrides=["captions.backend=brightness", *overrides])


def shard(**grey: Sequence[int | None]) -> MemoryInputs:
    """Videos by their grey level at every sample of the 5 Hz grid; None: no picture."""
    segments, frames = [], []
    for name, levels in grey.items():
        count = max(1, -(-(len(levels) - 20) // 10) + 1)
        segments += [
            segment(name, i)
            | {
                "start_s": 2.0 * i,
                "end_s": 2.0 * i + 4,
                "first_sample": 10 * i,
                "samples": min(20, len(levels) - 10 * i),
            }
            for i in range(count)
        ]
        for k, level in enumerate(levels):
            image = None if level is None else cv2.imencode(".jpg", np.full((64, 64, 3), level, np.uint8))[1].tobytes()
            status = "no_video" if level is None else "ok"
            frames.append(
                {"video_id": name, "sample": k, "time_s": k / 5, "height": 64, "jpeg": image, "status": status}
            )
    return MemoryInputs({"segments": rows(tables.SEGMENTS, segments), "frames": rows(tables.FRAMES, frames)})


def captions(profile: Profile, inputs: MemoryInputs) -> list[dict[str, Any]]:
    spec = captions_stage(profile)
    table = spec.load()(context(inputs, profile))(spec.plan(inputs, profile))
    assert table.schema.equals(tables.CAPTIONS.schema)
    return table.to_pylist()


@pytest.mark.usefixtures("plugin")
def test_the_example_captions_every_window_from_its_own_pictures() -> None:
    inputs = shard(a=[250] * 10 + [10] * 20, b=[None] * 5)
    made = [(r["segment_id"], r["view"], r["text"], r["status"]) for r in captions(brightness(), inputs)]
    assert made == [
        ("a/0000", "brightness", "The picture is bright.", "ok"),
        ("a/0001", "brightness", "The picture is dark.", "ok"),
        ("b/0000", "brightness", None, "no_video"),
    ]


@pytest.mark.usefixtures("plugin")
def test_its_settings_are_typed_and_explained_and_enter_the_keys() -> None:
    default, darker = brightness(), brightness("brightness.dark_below=0.9")
    keys = {stage_fingerprint(captions_stage(p), p, NoWeights()) for p in (default, darker)}
    assert len(keys) == 2
    assert captions(darker, shard(a=[200] * 20))[0]["text"] == "The picture is dark."
    assert explain(darker, "brightness.dark_below").unit == "0..1"
    with pytest.raises(CerError, match=r"brightness\.dark_below: Input should be less than or equal to 1"):
        brightness("brightness.dark_below=2")


@pytest.mark.usefixtures("plugin")
def test_the_graph_under_it_reads_what_it_reads() -> None:
    spec = next(spec for spec in stages(brightness()) if spec.name == "captions")
    assert (spec.inputs, spec.config, spec.code_version) == (("segments", "frames"), ("brightness",), "brightness/1")
    unit = spec.plan(shard(a=[0] * 30), brightness()).to_pylist()[0]
    blank = placeholder_rows(spec, unit, Status.FAILED, "why")
    assert [(r["segment_id"], r["view"]) for r in blank] == [("a/0000", "brightness"), ("a/0001", "brightness")]


@pytest.mark.usefixtures("plugin")
def test_a_wrong_name_is_refused_with_the_nearest_one_and_a_plug_in_must_have_its_own() -> None:
    with pytest.raises(CerError) as caught:
        stages(load_profile(overrides=["captions.backend=brightnes"]))
    line = "no such captioner: brightnes: captions.backend=brightnes - did you mean brightness?"
    assert caught.value.line() == line
    with pytest.raises(CerError, match="does not hold the captioner"):
        captioner_of(load_profile(overrides=["captions.backend=misnamed"]))


def test_without_a_match_all_captioners_are_named() -> None:
    with pytest.raises(CerError, match="choose one of: endpoint, imported, rule_based"):
        captioner_of(load_profile(overrides=["captions.backend=zzz"]))


def test_settings_of_other_captioners_change_no_key() -> None:
    def keys(*overrides: str) -> str:
        profile = load_profile(overrides=overrides)
        return stage_fingerprint(captions_stage(profile), profile, NoWeights())

    assert keys("captions.backend=imported") == keys("captions.backend=imported", "describer.uneven=0.3")
    assert keys() != keys("describer.uneven=0.3")
    assert keys() != keys("captions.backend=imported")


@pytest.mark.parametrize(
    ("key", "cost"),
    [
        ("captions.url", "captions and the tables made from them, if another captioner is chosen; otherwise no result"),
        ("captions_endpoint.max_tokens", "no result while captions.backend names another captioner"),
        ("describer.uneven", "recomputes captions; then, if their inputs change: "),
    ],
)
def test_the_command_says_what_a_setting_of_a_captioner_costs(key: str, cost: str) -> None:
    done = CliRunner().invoke(app, ["settings", "explain", key])
    assert done.exit_code == 0 and cost in done.output


def test_the_frames_of_a_window_are_those_between_its_first_and_its_last_sample() -> None:
    inputs = shard(a=[*range(0, 240, 8)], b=[1] * 3)
    windows = [Segment("a", i, 2.0 * i, 2.0 * i + 4, 10 * i, 20) for i in range(2)]
    found = [(s.segment, [f["sample"] for f in frames]) for s, frames in with_frames(inputs, windows)]
    assert found == [(0, list(range(20))), (1, list(range(10, 30)))]
    assert list(with_frames(inputs, [])) == []


class Answering:
    """A captioner that answers with what a test sets."""

    answers: Any

    def __init__(self, *_: Any) -> None: ...

    def __call__(self, segments: Sequence[Segment]) -> Iterable[Caption]:
        return self.answers(segments)


def answering(monkeypatch: pytest.MonkeyPatch, answers: Callable[[Sequence[Segment]], list[Caption]]) -> None:
    spec = CaptionerSpec("rule_based", f"{__name__}:Answering", "1", lambda _: ("v",))
    monkeypatch.setitem(registry.CAPTIONERS, "rule_based", spec)
    monkeypatch.setattr(Answering, "answers", staticmethod(answers), raising=False)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (lambda s: [Caption(s[0], "v", "x")], "left out"),
        (lambda s: [Caption(x, "v", "x") for x in (*s, s[0])], "answered twice"),
        (lambda s: [Caption(x, v, "x") for x in s for v in "vw"], "answered unasked"),
    ],
    ids=["missing", "twice", "another view"],
)
def test_a_captioner_that_breaks_its_contract_fails(
    answers: Callable[[Sequence[Segment]], list[Caption]], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, answers)
    with pytest.raises(ValueError, match=message):
        captions(load_profile(), shard(a=[0] * 30))


def test_the_order_of_the_captions_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for step in (1, -1):
        answering(monkeypatch, lambda s, step=step: [Caption(x, "v", x.id) for x in s[::step]])
        made.append(captions(load_profile(), shard(a=[0] * 30, b=[0] * 5)))
    assert made[0] == made[1]
    assert [r["text"] for r in made[0]] == ["a/0000", "a/0001", "b/0000"]


class WithImports(MemoryInputs):
    """A shard of videos a and b with media; a has an imported view, with a text for its first window only."""

    annotations: Path

    def registered(self) -> Any:
        files = [SimpleNamespace(video_id=v, captions="digest" if v == "a" else "") for v in "ab"]
        return SimpleNamespace(has_media=True, annotations=self.annotations, files_of=lambda _: files)


@pytest.fixture
def inputs(tmp_path: Path) -> WithImports:
    texts = json.dumps([[0, "vlm_prompt1", "A man smiles."], [1, "vlm_prompt1", None]])
    made = WithImports(shard(a=[0] * 30, b=[0] * 5).tables)
    made.annotations = tmp_path / "annotations.parquet"
    pq.write_table(pa.table({"shard": ["s000"], "video_id": ["a"], "captions": [texts]}), made.annotations)
    return made


def test_imported_alone_needs_no_frames_and_says_where_no_text_is(inputs: WithImports) -> None:
    profile = load_profile(overrides=["captions.backend=imported"])
    assert captions_stage(profile).inputs == ("segments",)
    assert [(r["segment_id"], r["view"], r["text"], r["status"], r["reason"]) for r in captions(profile, inputs)] == [
        ("a/0000", "vlm_prompt1", "A man smiles.", "ok", None),
        ("a/0001", "vlm_prompt1", None, "no_caption", "vlm_prompt1 has no text for this segment"),
        ("b/0000", "imported", None, "no_caption", "no text was imported for this video"),
    ]


def test_imported_texts_stand_beside_those_of_a_captioner(inputs: WithImports, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, lambda s: [Caption(x, "v", x.id) for x in s])
    made = [(r["segment_id"], r["view"], r["text"]) for r in captions(load_profile(), inputs)]
    assert made == [
        ("a/0000", "v", "a/0000"),
        ("a/0000", "vlm_prompt1", "A man smiles."),
        ("a/0001", "v", "a/0001"),
        ("a/0001", "vlm_prompt1", None),
        ("b/0000", "v", "b/0000"),
    ]


def test_of_two_texts_for_one_view_the_imported_one_counts(
    inputs: WithImports, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, lambda s: [Caption(x, "vlm_prompt1", "generated") for x in s])
    spec = replace(registry.CAPTIONERS["rule_based"], views=lambda _: ("vlm_prompt1",))
    monkeypatch.setitem(registry.CAPTIONERS, "rule_based", spec)
    made = [(r["segment_id"], r["text"]) for r in captions(load_profile(), inputs)]
    assert made == [("a/0000", "A man smiles."), ("a/0001", "generated"), ("b/0000", "generated")]
