"""Train the fusion: data, objectives, fitting, and the entries of `cer train mhpf` and `cer train feature_fusion`.

Does not belong here: inference (`fusion`), or code that all trainings share (`training`).
"""
