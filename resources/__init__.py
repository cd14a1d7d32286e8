"""Typed Dagster resources that hand library objects to assets. No computation lives here."""
