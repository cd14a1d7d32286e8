"""Folders of video in, explained emotion predictions out: the library behind the Dagster graph.

This package never imports dagster, except in `definitions` and `cli`, which wire the graph and drive it.
"""

__version__ = "0.1.0"
