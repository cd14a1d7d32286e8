"""MHPF: both forms against naive loops and torch, the one matrix of static heads, subsets, training, votes."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cer_pipeline.errors import CerError
from cer_pipeline.fusion.combine import masked_softmax
from cer_pipeline.fusion.fuse import Fuse
from cer_pipeline.fusion.mhpf import DYNAMIC, EPSILON, MHPF, STATIC, load_mhpf, save_mhpf
from cer_pipeline.fusion.specs import HEAD, fusion_stages
from cer_pipeline.fusion.train.fit import PUBLISHED, Settings, dropped, train_mhpf
from cer_pipeline.fusion.train.objectives import (
    TINY,
    StaticMHPF,
    fit_gate,
    likelihood_loss,
    minimise,
    published_loss,
)
from cer_pipeline.labels import BASIC, BASIC_COLUMNS
from cer_pipeline.profiles import load_profile
from cer_pipeline.reproduce.crema_d_votes import (
    DYNAMIC_CHOSEN,
    PUBLISHED_STATIC,
    REPEATS,
    STATIC_CHOSEN,
    Votes,
    choose,
    evaluate,
    read_votes,
)
from cer_pipeline.training.folds import random_group_folds
from tests.helpers.memory_inputs import NoWeights, branch, context, shard

H, M, C = 3, 4, 8
NAMES = ("face_static", "scene_minilm", "audio", "text_minilm")
QUICK = Settings(heads=3)


def fusion(method: str, seed: int = 0, names=NAMES, classes=BASIC, known=None) -> MHPF:
    """A fusion with random parameters."""
    rng = np.random.default_rng(seed)
    m, c = len(names), len(classes)
    known = (True,) * c if known is None else known
    none, mix = np.empty(0), rng.normal(size=H)
    if method == STATIC:
        return MHPF(method, names, classes, known, rng.normal(size=(H, m, c)), mix, none, none, none)
    k = 2 * c + 2
    maps = rng.normal(0, 0.3, (H, c, m, k + 1))
    mean, scale = rng.normal(size=(m, k)), rng.uniform(0.5, 2, (m, k))
    return MHPF(method, names, classes, known, none, mix, maps, mean, scale, 1.5, 3.0)


def units(n: int, seed: int = 0, absent: float = 0.4):
    """Random distributions with absent branches."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(C, 0.4), size=(n, M))
    present = rng.random((n, M)) >= absent
    present[np.arange(n), rng.integers(0, M, n)] = True
    return np.where(present[..., None], p, np.nan), present


def naive_gate_target(f: MHPF, h: int, p, here) -> dict[int, float]:
    """r of one head for one unit, from the formula in the module's docstring."""
    logits = {}
    for c in (c for c, known in enumerate(f.known) if known):
        logits[c] = 0.0
        for j in here:
            logs = [np.log(x + EPSILON) for x in p[j]]
            z = [*p[j], *(x - sum(logs) / len(logs) for x in logs)]
            z += [-sum(x * np.log(x) for x in p[j] if x > 0), max(p[j])]
            z = [(x - a) / b for x, a, b in zip(z, f.mean[j], f.scale[j], strict=True)]
            logits[c] += f.sharpness * sum(v * x for v, x in zip(f.maps[h, c, j], [*z, 1.0], strict=True))
    total = sum(np.exp(x) for x in logits.values())
    return {c: float(np.exp(x) / total) for c, x in logits.items()}


def naive_weights(f: MHPF, p, present):
    """Weights of one unit, one number at a time, from the formulas in the module's docstring."""
    m_count, c_count = len(f.branches), len(f.classes)
    here = [m for m in range(m_count) if present[m]]
    shares = np.exp(f.mix) / np.exp(f.mix).sum()
    out = np.zeros((m_count, c_count))
    for h, share in enumerate(shares):
        target = naive_gate_target(f, h, p, here) if f.method == DYNAMIC else {}
        for c in range(c_count):
            if not f.known[c]:
                scores = dict.fromkeys(here, 0.0)
            elif f.method == STATIC:
                scores = {m: f.scores[h, m, c] for m in here}
            else:
                span = max(p[m][c] for m in here) - min(p[m][c] for m in here) + EPSILON
                scores = {m: -f.stiffness * ((p[m][c] - target[c]) / span) ** 2 for m in here}
            top = max(scores.values())
            raw = {m: np.exp(max(s - top, -30.0)) for m, s in scores.items()}
            for m, value in raw.items():
                out[m, c] += share * value / sum(raw.values())
    return out


