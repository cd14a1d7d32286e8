"""The paper's tables measured again, and the comparisons behind choices of this project.

Does not belong here: scores of a registered corpus (`evaluation`).
"""
