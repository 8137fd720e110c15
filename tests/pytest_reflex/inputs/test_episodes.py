"""What a robot recorded as fixtures: which frames, which keys, and one line where a recording is damaged.

``tests/golden/episodes`` was written by lerobot's own writer, its video included.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_cases import LFS_POINTER
from safetensors.numpy import save_file

import pytest_reflex as reflex
from pytest_reflex.errors import InputError
from pytest_reflex.inputs import Gaussian, Image, InputSpec, Integers, ScaledImage, State, Text
from pytest_reflex.inputs.episodes.choice import chosen, distinct, extremes
from pytest_reflex.inputs.fixtures import Fixtures

GOLDEN = Path(__file__).parents[2] / "golden" / "episodes"
TOP = "observation.images.top"
SPECS = [
    InputSpec("image", (1, 3, 32, 32), meaning=Image()),
    InputSpec("state", (1, 7), meaning=State()),
    InputSpec("noise", (1, 4, 7), meaning=Gaussian()),
]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(GOLDEN, tmp_path / "reach"))


def fixtures(source: Path, count: int = 12, seed: int = 0, **options: Any) -> Fixtures:
    return reflex.episodes(source, **options).fixtures(SPECS, count, seed)


def every(made: Fixtures) -> list[dict[str, np.ndarray]]:
    return [made.make(idx) for idx in range(made.count)]


def equal(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> bool:
    return ours.keys() == theirs.keys() and all(ours[n].tobytes() == theirs[n].tobytes() for n in ours)


def test_a_dataset_of_lerobots_is_read() -> None:
    made = fixtures(GOLDEN, 24)
    assert made.count == 24
    assert made.seed is None
    first = made.make(0)
    assert {name: (a.shape, a.dtype.name) for name, a in first.items()} == {
        "image": ((1, 3, 32, 32), "float32"),
        "state": ((1, 7), "float32"),
        "noise": ((1, 4, 7), "float32"),
    }
    # As it was recorded: 60 degrees times a sine, at the very first moment.
    assert np.array_equal(first["state"][0], (60 * np.sin(np.arange(7))).astype(np.float32))
    assert "24 of 24 frames" in made.notes[0]
    assert "noise drawn" in made.notes[0]


@pytest.mark.lerobot
def test_frames_are_those_that_lerobots_own_reader_gives() -> None:
    pytest.importorskip("lerobot", reason="needs lerobot (Python 3.12 or later)")
    from lerobot.datasets import LeRobotDataset

    theirs = LeRobotDataset("me/reach", root=GOLDEN, video_backend="pyav", return_uint8=True)
    recording = reflex.episodes(GOLDEN).recording
    places = [(e, i) for e, length in enumerate(recording.lengths) for i in range(length)]
    assert len(places) == len(theirs)
    # There and back, so that the decoder has to look for key frames too.
    for at in [*range(len(places)), *reversed(range(len(places)))]:
        ours, known = recording.frame(*places[at], [TOP, "observation.state", "task"]), theirs[at]
        assert np.array_equal(ours[TOP], known[TOP].numpy().transpose(1, 2, 0))
        assert np.array_equal(ours["observation.state"], known["observation.state"].numpy())
        assert ours["task"] == known["task"]


def test_the_same_seed_gives_the_same_bits_and_another_other_frames() -> None:
    one, again, other = fixtures(GOLDEN, 10), fixtures(GOLDEN, 10), fixtures(GOLDEN, 10, seed=1)
    assert all(map(equal, every(one), every(again)))
    assert [one.label(i) for i in range(10)] != [other.label(i) for i in range(10)]  # type: ignore[misc]
    # Whoever changes what it was given changes nothing for the next.
    one.make(3)["state"][:] = 0
    assert equal(one.make(3), again.make(3))


def test_ends_and_extremes_are_among_the_frames() -> None:
    recording = reflex.episodes(GOLDEN).recording
    found = extremes(recording, ["observation.state"])
    values = np.concatenate([c["observation.state"] for c in recording.columns(["observation.state"])])
    at = [recording.frame(e, i, ["observation.state"])["observation.state"] for e, i in found]
    assert {*values.min(axis=0), *values.max(axis=0)} == {
        *np.diagonal(at[:7]).tolist(),
        *np.diagonal(at[7:]).tolist(),
    }
    places = chosen([50] * 4, 60, 0, [(1, 17), (2, 3)])
    assert len(places) == len(set(places)) == 60
    assert places == sorted(places)
    assert {(e, i) for e in range(4) for i in (0, 49)} | {(1, 17), (2, 3)} <= set(places)


def test_frames_are_spread_over_the_episodes() -> None:
    places = chosen([100] * 10, 100, 3)
    per = [sum(e == episode for e, _ in places) for episode in range(10)]
    assert min(per) >= 8
    assert len(chosen([3, 0, 2], 99, 0)) == 5
    assert len(chosen([100] * 10, 1, 0)) == 1


def test_an_arm_at_rest_is_one_frame(tmp_path: Path) -> None:
    state = np.repeat(np.array([[1.0], [5.0]], np.float32), 10, axis=0)
    np.savez(tmp_path / "rest.npz", state=state)
    recording = reflex.episodes(tmp_path).recording
    assert distinct(recording, ["state"], [(0, i) for i in range(20)]) == 2


def test_pixels_reach_the_range_that_the_input_has() -> None:
    frame = reflex.episodes(GOLDEN).recording.frame(0, 0, [TOP])[TOP]
    assert isinstance(frame, np.ndarray)
    wanted = np.moveaxis(frame, -1, 0)[None].astype(np.float32) / np.float32(255)
    for meaning, expected in (
        (Image(), wanted * np.float32(2) - np.float32(1)),
        (ScaledImage(0.0, 1.0), wanted),
        (ScaledImage(-2.0, 3.0), np.float32(-2) + wanted * np.float32(5)),
        (Gaussian(), wanted),
    ):
        spec = [InputSpec("image", (1, 3, 32, 32), meaning=meaning)]
        assert np.array_equal(reflex.episodes(GOLDEN).fixtures(spec, 24, 0).make(0)["image"], expected)
    raw = [InputSpec("image", (1, 32, 32, 3), "uint8", meaning=Integers(0, 255))]
    assert np.array_equal(reflex.episodes(GOLDEN).fixtures(raw, 24, 0).make(0)["image"][0], frame)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_files_of_arrays_are_episodes(suffix: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for episode, frames in enumerate((4, 3)):
        arrays = {
            "observation.images.top": rng.integers(0, 256, (frames, 32, 32, 3), np.uint8),
            "observation.state": rng.standard_normal((frames, 7)).astype(np.float32),
        }
        if suffix == ".npz":
            np.savez(tmp_path / f"episode_{episode}", **arrays, task=np.asarray("reach"))
        else:
            save_file(arrays, tmp_path / f"episode_{episode}.safetensors")
    made = fixtures(tmp_path, 7)
    assert [made.label(i) for i in range(7)][3:5] == ["frame 3 of episode 0", "frame 0 of episode 1"]  # type: ignore[misc]
    assert np.array_equal(made.make(4)["state"][0], arrays["observation.state"][0])
    recording = reflex.episodes(tmp_path).recording
    assert recording.frame(1, 2, ["observation.images.top"])["observation.images.top"].tolist() == (
        arrays["observation.images.top"][2].tolist()
    )
    if suffix == ".npz":
        assert recording.frame(0, 1, ["task"]) == {"task": "reach"}


def test_recorded_noise_is_taken_and_a_key_may_have_another_name(tmp_path: Path) -> None:
    noise = np.arange(2 * 28, dtype=np.float32).reshape(2, 1, 4, 7)
    arrays = {"cam": np.zeros((2, 32, 32, 3), np.uint8), "joints": np.ones((2, 7)), "noise": noise}
    np.savez(tmp_path / "one.npz", **arrays)
    made = fixtures(tmp_path / "one.npz", keys={"image": "cam", "state": "joints"})
    assert np.array_equal(made.make(1)["noise"], noise[1])
    assert "drawn" not in made.notes[0]
    with pytest.raises(InputError, match=r"keys: the policy reads no 'stat'.*state"):
        fixtures(tmp_path / "one.npz", keys={"stat": "joints"})
    with pytest.raises(InputError, match=r"it has no 'joint'.*joints"):
        fixtures(tmp_path / "one.npz", keys={"state": "joint"})


def test_the_policys_own_preprocessing_makes_the_inputs() -> None:
    def through(seen: dict[str, Any]) -> dict[str, np.ndarray]:
        assert isinstance(seen["task"], str)
        return {"image": seen[TOP][None].transpose(0, 3, 1, 2) * np.float32(1), "state": seen["action"][None]}

    made = fixtures(GOLDEN, 3, through=through)
    assert set(made.make(0)) == {"image", "state", "noise"}
    with pytest.raises(InputError, match=r"episode 0, frame \d+: the preprocessing gives no 'image'"):
        fixtures(GOLDEN, 3, through=lambda seen: {"state": seen["action"]}).make(0)


def rewritten(dataset: Path, change: Callable[[dict[str, Any]], None]) -> None:
    info = json.loads((dataset / "meta/info.json").read_text())
    change(info)
    (dataset / "meta/info.json").write_text(json.dumps(info))


def damaged_state(dataset: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = dataset / "data/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    rows = table["observation.state"].to_pylist()
    rows[13][2] = float("nan")
    at = table.schema.get_field_index("observation.state")
    pq.write_table(
        table.set_column(at, table.schema.field(at), pa.array(rows, table.schema.field(at).type)), file
    )


def truncated_video(dataset: Path) -> None:
    file = dataset / "videos" / TOP / "chunk-000/file-000.mp4"
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 3 // 4])


def lost_video(dataset: Path) -> None:
    (dataset / "videos" / TOP / "chunk-000/file-000.mp4").unlink()


def lost_state(dataset: Path) -> None:
    rewritten(dataset, lambda info: info["features"].pop("observation.state"))


def lost_rows(dataset: Path) -> None:
    import pyarrow.parquet as pq

    file = dataset / "data/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(file).slice(0, 20), file)


def lost_task(dataset: Path) -> None:
    import pyarrow.parquet as pq

    file = dataset / "meta/tasks.parquet"
    pq.write_table(pq.read_table(file).slice(0, 0), file)


def column(dataset: Path, where: str, key: str, change: Callable[[list[Any]], list[Any]]) -> None:
    """Write a column of a table again."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = next(dataset.glob(where))
    table = pq.read_table(file)
    at = table.schema.get_field_index(key)
    rows = pa.array(change(table[key].to_pylist()), table.schema.field(at).type)
    pq.write_table(table.set_column(at, table.schema.field(at), rows), file)


