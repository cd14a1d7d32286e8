"""The sound of a video as 16 kHz mono FLAC, and reading it back.

Belongs here: driving the ffmpeg binary for sound. `extract` runs in the child process of `sandbox` only.
Does not belong here: listening (`perception`).
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cer_pipeline.media.errors import MediaError
from cer_pipeline.sound_file import read_sound_file
from cer_pipeline.status import Status

if TYPE_CHECKING:
    import numpy as np

RATE_HZ: Final = 16_000
"""What every speech model of this project reads."""

ASYNC: Final = 1
"""aresample: fill gaps and cut overlaps by time stamps, never stretch."""


def extract(request: dict[str, Any], emit: Callable[[Any], None]) -> dict[str, Any]:
    """Decode the sound of one file; its row of `audio` goes to `emit`.

    Sample 0 is time 0 of the container: ffmpeg counts from its start, and `first_pts=0` fills up to the first sound.
    What cannot be decoded is left out and filled with silence.

    Args:
        request: path, video_id, duration_s (the sound is cut there), folder (for a temporary file).
        emit: takes a batch of rows.

    Returns:
        Nothing to report.

    Raises:
        MediaError: no sound could be decoded, or the binary could not run.
    """
    import ffmpeg
    import imageio_ffmpeg
    import pyarrow as pa

    from cer_pipeline.media.container import OPTIONS, has_codec, input_name, open_media
    from cer_pipeline.tables import AUDIO

    with open_media(request["path"]) as container:
        stream = next((s for s in container.streams.audio if has_codec(s)), None)
        if stream is None:
            raise MediaError(Status.NO_AUDIO, "the file has no audio stream")
        index = stream.index
    target = Path(request["folder"]) / "sound.flac"
    # The binary opens the file by its number: a name need not be text, and ffmpeg-python takes nothing else.
    source = os.open(request["path"], os.O_RDONLY)
    sound = ffmpeg.input(input_name(f"/dev/fd/{source}"), threads=1, **OPTIONS)[str(index)]
    sound = sound.filter("aresample", RATE_HZ, **{"async": ASYNC, "first_pts": 0})
    command = (
        sound.output(
            f"file:{target}",
            format="flac",
            ac=1,
            sample_fmt="s16",
            t=request["duration_s"],
            map_metadata=-1,
            fflags="+bitexact",
            **{"flags:a": "+bitexact"},
        )
        .global_args("-nostdin", "-hide_banner", "-loglevel", "quiet")
        .overwrite_output()
        .compile(cmd=imageio_ffmpeg.get_ffmpeg_exe())
    )
    try:
        code = _run(command, source)
    finally:
        os.close(source)
    data = target.read_bytes() if target.is_file() else b""
    target.unlink(missing_ok=True)
    length = flac_samples(data)
    if not length:
        reason = "no sound could be decoded" + (f" (ffmpeg ended with code {code})" if code else "")
        raise MediaError(Status.UNDECODABLE, reason)
    row = {"video_id": request["video_id"], "sample_rate": RATE_HZ, "duration_s": length / RATE_HZ, "flac": data}
    emit(pa.RecordBatch.from_pylist([row | {"status": str(Status.OK), "reason": None}], schema=AUDIO.schema))
    return {}


def _run(command: list[str], source: int) -> int:
    from cer_pipeline.media.worker import die_with_parent

    # The worker has one thread at this point, so code between fork and exec is safe.
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
        pass_fds=(source,),
        preexec_fn=die_with_parent,
    )
    return done.returncode


def flac_samples(data: bytes) -> int:
    """Number of samples that the header of a FLAC file states (RFC 9639, section 8.2); 0 where it is none."""
    if len(data) < 26 or data[:4] != b"fLaC":
        return 0
    return int.from_bytes(data[21:26], "big") & ((1 << 36) - 1)


def read_audio(flac: bytes) -> np.ndarray:
    """The sound of a row of `audio`.

    Args:
        flac: the column `flac`.

    Returns:
        float32 [n] in -1..1, 16 kHz, from the start of the container.
    """
    samples, _ = read_sound_file(flac)
    return samples[:, 0]
