"""Values of the attribute `error.type`."""

from __future__ import annotations


def error_type(error: BaseException) -> str:
    """Return the class of an error, such as `rate_limit` or `timeout`, or the exception's qualified class name."""
    # Imported late: the telemetry must not import the library that it instruments.
    from forge import classify  # noqa: PLC0415

    return classify(error)
