"""The resource through which assets read and make tables.

Belongs here: the arguments of `store.materialise`. Does not belong here: any of its steps.
"""

# No postponed annotations here: Dagster reads ResourceDependency off the class as it is made.
import dagster as dg

from cer_pipeline.corpora.corpus import parse_shard_key
from cer_pipeline.corpora.shards import ShardInputs
from cer_pipeline.engines.local import run_chunks
from cer_pipeline.stage import StageSpec
from cer_pipeline.store.materialise import Progress, Report, materialise
from cer_pipeline.zoo import Zoo, open_zoo
from resources.settings import Settings


class Tables(dg.ConfigurableResource):
    """The tables of the corpora in the home folder."""

    settings: dg.ResourceDependency[Settings]

    def materialise(self, spec: StageSpec, key: str, run_id: str, progress: Progress | None = None) -> Report:
        """Make one shard of one table; see `store.materialise.materialise`."""
        home, profile = self.settings.get_home(), self.settings.get_profile()
        return materialise(spec, home, self.inputs(key), profile, self.zoo(), run_chunks, run_id, progress)

    def zoo(self) -> Zoo:
        """Return the weights on this machine, among them the heads that were trained here."""
        return open_zoo(heads=self.settings.get_home().heads)

    def inputs(self, key: str) -> ShardInputs:
        """Return read access to the shard of a partition key."""
        corpus, shard = parse_shard_key(key)
        return ShardInputs(self.settings.get_home(), corpus, shard)
