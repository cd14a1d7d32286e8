"""Map distributions over basic emotions, or features, to distributions over compound expressions.

Belongs here: PPA, PFSA, their adjustments and the rule for a clear expression, as pure functions. Does not belong here:
tables and the averaging over frames (`predictions`), or fusion (`fusion`).
"""
