"""Parquet tables, the row cache, fingerprints and the commit that joins them.

Belongs here: how rows are keyed, kept, assembled and read back. Does not belong here: what any row means (`parquet`)
or how it is computed (the stages).
"""
