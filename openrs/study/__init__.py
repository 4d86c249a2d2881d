"""A reproduction planned like a trial: jobs, costs, power, looks, one state."""
