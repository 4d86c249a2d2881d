"""Sizes and durations as text: one form for every message. Never imports torch."""

KIB, MIB, GIB = 2**10, 2**20, 2**30


def format_bytes(count: float) -> str:
    """Bytes in the unit that suits: 23.4 GiB, 1.2 MiB, 0.5 KiB."""
    for unit, name in ((GIB, "GiB"), (MIB, "MiB")):
        if count >= unit / 10:
            return f"{count / unit:.1f} {name}"
    return f"{max(0.0, count) / KIB:.1f} KiB"


def format_duration(seconds: float) -> str:
    """'8 s', '3 min 05 s', '7 h 12 min'."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60:02d} min"
