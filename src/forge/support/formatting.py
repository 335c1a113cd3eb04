"""Formatting numbers for people."""

from __future__ import annotations

from decimal import Decimal


def seconds(value: float | None) -> str:
    """Format a duration: `-`, `0s`, `45µs`, `1.2ms`, `340ms`, `1.5s`, `75s`, `12:05`."""
    if value is None:
        return "-"
    if value == 0:
        return "0s"
    for limit, factor, unit in ((1e-3, 1e6, "µs"), (1, 1e3, "ms"), (100, 1, "s")):
        if value < limit * 0.9995:
            scaled = value * factor
            return f"{scaled:.1f}{unit}" if 0 < scaled < 9.95 else f"{scaled:.0f}{unit}"
    return clock(value)


def clock(value: float) -> str:
    """Format a duration in clock style: `0:07`, `12:05`, `1:02:03`."""
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def size(count: int) -> str:
    """Format a size in bytes: `512 B`, `1.5 kB`, `15 MB`."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5 or unit == "GB":
            return f"{value:.1f} {unit}" if unit != "B" and value < 9.95 else f"{value:.0f} {unit}"
        value /= 1000
    raise AssertionError


def share(value: float | None) -> str:
    """Format a ratio in percent."""
    if value is None:
        return "-"
    return "<1%" if 0 < value < 0.005 else f"{value:.0%}"


def dollars(value: Decimal | int) -> str:
    """Format an amount: `0`, `0.0000042`, `0.5`, `1.50`, `1234.57`. Less than a dollar has three significant digits."""
    return f"{value:.2f}" if value >= 1 else f"{Decimal(f'{value:.3g}').normalize():f}"