KNOWN = [(True,) * C, (True, True, False, True, True, True, True, False)]


@pytest.mark.parametrize("known", KNOWN)
@pytest.mark.parametrize("method", [STATIC, DYNAMIC])
def test_weights_equal_the_naive_formulas(method, known):
    f = fusion(method, known=known)
    p, present = units(6)
    weights = f.weights(p, present)
    for i in range(len(p)):
        np.testing.assert_allclose(weights[i], naive_weights(f, p[i], present[i]), atol=1e-12)


@pytest.mark.parametrize("method", [STATIC, DYNAMIC])
def test_each_subset_of_branches_gives_a_distribution(method):
    f = fusion(method)
    p, _ = units(3, absent=0.0)
    subsets = [s for s in itertools.product([False, True], repeat=M) if any(s)]
    assert len(subsets) == 2**M - 1
    for subset in subsets:
        present = np.tile(subset, (3, 1))
        blind = np.where(present[..., None], p, np.nan)
        fused, effective = f.fuse(blind, present)
        assert (fused >= 0).all()
        np.testing.assert_allclose(fused.sum(axis=1), 1.0, atol=1e-12)
        np.testing.assert_allclose(f.weights(blind, present).sum(axis=1), 1.0, atol=1e-12)
        assert (effective[~present] == 0).all()


@pytest.mark.parametrize("method", [STATIC, DYNAMIC])
def test_a_unit_does_not_depend_on_its_batch(method):
    f = fusion(method)
    p, present = units(9)
    together = f.weights(p, present)
    for i in range(9):
        assert (f.weights(p[i : i + 1], present[i : i + 1])[0] == together[i]).all()


def test_all_heads_of_a_static_fusion_equal_one_convex_matrix():
    f = fusion(STATIC)
    p, _ = units(50, absent=0.0)
    all_present = np.ones((50, M), dtype=bool)
    matrix = f.weights(np.full((1, M, C), np.nan), all_present[:1])[0]
    assert matrix.shape == (M, C)
    assert (matrix >= 0).all()
    np.testing.assert_allclose(matrix.sum(axis=0), 1.0, atol=1e-12)
    heads = np.zeros((50, C))
    for h in range(H):
        share = np.exp(f.mix[h]) / np.exp(f.mix).sum()
        w = masked_softmax(f.scores[h][None], all_present[:1])[0]
        heads += share * (w * p).sum(axis=1)
    np.testing.assert_allclose((matrix * p).sum(axis=1), heads, atol=1e-12)
    np.testing.assert_allclose(f.fuse(p, all_present)[0], heads / heads.sum(axis=1, keepdims=True), atol=1e-12)


def test_torch_and_numpy_give_the_same_static_weights():
    p, present = units(20)
    known = np.nan_to_num(p)
    tensors = torch.from_numpy(known), torch.from_numpy(present)
    module = StaticMHPF(H, M, C, torch.Generator().manual_seed(1))
    with torch.no_grad():
        theirs, fused = module.weights(tensors[1]).numpy(), module(*tensors).numpy()
    values = module.scores.detach().numpy(), module.mix.detach().numpy()
    none = np.empty(0)
    plain = MHPF(STATIC, NAMES, BASIC, (True,) * C, *values, none, none, none)
    np.testing.assert_allclose(plain.weights(p, present), theirs, atol=1e-12)
    np.testing.assert_allclose(plain.fuse(p, present)[0], fused / fused.sum(axis=1, keepdims=True), atol=1e-12)


@given(st.integers(0, 10_000), st.floats(0.0, 0.8))
def test_no_fused_value_leaves_the_range_of_the_branches(seed, absent):
    f = fusion(DYNAMIC, seed)
    p, present = units(4, seed, absent)
    weighted = (f.weights(p, present) * np.nan_to_num(p)).sum(axis=1)
    assert (weighted <= np.nanmax(p, axis=1) + 1e-12).all()
    assert (weighted >= np.nanmin(p, axis=1) - 1e-12).all()


@given(st.integers(0, 10_000))
def test_the_parts_of_the_branches_sum_to_the_fused_value(seed):
    for f in (fusion(DYNAMIC, seed), fusion(STATIC, seed), fusion(DYNAMIC, seed, known=KNOWN[1])):
        p, present = units(5, seed)
        fused, effective = f.fuse(p, present)
        np.testing.assert_allclose((effective * np.nan_to_num(p)).sum(axis=1), fused, atol=1e-12)


