"""Pictures and summaries of the tables.

Belongs here: drawing and summarising the content of tables. Does not belong here: computing rows.
"""
