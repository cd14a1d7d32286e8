"""The two prompts of vision-language captions, in this project's words, and the names of the views; light at import.

Source of the strategies: section 3.3 of "Team RAS in 9th ABAW Competition: Multimodal Compound Expression Recognition
Approach". The first asks for a free interpretation of non-verbal behaviour and surroundings, the second for exactly one
of the predefined labels as well. Does not belong here: sending them (the captioners) or checking answers (`quality`).
"""

from __future__ import annotations

from typing import Final

from cer_pipeline.labels import BASIC, COMPOUND

VERSION: Final = "1"
"""Changes with any word that a model is given; it enters the stage's code version."""

_TASK: Final = (
    "The {count} pictures are consecutive samples, in time order, of a video clip of {seconds:g} seconds. "
    "Follow the person who is most in view."
)
PROMPTS: Final = {
    "prompt1": (
        "Interpret the emotional state of this person from non-verbal behaviour alone: how the facial expression, the "
        "gaze, the gestures and the posture develop from the first picture to the last, and what the surroundings add "
        "to it. Write one plain English paragraph. If feelings mix or change, say so."
    ),
    "prompt2": (
        "Describe the facial expression, the gestures, the posture and the surroundings of this person, and how they "
        "develop from the first picture to the last, in one plain English paragraph. Its last sentence names the "
        f"emotion that fits best, with exactly one label of this list and no other: {', '.join((*BASIC, *COMPOUND))}."
    ),
}
"""Prompt id -> text after the description of the task."""


def prompt_text(prompt: str, pictures: int, seconds: float) -> str:
    """The text that a model is given beside the pictures of a window.

    Args:
        prompt: a key of `PROMPTS`.
        pictures: number of pictures.
        seconds: length of the window, s.
    """
    return f"{_TASK.format(count=pictures, seconds=seconds)} {PROMPTS[prompt]}"


def view_name(model: str, prompt: str) -> str:
    """The view of a model and a prompt, as imported files are named.

    "Qwen/Qwen2.5-VL-7B-Instruct", "prompt1" -> "qwen2.5-vl-7b_prompt1".
    """
    return f"{model.rpartition('/')[2].lower().removesuffix('-instruct')}_{prompt}"
