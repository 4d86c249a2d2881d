"""Models and data from the hub, pinned and checked, and checkpoints on their way back to it."""
