"""A family that another distribution brings is a family like any other, on the command line too."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from bundle_cases import Reflex

from exporters import FAMILIES, family_of, open_bundle
from exporters.bundle.installed import GROUP
from exporters.bundle.registry import distribution_of, family_named, known_families
from exporters.families.options import GROOT_WHOLE
from pytest_reflex import check
from pytest_reflex.cli.commands import export
from pytest_reflex.cli.families import offered
from pytest_reflex.errors import CheckpointError, ReflexError
from pytest_reflex.settings import CHECK

pytestmark = pytest.mark.once

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
    if not (site / "reflex_hand-1.0.dist-info").exists():
        install(site, "reflex_hand", "hand = installed_hand:FAMILY")
    (site / "installed_hand.py").write_text(HAND.format(option=option))
    # Python tells compiled files apart by second and size, which two of these may share.
    shutil.rmtree(site / "__pycache__", ignore_errors=True)
    importlib.invalidate_caches()
    sys.modules.pop("installed_hand", None)  # an earlier one


def shown() -> list[str]:
    """The options that ``reflex export`` takes."""
    return [param.name for param in export.get_params(click.Context(export))]


def left_out() -> dict[str, str]:
    """The families that ``reflex export`` shows no options of, and why."""
    return {name: str(why) for name, why in offered(export).left_out.items()}


def test_families_may_share_an_option(site: Path) -> None:
    alone = shown()
    install_hand(site, HORIZON.format(""))
    assert shown() == alone
    assert alone.count("horizon") == 1
    assert left_out() == {}


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (HORIZON.format(", least=2"), "the option --horizon of the installed family 'hand' is Option(name="),
        (HORIZON.format(", kept=True"), "and of 'arm' Option(name='horizon', "),
        ("Option('horizon', 'How far it reaches.')", "options of one name must be equal: uninstall"),
        ("Option('cameras', 'How many eyes.')", "and of this package's own Option(name='cameras', "),
    ],
)
def test_an_option_that_means_two_things_is_refused(option: str, said: str, site: Path) -> None:
    install_hand(site, option)
    why = left_out()
    assert list(why) == ["hand"]
    assert said in why["hand"]
    assert len(why["hand"].splitlines()) == 1
    assert shown().count("horizon") == 1


def words_taken() -> set[str]:
    """Every word that an option would be lost by, on its way from a call or a command line."""
    from exporters import cached
    from exporters import export as bundle_export
    from exporters.families.base import Family

    functions = (Family.inputs, Family.sample, Family.reference, Family.export, bundle_export, check, cached)
    words = {name for function in functions for name in inspect.signature(function).parameters}
    ours = {option.flag for name in FAMILIES for option in family_named(name).options}
    for param in click.Command.get_params(export, click.Context(export)):
        # A short one, such as -h, which click keeps once the command has run, takes no word from an option.
        long = {*param.opts, *param.secondary_opts} - ours
        words |= {word.strip("-").replace("-", "_") for word in long if re.match("--|[^-]", word)}
    return words - {"options", "kept"} | set(CHECK)


def refusal(hand: Any) -> str:
    """What is said to whoever exports with a family that the command line takes, or has the cache do so."""
    from exporters import cached

    def asked() -> None:
        hand.require_sound(cached)
        hand.asked(None)

    with pytest.raises(ReflexError) as refused:
        asked()
    return str(refused.value)


def test_an_option_may_have_no_word_that_is_taken(site: Path) -> None:
    """Whoever takes it says so: the command line, the export, or the cache."""
    known = {
        "policy", "batch", "steps", "layout", "out_dir", "outputs", "call", "sizes", "family", "verify",
        "progress", "precision", "calibration", "dynamic_batch", "name", "record", "cache", "seed", "strict",
        "threshold", "trajectory", "no_trajectory", "output_json", "help", "model", "out",
    }  # fmt: skip
    words = words_taken()
    assert known <= words
    for word in words:
        install_hand(site, f"Option({word!r}, 'What it means.')")
        said = left_out().get("hand") or refusal(family_named("hand"))
        shown = rf"(--{word.replace('_', '-')}|'{word}')"
        assert re.search(
            rf"^the family 'hand' has the option {shown}, which `.+` \w+ itself; rename it", said
        )
        assert len(said.splitlines()) == 1


def test_whoever_takes_a_word_refuses_it(site: Path, tmp_path: Path) -> None:
    from installed_arm import Arm

    from exporters import cached

    policy = Arm(3).eval()
    install_hand(site, "Option('cache', 'How much it remembers.')")
    with pytest.raises(ReflexError, match="the family 'hand' has the option 'cache', which `cached` takes"):
        cached(family_named("hand").export, policy, cache=tmp_path / "cache")
    install_hand(site, "Option('outputs', 'How many it gives.')")
    with pytest.raises(ReflexError, match="the family 'hand' has the option 'outputs', which `export` takes"):
        family_named("hand").export(policy, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("Option('two words', 'x'),", "has the option 'two words', expected a keyword of small letters"),
        ("Option('Horizon', 'x'),", "has the option 'Horizon', expected a keyword"),
        ("Option('', 'x'),", "has the option '', expected a keyword"),
        ("Option('class', 'x'),", "has the option 'class', expected a keyword"),
        ("Option('_hidden', 'x'),", "has the option '_hidden', expected a keyword"),
        ("Option('a__b', 'x'),", "has the option 'a__b', expected a keyword"),
        ("Option('länge', 'x'),", "has the option 'länge', expected a keyword"),
        ("Option('reach\\n', 'x'),", "has the option 'reach\\n', expected a keyword"),
        ("Option('--reach', 'x'),", "has the option '--reach', expected a keyword"),
        ("Option(7, 'x'),", "has an option whose name is 7, expected str"),
        ("Option('reach', None),", "has an option whose help is None, expected str"),
        ("Option('reach', 'x', '1'),", "has an option whose least is '1', expected int"),
        ("Option('reach', 'x', True),", "has an option whose least is True, expected int"),
        ("Option('reach', 'x', kept=1),", "has an option whose kept is 1, expected bool"),
        ("Option('reach', 'x'), Option('reach', 'x'),", "has the option 'reach' twice; remove one"),
        ("'reach',", "has the options ('reach',), expected a tuple of Option; write one"),
    ],
)
def test_what_is_no_option_is_refused(options: str, said: str, site: Path) -> None:
    install_hand(site, options.rstrip(","))
    assert said in left_out()["hand"]
    assert left_out()["hand"].startswith("the family 'hand' has ")
    with pytest.raises(ReflexError, match=re.escape(said)):
        family_named("hand")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "options = Option('reach', 'x')",
            "has the options Option(name='reach', help='x', least=1, kept=False, switch=False),",
        ),
        ("options = None", "has the options None, expected a tuple of Option; write one in Hand.options"),
        ("options = {Option('reach', 'x')}", "expected a tuple of Option"),
        ("own_names = 'hand_v2'", "has the own_names 'hand_v2', expected a tuple of text; write one in Hand"),
        ("own_names = (2,)", "has the own_names (2,), expected a tuple of text"),
        ("options = property(lambda self: 1 / 0)", "cannot be imported from installed_hand:FAMILY of the"),
    ],
)
def test_what_a_family_says_of_another_type_is_refused(line: str, said: str, site: Path) -> None:
    install_hand(site, HORIZON.format(""))
    file = site / "installed_hand.py"
    file.write_text(file.read_text().replace("FAMILY =", f"    {line}\n\nFAMILY ="))
    with pytest.raises(ReflexError) as refused:
        family_named("hand")
    assert said in str(refused.value)
    assert str(refused.value).startswith("the family 'hand' ")
    assert "of the distribution reflex_hand" in str(refused.value)


def env_of(site: Path) -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join([str(ROOT), str(site)])}


def test_the_command_refuses_it_in_one_line(arm: Path, site: Path, tmp_path: Path, reflex: Reflex) -> None:
    install_hand(site, HORIZON.format(", least=2"))
    (arm / "config.json").write_text(json.dumps({"type": "hand", "steps": 3}))
    ran = reflex("export", arm, tmp_path / "out", env=env_of(site))
    assert (ran.code, len(ran.err.splitlines())) == (2, 1)
    assert ran.err.startswith("reflex: error: the option --horizon of the installed family 'hand' is ")
    assert not (tmp_path / "out").exists()


def broken(site: Path) -> None:
    """Distributions of every kind of brokenness, besides that of the arm."""
    install(site, "reflex_gone", "gone = nowhere:FAMILY")
    install(site, "reflex_exits", "exits = installed_exits:FAMILY")
    (site / "installed_exits.py").write_text("raise SystemExit(0)\n")
    install(site, "reflex_skips", "skips = installed_skips:FAMILY")
    (site / "installed_skips.py").write_text("import pytest\npytest.skip('here', allow_module_level=True)\n")
    install(site, "reflex_words", "words = installed_words:FAMILY")
    (site / "installed_words.py").write_text(
        HAND.format(option="Option('seed', 'What it sows.')").replace("hand", "words")
    )
    install(site, "reflex_twice", "twice = installed_arm:FAMILY")
    install(site, "reflex_twice_2", "twice = installed_arm:FAMILY")


def test_what_is_broken_stands_in_nobodys_way(
    arm: Path, site: Path, checkpoint: Path, tmp_path: Path, reflex: Reflex
) -> None:
    broken(site)
    for model in (checkpoint, arm):
        ran = reflex("export", model, tmp_path / "out", "--fixtures", "2", env=env_of(site))
        assert (ran.code, ran.err) == (0, "")
        assert ran.out.startswith("parity PASS")
    assert "--horizon" in reflex("export", "--help", env=env_of(site)).out


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gone", "the family 'gone' cannot be imported from nowhere:FAMILY of the distribution reflex_gone"),
        ("exits", "the family 'exits' cannot be imported from installed_exits:FAMILY of the distribution"),
        ("skips", "the family 'skips' cannot be imported from installed_skips:FAMILY of the distribution"),
        ("words", "the family 'words' has the option 'seed', which `Family.reference` takes itself; rename"),
        (
            "twice",
            "two installed families are named 'twice': installed_arm:FAMILY and installed_arm:FAMILY; ",
        ),
    ],
)
def test_what_is_broken_is_named_where_it_is_asked_for(
    name: str, said: str, arm: Path, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(site)
    (arm / "config.json").write_text(json.dumps({"type": name}))
    assert family_of(arm) == name
    with pytest.raises(ReflexError) as refused:
        family_named(name)
    assert str(refused.value).startswith(said)
    assert len(str(refused.value).splitlines()) == 1
    # No family that can be asked fits, so what could not be asked is said.
    (arm / "config.json").write_text(json.dumps({"type": "nobodys"}))
    with pytest.raises(CheckpointError, match="is a checkpoint of 'nobodys', expected one of ") as nobody:
        family_of(arm)
    assert f"; not asked: {said}" in str(nobody.value)
    (arm / "config.json").write_text(json.dumps({"type": "arm_v2"}))
    assert family_of(arm) == "arm"


def test_a_word_that_a_broken_family_may_have_names_it(
    arm: Path, site: Path, tmp_path: Path, reflex: Reflex
) -> None:
    (site / "installed_arm.py").write_text("raise ImportError('no arm here')\n")
    ran = reflex("export", arm, tmp_path / "out", "--horizon", "5", env=env_of(site))
    assert (ran.code, len(ran.err.splitlines())) == (2, 1)
    assert "no such option" in ran.err.lower()
    assert "(the family 'arm' was left out: the family 'arm' cannot be imported from installed_arm" in ran.err


def test_what_is_named_as_one_of_ours_is_warned_of_and_not_taken(site: Path) -> None:
    install(site, "another", "pi05 = another:FAMILY")
    ours = "'pi05' is this package's own; uninstall another"
    with pytest.warns(UserWarning, match=ours):
        assert type(family_named("pi05")).__module__ == "exporters.families.pi05"
    assert known_families() == (*FAMILIES, "arm")


def reinstall(site: Path, version: str, distribution: str = "reflex_arm") -> None:
    metadata = site / f"{distribution}-1.0.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text().replace("Version: 1.0", f"Version: {version}"))
    importlib.invalidate_caches()


def test_its_version_is_in_the_key_of_the_cache(arm: Path, site: Path, tmp_path: Path) -> None:
    from exporters import cached

    family = family_named("arm")
    arms = [family.load(arm) for _ in range(2)]

    def made(export: Any, policy: Any) -> str:
        return cached(export, policy, cache=tmp_path / "cache", fixtures=2).path.name

    def by_way_of_another(policy: Any, out_dir: Any, **options: Any) -> Any:
        return family.export(policy, out_dir, **options)

    first = [made(family.export, arms[0]), made(by_way_of_another, arms[0])]
    assert first == [made(family.export, arms[1]), made(by_way_of_another, arms[1])]
    reinstall(site, "1.1")
    second = [made(family.export, arms[0]), made(by_way_of_another, arms[0])]
    assert len({*first, *second}) == 4
    versions = open_bundle(tmp_path / "cache" / second[0]).manifest["versions"]
    assert versions["reflex_arm"] == "1.1"
    assert open_bundle(tmp_path / "cache" / first[0]).manifest["versions"] == {
        **versions,
        "reflex_arm": "1.0",
    }


def test_metadata_that_cannot_be_read_is_no_version(site: Path) -> None:
    assert distribution_of("arm") == {"reflex_arm": "1.0"}
    (site / "reflex_arm-1.0.dist-info" / "METADATA").unlink()
    assert distribution_of("arm") == {"installed_arm:FAMILY": "unknown"}
    assert distribution_of("pi0") == {}


def test_the_words_of_the_command_line_are_those_of_our_families() -> None:
    theirs = {option for name in FAMILIES for option in family_named(name).options} - {*GROOT_WHOLE}
    assert set(offered(export).options.values()) == theirs
    flags = {option.flag: option for option in theirs}
    assert len(flags) == len(theirs)
    params = {param.opts[0]: param for param in export.params if param.opts[0] in flags}
    assert params.keys() == flags.keys()
    for flag, option in flags.items():
        assert params[flag].help == option.help
        assert params[flag].is_flag if option.switch else params[flag].type.min == option.least


def test_the_options_of_our_own_are_what_their_inputs_take() -> None:
    for name in FAMILIES:
        family = family_named(name)
        # A loop whose every step draws has as many inputs as steps, which are nobody's option.
        taken = set(inspect.signature(family.inputs).parameters) - {"policy", "batch", "steps"}
        assert {option.name for option in family.options} == taken


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (
            "nowhere:FAMILY",
            "'hand' cannot be imported from nowhere:FAMILY of the distribution hand: ModuleNotFoundError",
        ),
        (
            "installed_arm:Arm",
            "installed_arm:Arm of the distribution hand is installed as the family 'hand' and is no",
        ),
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
