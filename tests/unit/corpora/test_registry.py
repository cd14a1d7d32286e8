"""Registering folders: their files, video_ids and changes."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cer_pipeline.corpora import registry
from cer_pipeline.corpora.corpus import parse_shard_key, shard_key, shard_of
from cer_pipeline.corpora.names import from_text, to_text, video_ids
from cer_pipeline.errors import CerError
from cer_pipeline.media.formats import ENDINGS
from tests.helpers import corpus_files as files

pytestmark = pytest.mark.usefixtures("lengths_once")


@pytest.fixture
def home(tmp_path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def root(tmp_path) -> Path:
    root = tmp_path / "videos"
    root.mkdir()
    return root


def put(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.fsencode(name))


def ids(home: Path) -> list[str]:
    return [f.video_id for f in registry.load(home, "c").files]


def test_every_video_below_the_folder_is_registered_in_any_case(home, root):
    put(root, "a.mp4", "B.MOV", "deep/er/c.MkV", "d.avi", "e.webm", "f.m4v", "g.mpg", "h.mpeg", "i.ts", "j.txt", "k")
    changes = registry.register(home, "c", root)
    assert ids(home) == ["B", "a", "d", "deep/er/c", "e", "f", "g", "h", "i"] == sorted(changes.added)
    assert changes.ignored == ("1 x no ending, 1 x .txt (not taken for a video)",)
    file = registry.load(home, "c").files[1]
    assert (file.path, file.bytes, file.sha256) == ("a.mp4", 5, hashlib.sha256(b"a.mp4").hexdigest())
    assert registry.load(home, "c").source("deep/er/c") == root / "deep/er/c.MkV"


def test_two_files_with_one_stem_keep_their_endings(home, root):
    put(root, "a.mp4", "a.mov", "b.mp4", "a.mp4.mkv", "sub/a.mp4")
    registry.register(home, "c", root)
    assert ids(home) == ["a.mov", "a.mp4", "a.mp4.mkv", "b", "sub/a"]


NAMES = [
    "a b",
    "q\"'",
    "new\nline",
    "😀",
    "bad\udcff",
    "back\\slash",
    "\\xff",
    "a...b",
    "-x",
    "a;rm",
    "<b>",
    "tab\t",
    "é",
    "s'",
]


def test_every_file_name_is_restored_and_is_one_line(home, root):
    put(root, *(f"{name}.mp4" for name in NAMES))
    registry.register(home, "c", root)
    corpus = registry.load(home, "c")
    assert len(corpus.files) == len(set(ids(home))) == len(NAMES)
    found = {corpus.source(f.video_id).name for f in corpus.files}
    assert found == {f"{name}.mp4" for name in NAMES}
    for file in corpus.files:
        assert corpus.source(file.video_id).read_bytes() == os.fsencode(corpus.source(file.video_id).name)
        assert file.video_id.isprintable()
        file.video_id.encode("utf-8")


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=12).filter(lambda b: b"\0" not in b and b"/" not in b).map(os.fsdecode))
def test_a_file_name_is_restored_from_its_text(name):
    text = to_text(name)
    assert from_text(text) == name
    assert "\n" not in text
    text.encode("utf-8")


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(["a.mp4", "a.mov", "a.mp4.mkv", "a.mp4.mov", "a.mp4.mkv.ts", "b/a.mp4", "b/a.ts", "c.ts"]),
        unique=True,
    )
)
def test_ids_are_unique_and_do_not_depend_on_the_order(paths):
    ids_of = video_ids(paths)
    assert len(set(ids_of.values())) == len(paths)
    assert ids_of == video_ids(reversed(paths))


def test_links_are_followed_once_and_loops_end(home, root, tmp_path):
    put(root, "a.mp4", "z/b.mp4")
    put(tmp_path, "elsewhere/c.mp4")
    (root / "z/loop").symlink_to(root)
    (root / "aa").symlink_to(root / "z")
    (root / "a_again.mp4").symlink_to(root / "a.mp4")
    (root / "away").symlink_to(tmp_path / "elsewhere")
    (root / "broken.mp4").symlink_to(root / "nothing.mp4")
    changes = registry.register(home, "c", root)
    assert ids(home) == ["a", "away/c", "z/b"]
    assert "a_again.mp4: another name of a file that is already there" in changes.ignored
    assert any(line.startswith("broken.mp4: ") for line in changes.ignored)


def test_hidden_files_and_folders_are_ignored(home, root):
    put(root, "a.mp4", ".b.mp4", ".trash/c.mp4")
    changes = registry.register(home, "c", root)
    assert ids(home) == ["a"]
    assert changes.ignored == ("2 x hidden name",)


def test_refreshing_finds_new_changed_and_removed_files_and_changes_only_their_shards(home, root, monkeypatch):
    monkeypatch.setattr(registry, "VIDEOS_PER_SHARD", 4)
    put(root, *(f"v{i}.mp4" for i in range(40)))
    first = registry.register(home, "c", root)
    corpus = registry.load(home, "c")
    assert (corpus.shards, len(first.added), first.unchanged) == (10, 40, ())
    put(root, "new.mp4")
    (root / "v1.mp4").write_bytes(b"other")
    (root / "v2.mp4").unlink()
    again = registry.register(home, "c", root)
    assert (again.added, again.changed, again.removed) == (("new",), ("v1",), ("v2",))
    assert len(again.unchanged) == 38
    assert set(again.shards) == {shard_of(v, 10) for v in ("new", "v1", "v2")}
    after = registry.load(home, "c")
    assert after.shards == 10
    assert sorted(f.video_id for s in after.shard_labels() for f in after.files_of(s)) == [
        f.video_id for f in after.files
    ]
    third = registry.register(home, "c", root)
    assert (third.added, third.changed, third.removed, third.shards) == ((), (), (), ())


def test_a_file_is_hashed_again_only_when_it_may_have_changed(home, root, monkeypatch):
    put(root, "a.mp4", "b.mp4")
    registry.register(home, "c", root)
    hashed = []
    real = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda f, name: hashed.append(Path(f.name).name) or real(f, name))
    registry.register(home, "c", root)
    assert hashed == []
    status = (root / "a.mp4").stat()
    os.utime(root / "a.mp4", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert registry.register(home, "c", root).changed == ()
    assert hashed == ["a.mp4"]


def test_a_file_that_vanishes_or_cannot_be_read_is_named(home, root, monkeypatch):
    put(root, "a.mp4", "b.mp4", "c.mp4")
    real = hashlib.file_digest

    def digest(file, name):
        if file.name.endswith("b.mp4"):
            raise PermissionError(errno.EACCES, "Permission denied")
        (root / "c.mp4").unlink(missing_ok=True)
        return real(file, name)

    monkeypatch.setattr(hashlib, "file_digest", digest)
    changes = registry.register(home, "c", root)
    assert changes.ignored == ("b.mp4: Permission denied", "c.mp4: No such file or directory")
    assert ids(home) == ["a"]


def test_hashing_reports_its_progress(home, root):
    put(root, "a.mp4", "bb.mp4")
    calls = []
    registry.register(home, "c", root, progress=lambda done, total, name: calls.append((done, total, name)))
    assert calls == [(5, 11, "a.mp4"), (11, 11, "bb.mp4")]


def test_another_folder_under_the_same_name_is_hashed_again(home, root, tmp_path):
    put(root, "a.mp4")
    registry.register(home, "c", root)
    put(tmp_path, "other/a.mp4")
    (tmp_path / "other/a.mp4").write_bytes(b"12345")
    assert registry.register(home, "c", tmp_path / "other").changed == ("a",)


@pytest.mark.parametrize("name", ["", "Media", "a-b", "../x", "a b", "ä", "x" * 41, "a/b", "a\n"])
def test_names_that_are_no_folder_or_partition_names_are_refused(home, root, name):
    put(root, "a.mp4")
    with pytest.raises(CerError, match="not a corpus name"):
        registry.register(home, name, root)
    with pytest.raises(CerError, match="not a corpus name"):
        registry.load(home, name)


def test_mistakes_end_in_one_line(home, root):
    cases = {root / "gone": "does not exist", root: "the folder is empty"}
    (root.parent / "file.mp4").touch()
    cases[root.parent / "file.mp4"] = "not a folder"
    for path, what in cases.items():
        with pytest.raises(CerError, match=what) as caught:
            registry.register(home, "c", path)
        assert "\n" not in caught.value.line()
    put(root, "notes.txt")
    with pytest.raises(CerError, match="no video file below"):
        registry.register(home, "c", root)
    with pytest.raises(CerError, match="unknown corpus format"):
        registry.register(home, "c", root, "nonsense")
    with pytest.raises(CerError, match="no such corpus"):
        registry.load(home, "c")
    assert not (home / "corpora").exists()


def test_a_name_keeps_its_format(home, root, monkeypatch):
    put(root, "a.mp4")
    registry.register(home, "c", root)
    with pytest.raises(CerError, match="format folder has this name"):
        registry.register(home, "c", root, "captions")


def test_a_corpus_can_be_listed_and_removed(home, root):
    put(root, "a.mp4")
    for name in ("b", "a"):
        registry.register(home, name, root)
    assert registry.names(home) == ["a", "b"]
    registry.remove(home, "a")
    assert registry.names(home) == ["b"]
    with pytest.raises(CerError, match="registered are: b"):
        registry.remove(home, "a")


def test_a_damaged_registration_is_reported_and_can_be_removed(home, root):
    put(root, "a.mp4")
    registry.register(home, "c", root)
    path = home / "corpora/c.json"
    path.write_text(path.read_text()[:50])
    with pytest.raises(CerError, match="cannot be read"):
        registry.load(home, "c")
    registry.remove(home, "c")
    path.write_text(json.dumps({"schema": 99}))
    with pytest.raises(CerError, match="another version"):
        registry.load(home, "c")


@pytest.mark.parametrize("key", ["media-s000", "a_1-s012", "x-s1000"])
def test_shard_keys_can_be_parsed(key):
    assert shard_key(*parse_shard_key(key)) == key


@pytest.mark.parametrize("key", ["media", "Media-s000", "media-000", "media-s00", "a...b-s000", "m-s000\n"])
def test_other_keys_are_refused(key):
    with pytest.raises(CerError):
        parse_shard_key(key)


def test_an_unknown_video_is_refused(home, root):
    put(root, "a.mp4")
    registry.register(home, "c", root)
    with pytest.raises(CerError, match="no such video"):
        registry.load(home, "c").source("b")


# --- names in several Unicode forms, endings ---------------------------------------------------------------------

NFC, NFD = unicodedata.normalize("NFC", "Zoë"), unicodedata.normalize("NFD", "Zoë")


def test_ids_are_composed_and_paths_keep_their_unicode_form(home, root):
    put(root, f"{NFD}/{NFD}.mp4")
    registry.register(home, "c", root)
    (file,) = registry.load(home, "c").files
    assert (file.video_id, file.path) == (f"{NFC}/{NFC}", f"{NFD}/{NFD}.mp4")
    assert registry.load(home, "c").source(f"{NFC}/{NFC}").read_bytes() == os.fsencode(f"{NFD}/{NFD}.mp4")


def test_names_that_differ_only_in_their_unicode_form_are_two_videos_and_reported(home, root):
    put(root, f"{NFC}.mp4", f"{NFD}.mp4", "other.mp4")
    messages = registry.register(home, "c", root).messages
    first, second = sorted(set(ids(home)) - {"other"})
    assert (first, second.startswith(f"{NFC}~"), len(second)) == (NFC, True, len(NFC) + 9)
    corpus = registry.load(home, "c")
    assert [corpus.source(v).name for v in (first, second)] == [f"{NFC}.mp4", f"{NFD}.mp4"]
    assert len(messages) == 1
    assert r"Zoe\u0308.mp4" in messages[0]
    assert r"Zo\xeb.mp4" in messages[0]
    assert second in messages[0]


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [f"{n}{e}" for n in ("a", "\u00e9", "e\u0301", "\u00e9~1") for e in (".mp4", ".mov", ".mp4.ts")]
        ),
        unique=True,
    )
)
def test_ids_in_every_form_are_unique_composed_and_independent_of_the_order(paths):
    ids_of = video_ids(paths)
    assert len(set(ids_of.values())) == len(paths)
    assert ids_of == video_ids(reversed(paths))
    assert all(unicodedata.is_normalized("NFC", video) for video in ids_of.values())


@pytest.mark.parametrize("written", [NFC, NFD])
@pytest.mark.parametrize("stored", [NFC, NFD])
def test_annotations_find_their_video_in_any_unicode_form(home, root, tmp_path, stored, written):
    put(root, f"deep/{stored}.mp4", "b.mp4")
    marks = files.marks("Sadly Angry")
    labels = files.spans(tmp_path / "l.csv", [[written, 0, 1, *marks]])
    split = files.write_csv(tmp_path / "s.csv", ("video", "split"), [(f"deep/{written}", "test"), ("b", "dev")])
    registry.register(home, "c", root, "folder", {"labels": str(labels), "split": str(split)})
    found = {f.video_id: (bool(f.labels), f.split) for f in registry.load(home, "c").files}
    assert found == {f"deep/{NFC}": (True, "test"), "b": (False, "dev")}
    texts = files.captions(tmp_path / "texts", "dev", {f"{written}___0000.mp4": None})
    registry.register(home, "t", root, "folder", {"captions": str(texts)})
    assert [f.video_id for f in registry.load(home, "t").files if f.captions] == [f"deep/{NFC}"]
    files.annotation(tmp_path / "notes/Train_Set" / f"{written}.txt", [0, 1])
    registry.register(home, "w", root, "affwild2", {"labels": str(tmp_path / "notes")})
    assert [f.video_id for f in registry.load(home, "w").files if f.labels] == [NFC]


def test_with_both_unicode_forms_an_annotation_belongs_to_the_exact_spelling(home, root, tmp_path):
    put(root, f"{NFC}.mp4", f"{NFD}.mp4")
    labels = files.spans(tmp_path / "l.csv", [[NFD, 0, 1, *files.marks("Sadly Angry")]])
    registry.register(home, "c", root, "folder", {"labels": str(labels)})
    assert [f.path for f in registry.load(home, "c").files if f.labels] == [f"{NFD}.mp4"]


def test_texts_of_names_do_not_depend_on_the_locale(monkeypatch):
    name = "Zoë\udcff"
    here = to_text(name)
    data = os.fsencode(name)
    monkeypatch.setattr(os, "fsencode", lambda text: text.encode("iso-8859-1"))
    monkeypatch.setattr(os, "fsdecode", lambda data: data.decode("iso-8859-1"))
    assert to_text(data.decode("iso-8859-1")) == here == "Zoë\\xff"
    assert from_text(here) == data.decode("iso-8859-1")


def test_every_supported_ending_is_found_and_others_are_named(home, root):
    put(root, *(f"v{i}{ending}" for i, ending in enumerate(sorted(ENDINGS))))
    put(root, "card.MTS", "a.xyz", "b.XYZ", "c", ".hidden.xyz")
    changes = registry.register(home, "c", root)
    assert len(changes.added) == len(ENDINGS) + 1
    assert changes.ignored == ("2 x .xyz, 1 x no ending (not taken for a video)", "1 x hidden name")


def test_the_error_for_a_folder_without_video_names_its_files(home, root):
    put(root, "a.xyz", *(f"x.{n}" for n in "abcdefghijkl"))
    with pytest.raises(CerError, match=r"no video file below the folder \(1 x \.a, .* 5 x 5 other endings"):
        registry.register(home, "c", root)


# --- files replaced in place, folders that are away --------------------------------------------------------------


def in_place(path: Path, content: bytes) -> None:
    """Write a file in place and set its time of change back, as tools for metadata do."""
    status = path.stat()
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns, path.stat().st_ino) == (
        status.st_size,
        status.st_mtime_ns,
        status.st_ino,
    )


def test_a_file_replaced_in_place_with_the_same_size_and_time_is_found(home, root):
    put(root, "a.mp4", "b.mp4")
    registry.register(home, "c", root)
    time.sleep(0.05)  # the clock of a file system ticks every few milliseconds
    in_place(root / "a.mp4", b"other")
    changes = registry.register(home, "c", root)
    assert (changes.changed, changes.unchanged) == (("a",), ("b",))
    assert registry.load(home, "c").files[0].sha256 == hashlib.sha256(b"other").hexdigest()


def test_rehash_reads_all_files_again(home, root, monkeypatch):
    put(root, "a.mp4")
    registry.register(home, "c", root)
    in_place(root / "a.mp4", b"other")
    path = home / "corpora/c.json"
    data = json.loads(path.read_text())
    data["files"][0]["ctime_ns"] = (root / "a.mp4").stat().st_ctime_ns  # as on a file system without ctime
    path.write_text(json.dumps(data))
    assert registry.register(home, "c", root).changed == ()
    assert registry.register(home, "c", root, rehash=True).changed == ("a",)


def test_a_registration_of_an_older_version_is_read_and_its_files_are_hashed_once(home, root):
    put(root, "a.mp4", "b.mp4")
    registry.register(home, "c", root)
    path = home / "corpora/c.json"
    data = json.loads(path.read_text())
    for file in data["files"]:
        for name in ("ctime_ns", "frames", "duration_s"):
            del file[name]
    path.write_text(json.dumps(data))
    assert registry.load(home, "c").files[0].ctime_ns == 0
    in_place(root / "b.mp4", b"other")
    changes = registry.register(home, "c", root)
    assert (changes.changed, changes.unchanged) == (("b",), ("a",))
    assert registry.load(home, "c").files[0].ctime_ns > 0


def test_an_absent_empty_or_unreadable_folder_is_reported(home, root):
    put(root, "a.mp4")
    registry.register(home, "c", root)
    corpus = registry.load(home, "c")
    assert registry.why_absent(corpus) == ""
    (root / "a.mp4").rename(root.parent / "a.mp4")
    assert registry.why_absent(corpus) == "is empty", "as a mount point without its disk"
    root.rmdir()
    assert registry.why_absent(corpus) == "is not there"
    before = (home / "corpora/c.json").read_bytes()
    with pytest.raises(CerError, match=r"does not exist: .* the registration of c and its tables stay as they are"):
        registry.register(home, "c", root)
    assert (home / "corpora/c.json").read_bytes() == before


def test_options_with_any_name_are_kept(home, root, tmp_path):
    put(root, "a.mp4")
    table = tmp_path / os.fsdecode("spl\\it\u00e9\udcff.csv".encode("utf-8", "surrogateescape"))
    files.write_csv(table, ("video", "split"), [("a", "test")])
    registry.register(home, "c", root, options={"split": str(table)})
    assert registry.load(home, "c").options == {"split": str(table)}
    assert registry.register(home, "c", root).changed == ()
