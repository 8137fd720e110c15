"""A family that another distribution brings is a family like any other, on the command line too."""

from __future__ import annotations

import inspect
import json
import os
import shutil
import sys
from pathlib import Path

import click
import pytest
from bundle_cases import Reflex

from exporters import FAMILIES, family_of, open_bundle
from exporters.bundle.registry import GROUP, family_named, known_families
from pytest_reflex import check
from pytest_reflex.cli.commands import export
from pytest_reflex.errors import ReflexError

ROOT = Path(__file__).resolve().parents[3]
SOURCE = ROOT / "tests" / "support" / "arm_family.py"


def install(place: Path, distribution: str, line: str) -> None:
    """The metadata of a distribution that names one family, as an installer leaves it."""
    info = place / f"{distribution}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n{line}\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "site"
    install(place, "reflex_arm", "arm = installed_arm:FAMILY")
    shutil.copy(SOURCE, place / "installed_arm.py")
    monkeypatch.syspath_prepend(str(place))
    return place


@pytest.fixture
def arm(site: Path, tmp_path: Path) -> Path:
    """A checkpoint of the installed family, under the name that it has for itself."""
    import torch
    from installed_arm import Arm
    from safetensors.torch import save_file

    torch.manual_seed(0)
    place = tmp_path / "checkpoint"
    place.mkdir()
    (place / "config.json").write_text(json.dumps({"type": "arm_v2", "steps": 3}))
    save_file(Arm(3).state_dict(), place / "model.safetensors")
    return place


def test_it_is_exported_recognised_and_judged(arm: Path, site: Path, tmp_path: Path, reflex: Reflex) -> None:
    env = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(site)])}
    out = tmp_path / "bundle"
    ran = reflex("export", arm, out, "--horizon", "5", env=env)
    assert (ran.code, ran.err) == (0, "")
    judged = reflex("validate", "export", out, "--model", arm, "--fixtures", "2", env=env)
    assert (judged.code, judged.err) == (0, "")

    assert family_of(arm) == "arm"
    bundle = open_bundle(out)
    assert (bundle.family, bundle.manifest["steps"], bundle.manifest["call"]) == ("arm", 3, {})
    assert [spec["shape"] for spec in bundle.manifest["inputs"]] == [[1, 3], [1, 5, 2]]
    policy = family_named("arm").load(arm)
    result = check(bundle.reference_runner(policy), bundle, fixtures=2, trajectory=True)
    assert result.passed
    assert bundle.locate(policy).cause == "rounding"
    policy.move.bias.data.add_(0.1)
    assert not check(bundle.reference_runner(policy), bundle, fixtures=2).passed


def test_other_steps_than_the_checkpoint_s_are_said_on_the_command_line(
    arm: Path, site: Path, tmp_path: Path, reflex: Reflex
) -> None:
    env = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(site)])}
    out = tmp_path / "bundle"
    assert reflex("export", arm, out, "--steps", "2", "--strict", env=env).code == 0
    judge = ("validate", "export", out, "--model", arm, "--strict")
    refused = reflex(*judge, env=env)
    said = "the bundle takes 2 steps and the policy itself 3; where that is meant, give a reference of so "
    assert refused.code == 1
    assert f"{said}many steps, on the command line --steps 2" in " ".join(refused.out.split())
    assert reflex(*judge, "--steps", "2", env=env).code == 0
    other = reflex(*judge, "--steps", "3", env=env)
    assert (other.code, other.out) == (2, "")
    assert other.err == (
        "reflex: error: the bundle takes 2 steps and 3 were asked for; export one that takes 3\n"
    )


def test_its_options_are_the_command_lines_and_no_other_familys(
    arm: Path, site: Path, checkpoint: Path, tmp_path: Path, reflex: Reflex
) -> None:
    env = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(site)])}
    assert "--horizon" in reflex("export", "--help", env=env).out
    assert "--horizon" not in reflex("export", "--help").out
    for model, option, family in ((checkpoint, "--horizon", "pi0"), (arm, "--cameras", "arm")):
        ran = reflex("export", model, tmp_path / "out", option, "2", env=env)
        said = f"{option} was given, and {family} has no such choice; see `reflex export -h`"
        assert (ran.code, ran.err) == (2, f"reflex: error: {said}\n")


