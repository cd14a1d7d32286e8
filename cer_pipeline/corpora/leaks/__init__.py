"""Leaks between splits: finding videos and texts in two splits, and the check of the table `labels`."""