def in_rows(key: str, change: Callable[[list[Any]], list[Any]]) -> Callable[[Path], None]:
    return lambda dataset: column(dataset, "data/*/*.parquet", key, change)


def in_episodes(key: str, change: Callable[[list[Any]], list[Any]]) -> Callable[[Path], None]:
    return lambda dataset: column(dataset, "meta/episodes/*/*.parquet", key, change)


def of_the_state(**said: Any) -> Callable[[Path], None]:
    return lambda dataset: rewritten(dataset, lambda info: info["features"]["observation.state"].update(said))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (damaged_state, r"episode 1, frame 5: observation\.state\[2\] is nan; every value must be finite"),
        (truncated_video, r"episode \d, frame \d: observation\.images\.top: file-000\.mp4 .+"),
        (
            lost_video,
            r"episode 0, frame 0: observation\.images\.top: file-000\.mp4 cannot be opened as a video",
        ),
        (lost_state, r"episode 0, frame 0: no key is the policy's input 'state'; it has .*action.*keys="),
        (lost_rows, r"episode 2, frame 4: file-000\.parquet has 20 rows and not the frame's"),
        # Another frame's state beside this one's picture.
        (
            in_rows("frame_index", lambda v: v[::-1]),
            r"episode 0, frame 0: its row says .* frame 7 of episode 0",
        ),
        (
            in_episodes("dataset_from_index", lambda v: [0] * 3),
            r"episode 1, frame 0: .* frame 0 of episode 0",
        ),
        (in_episodes("length", lambda v: [-1, *v[1:]]), r"says length -1 of episode 0, expected a whole"),
        (in_episodes("length", lambda v: [None, *v[1:]]), r"says length None of episode 0"),
        (in_rows("observation.state", lambda v: [*v[:9], None, *v[10:]]), r"episode 1, frame 1: .*are none"),
        (of_the_state(shape=[6]), r"episode 0, frame 0: .*state: .*says \[6\] numbers, and there are \[7\]"),
        (of_the_state(dtype="int64"), r"it holds float64, and meta/info\.json says int64, which changes it"),
        (lambda d: rewritten(d, lambda i: i.update(data_path="{nope}")), r"says data_path '\{nope\}'"),
        (lambda d: rewritten(d, lambda i: i.update(video_path=5)), r"says video_path 5, expected a place"),
    ],
)
def test_a_damaged_recording_is_one_line_that_names_episode_and_frame(
    damage: Callable[[Path], None], said: str, dataset: Path
) -> None:
    damage(dataset)
    with pytest.raises(InputError, match=said) as caught:
        every(fixtures(dataset, 24))
    assert "\n" not in str(caught.value)


