"""A film of two ways of one arm: the reference, the candidate and their difference beside each other."""

from __future__ import annotations

import io
from fractions import Fraction
from typing import Any, Final

import numpy as np

from pytest_reflex.errors import MissingPackageError
from pytest_reflex.judge.rollout.driving import Way
from pytest_reflex.judge.rollout.environments import Made
from pytest_reflex.judge.rollout.mujoco_arm import MujocoArm

__all__ = ["filmed"]

Array = np.ndarray[Any, Any]

# Small enough to stand inside a page: some hundred kilobytes for half a minute.
SIDE: Final = 176
FRAMES_A_SECOND: Final = 10.0
# What tells the two apart is made so many times as strong.
STRONGER: Final = 4.0
# Visual meshes stand in the groups up to 2 of every model that is known here, and surroundings in 0.
GROUPS: Final = (0, 1, 2)


def filmed(make: Made, hz: float, reference: Way, candidate: Way) -> bytes | None:
    """Both ways as a WebM, drawn again from their configurations; None where the environment keeps none.

    One thread writes it, so that the same ways make the same bytes.

    Args:
        make: makes a copy of the environment.
        hz: instants a second.
        reference: the one way, filmed.
        candidate: the other, of the same start.

    Raises:
        MissingPackageError: av is not installed.
        ReflexError: nothing can be drawn here.
    """
    arm = make(hz)
    try:
        if not isinstance(arm, MujocoArm) or not reference.configurations:
            return None
        every = max(1, round(hz / FRAMES_A_SECOND))
        pairs = [*zip(reference.configurations, candidate.configurations, strict=True)][::every]
        return _webm((_beside(arm, one, other) for one, other in pairs), hz / every)
    finally:
        arm.close()


def _beside(arm: MujocoArm, one: Array, other: Array) -> Array:
    views = []
    for configuration in (one, other):
        arm.place(configuration)
        views.append(arm.drawn(arm.cameras[0], SIDE, SIDE, GROUPS))
    apart = np.abs(views[0].astype(np.float32) - views[1]) * STRONGER
    return np.concatenate([*views, np.clip(apart, 0, 255).astype(np.uint8)], axis=1)


def _webm(frames: Any, rate: float) -> bytes:
    try:
        import av
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            "a film needs av, which is not installed; pip install 'pytest-reflex[sim]'"
        ) from error
    into = io.BytesIO()
    # Else the file has numbers of its own that are drawn anew each time.
    with av.open(into, "w", format="webm", options={"fflags": "+bitexact"}) as container:
        stream: Any = container.add_stream("libvpx-vp9", rate=Fraction(rate).limit_denominator(1000))
        stream.width, stream.height, stream.pix_fmt = 3 * SIDE, SIDE, "yuv420p"
        stream.codec_context.thread_count = 1
        stream.options = {"crf": "40", "b": "0", "cpu-used": "6", "deadline": "good"}
        for frame in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return into.getvalue()
