"""Spec: how models, training data and negatives are named: `KIND:NAME@FILE?key=value&key=value`.

Parsed in one place. What a kind means by its name, and which options it has, the kind knows.
"""

from dataclasses import dataclass
from pathlib import Path

from fsc_bench.errors import UsageError, near_miss


@dataclass(frozen=True)
class Spec:
    """One name. kind: before the first colon; rest: all that stands behind it."""

    kind: str
    rest: str

    @classmethod
    def read(cls, text: str) -> "Spec":
        """`KIND:REST`; without a colon the rest is empty."""
        kind, _, rest = text.partition(":")
        return cls(kind, rest)

    def __str__(self) -> str:
        return f"{self.kind}:{self.rest}"

    @property
    def place(self) -> str:
        """What stands before the options: a name, a name with a file, a path."""
        return self.rest.partition("?")[0]

    @property
    def name(self) -> str:
        """The place without its file."""
        return self.place.partition("@")[0]

    @property
    def file(self) -> Path | None:
        """What stands behind the @, if anything does."""
        file = self.place.partition("@")[2]
        return Path(file).expanduser() if file else None

    def options(self, *allowed: str, nested: str = "") -> dict[str, str]:
        """The options by name. The one called `nested` is a spec itself: what is written behind it
        is its own, up to the next option that is allowed here.

        Raises UsageError for another option, for one without a value and for one given twice.
        """
        found: dict[str, str] = {}
        waiting = self.rest.partition("?")[2]
        while waiting:
            part, _, waiting = waiting.partition("&")
            key, equals, value = part.partition("=")
            if not part:
                continue
            if key not in allowed or not equals:
                raise UsageError(
                    f"{str(self)!r}: option {part!r}: write key=value with {', '.join(allowed)}."
                    f"{near_miss(key, allowed)}"
                )
            if key in found:
                raise UsageError(f"{str(self)!r}: the option {key!r} stands twice.")
            while key == nested and waiting and waiting.partition("=")[0] not in allowed:
                more, _, waiting = waiting.partition("&")
                value += f"&{more}"
            found[key] = value
        return found


def is_seed(text: str) -> bool:
    """Whether a text is a whole number that seeds a generator: digits, below 10**18."""
    return text.isascii() and text.isdigit() and len(text) <= 18
