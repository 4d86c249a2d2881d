"""GRPO from a recipe to a checkpoint."""
