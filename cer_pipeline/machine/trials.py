"""Small trials of the work of a run: decode a file, load each model with the code of its stage.

Belongs here: trials that `checks` runs in a child process. Does not belong here: the report of their results.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from cer_pipeline.machine.child import run_attempts, serve
from cer_pipeline.profiles import load_profile

TIME_LIMIT_S: Final = 300.0  # a slow machine loads all models within a minute
DECODING: Final = "decoding"


def decode_sound() -> None:
    """Read one second of sound in the child process that opens media.

    Raises:
        MediaError: the file could not be read.
    """
    import numpy as np

    from cer_pipeline.media.sandbox import Limits, Sandbox
    from cer_pipeline.sound_file import write_sound_file

    profile = load_profile()
    with tempfile.TemporaryDirectory(prefix="cer-trial-") as folder, Sandbox(Limits.of(profile)) as sandbox:
        path = Path(folder) / "second.wav"
        path.write_bytes(write_sound_file(np.zeros(16_000, np.float32), 16_000, "wav"))
        sandbox.run("probe", path, {"max_duration_s": profile["media"]["max_duration_s"]})


def _face_landmarker(path: Path) -> None:
    from cer_pipeline.perception.faces.landmarks import FaceMesh

    with FaceMesh(path, confidence=load_profile()["faces"]["mesh_confidence"]):
        pass


def _centerface(path: Path) -> None:
    import onnxruntime

    from cer_pipeline.perception.faces.detector import free_sizes

    onnxruntime.InferenceSession(free_sizes(path), providers=["CPUExecutionProvider"])


def _silero_vad(path: Path) -> None:
    import numpy as np

    from cer_pipeline.perception.speech.vad import SileroVad

    SileroVad(path)(np.zeros(16_000, np.float32))


def _whisper(path: Path) -> None:
    from faster_whisper import WhisperModel

    WhisperModel(str(path), device="cpu", compute_type=load_profile()["transcripts"]["compute_type"])


def _mini_xception(path: Path) -> None:
    from cer_pipeline.branches.face.mini_xception import load

    load(path)


def _minilm(path: Path) -> None:
    from cer_pipeline.branches.sentences.minilm import MiniLM

    MiniLM(path, Counter()).encode("a trial")


MODELS: Final[Mapping[str, Callable[[Path], None]]] = {
    "centerface": _centerface,
    "face_landmarker": _face_landmarker,
    "mini_xception": _mini_xception,
    "silero_vad": _silero_vad,
    "whisper_tiny_en": _whisper,
    "whisper_base": _whisper,
    "minilm": _minilm,
}
"""Model id -> function that loads it from its verified file or folder. Other models are verified but not loaded."""


def try_all(models: Mapping[str, Path]) -> dict[str, str]:
    """Decode media and load models in child processes.

    Args:
        models: model ids and the paths of their verified files or folders.

    Returns:
        For `DECODING` and each model in `MODELS` the error in one line; empty for a successful trial.
    """
    names = {DECODING: DECODING} | {f"{model}={path}": model for model, path in models.items() if model in MODELS}
    return {names[name]: error for name, error in run_attempts(__name__, list(names), TIME_LIMIT_S).items()}


def _attempt(name: str) -> None:
    model, _, path = name.partition("=")
    if model == DECODING:
        decode_sound()
    else:
        MODELS[model](Path(path))


if __name__ == "__main__":
    serve(sys.argv[1:], _attempt)
