"""Parquet tables, the row cache, fingerprints, and atomic writes.

Belongs here: how rows are keyed, cached, assembled and read. Does not belong here: the meaning of a row (`tables`) or
its computation (the stages).
"""
