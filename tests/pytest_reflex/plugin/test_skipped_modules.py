"""Whether a module that skipped itself has parity tests: its text has to say, and that of others."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_reflex.plugin.skipped_modules import has_parity_tests, mentions_parity

CASES = "class Base:\n    def test_x(self, parity): ...\n"
FILES = {
    "cases.py": CASES,
    "quiet.py": "class Base:\n    def test_x(self): ...\n",
    "pkg/__init__.py": "",
    "pkg/cases.py": CASES,
    "pkg/sub/__init__.py": "",
    "pkg/sub/one.py": "from .two import *\n",
    "pkg/sub/two.py": "from .one import *\n",
    "speaks/__init__.py": CASES,
    "round.py": "from round_again import *\n",
    "round_again.py": "from round import *\nfrom quiet import *\n",
    "wrong.py": "from cases import (\n",
}


def module(place: Path, name: str, text: str) -> Any:
    """What pytest hands over: a module of this text, among the files above."""
    for file, content in {**FILES, name: text}.items():
        (place / file).parent.mkdir(parents=True, exist_ok=True)
        (place / file).write_text(content)
    return SimpleNamespace(
        path=place / name,
        funcnamefilter=lambda called: called.startswith("test"),
        classnamefilter=lambda called: called.startswith("Test"),
    )


@pytest.mark.parametrize(
    "text",
    [
        "def test_x(parity): ...",
        "from cases import *",
        "from cases import test_x",
        "from cases import Base as TestX",
        "from cases import other as test_other",
        "import cases\nclass TestX(cases.Base): ...",
        "import cases as c\nclass TestX(c.Base): ...",
        "import pkg.cases as c\nclass TestX(c.Base): ...",
        "from cases import Base\nclass TestX(Base): ...",
        "from cases import Base as B\nclass TestX(B): ...",
        "from pkg import cases\nclass TestX(cases.Base): ...",
        "from pkg.cases import *",
        "from speaks import *",
        "if True:\n    from cases import *",
        "import cases\ntest_y = cases.test_x",
        "import cases as c\nTestY: type = c.Base",
        "from cases import Base\nTestY, other = Base, 1",
        "import cases\nglobals().update(vars(cases))",
        "import sys, cases\nsetattr(sys.modules[__name__], 'test_y', cases.Base)",
        "import cases\nfor name in dir(cases):\n    globals()[name] = getattr(cases, name)",
    ],
)
def test_a_module_takes_its_parity_tests_from_wherever_it_may(text: str, tmp_path: Path) -> None:
    found = module(tmp_path, "test_it.py", "import pytest\npytest.skip('x')\n" + text)
    assert mentions_parity(found)


@pytest.mark.parametrize(
    "text", ["from .cases import *", "from . import cases\nclass TestX(cases.Base): ..."]
)
def test_a_module_of_a_package_may_take_them_from_beside_it(text: str, tmp_path: Path) -> None:
    assert mentions_parity(module(tmp_path, "pkg/test_it.py", text))


@pytest.mark.parametrize("text", ["from ..cases import *", "from ..cases import test_x"])
def test_a_module_of_a_package_may_take_them_from_above_it(text: str, tmp_path: Path) -> None:
    assert mentions_parity(module(tmp_path, "pkg/sub/test_it.py", text))
    assert not mentions_parity(module(tmp_path, "pkg/sub/test_it.py", text.replace("..cases", ".cases")))


@pytest.mark.parametrize(
    "text",
    [
        "def test_x(): ...",
        "import cases",
        "import cases\nclass TestX(other.Base): ...",
        "from cases import helper",
        "from cases import test_x as helper",
        "from quiet import *",
        "import quiet\nclass TestX(quiet.Base): ...",
        "from pkg import cases",
        "from nowhere import *",
        "import speaks.more\nclass TestX(speaks.more.Base): ...",
        "import nowhere\nclass TestX(nowhere.Base): ...",
        "from round import *",
        "from wrong import *",
        "from builtins import *",
        "from . import *",
        "def test_x(disparity): ...",
        "import cases\nhelper = cases.test_x",
        "import cases\ntest_y = quiet.test_x",
        "import cases\nheld = vars(quiet)",
        "from cases import (",
    ],
)
def test_a_module_that_takes_none_has_none(text: str, tmp_path: Path) -> None:
    assert not mentions_parity(module(tmp_path, "test_it.py", text))


def test_files_that_import_each_other_are_read_once(tmp_path: Path) -> None:
    assert not mentions_parity(module(tmp_path, "pkg/sub/test_it.py", "from .one import *"))
    found = module(tmp_path, "test_it.py", "from round import *\nfrom cases import *")
    assert mentions_parity(found)


class Speaks:
    def test_x(self, parity: object) -> None: ...


class Silent:
    def test_x(self) -> None: ...


class Helper:
    def checked(self, parity: object) -> None: ...


@pytest.mark.parametrize(("owner", "has"), [(Speaks, True), (Silent, False), (Helper, False)])
def test_a_class_has_parity_tests_by_its_names_and_its_text(owner: type, has: bool) -> None:
    found: Any = SimpleNamespace(obj=owner, funcnamefilter=lambda name: name.startswith("test"))
    assert has_parity_tests(found) is has
