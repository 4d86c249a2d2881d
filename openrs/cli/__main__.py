"""`python -m openrs.cli`."""

from openrs.cli.main import program

if __name__ == "__main__":
    program()