def test_a_task_that_is_not_there_is_named(dataset: Path) -> None:
    lost_task(dataset)
    with pytest.raises(InputError, match=r"episode 1, frame 2: task: its task_index is 1, which"):
        reflex.episodes(dataset).recording.frame(1, 2, ["task"])


def test_a_task_without_a_word_stays_one(dataset: Path) -> None:
    column(dataset, "meta/tasks.parquet", "task", lambda v: ["", *v[1:]])
    assert reflex.episodes(dataset).recording.frame(0, 0, ["task"]) == {"task": ""}
    column(dataset, "meta/tasks.parquet", "task", lambda v: [None, *v[1:]])
    with pytest.raises(InputError, match=r"tasks\.parquet: the task of 0 is None, expected text"):
        reflex.episodes(dataset).recording.frame(0, 0, ["task"])


def test_what_git_lfs_left_is_named(dataset: Path) -> None:
    next(dataset.glob("data/*/*.parquet")).write_text(LFS_POINTER)
    with pytest.raises(InputError, match=r"it is a Git LFS pointer, .*git lfs pull"):
        fixtures(dataset)


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (
            np.full((3, 7), 1e300),
            r"1e\+300 at \[0, 0\], which float32, that the policy reads, does not reach",
        ),
        (np.ones((3, 7), complex), r"state is complex128, and the policy's 'state' is float32"),
    ],
)
def test_numbers_that_would_be_changed_are_refused(state: np.ndarray, said: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "e.npz", state=state, image=np.zeros((3, 32, 32, 3), np.uint8))
    with pytest.raises(InputError, match=said):
        every(fixtures(tmp_path))


