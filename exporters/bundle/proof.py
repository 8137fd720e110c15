"""The verdicts that a certificate may be made of: strict passes, of whatever a bundle runs.

Of a bundle without processors that is one, on its policy; of one with them there is one on each stage, for a
verdict on the policy has opened no other graph. What was judged is what the runners say that they opened;
what a manifest says of files that nobody opened proves nothing of them.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import Any, Final

from exporters.bundle.envelope import require_file
from exporters.bundle.processors import POSTPROCESS, PREPROCESS, TOKENIZER
from exporters.bundle.store import EPISODES, FIXTURES, RAW, StoredBundle
from pytest_reflex.errors import CertificateError
from pytest_reflex.report.json.documents import read_run
from pytest_reflex.report.json.results import result_from_json
from pytest_reflex.report.rejudge import rejudge
from pytest_reflex.result import POLICY, STAGES, WHOLE
from pytest_reflex.runners.external_data import external_files
from pytest_reflex.verdict import machine
from pytest_reflex.verdict.results import RunResult

__all__ = ["graphs_unsaid", "judge_all", "proven", "provider_of"]

# Far beyond the document of any run, whose fixtures beyond some thousands are not kept one by one.
_MOST_BYTES: Final = 256 << 20
# They were written after a verdict, or hold what it was given: no figure of them is the candidate's.
_RECORDINGS: Final = frozenset({FIXTURES, EPISODES, RAW})


def proven(bundle: StoredBundle, file: str | os.PathLike[str] | None) -> dict[str, RunResult]:
    """The verdicts on every stage of a bundle, each a strict pass by its own figures.

    Args:
        bundle: it, with every digest checked.
        file: the JSON of a later run; None for the verdicts that the bundle was exported under.

    Returns:
        By stage, in order: :data:`~pytest_reflex.result.POLICY` alone of a bundle without processors.

    Raises:
        CertificateError: they are no strict passes against a policy, not of all that the bundle runs, or of
            other files or settings than it has.
        SettingsError: ``file`` is no regular file, or too large.
        ReflexError: it cannot be read, or contradicts itself.
    """
    given = _own(bundle) if file is None else _of_file(bundle, file)
    stages = STAGES if bundle.has_processors else (POLICY,)
    if unjudged := [stage for stage in stages if stage not in given]:
        raise CertificateError(_unjudged(bundle, unjudged))
    found = {stage: _strict(bundle, stage, given[stage]) for stage in stages}
    needed = {stage: _needed(bundle, stage) for stage in stages}
    for stage, result in found.items():
        opened = _opened(bundle, result)
        for name in sorted(needed[stage]):
            if opened.get(machine.as_text(name)) != bundle.stated.files[name]["sha256"]:
                raise CertificateError(
                    f"{bundle.path / name} is not the file that was judged; judge the bundle again"
                )
    if strays := sorted(bundle.stated.files.keys() - _RECORDINGS - set().union(*needed.values())):
        raise CertificateError(
            f"{bundle.path / strays[0]} was opened by no verdict, and nothing of the bundle reads it; export "
            "the bundle again"
        )
    _require_alike(bundle, found)
    return found


def _own(bundle: StoredBundle) -> dict[str, RunResult]:
    stated = bundle.stated
    checks = {} if stated.processors is None else stated.processors.checks
    if not checks and stated.check is None:
        raise CertificateError(f"{bundle.called} was never proven; export it with its check, with strict")
    # Of a bundle with processors the check is the policy's, from before they were put in.
    said = checks or {POLICY: stated.check}
    found = {stage: result_from_json(said[stage]) for stage in STAGES if stage in said}
    if wrong := [stage for stage, result in found.items() if _stage(result) != stage]:
        raise CertificateError(f"what {bundle.called} calls its check of {wrong[0]} is of something else")
    return found


def _of_file(bundle: StoredBundle, file: str | os.PathLike[str]) -> dict[str, RunResult]:
    require_file(file, _MOST_BYTES, "result")
    run = read_run(file)
    every = [entry.result for entry in run.results]
    found = {_stage(result): result for result in every}
    advice = "give the JSON of one run that passed, of this bundle"
    if not run.passed:
        raise CertificateError(f"{file} holds no pass; {advice}")
    if len(found) < len(every) or (len(found) > 1 and not bundle.has_processors):
        of = " of one stage" if bundle.has_processors else ""
        raise CertificateError(f"{file} holds {len(every)} results{of}; {advice}")
    return found


def _stage(result: RunResult) -> str:
    """Of which stage a result is: by the graphs that were opened, for a name is anybody's to give."""
    around = {PREPROCESS, POSTPROCESS} & _digests(result).keys()
    return WHOLE if len(around) == 2 else around.pop() if around else POLICY


