"""From the probabilities of several branches to one distribution with exact weights.

Belongs here: how weights are found, applied and trained. Does not belong here: any branch (`branches`), the mapping to
compound expressions (`compound`), or telling why a value came out (`lineage`).
"""