def test_the_branch_nearest_to_the_gate_target_gets_the_largest_weight():
    f = fusion(DYNAMIC)
    p, present = units(200, absent=0.0)
    r = f.gate_targets(p, present)
    np.testing.assert_allclose(r.sum(axis=2), 1.0, atol=1e-12)
    w = replace(f, mix=np.array([50.0, 0.0, 0.0])).weights(p, present)
    nearest = np.abs(p - r[:, 0][:, None, :]).argmin(axis=1)
    assert (w.argmax(axis=1) == nearest).all()


def test_the_map_of_the_gate_has_the_least_penalised_loss():
    """The problem is convex, so the slope of the naive loss is 0 at its one minimum."""
    rng = np.random.default_rng(0)
    labels, weights, decay = rng.integers(0, 3, 200), np.array([1.0, 2.0, 0.5]), 0.01
    inputs = np.column_stack([rng.normal(size=(200, 4)) + labels[:, None], np.ones(200)])
    free = [False] * 4 + [True]
    x, fixed, aims, classes = map(torch.from_numpy, (inputs, np.array(free), np.eye(3)[labels], weights))
    found = fit_gate(x, fixed, aims, classes, decay).numpy()

    def loss(maps):
        total = mass = 0.0
        for x, y in zip(inputs, labels, strict=True):
            logits = [float(row @ x) for row in maps]
            total -= weights[y] * (logits[y] - np.log(sum(np.exp(logits))))
            mass += weights[y]
        return total / mass + decay * sum(v * v for row in maps for v, f in zip(row, free, strict=True) if not f)

    for c, k in itertools.product(range(3), range(5)):
        step = np.zeros_like(found)
        step[c, k] = 1e-4
        assert abs(loss(found + step) - loss(found - step)) / 2e-4 < 1e-4


def test_minimise_finds_a_minimum():
    x = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    aim = torch.tensor([3.0, -1.0], dtype=torch.float64)
    minimise([x], lambda: (x - aim).square().sum())
    np.testing.assert_allclose(x.detach().numpy(), aim.numpy(), atol=1e-5)


def test_the_published_loss_takes_probabilities_for_logits_and_the_likelihood_does_not():
    rng = np.random.default_rng(0)
    fused, targets, weights = rng.uniform(size=(5, C)), rng.dirichlet(np.ones(C), 5), rng.uniform(0.5, 2, C)
    published = likelihood = total = mass = 0.0
    for row, target in zip(fused, targets, strict=True):
        y = int(target.argmax())
        published -= weights[y] * np.log(np.exp(row[y]) / sum(np.exp(row)))
        total += weights[y]
        for c in range(C):
            likelihood -= weights[c] * target[c] * np.log(row[c] / sum(row) + TINY)
            mass += weights[c] * target[c]
    tensors = [torch.from_numpy(x) for x in (fused, targets, weights)]
    assert float(published_loss(*tensors)) == pytest.approx(published / total, abs=1e-12)
    assert float(likelihood_loss(*tensors)) == pytest.approx(likelihood / mass, abs=1e-12)


def test_a_fusion_is_read_back_with_the_same_bits(tmp_path):
    f = fusion(DYNAMIC)
    save_mhpf(tmp_path / "mhpf.safetensors", f, {"data": "made up"})
    again = load_mhpf(tmp_path / "mhpf.safetensors")
    p, present = units(5)
    assert (again.weights(p, present) == f.weights(p, present)).all()
    assert (again.method, again.branches, again.classes, again.known) == (f.method, f.branches, f.classes, f.known)
    assert (again.sharpness, again.stiffness) == (f.sharpness, f.stiffness)


