"""MHPF: both forms against naive loops and torch, the collapse of the heads, subsets, training, votes."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from memory_inputs import NoWeights, branch, context, shard

from cer_pipeline.errors import CerError
from cer_pipeline.fusion.combine import masked_softmax
from cer_pipeline.fusion.fuse import Fuse
from cer_pipeline.fusion.mhpf import DYNAMIC, EPSILON, MHPF, STATIC, load_mhpf, save_mhpf
from cer_pipeline.fusion.modules import TINY, DynamicMHPF, StaticMHPF, likelihood_loss, published_loss
from cer_pipeline.fusion.stages import HEAD, fusion_stages
from cer_pipeline.fusion.training import PUBLISHED, Settings, _joined, grouped_folds, train_mhpf
from cer_pipeline.fusion.votes import (
    DYNAMIC_CHOSEN,
    PUBLISHED_STATIC,
    STATIC_CHOSEN,
    Votes,
    choose,
    evaluate,
    read_votes,
)
from cer_pipeline.labels import BASIC, BASIC_COLUMNS
from cer_pipeline.profiles import load_profile

H, M, C = 3, 4, 8
NAMES = ("face_static", "scene_minilm", "audio", "text_minilm")
QUICK = Settings(balance=0.5, heads=2, members=2, steps=40, patience=10, folds=3)


def fusion(method: str, seed: int = 0, names=NAMES, classes=BASIC) -> MHPF:
    """A fusion with random parameters."""
    rng = np.random.default_rng(seed)
    m, c = len(names), len(classes)
    k = 2 * c + 2 if method == DYNAMIC else 0
    maps = rng.normal(0, 0.3, (H, m, c, m, k + 1)) if k else np.empty(0)
    mean, scale = (rng.normal(size=(m, k)), rng.uniform(0.5, 2, (m, k))) if k else (np.empty(0), np.empty(0))
    return MHPF(method, names, classes, rng.normal(size=(H, m, c)), rng.normal(size=H), maps, mean, scale)


def units(n: int, seed: int = 0, absent: float = 0.4):
    """Random distributions with absent branches."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(C, 0.4), size=(n, M))
    present = rng.random((n, M)) >= absent
    present[np.arange(n), rng.integers(0, M, n)] = True
    return np.where(present[..., None], p, np.nan), present


def naive_weights(f: MHPF, p, present):
    """Weights of one unit, one number at a time, from the formulas in the module's docstring."""
    m_count, c_count = f.scores.shape[1:]
    shares = [np.exp(a) / sum(np.exp(b) for b in f.mix) for a in f.mix]
    out = np.zeros((m_count, c_count))
    for h, share in enumerate(shares):
        for c in range(c_count):
            scores = {}
            for m in (m for m in range(m_count) if present[m]):
                s = f.scores[h, m, c]
                if f.method == DYNAMIC:
                    for j in (j for j in range(m_count) if present[j]):
                        logs = [np.log(x + EPSILON) for x in p[j]]
                        z = [*p[j], *(x - sum(logs) / len(logs) for x in logs)]
                        z += [-sum(x * np.log(x) for x in p[j] if x > 0), max(p[j])]
                        z = [(x - a) / b for x, a, b in zip(z, f.mean[j], f.scale[j], strict=True)]
                        s += sum(v * x for v, x in zip(f.maps[h, m, c, j], [*z, 1.0], strict=True))
                scores[m] = s
            top = max(scores.values())
            raw = {m: np.exp(max(s - top, -30.0)) for m, s in scores.items()}
            for m, value in raw.items():
                out[m, c] += share * value / sum(raw.values())
    return out


@pytest.mark.parametrize("method", [STATIC, DYNAMIC])
def test_weights_equal_the_naive_formulas(method):
    f = fusion(method)
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


def test_static_heads_collapse_to_one_convex_matrix():
    f = fusion(STATIC)
    p, _ = units(50, absent=0.0)
    everyone = np.ones((50, M), dtype=bool)
    matrix = f.collapse()
    assert matrix.shape == (M, C)
    assert (matrix >= 0).all()
    np.testing.assert_allclose(matrix.sum(axis=0), 1.0, atol=1e-12)
    heads = np.zeros((50, C))
    for h in range(H):
        share = np.exp(f.mix[h]) / np.exp(f.mix).sum()
        w = masked_softmax(f.scores[h][None], everyone[:1])[0]
        heads += share * (w * p).sum(axis=1)
    np.testing.assert_allclose((matrix * p).sum(axis=1), heads, atol=1e-12)
    np.testing.assert_allclose(f.fuse(p, everyone)[0], heads / heads.sum(axis=1, keepdims=True), atol=1e-12)
    with pytest.raises(ValueError, match="static"):
        fusion(DYNAMIC).collapse()


@pytest.mark.parametrize("method", [STATIC, DYNAMIC])
def test_torch_and_numpy_give_the_same_weights(method):
    p, present = units(20)
    tensors = torch.from_numpy(np.nan_to_num(p)), torch.from_numpy(present)
    generator = torch.Generator().manual_seed(1)
    module = StaticMHPF(H, M, C, generator) if method == STATIC else DynamicMHPF(H, *tensors, generator)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(3.0)
        theirs = module.weights(*tensors).numpy()
        fused = module(*tensors).numpy()
    plain = module.plain(NAMES, BASIC)
    np.testing.assert_allclose(plain.weights(p, present), theirs, atol=1e-12)
    np.testing.assert_allclose(plain.fuse(p, present)[0], fused / fused.sum(axis=1, keepdims=True), atol=1e-12)


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