def test_words_are_words_however_they_are_stored(tmp_path: Path) -> None:
    specs = [InputSpec("task", (16,), "uint8", Text(), ("bytes",))]
    np.savez(tmp_path / "e.npz", task=np.array([b"go", b"stay"]))
    assert bytes(reflex.episodes(tmp_path).fixtures(specs, 2, 0).make(1)["task"]) == b"stay"
    np.savez(tmp_path / "e.npz", task=np.zeros(2, np.int64))
    with pytest.raises(InputError, match="task is int64, and the policy's 'task' is text"):
        reflex.episodes(tmp_path).fixtures(specs, 2, 0).make(1)


def test_another_size_of_image_is_one_line_and_nothing_is_resized() -> None:
    specs = [InputSpec("image", (1, 3, 64, 64), meaning=Image())]
    with pytest.raises(
        InputError, match=r"episode 1, frame 0: .*top is \[32, 32, 3\], and .* \[1, 3, 64, 64\]"
    ):
        reflex.episodes(GOLDEN).fixtures(specs, 1, 0).make(0)


def test_other_versions_and_empty_places_are_refused(dataset: Path, tmp_path: Path) -> None:
    rewritten(dataset, lambda info: info.update(codebase_version="v2.1"))
    with pytest.raises(InputError, match=r"version v2\.1, expected v3"):
        reflex.episodes(dataset)
    (dataset / "meta/info.json").write_text("{")
    with pytest.raises(InputError, match=r"info\.json cannot be read"):
        reflex.episodes(dataset)
    (tmp_path / "empty").mkdir()
    for source, said in (
        (tmp_path / "empty", "holds no recording"),
        (tmp_path / "nothing", "no recording at"),
        (Path(__file__), "is no recording"),
    ):
        with pytest.raises(InputError, match=said):
            reflex.episodes(source)
    for told, said in (
        ({"frames": 0}, "frames is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"keys": ["a"]}, "a list"),
    ):
        with pytest.raises(InputError, match=said):
            reflex.episodes(GOLDEN, **told)


def test_damaged_files_of_arrays_are_one_line(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", state=np.zeros((4, 7), np.float32), image=np.zeros((3, 32, 32, 3), np.uint8))
    with pytest.raises(InputError, match=r"a\.npz has arrays of \{'state': 4, 'image': 3\} frames"):
        reflex.episodes(tmp_path)
    (tmp_path / "a.npz").write_bytes(b"no archive")
    with pytest.raises(InputError, match=r"a\.npz cannot be read as a recording"):
        reflex.episodes(tmp_path)
    (tmp_path / "a.npz").write_text(LFS_POINTER)
    with pytest.raises(InputError, match=r"a\.npz cannot be read as a recording: it is a Git LFS pointer"):
        reflex.episodes(tmp_path)
    np.savez(tmp_path / "a.npz", state=np.zeros((4, 7), np.float32))
    np.savez(tmp_path / "b.npz", joints=np.zeros((4, 7), np.float32))
    with pytest.raises(InputError, match=r"episode 1 \(b\.npz\) alone has 'joints'"):
        reflex.episodes(tmp_path)


def test_a_bundles_own_recording_is_no_episode(tmp_path: Path) -> None:
    save_file({"fixture0.inputs.x": np.zeros(3)}, tmp_path / "f.safetensors", {"format": "reflex-fixtures"})
    with pytest.raises(InputError, match="--model"):
        reflex.episodes(tmp_path)


def test_lerobots_home_is_looked_into_before_the_hub(
    dataset: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "home" / "me").mkdir(parents=True)
    shutil.move(dataset, tmp_path / "home" / "me" / "reach")
    monkeypatch.setenv("HF_LEROBOT_HOME", str(tmp_path / "home"))
    assert reflex.episodes("me/reach").total == 24


def test_two_cameras_are_numbered_in_the_recordings_order(tmp_path: Path) -> None:
    arrays = {
        f"observation.images.{n}": np.full((2, 4, 4, 3), v, np.uint8) for n, v in (("top", 255), ("a", 0))
    }
    np.savez(tmp_path / "e.npz", **arrays, **{"observation.state": np.zeros((2, 7))})
    specs = [InputSpec(f"image_{i}", (1, 3, 4, 4), meaning=ScaledImage(0.0, 1.0)) for i in range(2)]
    seen = reflex.episodes(tmp_path).fixtures(specs, 1, 0).make(0)
    assert [float(seen[f"image_{i}"].mean()) for i in range(2)] == [1.0, 0.0]
    with pytest.raises(InputError, match="no key is the policy's input 'image_0'"):
        reflex.episodes(tmp_path).fixtures([*specs, InputSpec("image_2", (1, 3, 4, 4))], 1, 0)


def of_arrays(place: Path, **arrays: np.ndarray) -> Path:
    place.mkdir()
    np.savez(place / "episode_0.npz", **arrays)
    return place


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (np.full((3, 7), np.nan, np.float32), r"state\[0\] is nan; every value must be finite"),
        (np.array([["now"] * 7] * 3), "state is text, and the policy's 'state' is float32"),
        (
            np.full((3, 7), 1e300),
            r"state is 1e\+300 at \[0, 0\], which float32, that the policy reads",
        ),
        (
            np.zeros((3, 4), np.float32),
            r"state is \[4\], and 'state' takes \[1, 7\]; nothing is",
        ),
    ],
)
def test_a_value_that_the_policy_cannot_read_is_named(state: np.ndarray, said: str, tmp_path: Path) -> None:
    place = of_arrays(tmp_path / "arrays", state=state, image=np.zeros((3, 32, 32, 3), np.uint8))
    with pytest.raises(InputError, match=said):
        every(reflex.episodes(place).fixtures(SPECS[:2], 2, 0))


