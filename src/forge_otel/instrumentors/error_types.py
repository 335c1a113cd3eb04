"""The class of an error, in the words of the vocabulary."""

from __future__ import annotations


def error_type(error: BaseException) -> str:
    """`rate_limit`, `timeout`, …, or the exception's qualified class name."""
    # Telemetry must not import the library that it waits for; where an error is to be classified, it is there.
    from forge import classify  # noqa: PLC0415

    return classify(error)
