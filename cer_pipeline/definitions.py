"""Dagster's Definitions of the project: all assets, checks, jobs, schedules, sensors and resources.

Belongs here: the wiring. Does not belong here: any asset, resource or computation. Loading it must stay light, since
every web server, daemon and run does so: it imports no model library (a test holds that).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from typing import Any

import dagster as dg

from assets.checks import no_leak, table_checks
from assets.evaluation import evaluation_assets
from assets.jobs import evaluate_job, process_shard_job, train_job
from assets.keys import asset_key
from assets.models import model_assets
from assets.schedules import nightly_schedule
from assets.sensors import corpus_changes_sensor
from assets.stages import stage_asset
from cer_pipeline.pipeline import stage_under, stages
from cer_pipeline.profiles import DEFAULT_PROFILE
from cer_pipeline.trainers import trainers
from resources.no_values import NoValues
from resources.progress import LogProgress
from resources.settings import Settings
from resources.tables import Tables

PROFILE_VARIABLE = "CER_PROFILE"


def build_definitions(
    settings: Settings | None = None, resource_overrides: Mapping[str, Any] | None = None
) -> dg.Definitions:
    """Return new Definitions, for the UI, the `cer` command and tests.

    Args:
        settings: profile and home; by default `$CER_PROFILE` and `$CER_HOME`.
        resource_overrides: resources to use in place of the usual ones.

    Raises:
        CerError: unknown profile or setting.
    """
    settings = settings or Settings(profile=os.environ.get(PROFILE_VARIABLE, DEFAULT_PROFILE))
    profile = settings.get_profile()
    specs = stages(profile)
    by_name = {spec.name: spec for spec in specs}
    # The settings of the launchpad must reach every resource that reads settings: one resource, configured at launch,
    # that the others depend on.
    at_launch = Settings.configure_at_launch(
        profile=settings.profile, sections=settings.sections, overrides=settings.overrides, home=settings.home
    )
    heads, scores = model_assets(specs, trainers(profile).values()), evaluation_assets(specs)
    resources: dict[str, Any] = {
        "settings": at_launch,
        "tables": Tables(settings=at_launch),
        "progress": LogProgress(),
        "io_manager": NoValues(),
    }
    return dg.Definitions(
        assets=[*(stage_asset(spec, by_name, partial(stage_under, loaded=specs)) for spec in specs), *heads, *scores],
        asset_checks=[*table_checks(specs), no_leak()],
        jobs=[process_shard_job([asset_key(spec.name) for spec in specs]), train_job(heads), evaluate_job(scores)],
        schedules=[nightly_schedule()],
        sensors=[corpus_changes_sensor()],
        resources=resources | dict(resource_overrides or {}),
        executor=dg.in_process_executor,
    )


@dg.definitions
def defs() -> dg.Definitions:
    """What Dagster loads."""
    return build_definitions()
