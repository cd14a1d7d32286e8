"""Typed Dagster resources through which assets reach the library. Nothing is computed here."""
