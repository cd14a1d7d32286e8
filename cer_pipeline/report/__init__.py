"""Pictures and plain summaries of the tables, for people.

Belongs here: drawing and summing up what the tables hold. Does not belong here: computing any of it.
"""
