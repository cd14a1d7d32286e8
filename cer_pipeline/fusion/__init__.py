"""Fuse the probabilities of several branches into one distribution with exact weights.

Belongs here: computing, applying and training weights. Does not belong here: any branch (`branches`), the mapping to
compound expressions (`compound`), or the decomposition of a value into contributions (`lineage`).
"""
