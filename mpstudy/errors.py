"""The one error type a user of the study is meant to read."""

from collections.abc import Collection


class StudyError(ValueError):
    """Input that cannot be used. The message names what was wrong and what is allowed."""


def check_choice(kind: str, value: str, allowed: Collection[str]) -> None:
    """Raise a :class:`StudyError` unless ``value`` is one of ``allowed``."""
    if value not in allowed:
        raise StudyError(f"unknown {kind} {value!r}; known: {', '.join(sorted(allowed))}")
