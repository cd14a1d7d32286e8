"""The tables of the paper measured again, and the comparisons behind settings of this project.

Does not belong here: scores of a registered corpus (`evaluation`).
"""
