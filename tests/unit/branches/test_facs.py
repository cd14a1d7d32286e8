"""The rules of face_static: what a face must do to be read as an emotion, and what must not pass for a smile."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import softmax

from cer_pipeline.branches.face import facs
from cer_pipeline.branches.face.specs import NATIVE
from cer_pipeline.labels import BASIC
from cer_pipeline.perception.faces.blendshapes import BLENDSHAPES, INDEX
from cer_pipeline.profiles import load_profile

SETTINGS = load_profile()["face_static"]
SMILE = {"mouthSmile": 0.9, "eyeSquint": 0.6, "mouthUpperUp": 0.6}


def blendshapes(n: int = 10, /, **values: float) -> np.ndarray:
    """n samples of a face; a name without a side sets both sides."""
    out = np.zeros((n, len(BLENDSHAPES)))
    for name, value in values.items():
        for full in (name, f"{name}Left", f"{name}Right"):
            if full in INDEX:
                out[:, INDEX[full]] = value
    return out


def logits(n: int = 10, /, **values: float) -> np.ndarray:
    """n samples of the network's logits; emotions that are not named have 0."""
    out = np.zeros((n, len(NATIVE)))
    for name, value in values.items():
        out[:, NATIVE.index(name)] = value
    return out


def predict(shapes: np.ndarray, network: np.ndarray | None = None) -> facs.Prediction:
    network = logits(len(shapes)) if network is None else network
    return facs.predict(facs.Track(np.arange(len(shapes)), shapes, network, NATIVE), SETTINGS)


def top(p: np.ndarray) -> str:
    return BASIC[int(p.mean(axis=0).argmax())]


def happiness(p: np.ndarray) -> float:
    return float(p[:, BASIC.index("Happiness")].mean())


def test_a_face_at_rest_is_neutral() -> None:
    rest = blendshapes(browInnerUp=0.4, eyeSquint=0.35, eyeBlink=0.1)
    assert top(predict(rest).prototypes) == "Neutral"


@pytest.mark.parametrize(
    ("emotion", "movement"),
    [
        ("Happiness", SMILE),
        ("Surprise", {"browInnerUp": 0.9, "browOuterUp": 0.9, "eyeWide": 0.3, "jawOpen": 0.5}),
        ("Fear", {"browInnerUp": 0.9, "browOuterUp": 0.5, "browDown": 0.5, "eyeWide": 0.3, "mouthStretch": 0.4}),
        ("Anger", {"browDown": 0.8, "eyeSquint": 0.7, "mouthPress": 0.5}),
        ("Disgust", {"noseSneer": 0.2, "mouthUpperUp": 0.6, "mouthFrown": 0.2}),
        ("Sadness", {"browInnerUp": 0.9, "browDown": 0.4, "mouthFrown": 0.3}),
    ],
)
def test_the_action_units_of_an_emotion_are_read_as_it(emotion: str, movement: dict[str, float]) -> None:
    calm = blendshapes(10)
    found = predict(np.concatenate([calm, blendshapes(10, **movement)])).prototypes
    assert top(found[:9]) == "Neutral"
    assert top(found[11:]) == emotion


def test_a_speaking_mouth_that_the_network_takes_for_a_smile_is_neutral() -> None:
    speech = blendshapes(20)
    speech[:, INDEX["jawOpen"]] = 0.2 + 0.2 * np.sin(np.arange(20))
    found = predict(speech, logits(20, Happiness=6.0))
    raw = softmax(logits(1, Happiness=6.0), axis=-1)
    assert raw[0, NATIVE.index("Happiness")] > 0.98
    assert top(found.network) == "Neutral"
    assert happiness(found.network) < 0.2


def test_a_smile_that_both_experts_see_is_happiness_for_both() -> None:
    found = predict(blendshapes(**SMILE), logits(Happiness=6.0))
    assert top(found.network) == "Happiness"
    assert top(found.prototypes) == "Happiness"


def test_lip_corners_that_move_for_one_sample_only_are_no_smile() -> None:
    shapes = blendshapes(9)
    shapes[4] = blendshapes(1, **SMILE)[0]
    assert predict(shapes).smile.max() == 0


