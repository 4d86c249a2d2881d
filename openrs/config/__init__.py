"""The recipe: its typed tree, how it is read, and what is checked. Never imports torch."""
