"""Videos or texts that stand in two splits: finding them, and the check that blocks them."""
