"""Training: folds, losses, the loops that make a head, and what chooses its settings.

Belongs here: everything that reads labels in order to fit or to choose. Does not belong here: the networks (`heads`)
or the scores that are reported (`evaluation`). Nothing is imported here, so that one trainer does not load another's
libraries.
"""
