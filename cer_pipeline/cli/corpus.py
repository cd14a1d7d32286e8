"""`cer corpus add|list|remove`.

Belongs here: talking about corpora. Does not belong here: scanning folders (`corpora`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cer_pipeline.cli.options import Json
from cer_pipeline.cli.output import print_json, print_table, safe, say

app = typer.Typer(help="Register folders of video.", no_args_is_help=True)
NAMES_SHOWN = 5


@app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="A short name: a-z, 0-9 and _.")],
    path: Annotated[Path, typer.Argument(help="The folder; videos are found at any depth.")],
    layout: Annotated[str, typer.Option("--format", help="How the folder is laid out.")] = "folder",
    json: Json = False,
) -> None:
    """Register a corpus, or pick up what has changed in it."""
    from cer_pipeline.cli.dagster_home import add_partitions
    from cer_pipeline.corpora import registry
    from cer_pipeline.store.home import default_home

    home = default_home()
    changes = registry.register(home.root, name, path, layout)
    corpus = registry.load(home.root, name)
    keys = [registry.shard_key(name, shard) for shard in corpus.shard_labels()]
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
                "shards_touched": [registry.shard_key(name, shard) for shard in changes.shards],
                "ignored": list(changes.ignored),
            }
        )
        return
    print(
        f"corpus {name}: {len(corpus.files)} videos in {len(keys)} shards; {len(changes.added)} new, "
        f"{len(changes.changed)} changed, {len(changes.removed)} removed, {len(changes.unchanged)} unchanged"
    )
    for text in changes.ignored[:NAMES_SHOWN]:
        say(f"left out: {safe(text)}")
    if len(changes.ignored) > NAMES_SHOWN:
        say(f"left out: {len(changes.ignored) - NAMES_SHOWN} more (see --json)")
    print(f"next: cer run {name}")


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
                {"name": c.name, "format": c.format, "root": str(c.root), "videos": len(c.files), "shards": c.shards}
                for c in corpora
            ]
        )
    elif not corpora:
        print("no corpus is registered; next: cer corpus add NAME PATH")
    else:
        rows = [(c.name, c.format, str(len(c.files)), str(c.shards), safe(str(c.root))) for c in corpora]
        print_table("Corpora", ("name", "format", "videos", "shards", "folder"), rows, right=("videos", "shards"))


@app.command("remove")
def remove(name: Annotated[str, typer.Argument(help="The corpus.")]) -> None:
    """Forget a corpus. Its tables and your files stay."""
    from cer_pipeline.cli.dagster_home import remove_partitions
    from cer_pipeline.corpora import registry
    from cer_pipeline.store.home import default_home

    home = default_home()
    corpus = registry.load(home.root, name)
    registry.remove(home.root, name)
    remove_partitions(home, [registry.shard_key(name, shard) for shard in corpus.shard_labels()])
    print(f"corpus {name} is forgotten; its tables stay in {home.root / 'tables'}")
