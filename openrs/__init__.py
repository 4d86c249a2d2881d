"""openrs: run the Open-RS paper again, know what of it is true, train your own small reasoning model."""

__version__ = "0.1.0"
