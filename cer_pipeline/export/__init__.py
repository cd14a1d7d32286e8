"""Predictions of a corpus as files for other programs.

Belongs here: the formats that `cer export` writes, one module each. Does not belong here: computing predictions.
"""
