"""check: what passes, what each run gate refuses alone, and what neither side can do to the other."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from policy_cases import SPECS, Function, Policy, candidate, honest, only_refusal, policy_model, unmasked
from torch import nn

from pytest_reflex.errors import InputError, ParityError, ReflexError, RunnerError, SettingsError
from pytest_reflex.inputs import InputSpec, make_fixture
from pytest_reflex.judge.check import check
from pytest_reflex.result import ParityResult
from pytest_reflex.runners import OnnxRunner, RecordedRunner, TorchRunner, save_recording
from pytest_reflex.verdict.results import FIXTURE_GATE_NAMES, RUN_GATE_NAMES


def test_a_faithful_export_passes_with_every_gate_asked(tmp_path):
    path = tmp_path / "policy.onnx"
    path.write_bytes(policy_model())
    result = check(Policy().train(), path, inputs=SPECS, strict=True)
    assert result.passed
    assert result.require() is result
    assert [a.gate for a in result.answers] == list(RUN_GATE_NAMES)
    assert [[a.gate for a in f.answers] for f in result.fixtures] == [list(FIXTURE_GATE_NAMES)] * 5
    assert [f.fixture_idx for f in result.fixtures] == list(range(5))
    assert (result.name, result.threshold, result.seed, result.notes) == (str(path), 1e-5, 0, ())
    assert result.candidate["live_inputs"] == ["x", "mask"]


def test_a_result_holds_builtins_only():
    result = check(Policy(), candidate(), inputs=SPECS)
    assert json.loads(json.dumps(result.to_json(), allow_nan=False))
    for facts in (result.reference, result.candidate):
        assert json.loads(json.dumps(facts)) == facts
        assert {"numpy", "python", "platform"} < set(facts["versions"])
    assert result.reference["versions"]["torch"] == torch.__version__


def test_a_wrong_export_fails_on_every_fixture_and_raises_when_required():
    result = check(Policy(), candidate(offset=0.501), inputs=SPECS)
    assert not result.passed
    assert {f.refusal.gate for f in result.fixtures} == {"threshold"}
    assert check(Policy(), candidate(offset=0.501), inputs=SPECS, threshold=0.01).passed
    with pytest.raises(ParityError) as failed:
        result.require()
    assert failed.value.result is result


def test_strict_lowers_a_threshold_and_never_raises_one():
    assert check(Policy(), candidate(), inputs=SPECS, threshold=1e-3, strict=True).threshold == 1e-5
    assert check(Policy(), candidate(), inputs=SPECS, threshold=1e-7, strict=True).threshold == 1e-7
    assert not check(Policy(), candidate(offset=0.50005), inputs=SPECS, strict=True).passed
    assert check(Policy(), candidate(offset=0.50005), inputs=SPECS).passed


def test_repeat_refuses_alone():
    runs = []

    def drifting(x, mask):
        runs.append(x)
        return {"actions": honest(x, mask)["actions"] + np.float32(1e-6 * (len(runs) > 5))}

    said = only_refusal(check(Policy(), Function(drifting), inputs=SPECS), "repeat")
    assert said.startswith("fixture 0 run again gave other bits: actions[0, 0] was 0")


def test_the_sign_of_a_zero_is_repeated_too():
    runs = []

    def flipping(x, mask):
        runs.append(x)
        return {"actions": np.zeros((1, 8), np.float32) * np.float32(-1 if len(runs) > 1 else 1)}

    zero = Function(lambda x, mask: {"actions": np.zeros((1, 8), np.float32)}, "reference")
    assert "(8 of 8 elements differ)" in only_refusal(check(zero, Function(flipping), inputs=SPECS), "repeat")


def test_compared_refuses_alone():
    noisy = TorchRunner(
        nn.Identity(), lambda x, mask: (torch.rand(1), Policy()(x, mask)["actions"])[1:], outputs=["actions"]
    )
    result = check(noisy, candidate(), inputs=SPECS)
    assert result.passed
    assert "pass noise as an input" in result.notes[0]
    assert "pass noise as an input" in only_refusal(
        check(noisy, candidate(), inputs=SPECS, strict=True), "compared"
    )


@pytest.mark.parametrize(
    ("gives", "what"),
    [
        (lambda x: {"y": [x, x]}, "output 'y' is a list"),
        (lambda x: {"y": None}, "output 'y' is None"),
        (lambda x: {"y": np.array(["up", "down"], object)}, "output 'y' holds text or objects"),
        (lambda x: [x], "gave a list"),
    ],
)
def test_what_is_no_array_of_numbers_is_an_error_in_one_line(gives, what):
    right = Function(lambda x: {"y": x}, "right")
    for sides in [(Function(gives, "wrong"), right), (right, Function(gives, "wrong"))]:
        with pytest.raises(RunnerError, match=f"^wrong:? {what}; a "):
            check(*sides, inputs=SPECS[:1])


def test_an_infinity_that_both_sides_mean_is_equal_where_that_is_said():
    def sides(value):
        gives = [
            np.array([[value, 1.5, -np.inf]], np.float32),
            np.array([[np.inf, 1.5, -np.inf]], np.float32),
        ]
        return [
            Function(lambda x, y=y: {"y": y + 0 * x[:, :1]}, name)
            for y, name in zip(gives, "rc", strict=True)
        ]

    refused = check(*sides(np.inf), inputs=SPECS[:1])
    assert refused.fixtures[0].refusal.said.endswith(
        "; where an infinity on both sides is meant, say infinities=True"
    )
    result = check(*sides(np.inf), inputs=SPECS[:1], infinities=True)
    assert result.passed
    assert result.max_abs_diff_across_all == 0
    for value in (np.nan, -np.inf, 0.0):
        wrong = check(*sides(value), inputs=SPECS[:1], infinities=True)
        assert wrong.fixtures[0].refusal.gate == "finite"
    assert json.dumps(result.to_json(), allow_nan=False)


def test_an_input_without_elements_holds_nothing_that_could_be_dead():
    specs = [SPECS[0], InputSpec("past", (1, 0, 4))]
    sides = [Function(lambda x, past: {"y": x * 2}, name) for name in ("reference", "candidate")]
    assert check(*sides, inputs=specs, strict=True).passed
    given = [make_fixture(specs, 0, idx) for idx in range(3)]
    result = check(*sides, inputs=given, strict=True)
    assert (result.passed, result.notes) == (True, ())


def test_nothing_compared_is_a_failure():
    empty = (Function(lambda x: {"actions": x[:0]}, "reference"), Function(lambda x: {"actions": x[:0]}))
    result = check(*empty, inputs=SPECS[:1])
    assert not result.passed
    assert (None, "compared", "no element was compared in 5 fixtures") in [
        (i, *vars(a).values()) for i, a in result.refusals
    ]


def test_a_fallback_fails_every_fixture():
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    model = OnnxRunner(policy_model(), provider="cuda")
    result = check(Policy(), model, inputs=SPECS, provider="cuda")
    assert {f.refusal.gate for f in result.fixtures} == {"provider"}
    # A candidate that knows of no provider cannot have run on the one that was asked for.
    assert not check(Policy(), Function(honest), inputs=SPECS, provider="cuda").passed
    with pytest.raises(SettingsError, match=r"CPUExecutionProvider is asked for and .* was made for CUDA"):
        check(Policy(), model, inputs=SPECS)


def test_neither_side_can_spoil_the_others_arrays():
    kept = np.zeros((1, 8), np.float32)

    def vandal(x, mask):
        np.copyto(kept, honest(x, mask)["actions"])
        x += 1
        mask ^= True
        return {"actions": kept}  # one buffer for all fixtures

    given = [make_fixture(SPECS, 0, idx) for idx in range(3)]
    before = [{n: a.copy() for n, a in arrays.items()} for arrays in given]
    for inputs in (SPECS, given):
        assert check(Function(vandal, "reference"), candidate(), inputs=inputs).passed
        assert check(Policy(), Function(vandal), inputs=inputs).passed
    assert all((a[n] == b[n]).all() for a, b in zip(given, before, strict=True) for n in a)


def test_the_two_are_never_open_together_and_always_closed():
    reference, tested = Function(honest, "reference"), Function(unmasked)

    def watched(runner, other):
        inner = runner.function

        def function(**inputs):
            assert (runner.opened, other.opened) == (1, 0)
            return inner(**inputs)

        runner.function = function

    watched(reference, tested)
    watched(tested, reference)
    assert not check(reference, tested, inputs=SPECS).passed
    tested.function = lambda **inputs: 1 / 0
    with pytest.raises(ZeroDivisionError):
        check(reference, tested, inputs=SPECS)
    assert (reference.opened, tested.opened) == (0, 0)


def test_progress_counts_every_run_of_either_side():
    told = []
    check(Policy(), candidate(), inputs=SPECS, fixtures=2, progress=lambda *args: told.append(args))
    assert told == [("reference", i, 3) for i in (1, 2, 3)] + [("candidate", i, 7) for i in range(1, 8)]


class Bundle:
    """What an exporter hands over."""

    inputs = SPECS

    def runner(self, provider):
        return OnnxRunner(policy_model(), provider=provider, name="bundle")

    def reference_runner(self, model):
        return TorchRunner(model["policy"])


def test_a_bundle_brings_its_inputs_its_runner_and_the_way_to_call_its_model():
    result = check({"policy": Policy()}, Bundle(), fixtures=2, seed=7)
    assert result.passed
    assert (result.name, result.seed, len(result.fixtures)) == ("bundle", 7, 2)


def test_fixtures_that_are_alike_count_as_one_and_that_is_said():
    one, other = (make_fixture(SPECS, 0, idx) for idx in (0, 3))
    result = check(Policy(), candidate(), inputs=[one, one, other])
    assert result.passed
    assert result.notes[0].startswith("3 fixtures were given and 2 differ by more than rounding; ")
    assert not any("differ" in note for note in check(Policy(), candidate(), inputs=[one, other]).notes)
    with pytest.raises(SettingsError, match="fixtures"):
        check(Policy(), candidate(), inputs=[one] * 5, strict=True)


def test_a_threshold_in_floors_is_one_for_outputs_of_floats_alone():
    class Counted(nn.Module):
        def forward(self, x):
            return {"y": torch.sin(3 * x), "positive": (x > 0).sum(1), "any": (x > 0).any(1)}

    class Bare(nn.Module):
        def forward(self, x):
            return {"positive": (x > 0).sum(1)}

    result = check(TorchRunner(Counted()), TorchRunner(Counted()), inputs=SPECS[:1], threshold="4x floor")
    assert result.passed
    bounds = [[o.bound for o in fixture.outputs] for fixture in result.fixtures]
    assert [more for _, *more in bounds] == [[None, None]] * 5
    assert result.threshold == max(bound for bound, *_ in bounds) > 0
    bare = check(TorchRunner(Bare()), TorchRunner(Bare()), inputs=SPECS[:1], threshold="4x floor")
    assert (bare.passed, bare.threshold) == (True, 1e-5)


class Doubting(Function):
    """A reference that knows its candidate's inputs better."""

    def doubts(self, specs):
        self.asked = list(specs)
        return [f"{spec.name} is drawn otherwise here" for spec in specs[:1]]


