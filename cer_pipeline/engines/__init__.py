"""Engines: ways to run a stage over the units of a plan. All of them give identical rows.

Belongs here: batching, isolation of failures, parallelism. Does not belong here: caching or tables (`store`).
"""
