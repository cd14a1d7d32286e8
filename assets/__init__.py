"""The Dagster graph: assets, partitions, metadata, checks, jobs, sensors, schedules. Nothing is computed here."""
