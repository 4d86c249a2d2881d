"""From a model to samples, scores and intervals."""
