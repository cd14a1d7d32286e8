"""Every file that is found by its ending can be read: one list, tested with a file of every container."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from cer_pipeline.corpora.formats.folder import find_files
from cer_pipeline.media.container import FORMATS
from cer_pipeline.media.formats import ENDINGS, VIDEO

FRAMES = 12
MUXERS = {  # demuxer -> muxer and codec of a file of its kind; None: the muxer that the ending means
    "mov,mp4,m4a,3gp,3g2,mj2": (None, "mpeg4"),
    "matroska,webm": ("matroska", "mpeg4"),
    "avi": ("avi", "mpeg4"),
    "mpeg": ("vob", "mpeg2video"),
    "mpegts": ("mpegts", "mpeg2video"),
    "mpegvideo": ("mpeg2video", "mpeg2video"),
    "h264": ("h264", "libx264"),
    "hevc": ("hevc", "libx265"),
    "flv": ("flv", "flv"),
    "asf": ("asf", "wmv2"),
    "ogg": ("ogg", "libvpx"),
    "m4v": ("m4v", "mpeg4"),
}
MP4 = {".m4v": "mp4", ".qt": "mov", ".3gpp": "3gp", ".3gp2": "3g2", ".mj2": "mov", ".f4v": "mp4", ".mp4v": "mp4"}


def clip(path: Path, muxer: str | None, codec: str) -> Path:
    muxer = muxer or MP4.get(path.suffix) or path.suffix[1:]
    with av.open(str(path), "w", format=muxer) as container:
        try:
            stream: Any = container.add_stream(codec, rate=25)
        except Exception:  # noqa: BLE001 (what a build of FFmpeg lacks raises different errors)
            pytest.skip(f"this FFmpeg has no encoder {codec}")
        stream.width, stream.height, stream.pix_fmt = 176, 144, "yuv420p"
        for i in range(FRAMES):
            picture = np.full((144, 176, 3), 20 * i, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def test_every_accepted_demuxer_for_video_has_an_ending():
    assert set(",".join(VIDEO).split(",")) < set(FORMATS.split(","))
    assert all(VIDEO.values())
    assert set(MUXERS) == set(VIDEO)
    assert all(ending == ending.lower() and ending.startswith(".") for ending in ENDINGS)


@pytest.mark.parametrize(
    ("demuxer", "ending"), [(d, e) for d, endings in VIDEO.items() for e in endings if (d, e) != ("m4v", ".m4v")]
)
def test_a_file_that_is_found_by_its_ending_is_read(tmp_path, sandbox, demuxer, ending):
    path = clip(tmp_path / f"a{ending}", *MUXERS[demuxer])
    assert [file.video_id for file in find_files(tmp_path).videos] == ["a"]
    row = sandbox.run("probe", path, {"max_duration_s": 60.0})
    assert row["status"] == "ok"
    assert row["container"] in (demuxer, *demuxer.split(","))
    assert abs(row["frames"] - FRAMES) <= 1  # a raw stream may end inside its last picture
