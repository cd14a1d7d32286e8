"""Engines: ways to put a plan's units through a stage. All give identical rows.

Belongs here: batching, isolation of failures, parallelism. Does not belong here: caching or tables (`store`).
"""
