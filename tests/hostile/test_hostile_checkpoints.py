"""Checkpoints that were damaged or made to harm: refused in one line, and no code of theirs runs."""

from __future__ import annotations

import json
import pickle
import random
import shutil
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch
from corruption import Pickled

from exporters import checkpoints, family_of, pi0
from pytest_reflex.errors import CheckpointError

WEIGHTS = "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"


@pytest.fixture
def place(checkpoint: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(checkpoint, tmp_path / "checkpoint"))


def refused(place: Path) -> str:
    def load() -> None:
        family_of(place)
        pi0.load(place)

    with pytest.raises(CheckpointError) as error:
        load()
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


def test_the_trap_is_one(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Pickled(tmp_path / "loaded")))
    assert (tmp_path / "loaded").is_dir()


@pytest.mark.parametrize("how", ["instead", "by its index", "beside", "alone"])
def test_a_pickle_in_the_place_of_weights_is_never_loaded(how: str, place: Path, tmp_path: Path) -> None:
    trap = pickle.dumps(Pickled(tmp_path / "loaded"))
    if how == "instead":
        (place / WEIGHTS).write_bytes(trap)
        assert "cannot be loaded: " in refused(place)
    elif how == "by its index":
        (place / WEIGHTS).rename(place / "other.safetensors")
        (place / "trap.bin").write_bytes(trap)
        index = {"metadata": {}, "weight_map": {"model.vlm.lm_head.weight": "trap.bin"}}
        (place / INDEX).write_text(json.dumps(index))
        assert "holds pickled weights (trap.bin), which run code when they are loaded" in refused(place)
    elif how == "beside":
        (place / "pytorch_model.bin").write_bytes(trap)
        pi0.load(place)
    else:
        (place / WEIGHTS).unlink()
        (place / "pytorch_model.bin").write_bytes(trap)
        assert "holds pickled weights (pytorch_model.bin)" in refused(place)
    assert not (tmp_path / "loaded").exists()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": 7}', "[" * 100_000, "\udcff" * 9999])
def test_an_index_that_is_none_is_refused(text: str, place: Path) -> None:
    (place / INDEX).write_bytes(text.encode("utf-8", "surrogateescape"))
    said = refused(place)
    assert f"{INDEX} is no index of weights: " in said
    assert len(said) < 1000


@pytest.mark.parametrize("how", ["cut", "header", "size", "longer", "shapes", "config"])
def test_a_damaged_checkpoint_is_refused_or_is_whole(how: str, place: Path) -> None:
    whole = (place / WEIGHTS).read_bytes()
    header = int.from_bytes(whole[:8], "little")
    stated = (place / "config.json").read_bytes()
    honest = pi0.load(place).state_dict()
    for seed in range(8):
        rng = random.Random(seed)
        data = bytearray(whole)
        if how == "cut":
            del data[rng.randrange(len(data)) :]
        elif how == "header":
            data[8 + rng.randrange(header)] ^= 1 << rng.randrange(8)
        elif how == "size":
            sizes = (0, 1, header - 1, header + 1, len(data), 2**40, 2**63, 2**64 - 1)
            data[:8] = sizes[seed].to_bytes(8, "little")
        elif how == "longer":
            data += rng.randbytes(rng.randint(1, 5000))
        elif how == "shapes":
            data = _with_one_shape_wrong(whole, rng)
        else:
            (place / "config.json").write_bytes(stated[: rng.randrange(len(stated) - 2)])
        (place / WEIGHTS).write_bytes(data)
        if how != "header":
            refused(place)
            continue
        # A bit of a header may change nothing that anyone reads: then nothing else may have changed.
        try:
            found = pi0.load(place).state_dict()
        except CheckpointError as error:
            assert len(str(error).splitlines()) == 1  # noqa: PT017
        else:
            assert all(torch.equal(found[key], honest[key]) for key in honest)


def _with_one_shape_wrong(whole: bytes, rng: random.Random) -> bytearray:
    """A tensor that says to be larger than its bytes, with a header that is as long as it says."""
    size = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + size])
    name = rng.choice(sorted(key for key in header if key != "__metadata__"))
    header[name]["shape"][0] *= rng.choice((2, 2**31, 2**62))
    text = json.dumps(header).encode()
    return bytearray(len(text).to_bytes(8, "little") + text + whole[8 + size :])


@pytest.mark.parametrize("text", ["[" * 200_000, '{"steps":' + "9" * 5000 + "}", "\udcff", ""])
def test_a_configuration_that_is_a_bomb_is_refused(text: str, place: Path) -> None:
    (place / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert "config.json cannot be read: " in refused(place)


def test_a_name_that_is_no_text_is_a_checkpoint_s_too(place: Path) -> None:
    odd = place.with_name("\udcff\x1b[2J\n")
    place.rename(odd)
    assert family_of(odd) == "pi0"
    assert len(checkpoints.digest(odd)) == 64
