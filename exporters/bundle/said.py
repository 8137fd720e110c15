"""Values of a manifest as they are read: what is malformed is named with its file, its key and its value."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, Final

from pytest_reflex.errors import BundleError

_MISSING: Final = object()
# Nobody reads more of a value than this.
_LONGEST: Final = 200


class Said:
    """One value, and where it stands.

    Args:
        value: what JSON has there.
        file: what errors call the file.
        key: where in the file, such as ``files['model.onnx'].size``.
    """

    def __init__(self, value: object, file: object, key: str = "") -> None:
        self.value, self._file, self._key = value, file, key

    def at(self, key: str, otherwise: object = _MISSING) -> Said:
        """What an object has under a key."""
        where = f"{self._key}.{key}" if self._key and key.isidentifier() else f"{self._key}[{key!r}]"
        value = self.mapping().get(key, otherwise)
        return Said(value, self._file, where if self._key or not key.isidentifier() else key)

    def fields(self) -> dict[str, Said]:
        """All that an object has."""
        return {key: self.at(key) for key in self.mapping()}

    def each(self) -> list[Said]:
        """The items of a list."""
        items = self._kind(list, "a list")
        return [Said(item, self._file, f"{self._key}[{index}]") for index, item in enumerate(items)]

    def mapping(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._kind(dict, "an object")
        return found

    def text(self) -> str:
        """Text that is not empty."""
        found = self._kind(str, words := "text that is not empty")
        return str(self.such(bool(found), words))

    def whole(self, least: int, most: int | None = None) -> int:
        upto = f"to {most}" if most is not None else "on"
        good = type(self.value) is int and least <= self.value and (most is None or self.value <= most)
        self.such(good, f"a whole number from {least} {upto}")
        return int(self.value)  # type: ignore[call-overload, no-any-return]

    def finite(self) -> float:
        """A number that is finite as float64."""
        try:
            number = float(self.value) if type(self.value) in (int, float) else math.nan  # type: ignore[arg-type]
        except OverflowError:
            number = math.inf
        self.such(math.isfinite(number), "a finite number")
        return number

    def one_of(self, good: Collection[str]) -> str:
        self.such(isinstance(self.value, str) and self.value in good, f"one of {', '.join(sorted(good))}")
        return str(self.value)

    def such(self, good: bool, expected: str) -> object:
        """The value, where it is good.

        Raises:
            BundleError: it is not.
        """
        if not good:
            raise self.error(f"expected {expected}")
        return self.value

    def error(self, expected: str) -> BundleError:
        text = "missing" if self.value is _MISSING else repr(self.value)
        shown = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({len(text)} characters)"
        key = self._key or "what it holds"
        return BundleError(f"{self._file}: {key} is {shown}, {expected}; export the bundle again")

    def _kind(self, kind: type, expected: str) -> Any:
        return self.such(isinstance(self.value, kind), expected)