def test_a_reference_may_doubt_what_the_candidate_alone_says_of_its_inputs():
    reference = Doubting(honest, "reference")
    result = check(reference, Bundle())
    assert result.passed
    assert reference.asked == SPECS
    assert result.notes == ("x is drawn otherwise here",)
    strict = check(reference, Bundle(), strict=True)
    assert only_refusal(strict, "reference") == "x is drawn otherwise here"
    assert strict.notes == (), "what was refused is no note"
    assert [doubt.said for doubt in strict.doubts] == [*result.notes]
    # What the caller says is meant, and recorded inputs were not drawn.
    for inputs in (SPECS, [make_fixture(SPECS, 0, idx) for idx in range(3)]):
        assert check(reference, Bundle(), inputs=inputs, strict=True).passed
        assert reference.asked == []


def recorded(path, live=("x", "mask"), specs=SPECS):
    fixtures = [make_fixture(specs, 0, idx) for idx in range(4)]
    with TorchRunner(Policy()) as runner:
        save_recording(path, [(inputs, runner.run(inputs)) for inputs in fixtures], live)
    return RecordedRunner(path)


def test_a_recorded_reference_brings_its_fixtures_and_knows_what_is_live(tmp_path):
    reference = recorded(tmp_path / "fixtures.safetensors")
    result = check(reference, candidate(), strict=True)
    assert result.passed
    assert (result.seed, len(result.fixtures)) == (None, 4)
    assert check(reference, Bundle()).passed
    assert check(reference, candidate(), inputs=SPECS, fixtures=3).seed == 0
    dead = check(reference, candidate(masked=False))
    assert "'mask' is dead" in {a.gate: a.said for a in dead.answers}["inputs"]
    unknown = check(recorded(tmp_path / "other.safetensors", live=["x"]), candidate(masked=False))
    assert unknown.notes == ("input 'mask' changes neither side where it was swapped, in fixtures 0 and 2",)