def _digests(result: RunResult) -> Mapping[str, Any]:
    said = result.candidate.get("sha256")
    return said if isinstance(said, Mapping) else {}


def _opened(bundle: StoredBundle, result: RunResult) -> dict[str, Any]:
    """The digests of what a result's candidate opened, by the names of files."""
    said = dict(_digests(result))
    around = bundle.stated.processors
    for role, file in ({} if around is None else around.graphs).items():
        # Earlier verdicts name every file of the manifest; what a session opened stands under its role.
        said.pop(file, None)
        found = said.pop(role, None)
        said |= found if isinstance(found, Mapping) else {file: found}
    return said


def _needed(bundle: StoredBundle, stage: str) -> set[str]:
    """The files that a stage computes with."""
    stated, around = bundle.stated, bundle.stated.processors
    graphs: dict[str, Collection[str]] = {POLICY: stated.graphs.values()}
    if around is not None:
        graphs |= {role: (file,) for role, file in around.graphs.items()}
    found: set[str] = set()
    for name in [name for part, names in graphs.items() if stage in (part, WHOLE) for name in names]:
        try:
            found |= {name, *external_files(bundle.path / name)}
        except (OSError, ValueError) as error:
            raise CertificateError(f"{bundle.path / name} cannot be read ({error})") from error
    spoken = around is not None and around.prompt is not None and stage in (PREPROCESS, WHOLE)
    return found | ({TOKENIZER} if spoken else set())


def _strict(bundle: StoredBundle, stage: str, result: RunResult) -> RunResult:
    """A verdict as it is certified; one that says less than a certificate would is refused."""
    called = f"{bundle.called}: {stage}" if bundle.has_processors else bundle.called
    if not result.passed:
        raise CertificateError(f"{called} did not pass; there is nothing to certify")
    if not result.strict:
        raise CertificateError(
            f"{called} was not judged strictly; judge it with --strict --output-json, and give "
            "that as --result"
        )
    # Judged again from its own figures: who wrote the manifest may have written the word alone.
    result = rejudge(result, strict=True)
    if not result.passed:
        raise CertificateError(f"{called} says that it was judged strictly, and does not pass so")
    if result.against != "policy":
        raise CertificateError(
            f"{called} was held against another graph, and no policy; judge it with --model"
        )
    if result.candidate.get("kind") != "bundle":
        raise CertificateError(
            f"what was judged is a {result.candidate.get('kind')}, expected the bundle itself"
        )
    if not provider_of(result):
        raise CertificateError(f"{called} was judged without saying on which provider; judge it again")
    return result


def _require_alike(bundle: StoredBundle, found: Mapping[str, RunResult]) -> None:
    """Refuse verdicts that are not of one run, or of one as a robot's."""
    for what, said in (
        ("provider", [provider_of(result) for result in found.values()]),
        ("machine", [machine.stated(result.candidate.get("machine")) for result in found.values()]),
    ):
        if any(one != said[0] for one in said):
            raise CertificateError(
                f"the stages of {bundle.called} were judged on more than one {what}; judge all in one run"
            )
    stated = bundle.stated
    ways = {"steps": stated.steps, "optimization": stated.optimization, "config": dict(stated.config)}
    for stage in (POLICY, WHOLE):
        candidate = found[stage].candidate if stage in found else {}
        for name, wanted in {"runtime": None, **ways}.items():
            if name in candidate and candidate[name] != wanted:
                raise CertificateError(
                    f"{bundle.called} was judged with {name} {candidate[name]!r}, and runs with {wanted!r}; "
                    "judge it as it runs"
                )


def provider_of(result: RunResult) -> str:
    """The full name of the provider that a candidate ran on; empty where nobody said it."""
    used = result.candidate.get("providers_used")
    return str(used[0]) if isinstance(used, list | tuple) and used else ""


def _unjudged(bundle: StoredBundle, stages: Collection[str]) -> str:
    return f"nobody judged {_graphs(bundle, stages)} of {bundle.path}; {judge_all(bundle)}"


def graphs_unsaid(bundle: StoredBundle) -> str:
    """The graphs that a verdict on the policy alone says nothing of."""
    return _graphs(bundle, (PREPROCESS, POSTPROCESS))


def _graphs(bundle: StoredBundle, stages: Collection[str]) -> str:
    around = bundle.stated.processors
    of = {} if around is None else {role: [file] for role, file in around.graphs.items()}
    of[POLICY] = list(bundle.stated.graphs.values())
    names = [name for stage in STAGES if stage in stages for name in of.get(stage, [])]
    return " and ".join(names) or "the whole"


def judge_all(bundle: StoredBundle) -> str:
    """What to do about stages that nobody judged."""
    return (
        f"run `reflex validate export {bundle.path} --model CHECKPOINT --strict --output-json`, without "
        "--no-processors, and give that as --result"
    )
