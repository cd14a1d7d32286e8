"""Heads: what turns a branch's features into 8 basic-emotion probabilities, and the trained ones that are shipped.

Belongs here: the file format of a head (`io`), one module per head that computes probabilities from its tensors, and
`shipped/`, the trained heads with their model cards. Does not belong here: encoders (`branches`), training (`training`)
or where weights are found and verified (`zoo`). Nothing is imported here, so that reading a head loads no torch.
"""
