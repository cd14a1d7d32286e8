"""Training of the fusion: data, objectives, fitting, and the two trained forms.

Does not belong here: applying a fusion (`fusion`), or what all trainings share (`training`).
"""
