"""`cer corpus add|list|remove`.

Belongs here: the commands and their messages. Does not belong here: scanning folders (`corpora`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cer_pipeline.cli.options import Json
from cer_pipeline.cli.output import print_json, print_table, safe, say
from cer_pipeline.cli.progress import reading, steps
from cer_pipeline.corpora.corpus import shard_key
from cer_pipeline.corpora.formats.registry import FORMATS

if TYPE_CHECKING:
    from cer_pipeline.corpora.corpus import Corpus

app = typer.Typer(help="Register folders of video, labelled corpora and captions.", no_args_is_help=True)
IGNORED_SHOWN = 5  # lines on the terminal; --json has all
MESSAGES_SHOWN = 50  # one line for every video at most


@app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="Name: a-z, 0-9 and _.")],
    path: Annotated[Path, typer.Argument(help="The folder or file.")],
    layout: Annotated[str, typer.Option("--format", help=f"Format: {', '.join(FORMATS)}, or a plug-in.")] = "folder",
    labels: Annotated[Path | None, typer.Option(help="Annotations that lie apart from the videos.")] = None,
    split: Annotated[
        str | None, typer.Option(help="train, dev or test for all videos, or a CSV file of video,split.")
    ] = None,
    captions: Annotated[Path | None, typer.Option(help="Folder of caption files for the videos.")] = None,
    leaks: Annotated[
        str | None,
        typer.Option(
            help="Clips that are in two splits: exclude them from the less held-out split, refuse the corpus, or keep "
            "them (the corpus cannot be used for training then)."
        ),
    ] = None,
    rehash: Annotated[
        bool, typer.Option("--rehash", help="Hash all files again, also those of equal size and times.")
    ] = False,
    audio_track: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Number of the sound track to use, from 1; 0 for the default track of every file.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Register a corpus, or update it after changes; earlier options hold unless they are given again."""
    from cer_pipeline.cli.dagster_home import add_partitions
    from cer_pipeline.corpora import registry
    from cer_pipeline.store.home import writable_home

    home = writable_home()
    options = options_of(labels, split, captions, leaks) | track_of(home.root, name, path, layout, audio_track)
    with steps(quiet=json) as step:
        hashing, probing = reading(step)
        changes = registry.register(home.root, name, path, layout, options, hashing, rehash, probing)
    corpus = registry.load(home.root, name)
    keys = [shard_key(name, shard) for shard in corpus.shard_labels()]
    add_partitions(home, keys)
    if json:
        print_json(
            {
                "corpus": name,
                "videos": len(corpus.files),
                "added": list(changes.added),
                "changed": list(changes.changed),
                "removed": list(changes.removed),
                "unchanged": len(changes.unchanged),
                "shards": keys,
                "shards_touched": [shard_key(name, shard) for shard in changes.shards],
                "ignored": list(changes.ignored),
                "told": list(changes.messages),
                **facts(corpus),
            }
        )
        return
    if corpus.trains:
        print(f"corpus {name}: {'; '.join(changes.messages)}")
        print(f"next: cer train {corpus.trains} --corpora {name}")
        return
    print(
        f"corpus {name}: {len(corpus.files)} videos in {len(keys)} shards; {len(changes.added)} new, "
        f"{len(changes.changed)} changed, {len(changes.removed)} removed, {len(changes.unchanged)} unchanged"
    )
    for text in changes.ignored[:IGNORED_SHOWN]:
        say(f"left out: {safe(text)}")
    if len(changes.ignored) > IGNORED_SHOWN:
        say(f"left out: {len(changes.ignored) - IGNORED_SHOWN} more (see --json)")
    for text in changes.messages[:MESSAGES_SHOWN]:
        say(safe(text))
    if len(changes.messages) > MESSAGES_SHOWN:
        say(f"and {len(changes.messages) - MESSAGES_SHOWN} more lines (see --json)")
    print(f"next: cer run {name}")


def options_of(labels: Path | None, split: str | None, captions: Path | None, leaks: str | None) -> dict[str, str]:
    """Return the options that were given, with absolute paths."""
    given = {"labels": labels and _full(labels), "captions": captions and _full(captions), "leaks": leaks}
    given["split"] = _full(Path(split)) if split and Path(split).is_file() else split
    return {name: value for name, value in given.items() if value}


def track_of(home: Path, name: str, path: Path, layout: str, number: int | None) -> dict[str, int]:
    """Return the option of the sound track, after a check that some video has it; empty if it is not given."""
    from cer_pipeline.corpora import registry
    from cer_pipeline.media.specs import AUDIO_TRACK

    if number is None:
        return {}
    if number:
        from cer_pipeline.corpora.sound_tracks import check
        from cer_pipeline.profiles import load_profile

        known = registry.load(home, name).options if name in registry.names(home) else {}
        check(layout, path.expanduser().absolute(), known, number, load_profile())
    return {AUDIO_TRACK: number}


def _full(path: Path) -> str:
    return str(path.expanduser().absolute())


def facts(corpus: Corpus) -> dict[str, Any]:
    """Return format, splits, excluded videos, and whether the corpus has labels and captions."""
    return {
        "format": corpus.format,
        "splits": {split: sum(f.split == split for f in corpus.files) for split in corpus.splits},
        "excluded": sum(bool(f.excluded) for f in corpus.files),
        "labels": corpus.has_labels or bool(corpus.trains),
        "captions": any(f.captions for f in corpus.files),
    }


@app.command("list")
def list_corpora(json: Json = False) -> None:
    """List the registered corpora."""
    from cer_pipeline.corpora import registry
    from cer_pipeline.store.home import default_home

    root = default_home().root
    corpora = [registry.load(root, name) for name in registry.names(root)]
    if json:
        print_json(
            [
                {"name": c.name, "root": str(c.root), "videos": len(c.files), "shards": c.shards, **facts(c)}
                for c in corpora
            ]
        )
    elif not corpora:
        print("no corpus is registered; next: cer corpus add NAME PATH")
    else:
        rows = [
            (
                c.name,
                c.format,
                str(len(c.files)),
                ", ".join(f"{split} {n}" for split, n in facts(c)["splits"].items()),
                "yes" if facts(c)["labels"] else "no",
                str(c.shards),
                safe(str(c.root)),
            )
            for c in corpora
        ]
        columns = ("name", "format", "videos", "splits", "labels", "shards", "folder")
        print_table("Corpora", columns, rows, right=("videos", "shards"))


@app.command("remove")
def remove(name: Annotated[str, typer.Argument(help="The corpus.")]) -> None:
    """Remove a corpus from the registry. Its tables and your files stay."""
    from cer_pipeline.cli.dagster_home import remove_partitions
    from cer_pipeline.corpora import registry
    from cer_pipeline.store.home import writable_home

    home = writable_home()
    corpus = registry.load(home.root, name)
    registry.remove(home.root, name)
    remove_partitions(home, [shard_key(name, shard) for shard in corpus.shard_labels()])
    print(f"corpus {name} is no longer registered; its tables stay in {home.root / 'tables'}")
