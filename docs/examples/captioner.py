"""A captioner as a plug-in: one sentence on how bright a window is.

Its pyproject.toml declares

    [project.entry-points."cer_pipeline.captioners"]
    brightness = "captioner:CAPTIONER"
    [project.entry-points."cer_pipeline.profile_sections"]
    brightness = "captioner:Brightness"

and `cer run NAME --set captions.backend=brightness` fills the table `captions` with it.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np

from cer_pipeline.perception.captions.captioner import PICTURES, Caption, CaptionerSpec, Segment, with_frames
from cer_pipeline.profiles.sections import Section, setting
from cer_pipeline.stage import StageContext


class Brightness(Section):
    """The section [brightness] of a profile."""

    dark_below: float = setting("mean grey level below which a window is dark", "0..1", default=0.25, ge=0, le=1)


class BrightnessCaptioner:
    """Windows -> one sentence each, from the stored pictures."""

    def __init__(self, context: StageContext, settings: Brightness) -> None:
        self.inputs, self.dark_below = context.inputs, settings.dark_below

    def __call__(self, segments: Sequence[Segment]) -> Iterator[Caption]:
        """One caption for each segment."""
        import cv2  # heavy: imported when the captioner runs, not with the graph

        for _, windows in groupby(segments, lambda segment: segment.video_id):
            for segment, frames in with_frames(self.inputs, list(windows)):
                jpegs = [np.frombuffer(frame["jpeg"], np.uint8) for frame in frames if frame["status"] == "ok"]
                if not jpegs:
                    yield Caption(segment, "brightness", status="no_video", reason="the window has no picture")
                    continue
                grey = [np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_REDUCED_GRAYSCALE_8)) for jpeg in jpegs]
                word = "dark" if np.mean([g.mean() for g in grey]) / 255 < self.dark_below else "bright"
                yield Caption(segment, "brightness", f"The picture is {word}.", prompt="none", model="brightness")


CAPTIONER = CaptionerSpec(
    name="brightness",
    captioner="captioner:BrightnessCaptioner",
    code_version="1",  # changes whenever the sentences change for the same pictures and settings
    views=lambda _: ("brightness",),
    section="brightness",
    settings=Brightness,
    reads=PICTURES,
)