def test_a_recording_is_judged_where_torch_cannot_be_imported(tmp_path):
    recorded(tmp_path / "fixtures.safetensors")
    (tmp_path / "good.onnx").write_bytes(policy_model())
    (tmp_path / "bad.onnx").write_bytes(policy_model(offset=0.6))
    code = """
        import sys
        sys.modules["torch"] = None
        from pytest_reflex import OnnxRunner, RecordedRunner, check
        reference = RecordedRunner("fixtures.safetensors")
        passed = [check(reference, OnnxRunner(name)).passed for name in ("good.onnx", "bad.onnx")]
        sys.exit(0 if passed == [True, False] and sys.modules["torch"] is None else 1)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"threshold": 0}, SettingsError, "threshold: 0"),
        ({"threshold": float("nan")}, SettingsError, "threshold: nan"),
        ({"fixtures": 0}, SettingsError, "fixtures: 0"),
        ({"seed": -1}, SettingsError, "seed: -1"),
        ({"provider": "gpu"}, SettingsError, "provider: 'gpu'"),
        ({"inputs": None}, InputError, "inputs is None"),
        ({"inputs": []}, InputError, "inputs is empty"),
        ({"inputs": {"x": np.zeros(1)}}, InputError, "inputs is a dict"),
        ({"inputs": [*SPECS, {}]}, InputError, r"inputs\[0\] is an InputSpec"),
        ({"inputs": [{}]}, InputError, r"inputs\[0\] has \[\]"),
        ({"inputs": [{"x": np.zeros(1)}, {"y": np.zeros(1)}]}, InputError, r"inputs\[1\] has \['y'\]"),
        ({"inputs": [{"x": None}]}, InputError, r"inputs\[0\]\['x'\] is object"),
        ({"reference": lambda x: x}, ReflexError, "reference is the function <lambda>"),
        ({"candidate": 3}, ReflexError, "candidate is an int"),
        ({"candidate": "missing.onnx"}, RunnerError, "candidate missing.onnx does not exist"),
        ({"candidate": "."}, ReflexError, r"is a directory; open it with exporters.open_bundle\('.'\)"),
        ({"candidate": Function(honest, stamp=np.float32(1))}, RunnerError, "holds more than builtins"),
        ({"candidate": Function(honest, loss=float("nan"))}, RunnerError, "holds more than builtins"),
    ],
)
def test_what_cannot_be_judged_is_an_error_in_one_line(kwargs, error, message):
    given = {"reference": Policy(), "candidate": candidate(), "inputs": SPECS, **kwargs}
    with pytest.raises(error, match=message) as refused:
        check(given.pop("reference"), given.pop("candidate"), **given)
    assert "\n" not in str(refused.value)


def test_a_runner_is_not_judged_against_itself():
    runner = candidate()
    with pytest.raises(ReflexError, match="both reference and candidate"):
        check(runner, runner, inputs=SPECS)


def test_a_candidate_that_says_yes_of_its_changes_is_changed():
    class Foreign(Bundle):
        changed = "yes"

    result = check({"policy": Policy()}, Foreign(), inputs=SPECS)
    assert only_refusal(result, "intact") == "yes"
    document = result.to_json()
    assert document["gates"][0] == {"gate": "intact", "passed": False, "reason": "yes"}
    assert ParityResult.from_json(document) == result
    assert "parity FAIL: intact: yes" in str(result)


X = [InputSpec("x", (1, 3))]


def twice(x):
    return {"y": x * 2}


class Falsy(str):
    def __bool__(self):
        return False


def breaks(self):
    return self._missing


def says_by_getattr(self, name):
    if name == "changed":
        return "weights swapped"
    raise AttributeError(name)


@pytest.mark.parametrize(
    "changed",
    [
        True,
        1,
        0,
        b"x",
        ["model.onnx"],
        [],
        ("w",),
        {},
        float("nan"),
        np.zeros(1),
        lambda self: "w",
        Falsy("w"),
    ],
)
@pytest.mark.parametrize("side", [Bundle, Function])
def test_changes_that_are_no_text_are_no_yes(side, changed):
    foreign = type("Foreign", (side,), {"changed": changed})
    if side is Bundle:
        result = check({"policy": Policy()}, foreign(), inputs=SPECS)
    else:
        result = check(Function(twice), foreign(twice), inputs=X)
    assert [answer.gate for answer in result.answers if not answer.passed] == ["intact"]


def test_what_a_getattr_says_of_changes_is_heard_and_what_cannot_be_read_is_an_error():
    assert check(Function(twice), Function(twice, "other"), inputs=X).passed
    wrapped = type("Wrapped", (Function,), {"__getattr__": says_by_getattr})(twice)
    assert only_refusal(check(Function(twice), wrapped, inputs=X), "intact") == "weights swapped"
    broken = type("Broken", (Function,), {"changed": property(breaks)})(twice)
    with pytest.raises(RunnerError, match="changed of the Broken cannot be read"):
        check(Function(twice), broken, inputs=X)
    placed = type("Placed", (Function,), {"provider_asked": property(breaks)})(twice)
    with pytest.raises(RunnerError, match="provider_asked of the Placed cannot be read"):
        check(Function(twice), placed, inputs=X)


def test_what_is_recorded_is_what_the_reference_was_given_and_gave(tmp_path):
    recording = []

    def record(given, gave):
        recording.append(({n: a.copy() for n, a in given.items()}, {n: a.copy() for n, a in gave.items()}))
        for array in (*given.values(), *gave.values()):
            array[...] = 0  # copies: nothing that is done to them changes the verdict

    result = check(Policy(), candidate(), inputs=SPECS, fixtures=3, record=record)
    assert result == check(Policy(), candidate(), inputs=SPECS, fixtures=3)
    assert len(recording) == 3
    for idx, (given, gave) in enumerate(recording):
        made = make_fixture(SPECS, 0, idx)
        assert list(given) == list(made)
        assert all(np.array_equal(given[name], made[name]) for name in made)
        assert np.array_equal(gave["actions"], honest(**made)["actions"])
    save_recording(tmp_path / "fixtures.safetensors", recording, ["x", "mask"])
    assert check(RecordedRunner(tmp_path / "fixtures.safetensors"), candidate(), strict=True).passed


def test_a_runner_that_names_its_provider_has_to_say_what_it_ran_on():
    class Silent(Function):
        provider_asked = "CPUExecutionProvider"

    class Telling(Silent):
        def open(self):
            self.providers_used = ("CPUExecutionProvider",)

    silent = check(Policy(), Silent(honest), inputs=SPECS)
    assert {f.refusal.gate for f in silent.fixtures} == {"provider"}
    assert check(Policy(), Telling(honest), inputs=SPECS).passed
    with pytest.raises(SettingsError, match="CUDAExecutionProvider is asked for"):
        check(Policy(), Silent(honest), inputs=SPECS, provider="cuda")