def test_whole_numbers_take_no_fraction_and_text_no_numbers(tmp_path: Path) -> None:
    place = of_arrays(tmp_path / "arrays", task=np.full((3, 2), 0.5, np.float32), words=np.array(["up"] * 3))
    tasks = [InputSpec("task", (1, 2), "int64", Integers(0, 3))]
    with pytest.raises(InputError, match="task is float32, and the policy's 'task' takes int64"):
        every(reflex.episodes(place).fixtures(tasks, 2, 0))
    words = [InputSpec("words", (1, 2), "int64", Integers(0, 3))]
    with pytest.raises(InputError, match="words is text, and the policy's 'words' is int64; tokenise it"):
        every(reflex.episodes(place).fixtures(words, 2, 0))


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.array([None, None, None]), "holds objects; save it in C order"),
        (np.asfortranarray(np.zeros((3, 7), np.float32)), "holds columns first; save it in C order"),
    ],
)
def test_arrays_that_no_row_can_be_read_of_are_refused(array: np.ndarray, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        reflex.episodes(of_arrays(tmp_path / "arrays", state=array)).fixtures(SPECS[1:2], 2, 0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"features": []}, "features is no JSON object"),
        ({"units": "furlong"}, "its units are 'furlong', expected one of "),
        ({"units": ["deg"]}, r"its units are \['deg'\], expected one of "),
        ({"shape": "seven"}, "says of 'observation.state' what cannot be read"),
    ],
)
def test_what_a_dataset_says_of_itself_and_nobody_can_read(
    change: dict[str, Any], said: str, dataset: Path
) -> None:
    path = dataset / "meta" / "info.json"
    info = json.loads(path.read_text())
    if "features" in change:
        info |= change
    else:
        info["features"]["observation.state"] |= change
    path.write_text(json.dumps(info))
    with pytest.raises(InputError, match=said):
        fixtures(dataset)


