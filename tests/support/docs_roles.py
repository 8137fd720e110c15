"""A griffe extension for the documentation: names that docstrings mark up for Sphinx, as plain code.

Editors and ``help()`` know ``:class:`~package.Name```; Markdown would show it to the letter.
"""

from __future__ import annotations

import re
from typing import Any

try:
    from griffe import Extension
except ImportError:  # the function is tested where no documentation is built
    Extension = object

ROLE = re.compile(r":(?:py:)?[a-z]+:`(~?)([\w.]+)`")


def without_roles(text: str) -> str:
    """``:func:`a.b``` as ```a.b```, and as ```b``` where a tilde asks for the last name alone."""
    return ROLE.sub(lambda m: f"`{m[2].rpartition('.')[2] if m[1] else m[2]}`", text)


class Roles(Extension):
    """Takes the roles out of every docstring before it is parsed."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = without_roles(obj.docstring.value)
