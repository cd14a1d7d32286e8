"""Score predictions against labels, by the protocols of the paper and of the ABAW challenge.

Belongs here: reading predictions and labels, and the protocols. Does not belong here: the formulas (`metrics`), or any
choice of a setting (`training`): only this package reads the labels of test splits.
"""
