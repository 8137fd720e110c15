"""One call finds the family of a policy, or takes one's own by what it says that it reads."""

from __future__ import annotations

from pathlib import Path

import pytest
from bundle_cases import Reflex

from examples.own_policy import INPUTS, policy
from examples.tiny_pi0 import tiny_pi0
from exporters import export_policy, open_bundle
from exporters.families.one_call import family_of_policy
from pytest_reflex.errors import InputError

pytestmark = pytest.mark.once

OWN = Path(__file__).parents[3] / "examples" / "own_policy.py"


DICT = """
import torch


class Reads(torch.nn.Module):
    def forward(self, batch):
        return {read}


policy = Reads()
"""


def test_a_live_policy_tells_its_family_by_its_class() -> None:
    found = family_of_policy(tiny_pi0())
    assert found is not None
    assert found.name == "pi0"
    assert family_of_policy(policy()) is None


def test_a_checkpoint_of_a_family_is_loaded_and_exported(tmp_path: Path) -> None:
    tiny_pi0().save_pretrained(tmp_path / "c")
    made = export_policy(tmp_path / "c", tmp_path / "b", cameras=1, prompt_tokens=4, steps=2, fixtures=2)
    assert (made.manifest["family"], made.manifest["steps"]) == ("pi0", 2)
    with pytest.raises(InputError, match="inputs is given, and a policy of pi0 says itself what it reads"):
        export_policy(tiny_pi0(), tmp_path / "c", inputs=INPUTS)


def test_a_policy_of_ones_own_says_what_it_reads(tmp_path: Path) -> None:
    made = export_policy(policy(), tmp_path / "b", inputs=INPUTS, steps=2, fixtures=2)
    assert open_bundle(made.path).family == "module"
    with pytest.raises(InputError, match=r"a Reach is of none of the families act, .*; say what it reads"):
        export_policy(policy(), tmp_path / "b")


def test_the_command_exports_what_a_file_names(reflex: Reflex, tmp_path: Path) -> None:
    done = reflex(
        "export", f"{OWN}:policy", tmp_path / "b", "--steps", 2, "--layout", "loop", "--fixtures", 2
    )
    assert done.code == 0, done.out + done.err
    assert open_bundle(tmp_path / "b").stated.steps == 2


def test_the_command_exports_what_a_module_names(reflex: Reflex, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OWN.read_text())
    done = reflex("export", "mine:policy", "b", "--steps", 2, "--fixtures", 2, cwd=tmp_path)
    assert done.code == 0, done.out + done.err
    assert reflex("validate", "b", "--model", "mine:policy", cwd=tmp_path).code == 0
    done = reflex("export", "mine:polcy", "b", cwd=tmp_path)
    assert "MODEL is 'mine:polcy', and mine has no 'polcy' (did you mean 'policy'?)" in done.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no 'policy'"),
        ("policy = 3", "own.py:policy is an int; give an nn.Module or a function that returns one"),
        ("def policy(): return 1 / 0", "own.py:policy could not be loaded: ZeroDivisionError"),
        ("def policy(width): pass", "has to be given something, policy(width), and is given nothing; write"),
        ("def policy(): return 3", "gives an int, expected an nn.Module"),
        ("from torch.nn import Identity as policy", "own.py:policy is the class Identity, which would have"),
        (
            "from torch.nn import Bilinear\npolicy = Bilinear(2, 2, 2)",
            "has no INPUTS beside it; write in {own}: from pytest_reflex import InputSpec; "
            'INPUTS = [InputSpec("input1", (1, ...)), InputSpec("input2", (1, ...))], each with its shape',
        ),
        (
            DICT.format(read="batch['observation.image'] + batch['observation.state']"),
            'INPUTS = [InputSpec("observation.image", (1, ...)), InputSpec("observation.state", (1, ...))], ',
        ),
        (DICT.format(read="batch['image']"), 'INPUTS = [InputSpec("batch.image", (1, ...))], each'),
        (
            DICT.format(read="batch['image']")
            + "from pytest_reflex import InputSpec\nINPUTS = [InputSpec('batch', (1, 3))]",
            "INPUTS in {own} has 'batch' as one input, and the policy reads a dict of it; each key is an "
            'input; write there: from pytest_reflex import InputSpec; INPUTS = [InputSpec("batch.image", '
            "(1, ...))]",
        ),
        (
            DICT.format(read="batch['observation.image'] + batch['observation.state']")
            + "from pytest_reflex import InputSpec\nINPUTS = [InputSpec(n, (1, 3)) for n in ('rgb', 'arm')]",
            "INPUTS in {own} has 'rgb', 'arm', and the policy reads none of these: its batch is a dict "
            "with 'observation.image', 'observation.state'; write there: ",
        ),
    ],
)
def test_a_file_that_names_no_policy_is_told_so(text: str, said: str, reflex: Reflex, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(text)
    done = reflex("export", f"{tmp_path / 'own.py'}:policy", tmp_path / "b")
    assert done.code == 2
    assert said.format(own=tmp_path / "own.py") in " ".join(done.err.split())
    assert not (tmp_path / "b").exists()
