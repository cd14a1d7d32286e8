"""Whether this machine can run the pipeline: what is installed loads, and what a run needs is there.

Does not belong here: printing it (`cli.doctor`), or what is done before anything is installed
(`requirements/libraries.py`).
"""
