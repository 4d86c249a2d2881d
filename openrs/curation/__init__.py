"""From raw problems to a dataset one can defend: a chain of named stages, every removed row accounted for."""