def test_shut_eyes_over_pulled_closed_lips_are_weeping_where_the_network_sees_no_smile() -> None:
    weeping = blendshapes(mouthSmile=0.9, eyeBlink=0.75, eyeSquint=0.55, eyeLookDown=0.85)
    found = predict(weeping, logits(Sadness=4.0))
    assert found.smile.max() < 0.1
    assert happiness(found.prototypes) < 0.1
    assert top(found.network) == "Sadness"
    assert found.prototypes[:, BASIC.index("Sadness")].mean() > 5 * happiness(found.prototypes)


def test_shut_eyes_over_bared_teeth_are_laughter() -> None:
    laughing = blendshapes(mouthSmile=0.95, mouthUpperUp=0.9, eyeBlink=0.6, eyeSquint=0.5)
    assert top(predict(laughing).prototypes) == "Happiness"


def test_a_smile_with_lids_lowered_over_some_work_is_a_smile_where_the_network_sees_one() -> None:
    lowered = blendshapes(mouthSmile=0.85, eyeBlink=0.7, eyeSquint=0.6, eyeLookDown=0.7)
    assert top(predict(lowered, logits(Happiness=5.0)).prototypes) == "Happiness"
    assert happiness(predict(lowered, logits(Sadness=5.0)).prototypes) < 0.1


def test_brows_that_a_person_always_carries_high_are_no_expression() -> None:
    high = predict(blendshapes(100, browInnerUp=0.5, browOuterUp=0.3))
    assert high.units.max() < 0.15
    assert top(high.prototypes) == "Neutral"


def test_an_expression_that_is_held_throughout_is_not_taken_for_rest() -> None:
    assert top(predict(blendshapes(200, browDown=0.9, eyeSquint=0.75, mouthPress=0.5)).prototypes) == "Anger"
    assert top(predict(blendshapes(200, **SMILE)).prototypes) == "Happiness"


def test_a_short_track_rests_at_the_typical_level() -> None:
    raw = np.full((1, len(facs.UNITS)), 0.9)
    few = facs.resting_level(raw, SETTINGS["rest"], SETTINGS["rest_typical"], 1000.0)
    typical = [SETTINGS["rest_typical"].get(name, 0.0) for name in facs.UNITS]
    np.testing.assert_allclose(few, typical, atol=1e-3)


def test_samples_beyond_a_gap_are_no_neighbours() -> None:
    values = np.array([[0.0], [0.0], [1.0], [1.0]])
    near = facs.smooth(values, np.array([0, 1, 2, 3]))[:, 0]
    apart = facs.smooth(values, np.array([0, 1, 7, 8]))[:, 0]
    np.testing.assert_array_equal(near, [0, 0, 1, 1])
    np.testing.assert_array_equal(apart, [0, 0, 1, 1])
    lone = facs.smooth(np.array([[0.0], [1.0], [0.0]]), np.array([0, 5, 10]))[:, 0]
    np.testing.assert_array_equal(lone, [0, 1, 0])


def test_every_setting_and_prototype_names_known_signs() -> None:
    derived = {"smile", "grimace", "sneer", "eyes_down"}
    for patterns in facs.PROTOTYPES.values():
        assert all(sign in facs.UNITS or sign in derived for pattern in patterns for sign in pattern)
    assert set(SETTINGS["full"]) == set(facs.UNITS)
    assert set(SETTINGS["rest"]) == set(SETTINGS["rest_typical"]) <= set(facs.UNITS)
    assert all(SETTINGS["rest_typical"][k] <= v < SETTINGS["full"][k] for k, v in SETTINGS["rest"].items())


@settings(max_examples=40, deadline=None)
@given(
    shapes=arrays(np.float64, (6, len(BLENDSHAPES)), elements=st.floats(0, 1)),
    network=arrays(np.float64, (6, len(NATIVE)), elements=st.floats(-20, 20)),
)
def test_both_experts_give_distributions_without_other_for_any_face(shapes: np.ndarray, network: np.ndarray) -> None:
    found = predict(shapes, network)
    for p in (found.network, found.prototypes):
        assert np.isfinite(p).all()
        assert p.min() >= 0
        np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-9)
        assert (p[:, BASIC.index("Other")] == 0).all()
    raw = facs.distribution(network, NATIVE, SETTINGS["network_temperature"])
    most = facs.smooth(raw, np.arange(6))
    most /= most.sum(axis=1, keepdims=True)
    happy = BASIC.index("Happiness")
    assert (found.network[:, happy] <= most[:, happy] + 1e-12).all()  # the guard takes, it never gives
