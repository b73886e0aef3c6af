"""How good a scorer is, beside baselines, with counts and intervals."""
