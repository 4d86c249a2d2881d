"""The judge and the rewards that rest on it."""