HAND = """
from exporters.families.options import Option
from installed_arm import ArmFamily

class Hand(ArmFamily):
    name = "hand"
    options = ({option},)

FAMILY = Hand()
"""
HORIZON = "Option('horizon', 'How many actions an arm makes at once.'{})"


def install_hand(site: Path, option: str) -> None:
    """A second family, which has this option."""
    install(site, "reflex_hand", "hand = installed_hand:FAMILY")
    (site / "installed_hand.py").write_text(HAND.format(option=option))
    sys.modules.pop("installed_hand", None)  # another test's


def shown() -> list[str]:
    """The options that ``reflex export`` takes."""
    return [param.name for param in export.get_params(click.Context(export))]


def test_families_may_share_an_option(site: Path) -> None:
    alone = shown()
    install_hand(site, HORIZON.format(""))
    assert shown() == alone
    assert alone.count("horizon") == 1


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (HORIZON.format(", least=2"), "the option --horizon of the installed family 'hand' is Option(name="),
        (HORIZON.format(", kept=True"), "and of 'arm' Option(name='horizon', "),
        ("Option('horizon', 'How far it reaches.')", "options of one name must be equal: uninstall"),
        ("Option('cameras', 'How many eyes.')", "and of this package's own Option(name='cameras', "),
        ("Option('steps', 'How far it walks.')", "has the option --steps, which `reflex export` has itself"),
        ("Option('seed', 'What it sows.')", "has the option --seed, which `reflex export` has itself"),
    ],
)
def test_an_option_that_means_two_things_is_refused(option: str, said: str, site: Path) -> None:
    install_hand(site, option)
    with pytest.raises(ReflexError) as refused:
        shown()
    assert said in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_the_command_refuses_it_in_one_line(arm: Path, site: Path, tmp_path: Path, reflex: Reflex) -> None:
    install_hand(site, HORIZON.format(", least=2"))
    ran = reflex("export", arm, tmp_path / "out", env={"PYTHONPATH": os.pathsep.join([str(ROOT), str(site)])})
    assert (ran.code, len(ran.err.splitlines())) == (2, 1)
    assert ran.err.startswith("reflex: error: the option --horizon of the installed family 'hand' is ")
    assert not (tmp_path / "out").exists()


def test_the_options_of_our_own_are_what_their_inputs_take() -> None:
    for name in FAMILIES:
        family = family_named(name)
        taken = set(inspect.signature(family.inputs).parameters) - {"policy", "batch"}
        assert {option.name for option in family.options} == taken


@pytest.mark.parametrize(
    ("line", "name", "other"),
    [
        ("arm = another:FAMILY", "arm", "and one by "),
        ("pi0 = another:FAMILY", "pi0", "and one in this package"),
    ],
)
def test_two_of_one_name_are_refused(line: str, name: str, other: str, site: Path) -> None:
    install(site, "another", line)
    with pytest.raises(ReflexError, match=f"two installed families are named '{name}': .*{other}.*uninstall"):
        family_named("pi05")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nowhere:FAMILY", "'hand' cannot be imported from nowhere:FAMILY: ModuleNotFoundError"),
        ("installed_arm:Arm", "installed_arm:Arm is installed as the family 'hand' and is no"),
        ("installed_arm:FAMILY", "is installed as the family 'hand' and is no .* of that name"),
    ],
)
def test_what_is_no_family_is_refused(target: str, message: str, site: Path) -> None:
    install(site, "hand", f"hand = {target}")
    assert known_families() == (*FAMILIES, "arm", "hand")
    with pytest.raises(ReflexError, match=message):
        family_named("hand")


def test_a_word_that_the_reference_does_not_take_is_refused_at_once(site: Path) -> None:
    with pytest.raises(TypeError, match=r"reference\(\) of arm takes no horizon"):
        family_named("arm").reference(lambda: None, horizon=2)
