"""When a run was made, how long it took and of which source: asked of git, said everywhere, kept in JSON."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from report_cases import FAILING, PASSING

from pytest_reflex.errors import ReflexError
from pytest_reflex.report import html
from pytest_reflex.report import json as as_json
from pytest_reflex.report.markdown import markdown
from pytest_reflex.report.merge import merge
from pytest_reflex.report.session import Session, lasting, session

NAMED = ("GITHUB_SHA", "GITHUB_HEAD_REF", "GITHUB_REF_NAME", "CI_COMMIT_SHA", "CI_COMMIT_REF_NAME")
MONDAY = 1_796_029_331.0  # 2026-11-30 09:02:11 UTC
WHOLE = Session("2026-11-30T09:02:11Z", 200.4, "3f2a1bc0d4e5f60718293a4b5c6d7e8f90a1b2c3", True, "main")


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A place that no CI and no repository says anything of."""
    for name in (*NAMED, "SOURCE_DATE_EPOCH", "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    place = tmp_path / "place"
    place.mkdir()
    return place


@pytest.fixture
def repository(alone: Path) -> Path:
    git(alone, "init", "--quiet", "--initial-branch", "trunk")
    (alone / "policy.py").write_text("1\n")
    git(alone, "add", "policy.py")
    git(alone, "commit", "--quiet", "--message", "Begin")
    return alone


def git(place: Path, *words: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *who, *words], cwd=place, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_what_git_says_of_the_place(repository: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    clean = Session("2026-11-30T09:02:11Z", 12.346, commit, False, "trunk")
    assert session(repository, MONDAY, 12.3456) == clean
    # A file that git does not know is no change of the commit.
    (repository / "parity.json").write_text("{}")
    assert session(repository, MONDAY, 12.3456) == clean
    (repository / "policy.py").write_text("2\n")
    assert session(repository, MONDAY, 12.3456) == dataclasses.replace(clean, changed=True)
    git(repository, "checkout", "--quiet", "--detach")
    assert session(repository, MONDAY, 12.3456).branch is None


def test_a_ci_names_the_branch_of_a_commit_that_is_checked_out_alone(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(repository, "checkout", "--quiet", "--detach")
    monkeypatch.setenv("GITHUB_REF_NAME", "7/merge")
    assert session(repository, MONDAY, 1.0).branch == "7/merge"
    monkeypatch.setenv("GITHUB_HEAD_REF", "faster")
    assert session(repository, MONDAY, 1.0).branch == "faster"


def test_where_there_is_no_repository_or_no_git(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = Session("2026-11-30T09:02:11Z", 1.0)
    assert session(alone, MONDAY, 1.0) == nothing
    assert session(alone / "absent", MONDAY, 1.0) == nothing
    git(alone, "init", "--quiet", "--initial-branch", "trunk")
    assert session(alone, MONDAY, 1.0) == dataclasses.replace(nothing, changed=False, branch="trunk")
    monkeypatch.setenv("PATH", str(alone))
    assert session(alone, MONDAY, 1.0) == nothing
    monkeypatch.setenv("CI_COMMIT_SHA", "3f2a1bc0")
    assert session(alone, MONDAY, 1.0).commit == "3f2a1bc0"


def test_nothing_that_a_repository_names_is_run(repository: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    monitor = tmp_path / "monitor"
    monitor.write_text(f"#!/bin/sh\ntouch {ran}\n")
    monitor.chmod(0o755)
    git(repository, "config", "core.fsmonitor", str(monitor))
    assert session(repository, MONDAY, 1.0).branch == "trunk"
    assert not ran.exists()
    git(repository, "status")
    assert ran.exists(), "the test would not have seen it"


def test_source_date_epoch_takes_the_place_of_the_clock(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1796029331")
    assert session(alone, 5.0, 1.0) == Session("2026-11-30T09:02:11Z")
    for no_time in ("", "now", "-1", "9" * 30):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", no_time)
        assert session(alone, 5.0, 1.0) == Session("1970-01-01T00:00:05Z", 1.0)


def test_in_words() -> None:
    assert str(WHOLE) == (
        "2026-11-30 09:02 UTC, took 3 min 20 s, branch main, commit 3f2a1bc0d4e5 and changes to it"
    )
    assert str(Session()) == ""
    assert str(Session("yesterday", branch="main")) == "yesterday, branch main"
    assert [lasting(seconds) for seconds in (0.04, 59.94, 61, 3840)] == [
        "0.0 s", "59.9 s", "1 min 1 s", "1 h 4 min",
    ]  # fmt: skip


def test_every_face_says_it() -> None:
    made = as_json.document([PASSING, FAILING], sessions=[WHOLE])
    said = str(WHOLE)
    assert f"<bdi>{said}</bdi>" in html.page(made)
    assert f"- {said}" in markdown(made)
    nothing = as_json.document([], problems=["gw0 went down"], sessions=[WHOLE])
    assert said in html.page(nothing)
    evil = dataclasses.replace(WHOLE, branch="<script>alert(1)</script>")
    assert "<script>alert" not in html.page(as_json.document([PASSING], sessions=[evil]))


def test_json_there_and_back(tmp_path: Path) -> None:
    made = as_json.document([PASSING], sessions=[WHOLE, Session()])
    jsonschema.validate(made, as_json.schema())
    path = tmp_path / "parity.json"
    path.write_text(as_json.dumps(made), encoding="utf-8")
    assert as_json.read_run(path).sessions == (WHOLE, Session())
    assert as_json.read_run(path).to_json() == made


def test_a_document_of_version_4_has_none(tmp_path: Path) -> None:
    made = json.loads(as_json.dumps(as_json.document([PASSING])))
    del made["sessions"]
    for entry in made["results"]:  # nor had it claims
        del entry["claim"], entry["coverage"]
        entry["gates"] = [gate for gate in entry["gates"] if gate["gate"] not in ("coverage", "claim")]
    path = tmp_path / "parity.json"
    path.write_text(as_json.dumps({**made, "schema_version": 4}), encoding="utf-8")
    assert as_json.read(path) == as_json.document([PASSING])
    error = as_json.error_document(ReflexError("no such file"))
    path.write_text(as_json.dumps({**error, "schema_version": 4}), encoding="utf-8")
    assert as_json.read(path) == error


@pytest.mark.parametrize(
    "change",
    [
        {"started": 5},
        {"seconds": "12"},
        {"seconds": True},
        {"seconds": -1.0},
        {"seconds": float("nan")},
        {"changed": "no"},
        {"commit": ["3f2a"]},
        {"author": "a"},
    ],
    ids=str,
)
def test_a_session_that_is_none_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    made = as_json.document([PASSING])
    path = tmp_path / "parity.json"
    for sessions in ([{**WHOLE.to_json(), **change}], "now", [None]):
        path.write_text(json.dumps({**made, "sessions": sessions}), encoding="utf-8")
        with pytest.raises(ReflexError, match="is no parity document"):
            as_json.read(path)


def test_shards_keep_each_session_once_and_in_time() -> None:
    later = dataclasses.replace(WHOLE, started="2026-11-30T09:05:00Z", branch="faster")
    runs = [as_json.document([PASSING], sessions=[one]) for one in (later, WHOLE, later)]
    merged = merge(runs)
    assert merged.sessions == (WHOLE, later)
    text = html.page(merge(as_json.document([PASSING], sessions=[Session(f"run {i}")]) for i in range(7)))
    assert [f"run {i}" in text for i in range(7)] == [True] * 3 + [False] * 4
    assert "and 4 more" in text
