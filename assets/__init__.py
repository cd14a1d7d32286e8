"""The Dagster graph: what depends on what, partitions, metadata, checks, sensors. No computation lives here."""