def corpus(n=360, seed=0):
    """Two branches: the first is right where its confidence is high, and often wrong where it is low."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    sure = rng.random(n) < 0.5
    first = np.where(sure, labels, rng.integers(0, 3, n))
    second = np.where(rng.random(n) < 0.75, labels, rng.integers(0, 3, n))
    p = np.empty((n, 2, 3))
    for i in range(n):
        p[i, 0] = 0.1 + 0.7 * np.eye(3)[first[i]] if sure[i] else 0.3 + 0.1 * np.eye(3)[first[i]]
        p[i, 1] = 0.2 + 0.4 * np.eye(3)[second[i]]
    return p, np.eye(3)[labels], rng.integers(0, 30, n)


def fitted(settings, data):
    p, t, groups = data
    present = np.ones(p.shape[:2], dtype=bool)
    return train_mhpf(p, present, t, groups, ("a", "b"), ("x", "y", "z"), settings)


def test_training_is_deterministic():
    one, two = fitted(QUICK, corpus()), fitted(QUICK, corpus())
    assert (one.maps == two.maps).all()
    for settings in (replace(QUICK, method=STATIC, dropout=0.3), replace(QUICK, method=STATIC, loss=PUBLISHED)):
        assert (fitted(settings, corpus()).scores == fitted(settings, corpus()).scores).all()


def test_the_dynamic_form_learns_when_a_branch_is_reliable_and_the_static_one_cannot():
    settings = replace(QUICK, balance=0.0, sharpness=1.0)
    p, t, _ = corpus(seed=1)
    present = np.ones(p.shape[:2], dtype=bool)
    right = {}
    for method in (STATIC, DYNAMIC):
        trained = fitted(replace(settings, method=method), corpus())
        values = trained.fuse(p, present)[0]
        right[method] = (values.argmax(axis=1) == t.argmax(axis=1)).mean()
        logs = np.log((values * t).sum(axis=1))
        right[method, "likelihood"] = logs.mean()
    assert right[DYNAMIC, "likelihood"] > right[STATIC, "likelihood"] + 0.05
    assert right[DYNAMIC] >= right[STATIC]


def test_training_leaves_out_units_without_a_label_or_branch():
    p, t, groups = corpus()
    present = np.ones(p.shape[:2], dtype=bool)
    more = np.concatenate([p, np.full((2, 2, 3), np.nan)])
    seen = np.concatenate([present, [[False, False], [True, True]]])
    labels = np.concatenate([t, [[1.0, 0, 0], [np.nan] * 3]])
    plain = fitted(QUICK, (p, t, groups))
    args = ("a", "b"), ("x", "y", "z"), QUICK
    wide = train_mhpf(more, seen, labels, np.concatenate([groups, [3, 4]]), *args)
    assert (wide.maps == plain.maps).all()


def test_training_names_what_is_missing():
    p, t, groups = corpus()
    with pytest.raises(CerError, match="the same class: z"):
        fitted(QUICK, (p[t[:, 2] == 1], t[t[:, 2] == 1], groups[t[:, 2] == 1]))
    with pytest.raises(CerError, match="trained by its likelihood"):
        fitted(replace(QUICK, loss=PUBLISHED), (p, t, groups))
    with pytest.raises(CerError, match="3 folds need as many groups"):
        fitted(QUICK, (p, t, groups % 2))
    with pytest.raises(CerError, match="no unit has both"):
        fitted(QUICK, (p, t * np.nan, groups))
    with pytest.raises(CerError, match="unknown fusion method"):
        fitted(replace(QUICK, method="magic"), (p, t, groups))


@pytest.mark.parametrize("method", [STATIC, DYNAMIC])
def test_a_class_without_a_training_unit_is_fused_with_equal_weights(method):
    p, t, groups = corpus()
    some = t[:, 2] == 0
    f = fitted(replace(QUICK, method=method), (p[some], t[some], groups[some]))
    assert f.known == (True, True, False)
    present = np.ones(p.shape[:2], dtype=bool)
    w = f.weights(p, present)
    np.testing.assert_array_equal(w[:, :, 2], 0.5)
    assert np.abs(w[:, 0, 0] - 0.5).max() > 0.01
    np.testing.assert_allclose(f.fuse(p, present)[0].sum(axis=1), 1.0, atol=1e-12)


def test_modality_dropout_leaves_at_least_one_branch_that_was_there():
    _, present = units(500)
    left = dropped(present, np.random.default_rng(0))
    assert left.any(axis=1).all()
    assert not (left & ~present).any()
    several = present.sum(axis=1) > 1
    share = (left[several] == present[several]).all(axis=1).mean()
    assert 0.05 < share < 0.5


def test_dropout_lowers_the_loss_where_a_branch_is_absent():
    """The first and the third branch predict the label, the second is noise; the test masks the first branch."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 600)
    p = np.full((600, 3, 3), 1 / 3)
    p[:, 0] = 0.1 + 0.7 * np.eye(3)[labels]
    p[:, 1] = rng.dirichlet(np.ones(3), 600)
    p[:, 2] = rng.dirichlet(np.ones(3), 600)
    right = np.where(rng.random(600) < 0.8, labels, rng.integers(0, 3, 600))
    p[:, 2] = 0.1 + 0.7 * np.eye(3)[right]
    present = np.tile([False, True, True], (600, 1))
    loss = {}
    for share in (0.0, 0.5):
        settings = replace(QUICK, dropout=share, balance=0.0, sharpness=1.0)
        all_present = np.ones((600, 3), dtype=bool)
        args = np.eye(3)[labels], np.arange(600) % 60, ("a", "b", "c"), ("x", "y", "z"), settings
        fused = train_mhpf(p, all_present, *args).fuse(p, present)[0]
        loss[share] = -np.log(fused[np.arange(600), labels] + TINY).mean()
    assert loss[0.5] < loss[0.0] - 0.02


