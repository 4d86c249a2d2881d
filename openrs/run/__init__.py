"""What any long command needs: the run directory, atomic files, checkpoints, signals, progress. Never imports torch."""