def test_units_are_for_each_element_or_one_for_all(dataset: Path) -> None:
    path = dataset / "meta" / "info.json"
    for units, found in (("deg", ("deg",) * 7), (["deg"] * 6 + ["mm"], ("deg",) * 6 + ("mm",))):
        info = json.loads(path.read_text())
        info["features"]["observation.state"]["units"] = units
        path.write_text(json.dumps(info))
        assert reflex.episodes(dataset).recording.features["observation.state"].units == found


def test_what_the_hub_does_not_have_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    def gives(error: Exception) -> None:
        def fetch(*given: object, **more: object) -> str:
            raise error

        monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)

    monkeypatch.setenv("HF_LEROBOT_HOME", str(tmp_path))
    gives(ValueError("404: no dataset\nof that name"))
    with pytest.raises(InputError, match="no recording at me/none, and the hub gives no such dataset: 404"):
        fixtures(Path("me/none"))
    gives(ConnectionError())
    with pytest.raises(InputError, match="and the hub gives no such dataset: ConnectionError"):
        fixtures(Path("me/none"))
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(InputError, match="without huggingface-hub none is fetched; install it"):
        fixtures(Path("me/none"))
    monkeypatch.undo()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *given, **more: str(GOLDEN))
    monkeypatch.setenv("HF_LEROBOT_HOME", str(tmp_path))
    assert fixtures(Path("me/none"), 24).count == 24


def test_fixtures_as_a_sequence() -> None:
    from pytest_reflex.inputs.fixtures import Made

    made = Made(fixtures(GOLDEN, 5))
    assert len(made) == 5
    assert equal(made[-1], made[4])
    assert [one["state"].tobytes() for one in made[1:3]] == [made[i]["state"].tobytes() for i in (1, 2)]
    for at in (5, -6):
        with pytest.raises(IndexError):
            made[at]