def test_folds_never_split_a_group_and_are_even():
    groups = np.repeat([f"clip{i}" for i in range(11)], 7)
    fold = random_group_folds(groups, 5, seed=1)
    assert all(len(set(fold[groups == g])) == 1 for g in set(groups))
    assert sorted(np.bincount(fold) // 7) == [2, 2, 2, 2, 3]


class OneHead(NoWeights):
    """`stage.Weights` with a trained fusion."""

    def __init__(self, path):
        self.file = path

    def path(self, model):
        assert model == HEAD
        return self.file


@pytest.fixture
def trained(tmp_path):
    """A stage context for a trained fusion over more branches than the profile enables."""

    def make(f, method=DYNAMIC):
        save_mhpf(tmp_path / "f.safetensors", f, {})
        inputs = shard({"a": 15.0, "b": 3.0}, NAMES[:1] + NAMES[3:], missing=0.3)
        made = context(inputs, load_profile(overrides=[f"fusion.method={method}"]))
        made.weights = OneHead(tmp_path / "f.safetensors")
        return made

    return make


def test_the_stage_applies_a_trained_fusion_to_the_branches_that_are_enabled(trained):
    f, enabled = fusion(DYNAMIC), NAMES[:1] + NAMES[3:]
    made = trained(f)
    (spec,) = fusion_stages([branch(n) for n in enabled], DYNAMIC)
    assert spec.models == (HEAD,)
    rows = Fuse(made)(spec.plan(made.inputs, made.profile)).to_pylist()
    said = [made.inputs.table(f"probabilities/{n}").to_pylist() for n in enabled]
    for i, row in enumerate(rows):
        if row["status"] != "ok":
            continue
        p, present = np.full((M, C), np.nan), np.zeros(M, dtype=bool)
        for table, place in zip(said, (0, 3), strict=True):
            if table[i]["status"] == "ok":
                p[place], present[place] = [table[i][c] for c in BASIC_COLUMNS], True
        w = naive_weights(f, p, present)
        y = (w * np.nan_to_num(p)).sum(axis=0)
        np.testing.assert_allclose([row[c] for c in BASIC_COLUMNS], y / y.sum(), atol=1e-12)
        np.testing.assert_allclose(row["w_face_static"], w[0] / y.sum(), atol=1e-12)
        assert row["model"] == "head_mhpf: dynamic"


def test_a_branch_that_the_fusion_was_not_trained_with_gets_no_weight_and_is_named(trained):
    enabled = NAMES[:1] + NAMES[3:]
    made = trained(fusion(DYNAMIC, names=("voice", "face_static")))
    (spec,) = fusion_stages([branch(n) for n in enabled], DYNAMIC)
    rows = Fuse(made)(spec.plan(made.inputs, made.profile)).to_pylist()
    face, text = (made.inputs.table(f"probabilities/{n}").to_pylist() for n in enabled)
    seen = set()
    for row, f, t in zip(rows, face, text, strict=True):
        seen.add((f["status"] == "ok", t["status"] == "ok"))
        if f["status"] == "ok":
            assert row["model"] == "head_mhpf: dynamic; not trained with text_minilm"
            assert row["w_text_minilm"] == [0.0] * C
            np.testing.assert_allclose([row[c] for c in BASIC_COLUMNS], [f[c] for c in BASIC_COLUMNS], atol=1e-12)
        elif t["status"] == "ok":
            assert row["status"] == "model_unavailable"
            assert "was not trained with text_minilm" in row["reason"]
    assert {(True, True), (True, False), (False, True)} <= seen


def test_a_trained_fusion_that_does_not_fit_is_a_user_error(trained):
    (spec,) = fusion_stages([branch(n) for n in NAMES[:1] + NAMES[3:]], DYNAMIC)
    unknown = trained(fusion(DYNAMIC, names=("face", "voice")))
    with pytest.raises(CerError, match="has none of the branches: face_static, text_minilm"):
        Fuse(unknown)(spec.plan(unknown.inputs, unknown.profile))
    with pytest.raises(CerError, match="another form: static"):
        Fuse(trained(fusion(STATIC)))
    with pytest.raises(CerError, match="other classes"):
        Fuse(trained(fusion(DYNAMIC, classes=("Anger", "Fear"))))
    with pytest.raises(CerError, match=r"fusion\.method"):
        Fuse(trained(fusion(DYNAMIC), "magic"))


def write_votes(path, lines):
    path.write_text("\n".join(["fileName,modality,A,D,F,H,N,S", *lines]) + "\n", "utf-8")
    return path


def test_votes_are_read_by_clip_and_modality(tmp_path):
    lines = ["1002_X,face,1,0,0,3,0,0", "1002_X,voice,0,0,0,0,5,5", "1002_X,both,2,0,0,2,0,0"]
    votes = read_votes(write_votes(tmp_path / "v.csv", lines))
    assert (votes.clips, votes.actors.tolist(), votes.labels.tolist(), votes.tied.tolist()) == (
        ("1002_X",),
        [1002],
        [0],
        [True],
    )
    np.testing.assert_array_equal(votes.probabilities[0, 1], [0.25, 0, 0, 0.75, 0, 0])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["1002_X,face,1,0,0,3,0,0"], "no votes for voice"),
        (["1002_X,face,1,0,0,3,0,many"], "row 2"),
        ([f"XXXX_X,{m},1,0,0,0,0,0" for m in ("face", "voice", "both")], "four digits"),
    ],
)
def test_bad_votes_are_named(tmp_path, lines, message):
    with pytest.raises(CerError, match=message):
        read_votes(write_votes(tmp_path / "v.csv", lines))