@pytest.mark.parametrize("method", [STATIC, DYNAMIC])
def test_joined_members_mix_their_weights_equally(method):
    members = [fusion(method, seed=s) for s in range(3)]
    p, present = units(8)
    mean = np.mean([f.weights(p, present) for f in members], axis=0)
    np.testing.assert_allclose(_joined(members).weights(p, present), mean, atol=1e-10)


def test_a_fusion_is_read_back_with_the_same_bits(tmp_path):
    f = fusion(DYNAMIC)
    save_mhpf(tmp_path / "mhpf.safetensors", f, {"data": "made up"})
    again = load_mhpf(tmp_path / "mhpf.safetensors")
    p, present = units(5)
    assert (again.weights(p, present) == f.weights(p, present)).all()
    assert (again.method, again.branches, again.classes) == (f.method, f.branches, f.classes)


def corpus(n=360, seed=0):
    """Two branches: the first knows the label when it is sure, and is often wrong when it is not."""
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
    assert (one.fusion.maps == two.fusion.maps).all()
    assert one.best_steps == two.best_steps


def test_the_dynamic_form_learns_when_a_branch_can_be_trusted_and_the_static_one_cannot():
    settings = replace(QUICK, steps=150, patience=30, balance=0.0)
    p, t, _ = corpus(seed=1)
    present = np.ones(p.shape[:2], dtype=bool)
    right = {}
    for method in (STATIC, DYNAMIC):
        trained = fitted(replace(settings, method=method), corpus())
        values = trained.fusion.fuse(p, present)[0]
        right[method] = (values.argmax(axis=1) == t.argmax(axis=1)).mean()
        logs = np.log((values * t).sum(axis=1))
        right[method, "likelihood"] = logs.mean()
    assert right[DYNAMIC, "likelihood"] > right[STATIC, "likelihood"] + 0.05
    assert right[DYNAMIC] >= right[STATIC]


def test_training_leaves_out_what_has_no_label_or_no_branch():
    p, t, groups = corpus()
    present = np.ones(p.shape[:2], dtype=bool)
    more = np.concatenate([p, np.full((2, 2, 3), np.nan)])
    seen = np.concatenate([present, [[False, False], [True, True]]])
    labels = np.concatenate([t, [[1.0, 0, 0], [np.nan] * 3]])
    plain = fitted(QUICK, (p, t, groups))
    args = ("a", "b"), ("x", "y", "z"), QUICK
    wide = train_mhpf(more, seen, labels, np.concatenate([groups, [3, 4]]), *args)
    assert (wide.fusion.scores == plain.fusion.scores).all()


def test_training_names_what_is_missing():
    p, t, groups = corpus()
    with pytest.raises(CerError, match="without a training unit: z"):
        fitted(QUICK, (p[t[:, 2] == 0], t[t[:, 2] == 0], groups[t[:, 2] == 0]))
    with pytest.raises(CerError, match="3 folds need as many groups"):
        fitted(QUICK, (p, t, groups % 2))
    with pytest.raises(CerError, match="no unit has both"):
        fitted(QUICK, (p, t * np.nan, groups))
    with pytest.raises(CerError, match="unknown fusion method"):
        fitted(replace(QUICK, method="magic"), (p, t, groups))


def test_folds_never_split_a_group_and_are_even():
    groups = np.repeat([f"clip{i}" for i in range(11)], 7)
    fold = grouped_folds(groups, 5, seed=1)
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


def test_a_trained_fusion_that_does_not_fit_is_a_user_error(trained):
    (spec,) = fusion_stages([branch(n) for n in NAMES[:1] + NAMES[3:]], DYNAMIC)
    stranger = trained(fusion(DYNAMIC, names=("face_static", "voice")))
    with pytest.raises(CerError, match="does not know a branch: text_minilm"):
        Fuse(stranger)(spec.plan(stranger.inputs, stranger.profile))
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
        (["1002_X,face,1,0,0,3,0,many"], "line 2"),
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

    monkeypatch.setattr("cer_pipeline.fusion.votes.train", train)
    candidates = (Settings(heads=1), Settings(heads=2), Settings(heads=3))
    best, scores = choose(votes, candidates, folds=4)
    assert best is candidates[1]
    assert scores[1] == 1.0
    assert max(scores[0], scores[2]) < 0.5
    assert [len(seen) for _, seen in asked] == [9] * 12, "each fit sees three quarters of the actors"


@pytest.fixture(scope="module")
def on_votes(shared_data) -> dict[str, Any]:
    """Every system on the test actors of CREMA-D's votes, with the settings that the training actors chose."""
    votes = read_votes(shared_data / "votes" / "crema_d_votes.csv")
    return {r.system: r for r in evaluate(votes, PUBLISHED_STATIC, STATIC_CHOSEN, DYNAMIC_CHOSEN)}


@pytest.mark.slow
def test_on_real_votes_the_dynamic_form_beats_the_face_alone_and_the_published_form(on_votes):
    dynamic = on_votes["MHPF dynamic"]
    assert dynamic.against_face.low > 0
    assert dynamic.against_published.low > 0


@pytest.mark.slow
@pytest.mark.xfail(strict=True, reason="the aim is 4 and 3 points of macro-F1; reached so far: 3.5 and 2.9")
def test_on_real_votes_the_dynamic_form_wins_by_as_much_as_it_should(on_votes):
    dynamic = on_votes["MHPF dynamic"]
    assert dynamic.against_face.value >= 0.04
    assert dynamic.against_published.value >= 0.03


def test_the_published_settings_are_the_published_ones():
    assert (PUBLISHED_STATIC.method, PUBLISHED_STATIC.loss, PUBLISHED_STATIC.heads) == (STATIC, PUBLISHED, 3)
    assert PUBLISHED_STATIC.balance == 1.0
