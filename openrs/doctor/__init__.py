"""What this machine has, what a recipe needs, and the fix for what is missing."""
