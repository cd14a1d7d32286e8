"""Checks of this machine: the installed packages load, and everything that a run needs is present.

Belongs here: the checks and their child processes. Does not belong here: printing (`cli.doctor`), or the steps before
anything is installed (`requirements/libraries.py`).
"""
