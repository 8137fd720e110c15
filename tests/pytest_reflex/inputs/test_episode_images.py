"""Recordings that hold each camera frame as an image, in the row or beside it, and what may be wrong."""

from __future__ import annotations

import json
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pytest_reflex as reflex
from pytest_reflex.errors import InputError
from pytest_reflex.inputs import Image, InputSpec, State

GOLDEN = Path(__file__).parents[2] / "golden" / "episodes"
TOP = "observation.images.top"
SPECS = [InputSpec("image", (1, 3, 32, 32), meaning=Image()), InputSpec("state", (1, 7), meaning=State())]
Change = Callable[[Path], None]


def png(pixels: np.ndarray) -> bytes:
    """Pixels uint8 [height, width, 3] as a file."""
    height, width, _ = pixels.shape

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    lines = b"".join(b"\0" + line.tobytes() for line in pixels)
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def frames() -> list[np.ndarray]:
    recording = reflex.episodes(GOLDEN).recording
    return [
        recording.frame(e, i, [TOP])[TOP] for e, length in enumerate(recording.lengths) for i in range(length)
    ]


def info(dataset: Path, change: Callable[[dict[str, Any]], None]) -> None:
    file = dataset / "meta/info.json"
    said = json.loads(file.read_text(encoding="utf-8"))
    change(said)
    file.write_text(json.dumps(said), encoding="utf-8")


