"""`cer report`: what was found in a corpus, as a table, pictures and the folder of tables.

Belongs here: showing and keeping pictures up to date. Does not belong here: reading tables or drawing (`report`).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from cer_pipeline.cli.options import Json, Overrides, ProfileName, settings_of
from cer_pipeline.cli.output import console, print_json, safe
from cer_pipeline.profiles import DEFAULT_PROFILE
from cer_pipeline.store.files import commit_bytes
from cer_pipeline.store.fingerprint import digest

if TYPE_CHECKING:
    from pathlib import Path

    from cer_pipeline.compound.clear import Clear
    from cer_pipeline.corpora.shards import ShardInputs
    from cer_pipeline.report.summary import VideoSummary
    from cer_pipeline.store.home import Home

DRAWING = "2"  # changed by hand whenever a picture would change for the same tables
NOTES = "pictures.json"  # beside the pictures: what each was drawn from
NAME_CHARACTERS = 80  # of a video_id in a file name


def report(
    name: Annotated[str, typer.Argument(help="The corpus.")],
    hide_faces: Annotated[
        bool, typer.Option("--hide-faces", help="Draw faces as a mosaic, into a folder of its own.")
    ] = False,
    profile: ProfileName = DEFAULT_PROFILE,
    set_: Overrides = None,
    as_json: Json = False,
) -> None:
    """Show what was found in a corpus and draw a timeline picture of every video."""
    from dataclasses import asdict

    from cer_pipeline.compound.clear import Clear
    from cer_pipeline.store.home import default_home

    home = default_home()
    rule = Clear.of(settings_of(home, profile, set_))
    if not as_json:
        show(home, name, rule, hide_faces)
        return
    found = [summary for shard in predicted_shards(home, name) for summary in summaries(shard, rule)]
    folder = pictures(home, name, rule, hide_faces)
    print_json(
        {
            "corpus": name,
            "clear": asdict(rule),
            "videos": [asdict(summary) for summary in found],
            "pictures": str(folder),
        }
    )


def show(home: Home, name: str, rule: Clear, hide_faces: bool = False) -> None:
    """Print the summary of a corpus, and where pictures and tables lie."""
    from cer_pipeline.report.terminal import summary_table

    rows = [summary for shard in predicted_shards(home, name) for summary in summaries(shard, rule)]
    folder = pictures(home, name, rule, hide_faces)
    out = console()
    out.print(summary_table(rows, f"Corpus {name}", rule))
    out.print(f"pictures  {safe(str(folder))}", soft_wrap=True)
    out.print(f"tables    {safe(str(home.root / 'tables'))}/TABLE/corpus={name}/shard=*/data.parquet", soft_wrap=True)
    out.print("the graph cer ui", soft_wrap=True)


def predicted_shards(home: Home, name: str) -> list[ShardInputs]:
    """Return the shards of a corpus that hold predictions."""
    from cer_pipeline.corpora.shards import shards

    return shards(home, name, "frame_predictions")


def summaries(shard: ShardInputs, rule: Clear) -> list[VideoSummary]:
    """One record for every video of a shard."""
    from cer_pipeline.report.summary import summarise

    return summarise(shard, rule)


def pictures(home: Home, name: str, rule: Clear, hide_faces: bool = False) -> Path:
    """Draw the timeline of every video whose tables, or the rule, have changed since it was last drawn."""
    folder = home.root / "reports" / (f"{name}-hidden" if hide_faces else name)
    notes = folder / NOTES
    known: dict[str, str] = json.loads(notes.read_text()) if notes.is_file() else {}
    drawn: dict[str, str] = {}
    for shard in predicted_shards(home, name):
        sources = [shard.digests(table) for table in ("frame_predictions", "fused", "faces", "transcripts")]
        for video in shard.table("videos", ["video_id"]).column("video_id").to_pylist():
            target = folder / f"{file_name(video)}.png"
            drawn[target.name] = digest(DRAWING, repr(rule), *(source.get(video, "") for source in sources))
            if known.get(target.name) == drawn[target.name] and target.is_file():
                continue
            _draw(shard, video, target, rule, hide_faces)
    commit_bytes(notes, json.dumps(drawn, indent=1, sort_keys=True).encode())
    return folder


def _draw(shard: ShardInputs, video: str, target: Path, rule: Clear, hide_faces: bool) -> None:
    from cer_pipeline.report.timeline import timeline

    commit_bytes(target, timeline(shard, video, rule, hide_faces))


def file_name(video: str) -> str:
    """A safe file name for a video: readable where the id is plain, told apart by a digest where it is not."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in video).lstrip(".")
    if plain == video and len(plain) <= NAME_CHARACTERS:
        return plain
    return f"{plain[:NAME_CHARACTERS]}-{digest(video)[:8]}"