def test_a_votes_file_without_its_columns_is_named(tmp_path):
    (tmp_path / "v.csv").write_text("fileName,modality,A\n")
    with pytest.raises(CerError, match="D, F, H, N, S"):
        read_votes(tmp_path / "v.csv")
    with pytest.raises(CerError, match="does not exist"):
        read_votes(tmp_path / "w.csv")


def test_settings_are_chosen_by_folds_of_the_votes_that_are_given(monkeypatch):
    rng = np.random.default_rng(0)
    labels, actors = rng.integers(0, 6, 120), np.repeat(np.arange(1001, 1013), 10)
    p = np.full((120, 2, 6), 1 / 6)
    votes = Votes(tuple(f"{a}_{i}" for i, a in enumerate(actors)), actors, p, np.eye(6)[labels])
    asked = []

    def train(part, settings):
        asked.append((settings, frozenset(part.actors.tolist())))
        chance = np.eye(6)[labels[~np.isin(actors, part.actors)]]
        return lambda values: chance if settings.heads == 2 else np.roll(chance, 1, axis=1)

    monkeypatch.setattr("cer_pipeline.reproduce.crema_d_votes.train", train)
    candidates = (Settings(heads=1), Settings(heads=2), Settings(heads=3))
    best, scores = choose(votes, candidates, folds=4)
    assert best is candidates[1]
    assert scores[1] == 1.0
    assert max(scores[0], scores[2]) < 0.5
    assert [len(seen) for _, seen in asked] == [9] * 12 * REPEATS, "each fit sees three quarters of the actors"


@pytest.fixture(scope="module")
def on_votes(shared_data) -> dict[str, Any]:
    """Every system on the test actors of CREMA-D's votes, with the settings that the training actors chose."""
    votes = read_votes(shared_data / "votes" / "crema_d_votes.csv")
    return {r.system: r for r in evaluate(votes, PUBLISHED_STATIC, STATIC_CHOSEN, DYNAMIC_CHOSEN)}


def test_on_real_votes_the_dynamic_form_wins_by_as_much_as_it_should(on_votes):
    """Measured: 4.6 points of macro-F1 over the face alone, 4.1 over the published form."""
    dynamic = on_votes["MHPF dynamic"]
    assert dynamic.against_face.value >= 0.04
    assert dynamic.against_face.low > 0
    assert dynamic.against_published.value >= 0.03
    assert dynamic.against_published.low > 0


def test_the_published_settings_are_the_published_ones():
    assert (PUBLISHED_STATIC.method, PUBLISHED_STATIC.loss, PUBLISHED_STATIC.heads) == (STATIC, PUBLISHED, 3)
    assert PUBLISHED_STATIC.balance == 1.0
