"""What was measured: runs, evaluations, result files of others."""