def stored(dataset: Path, rows: list[Any]) -> None:
    """Put images into the rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = dataset / "data/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    if TOP in table.column_names:
        table = table.drop_columns([TOP])
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(table.append_column(TOP, pa.array(rows, kind)), file)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """The golden recording with its frames as images, without a video."""
    made = Path(shutil.copytree(GOLDEN, tmp_path / "reach"))
    shutil.rmtree(made / "videos")
    info(made, lambda said: said["features"][TOP].update(dtype="image"))
    stored(made, [{"bytes": png(one), "path": None} for one in frames()])
    return made


def same(made: Path) -> bool:
    ours, golden = (reflex.episodes(place).fixtures(SPECS, 24, 0) for place in (made, GOLDEN))
    return all(
        ours.make(idx)[name].tobytes() == array.tobytes()
        for idx in range(24)
        for name, array in golden.make(idx).items()
    )


def test_images_in_the_rows_are_the_frames_of_the_video(dataset: Path) -> None:
    assert same(dataset)


def test_images_beside_the_rows_too(dataset: Path) -> None:
    (dataset / "images").mkdir()
    rows = []
    for at, one in enumerate(frames()):
        (dataset / "images" / f"{at}.png").write_bytes(png(one))
        rows.append({"bytes": None, "path": f"images/{at}.png"})
    stored(dataset, rows)
    assert same(dataset)


@pytest.mark.lerobot
def test_they_are_what_lerobots_own_writer_and_reader_take_them_for(tmp_path: Path) -> None:
    pytest.importorskip("lerobot", reason="needs lerobot (Python 3.12 or later)")
    from lerobot.datasets import LeRobotDataset

    features = {
        TOP: {"dtype": "image", "shape": (32, 32, 3), "names": ["height", "width", "channels"]},
        "observation.state": {"dtype": "float32", "shape": (7,), "names": None},
        "action": {"dtype": "float32", "shape": (7,), "names": None},
    }
    theirs = LeRobotDataset.create("me/images", 30, features, root=tmp_path / "made", use_videos=False)
    rng = np.random.default_rng(0)
    for _ in range(2):
        for _ in range(3):
            theirs.add_frame(
                {
                    TOP: rng.integers(0, 256, (32, 32, 3), np.uint8),
                    "observation.state": rng.standard_normal(7).astype(np.float32),
                    "action": np.zeros(7, np.float32),
                    "task": "reach",
                }
            )
        theirs.save_episode()
    theirs.finalize()
    read = LeRobotDataset("me/images", root=tmp_path / "made", return_uint8=True)
    recording = reflex.episodes(tmp_path / "made").recording
    assert recording.lengths == [3, 3]
    for at in range(6):
        ours = recording.frame(at // 3, at % 3, [TOP, "observation.state", "task"])
        known = read[at][TOP].numpy().transpose(1, 2, 0)
        scale = 255 if known.dtype.kind == "f" else 1
        assert np.array_equal(ours[TOP], np.round(known * scale).astype(np.uint8))
        assert np.array_equal(ours["observation.state"], read[at]["observation.state"].numpy())
        assert ours["task"] == "reach"


def one_row(found: Any) -> Change:
    """The image of episode 1, frame 1 is another."""

    def change(dataset: Path) -> None:
        rows: list[Any] = [{"bytes": png(one), "path": None} for one in frames()]
        rows[9] = found
        stored(dataset, rows)

    return change


def feature(**said: Any) -> Change:
    return lambda dataset: info(dataset, lambda found: found["features"][TOP].update(said))


def of_state(**said: Any) -> Change:
    return lambda dataset: info(dataset, lambda found: found["features"]["observation.state"].update(said))


def depth(dataset: Path) -> None:
    shutil.copytree(GOLDEN / "videos", dataset / "videos")
    feature(dtype="video", info={"is_depth_map": True})(dataset)


def without(key: str) -> Change:
    def change(dataset: Path) -> None:
        import pyarrow.parquet as pq

        file = dataset / "data/chunk-000/file-000.parquet"
        pq.write_table(pq.read_table(file).drop_columns([key]), file)

    return change


def torn(where: str) -> Change:
    return lambda dataset: next(dataset.glob(where)).write_bytes(b"PAR1 and no more")


def no_frame(dataset: Path) -> None:
    import pyarrow.parquet as pq

    file = next(dataset.glob("meta/episodes/*/*.parquet"))
    pq.write_table(pq.read_table(file).slice(0, 0), file)


def no_length(info: dict[str, Any]) -> None:
    info["features"][TOP].pop("shape")


AT = r"/reach: episode 1, frame 1: observation\.images\.top: "


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (one_row({"bytes": b"no image", "path": None}), AT + r"an image cannot be decoded \("),
        (one_row({"bytes": None, "path": "images/none.png"}), AT + r".*No such file.*images/none\.png"),
        (one_row({"bytes": None, "path": None}), AT + "the row holds no image, neither its bytes nor a path"),
        (one_row(None), AT + "the row holds no image, neither its bytes nor a path"),
        (
            one_row({"bytes": png(np.zeros((16, 16, 3), np.uint8)), "path": None}),
            r"episode 1, frame 1: .*top is \[16, 16, 3\], and .* \[1, 3, 32, 32\]",
        ),
        (depth, r"episode 0, frame 0: observation\.images\.top: it is a depth map, .*; leave it out$"),
        (
            without(TOP),
            r"episode 0, frame 0: file-000\.parquet has no observation\.images\.top; the recording",
        ),
        (lambda d: info(d, no_length), r"info\.json says of 'observation\.images\.top' what cannot be read"),
        (
            of_state(units="miles"),
            r"says of 'observation\.state' what cannot be read \(its units are 'miles'",
        ),
        (of_state(units=["deg"] * 6), r"its units are \['deg', .*, expected one of .* for each element"),
        (lambda d: info(d, lambda found: found.update(features=[])), "features is no JSON object"),
        (torn("meta/episodes/*/*.parquet"), r"file-000\.parquet cannot be read: "),
        (torn("data/*/*.parquet"), r"file-000\.parquet cannot be read: "),
        (no_frame, "has no frame: meta/episodes names none; give a recording$"),
    ],
)
def test_what_is_wrong_is_one_line_that_says_where(change: Change, said: str, dataset: Path) -> None:
    change(dataset)
    with pytest.raises(InputError, match=said) as caught:
        same(dataset)
    assert "\n" not in str(caught.value)


def test_units_of_a_feature_are_those_of_its_elements(dataset: Path) -> None:
    of_state(units="deg")(dataset)
    assert reflex.episodes(dataset).recording.features["observation.state"].units == ("deg",) * 7
    of_state(units=["deg"] * 6 + ["%"])(dataset)
    assert reflex.episodes(dataset).recording.features["observation.state"].units[-1] == "%"


def test_a_row_without_its_task_s_file_is_named(dataset: Path) -> None:
    torn("meta/tasks.parquet")(dataset)
    with pytest.raises(InputError, match=r"tasks\.parquet cannot be read: "):
        reflex.episodes(dataset).recording.frame(0, 0, ["task"])


def test_a_name_that_neither_this_machine_nor_the_hub_has(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whatever the hub answers with, or nothing where there is no network."""
    import huggingface_hub

    def fetched(name: str, repo_type: str) -> str:
        assert repo_type == "dataset"
        if name == "me/there":
            return str(GOLDEN)
        raise OSError("404 Client Error\nRepository Not Found")

    monkeypatch.setenv("HF_LEROBOT_HOME", str(tmp_path))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetched)
    assert reflex.episodes("me/there").total == 24
    said = "^no recording at me/gone, and the hub gives no such dataset: 404 Client Error$"
    with pytest.raises(InputError, match=said):
        reflex.episodes("me/gone")
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(
        InputError, match="without huggingface-hub none is fetched; install it, or give a dir"
    ):
        reflex.episodes("me/there")
