"""Corpora: one reader for each format in which labelled or unlabelled data comes, and the guards against leaks.

Belongs here: reading what others made, as it is, with errors that name the row. Does not belong here: what is computed
from it. Nothing is imported here.
"""
