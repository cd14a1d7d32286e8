"""The assets `models/BRANCH`: heads that are trained on registered corpora.

Belongs here: the mapping of a Trainer to an asset with its metadata. Does not belong here: any training
(`cer_pipeline.training`), or publishing (`cer_pipeline.zoo.trained`).

They have a job of their own: processing a corpus never trains. The tables of a branch depend on its head, so they are
out of date once another head is published.
"""

# No postponed annotations here: Dagster reads them off the function as it is decorated.
from collections.abc import Iterable, Sequence
from typing import Any

import dagster as dg

from assets.keys import asset_key, model_key
from assets.metadata import code_reference, numbers_by_key, picture_value, table_value
from assets.step_errors import step_errors
from cer_pipeline.stage import StageSpec
from cer_pipeline.training.summary import headline, score_rows
from cer_pipeline.training.trainer import Request, Trainer, run_training, training_corpora, training_key
from cer_pipeline.zoo.trained import TrainedHead, publish
from cer_pipeline.zoo.weights import HEAD_PREFIX
from resources.progress import ProgressListener
from resources.tables import Tables

GROUP = "models"


def config_schema(trainer: Trainer) -> dg.Shape:
    """Return the fields of a training in the launchpad: its corpora, and each option of the trainer as text."""
    options = {name: dg.Field(str, is_required=False) for name in trainer.options}
    return dg.Shape({"corpora": dg.Field([str]), "options": dg.Field(dg.Shape(options), default_value={})})


def heads_of(spec: StageSpec) -> list[dg.AssetKey]:
    """Return the keys of the trained heads that a stage predicts with."""
    ids = (*spec.models, *spec.optional_models)
    return [model_key(zoo_id.removeprefix(HEAD_PREFIX)) for zoo_id in ids if zoo_id.startswith(HEAD_PREFIX)]


def model_assets(specs: Sequence[StageSpec], trainers: Iterable[Trainer]) -> list[dg.AssetsDefinition]:
    """Return one asset for every trainer; it depends on the tables that the trainer reads and the profile makes."""
    made = {spec.name for spec in specs}
    return [model_asset(trainer, [name for name in trainer.reads if name in made]) for trainer in trainers]


def model_asset(trainer: Trainer, reads: Sequence[str]) -> dg.AssetsDefinition:
    """Return the asset that trains a head and publishes it. Its data version is the digest of the weights."""

    @dg.asset(
        key=model_key(trainer.name),
        deps=[asset_key(name) for name in reads],
        group_name=GROUP,
        kinds={"safetensors", "torch"},
        owners=["team:cer"],
        description=f"Trained here: {trainer.about} Launch it with the corpora to train on.",
        metadata={
            **code_reference(trainer.function),
            "corpus_formats": ", ".join(trainer.formats) or "any with labels and tables",
            "models": ", ".join(trainer.models) or "none",
        },
        config_schema=config_schema(trainer),
    )
    def compute(
        context: dg.AssetExecutionContext,
        tables: Tables,
        progress: dg.ResourceParam[ProgressListener],
    ) -> dg.MaterializeResult:
        config = context.op_execution_context.op_config
        options = config["options"]
        progress.training(trainer.name, context.log.info)
        home = tables.settings.get_home()
        with step_errors():
            corpora = training_corpora(home, trainer, config["corpora"])
            key = training_key(corpora, options)
            request = Request(
                branch=trainer.name,
                home=home,
                corpora=corpora,
                weights=tables.zoo(),
                out=home.training(trainer.name, key),
                options=options,
                progress=progress.trained,
            )
            scores = run_training(trainer, request)
            head = publish(home.heads, trainer.name, request.out)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(head.sha256[:32]), metadata=_metadata(head, scores, config["corpora"])
        )

    return compute


def _metadata(head: TrainedHead, scores: dict[str, Any], corpora: Sequence[str]) -> dict[str, Any]:
    out: dict[str, Any] = {
        "sha256": head.sha256,
        "file": dg.MetadataValue.path(str(head.weights)),
        "corpora": ", ".join(corpora),
        "scores": table_value(("systems", "metric", "percent [95 %]"), score_rows(scores)),
        "card": dg.MetadataValue.md((head.folder / f"{head.branch}.md").read_text("utf-8")),
    }
    out |= numbers_by_key(headline(scores))
    curves = head.folder / f"{head.branch}.png"
    if curves.is_file():
        out["curves"] = picture_value(head.branch, curves.read_bytes())
    return out
