"""What a run needs and what a machine has: planner, doctor, NCCL measured, pinned downloads. Never imports torch."""
