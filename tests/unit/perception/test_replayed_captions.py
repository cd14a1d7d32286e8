"""The shipped caption head on published captions of Qwen2.5-VL that come from a server: as on the same ones from files.

A server on loopback replays the six views of the AFEW captions, two of each of three models, to the captioner
`endpoint`; a stored picture states which segment it stands for. This covers prompts, views, the checks of answers, the
table `captions`, and the branch scene_minilm on it. It does not cover what a real model answers to the project's
prompts and pictures: the published captions were written for other prompts, from the videos of AFEW.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest

from cer_pipeline import tables
from cer_pipeline.branches.scene.branch import CAPTION_HEAD, SCENE_MINILM
from cer_pipeline.branches.scene.caption_head import SceneHead, encoder
from cer_pipeline.branches.scene.caption_scores import FUSED, predict
from cer_pipeline.branches.sentences.minilm import ZOO_ID
from cer_pipeline.corpora.formats.caption_files import CaptionSplit, read_split
from cer_pipeline.labels import BASIC_COLUMNS
from cer_pipeline.perception.captions.prompts import PROMPTS, view_name
from cer_pipeline.perception.captions.specs import captions_stage
from cer_pipeline.perception.jpeg import decode_jpeg, encode_jpeg
from cer_pipeline.profiles import Profile, load_profile
from cer_pipeline.stage import StageContext, StageSpec
from cer_pipeline.zoo import open_zoo
from cer_pipeline.zoo.head_file import load_head
from tests.helpers.chat_server import Server, answer
from tests.helpers.memory_inputs import MemoryInputs, rows, segment

AFEW = Path(__file__).resolve().parents[4] / "shared" / "data" / "captions" / "AFEW"
MODELS = [f"Qwen/Qwen2.5-VL-{size}-Instruct" for size in ("3B", "7B", "32B")]
EVERY = 12  # of how many segments one is used: encoding all 2466 texts takes minutes
BLOCK, BITS = 16, 4  # a picture is 4 x 4 blocks of 16 pixels, black or white: the bits of a number


def picture(number: int) -> bytes:
    bits = [number >> i & 1 for i in range(BITS * BITS)]
    blocks = np.array(bits, np.uint8).reshape(BITS, BITS).repeat(BLOCK, 0).repeat(BLOCK, 1)
    return encode_jpeg(cv2.cvtColor(255 * blocks, cv2.COLOR_GRAY2BGR), 95)


def number_of(payload: dict[str, Any]) -> int:
    """The number in the first picture of a request."""
    url = payload["messages"][0]["content"][0]["image_url"]["url"]
    pixels = decode_jpeg(base64.b64decode(url.partition(",")[2]))
    return sum(int(bit) << i for i, bit in enumerate((pixels[8::BLOCK, 8::BLOCK, 0] > 127).ravel()))


def shard(split: CaptionSplit, used: Sequence[int]) -> MemoryInputs:
    """Windows with one picture each, which holds the place of the segment in the files."""
    segments, frames = [], []
    for i in used:
        video, index = split.segments[i].video_id, split.segments[i].segment
        segments.append(
            segment(video, index)
            | {"start_s": 2.0 * index, "end_s": 2.0 * index + 4, "first_sample": 10 * index, "samples": 10}
        )
        frames.append({"video_id": video, "sample": 10 * index, "time_s": 2.0 * index, "jpeg": picture(i)})
    return MemoryInputs({"segments": rows(tables.SEGMENTS, segments), "frames": rows(tables.FRAMES, frames)})


def run(spec: StageSpec, inputs: MemoryInputs, profile: Profile) -> pa.Table:
    """The table of a stage; it is added to the inputs."""
    context = StageContext(profile, open_zoo(), inputs)
    inputs.tables[spec.name] = spec.load()(context)(spec.plan(inputs, profile))
    return inputs.tables[spec.name]


@pytest.mark.slow
@pytest.mark.skipif(not AFEW.is_dir(), reason="the shared captions of AFEW are not on this machine")
@pytest.mark.skipif(open_zoo().digest(ZOO_ID) is None, reason="MiniLM is not on this machine")
def test_captions_from_a_server_are_classified_as_the_same_captions_from_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CER_HOME", str(tmp_path))
    split = read_split(AFEW, "dev", labelled=True)
    used = sorted(range(0, len(split), EVERY), key=lambda i: (split.segments[i].video_id, split.segments[i].segment))

    def replay(_: Server, payload: dict[str, Any], __: int) -> tuple[int, Any]:
        prompt = next(p for p, text in PROMPTS.items() if text in payload["messages"][0]["content"][-1]["text"])
        text = split.texts[view_name(payload["model"], prompt)][number_of(payload)]
        return 200, answer(text, model=payload["model"])

    server = Server(replay, tuple(MODELS))
    try:
        profile = load_profile(
            overrides=["captions.backend=endpoint", f"captions.url={server.url}", f"captions_endpoint.models={MODELS}"]
        )
        inputs = shard(split, used)
        captions = run(captions_stage(profile), inputs, profile).to_pylist()
    finally:
        server.stop()
    assert len(server.payloads) == 6 * len(used)
    written = {(r["segment_id"], r["view"]): r["text"] for r in captions}
    assert written == {
        (split.segments[i].segment_id, view): " ".join((texts[i] or "").split())
        for view, texts in split.texts.items()
        for i in used
    }

    run(SCENE_MINILM.features, inputs, profile)
    table = run(SCENE_MINILM.probabilities, inputs, profile)
    assert table.column("segment_id").to_pylist() == [split.segments[i].segment_id for i in used]
    assert set(table.column("model").to_pylist()) == {CAPTION_HEAD}
    got = np.stack([table.column(name).to_numpy() for name in BASIC_COLUMNS], axis=1)

    zoo = open_zoo()
    tensors, meta = load_head(zoo.path(CAPTION_HEAD))
    expected = predict(SceneHead(tensors, meta), split.keep(used), encoder(tensors, meta, zoo.path(ZOO_ID), 2))[FUSED]
    assert np.abs(got - expected).max() < 1e-5
    assert (got.argmax(1) == expected.argmax(1)).all()
