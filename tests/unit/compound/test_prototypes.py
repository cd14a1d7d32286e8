"""Prototypes of PFSA are means of correctly classified rows, and its temperature is chosen on folds."""

from __future__ import annotations

import numpy as np
import pytest

from cer_pipeline.compound.ppa import PAIRS
from cer_pipeline.compound.prototypes import EMOTIONS, TEMPERATURES, similarities, train_prototypes
from cer_pipeline.errors import CerError
from cer_pipeline.training.folds import grouped_folds


def rows(spread, n=420, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 7
    features = np.eye(7)[labels] + spread * rng.normal(size=(n, 7))
    return features, labels, grouped_folds(labels, [str(i) for i in range(n)], 3)


def test_cosines_equal_their_definition_and_are_0_for_zero_vectors():
    a, b = np.array([[3.0, 4.0], [0.0, 0.0]]), np.array([[1.0, 0.0], [1.0, 1.0]])
    expected = [[3 / 5, 7 / (5 * np.sqrt(2))], [0, 0]]
    np.testing.assert_allclose(similarities(a, b), expected)


def test_only_correctly_classified_rows_make_prototypes():
    features, labels, folds = rows(0.1)
    predicted = labels.copy()
    wrong = np.arange(len(labels)) % 5 == 0
    predicted[wrong] = (labels[wrong] + 1) % 7
    features[wrong] = 100.0  # would dominate every mean
    prototypes, _ = train_prototypes(features, labels, predicted, folds)
    np.testing.assert_allclose(np.linalg.norm(prototypes, axis=1), 1)
    for prototype, (i, j) in zip(prototypes, PAIRS, strict=True):
        assert sorted(np.argsort(prototype)[-2:].tolist()) == sorted((i, j))


def test_the_temperature_is_low_where_emotions_are_separable_and_high_where_they_are_not():
    apart = train_prototypes(*_right(rows(0.05)))[1]
    mixed = train_prototypes(*_right(rows(2.0)))[1]
    assert apart < 0.1 < mixed
    assert {apart, mixed} <= set(TEMPERATURES)
    assert EMOTIONS == (1, 2, 3, 4, 5, 6)


def _right(made):
    features, labels, folds = made
    return features, labels, labels, folds


def test_an_emotion_that_is_never_classified_correctly_is_named():
    features, labels, folds = rows(0.1)
    predicted = np.where(labels == 3, 0, labels)
    with pytest.raises(CerError, match="prototype of: Fear"):
        train_prototypes(features, labels, predicted, folds)
