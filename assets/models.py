"""The assets `models/BRANCH`: heads that are trained on registered corpora.

Belongs here: turning a Trainer into an asset with its metadata. Does not belong here: any training
(`cer_pipeline.training`), or publishing (`cer_pipeline.zoo.trained`).

They stand in a job of their own: processing a corpus never trains. What a branch predicts with hangs on the head in
use, so its tables name it, and are out of date once another is published.
"""

# No postponed annotations here: Dagster reads them off the function as it is decorated.
import base64
from collections.abc import Sequence
from typing import Any

import dagster as dg

from assets.keys import model_key
from assets.user_errors import user_errors
from cer_pipeline.stage import StageSpec
from cer_pipeline.training import registry as training
from cer_pipeline.training.summary import headline, scores_markdown
from cer_pipeline.zoo.trained import Published, publish
from resources.progress import ProgressListener
from resources.tables import Tables

GROUP = "models"


class TrainConfig(dg.Config):
    """What one training reads."""

    corpora: list[str]
    options: dict[str, str] = {}  # noqa: RUF012 (a pydantic field, copied for each instance)


def heads_of(spec: StageSpec) -> list[dg.AssetKey]:
    """The trained heads that a stage predicts with, as assets."""
    ids = (*spec.models, *spec.optional_models)
    return [model_key(branch) for branch in training.TRAINERS if f"head_{branch}" in ids]


def model_assets(specs: Sequence[StageSpec]) -> list[dg.AssetsDefinition]:
    """One asset for everything that can be trained; what it reads is shown where the profile makes it."""
    made = {spec.name for spec in specs}
    trainers = training.TRAINERS.values()
    return [model_asset(trainer, [name for name in trainer.reads if name in made]) for trainer in trainers]


def model_asset(trainer: training.Trainer, reads: Sequence[str]) -> dg.AssetsDefinition:
    """The asset that trains a head and publishes it. Its data version is the digest of the weights."""

    @dg.asset(
        key=model_key(trainer.branch),
        deps=[dg.AssetKey(name.split("/")) for name in reads],
        group_name=GROUP,
        kinds={"safetensors", "torch"},
        owners=["team:cer"],
        description=f"Trained here: {trainer.about} Launch it with the corpora to train on.",
        metadata={
            "corpus formats": ", ".join(trainer.formats) or "any with labels and tables",
            "models": ", ".join(trainer.models) or "none",
        },
    )
    def compute(
        context: dg.AssetExecutionContext,
        config: TrainConfig,
        tables: Tables,
        progress: dg.ResourceParam[ProgressListener],
    ) -> dg.MaterializeResult:
        progress.training(trainer.branch, context.log.info)
        home = tables.settings.get_home()
        with user_errors():
            corpora = training.chosen(home, trainer, config.corpora)
            key = training.key_of(corpora, config.options)
            request = training.Request(
                branch=trainer.branch,
                home=home,
                corpora=corpora,
                weights=tables.zoo(),
                out=home.training(trainer.branch, key),
                options=config.options,
                progress=progress.trained,
            )
            scores = training.run(request)
            head = publish(home.heads, trainer.branch, request.out)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(head.sha256[:32]), metadata=_metadata(head, scores, config)
        )

    return compute


def _metadata(head: Published, scores: dict[str, Any], config: TrainConfig) -> dict[str, Any]:
    out: dict[str, Any] = {
        "sha256": head.sha256,
        "file": dg.MetadataValue.path(str(head.weights)),
        "corpora": ", ".join(config.corpora),
        "scores": dg.MetadataValue.md(scores_markdown(scores)),
        "card": dg.MetadataValue.md((head.folder / f"{head.branch}.md").read_text("utf-8")),
    }
    out |= headline(scores)
    picture = head.folder / f"{head.branch}.png"
    if picture.is_file():
        data = base64.b64encode(picture.read_bytes()).decode()
        out["curves"] = dg.MetadataValue.md(f"![{head.branch}](data:image/png;base64,{data})")
    return out
