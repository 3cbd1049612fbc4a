"""Scripts of containers, as reports quote them."""

#: So many characters tell which line is meant.
_QUOTED = 160


def quoted(text: str) -> str:
    """The beginning of a line of a script."""
    return text[:_QUOTED]
