"""`cer report`: summarise a corpus as a table and as timeline pictures.

Belongs here: printing, and keeping pictures up to date. Does not belong here: reading tables or drawing (`report`).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from cer_pipeline.cli.absent import print_absent
from cer_pipeline.cli.options import Json, Overrides, ProfileName, settings_of
from cer_pipeline.cli.output import console, print_json, print_table, safe
from cer_pipeline.profiles import DEFAULT_PROFILE
from cer_pipeline.store.files import commit_bytes
from cer_pipeline.store.fingerprint import digest

if TYPE_CHECKING:
    from pathlib import Path

    from cer_pipeline.compound.clear import Clear
    from cer_pipeline.corpora.shards import ShardInputs
    from cer_pipeline.report.caption_quality import ViewQuality
    from cer_pipeline.store.home import Home

DRAWING = "3"  # changed by hand when pictures of the same tables change
DIGESTS = "pictures.json"  # picture -> digest of the rows that it was drawn from
NAME_CHARACTERS = 80  # of a video_id in a file name


def report(
    name: Annotated[str, typer.Argument(help="The corpus.")],
    hide_faces: Annotated[
        bool, typer.Option("--hide-faces", help="Draw faces as a mosaic, in a folder of its own.")
    ] = False,
    profile: ProfileName = DEFAULT_PROFILE,
    set_: Overrides = None,
    as_json: Json = False,
) -> None:
    """Print a summary of a corpus and draw a timeline picture of every video."""
    from dataclasses import asdict

    from cer_pipeline.compound.clear import Clear
    from cer_pipeline.report.summary import summarise
    from cer_pipeline.store.home import default_home

    home = default_home()
    rule = Clear.of(settings_of(home, profile, set_))
    if not as_json:
        show(home, name, rule, hide_faces)
        _next_steps(home, profile, set_, name)
        return
    videos = [summary for shard in predicted_shards(home, name) for summary in summarise(shard, rule)]
    folder = pictures(home, name, rule, hide_faces)
    print_json(
        {
            "corpus": name,
            "clear": asdict(rule),
            "videos": [asdict(summary) for summary in videos],
            "captions": [asdict(view) for view in captions(home, name)],
            "pictures": str(folder),
        }
    )


def _next_steps(home: Home, profile: str, overrides: list[str] | None, name: str) -> None:
    """Print the commands that bring the models which the branches of a corpus lack."""
    from cer_pipeline.branches.registry import branches
    from cer_pipeline.pipeline import stages
    from cer_pipeline.store.parquet import read_footer
    from cer_pipeline.zoo import open_zoo

    settings = settings_of(home, profile, overrides)
    tables = [branch.probabilities.name for branch in branches(settings)]
    paths = [home.table(table, name, shard.shard) for shard in predicted_shards(home, name) for table in tables]
    footers = [footer for path in paths if (footer := read_footer(path))]
    print_absent(stages(settings), open_zoo(heads=home.heads), [footer.by_status for footer in footers])


def show(home: Home, name: str, rule: Clear, hide_faces: bool = False) -> None:
    """Print the summary of a corpus, and the paths of its pictures and tables."""
    from cer_pipeline.report.caption_quality import quality_table
    from cer_pipeline.report.summary import summarise
    from cer_pipeline.report.terminal import summary_table

    rows = [summary for shard in predicted_shards(home, name) for summary in summarise(shard, rule)]
    folder = pictures(home, name, rule, hide_faces)
    out = console()
    out.print(summary_table(rows, f"Corpus {name}", rule))
    if views := captions(home, name):
        columns, rows_of_views = quality_table(views)
        cells = [[safe(cell) for cell in row] for row in rows_of_views]
        print_table("Captions by view", columns, cells, right=columns[1:])
    out.print(f"pictures  {safe(str(folder))}", soft_wrap=True)
    out.print(f"tables    {safe(str(home.root / 'tables'))}/TABLE/corpus={name}/shard=*/data.parquet", soft_wrap=True)
    out.print("graph     cer ui", soft_wrap=True)


def captions(home: Home, name: str) -> list[ViewQuality]:
    """Return the quality of the captions of a corpus by view; none where no model has written any."""
    from cer_pipeline.corpora.shards import shards
    from cer_pipeline.report.caption_quality import COLUMNS, caption_quality
    from cer_pipeline.tables import CAPTIONS

    made = [s for s in shards(home, name) if home.table(CAPTIONS.name, name, s.shard).is_file()]
    return caption_quality(s.table(CAPTIONS.name, COLUMNS) for s in made)


def predicted_shards(home: Home, name: str) -> list[ShardInputs]:
    """Return the shards of a corpus that have predictions.

    Raises:
        CerError: none has.
    """
    from cer_pipeline.corpora.shards import shards

    return shards(home, name, "frame_predictions")


def pictures(home: Home, name: str, rule: Clear, hide_faces: bool = False) -> Path:
    """Draw the timeline of every video whose rows, or the rule, have changed since it was last drawn.

    Returns:
        The folder of the pictures.
    """
    folder = home.root / "reports" / (f"{name}-hidden" if hide_faces else name)
    digests = folder / DIGESTS
    known: dict[str, str] = json.loads(digests.read_text()) if digests.is_file() else {}
    drawn: dict[str, str] = {}
    for shard in predicted_shards(home, name):
        sources = [shard.digests(table) for table in ("frame_predictions", "fused", "faces", "transcripts")]
        for video in shard.table("videos", ["video_id"]).column("video_id").to_pylist():
            target = folder / f"{file_name(video)}.png"
            drawn[target.name] = digest(DRAWING, repr(rule), *(source.get(video, "") for source in sources))
            if known.get(target.name) == drawn[target.name] and target.is_file():
                continue
            _draw(shard, video, target, rule, hide_faces)
    commit_bytes(digests, json.dumps(drawn, indent=1, sort_keys=True).encode())
    return folder


def _draw(shard: ShardInputs, video: str, target: Path, rule: Clear, hide_faces: bool) -> None:
    from cer_pipeline.report.timeline import timeline

    commit_bytes(target, timeline(shard, video, rule, hide_faces))


def file_name(video: str) -> str:
    """Return the file name of a video: its id, or the plain characters of the id and a digest."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in video).lstrip(".")
    if plain == video and len(plain) <= NAME_CHARACTERS:
        return plain
    return f"{plain[:NAME_CHARACTERS]}-{digest(video)[:8]}"
