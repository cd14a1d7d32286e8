"""Corpora: readers of their formats, their registration, their shards, and the checks against leaks.

Belongs here: reading files that others made, with errors that name the row. Does not belong here: computing features or
predictions from them. This file imports nothing.
"""
