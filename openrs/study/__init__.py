"""The whole paper as one plan: what to run, what it costs, what it can decide, and when to stop."""
