"""Predictions in the forms that other programs read.

Belongs here: one module a form, and the rows that they write. Does not belong here: computing any prediction.
"""
