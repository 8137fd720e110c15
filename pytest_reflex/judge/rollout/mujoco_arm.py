"""An arm in MuJoCo, without a screen: joint targets held by servos, cameras drawn by EGL or OSMesa."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np

from pytest_reflex.errors import MissingPackageError, ReflexError, SettingsError
from pytest_reflex.judge.rollout.environments import Unstable
from pytest_reflex.verdict.drift import Quantity
from pytest_reflex.verdict.naming import did_you_mean

__all__ = ["MujocoArm", "assets_of", "mujoco"]

Array = np.ndarray[Any, Any]

# Physics is computed at least so often a second: the servos below are stable there with room to spare.
PHYSICS_HZ: Final = 240.0
# What draws where nobody chose, the fastest first; the last draws nothing, enough for who has no camera.
BACKENDS: Final = ("egl", "osmesa", "disabled")


def _told(engine: ModuleType) -> ModuleType:
    """MuJoCo's own warnings as Python's: by itself it writes them to a file where the user stands."""
    if engine.get_mju_user_warning() is None:
        engine.set_mju_user_warning(lambda text: warnings.warn(f"MuJoCo: {text}", stacklevel=2))
    return engine


def mujoco() -> ModuleType:
    """The package, told to draw without a screen before it is imported, which is when it decides.

    Raises:
        MissingPackageError: it is not installed.
    """
    if "mujoco" in sys.modules:
        return sys.modules["mujoco"]
    if importlib.util.find_spec("mujoco") is None:
        raise MissingPackageError(
            "this needs mujoco, which is not installed; pip install 'pytest-reflex[sim]'"
        )
    chosen = os.environ.get("MUJOCO_GL")
    for backend in (chosen,) if chosen else BACKENDS:
        os.environ["MUJOCO_GL"] = backend
        try:
            return _told(importlib.import_module("mujoco"))
        # Without its library PyOpenGL fails in a way of its own, by version.
        except Exception as error:
            failed = error
            for name in [n for n in sys.modules if n.partition(".")[0] in ("mujoco", "OpenGL")]:
                del sys.modules[name]
            os.environ.pop("PYOPENGL_PLATFORM", None)
    raise ReflexError(
        f"MUJOCO_GL is {chosen!r}, and mujoco does not import so ({type(failed).__name__}: {failed}); "
        "install that library, libegl1 or libosmesa6, or unset MUJOCO_GL"
    )


def assets_of(package: str, distribution: str) -> Path:
    """Where a package keeps its models; the package itself is not imported.

    Raises:
        MissingPackageError: it is not installed.
    """
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise MissingPackageError(
            f"this needs {distribution}, which is not installed; pip install 'pytest-reflex[sim]'"
        )
    return Path(found.origin).parent / "assets"


class MujocoArm:
    """One copy of an arm. A subclass says which, what its actions do, and what its job is.

    Args:
        model: the model's file.
        hz: control instants a second.
        joints: the names of the joints that are driven.
        change: changes the model's specification before it is compiled.
        cameras: the names of its cameras.
        groups: the groups of geoms that are drawn, for what a policy sees: few, for they are drawn often.

    Raises:
        SettingsError: there is no such joint or camera, or ``hz`` is no rate.
    """

    name = "arm"
    quantities: Sequence[Quantity] = ()
    actions: Sequence[str] = ()

    def __init__(
        self,
        model: Path,
        hz: float,
        *,
        joints: Sequence[str],
        change: Callable[[Any], None],
        cameras: Sequence[str],
        groups: Sequence[int],
    ) -> None:
        engine = mujoco()
        spec = engine.MjSpec.from_file(os.fspath(model))
        known = [joint.name for joint in spec.joints]
        for joint in joints:
            if joint not in known:
                raise SettingsError(
                    f"joint {joint!r} is none of {self.name}'s{did_you_mean(joint, known)}; give some of "
                    f"{', '.join(known)}"
                )
        self._substeps = max(1, round(PHYSICS_HZ / hz))
        change(spec)
        self.model = spec.compile()
        self.model.opt.timestep = 1.0 / (hz * self._substeps)
        self.model.opt.integrator = engine.mjtIntegrator.mjINT_IMPLICITFAST
        self.model.opt.noslip_iterations = 0
        # Drawn by the processor: a shadow costs more than the arm.
        self.model.light_castshadow[:] = 0
        self.model.vis.quality.shadowsize = self.model.vis.quality.offsamples = 0
        self.data = engine.MjData(self.model)
        self.cameras: Sequence[str] = tuple(cameras)
        self.hz = hz
        self.joint_at = np.array([self.model.joint(joint).qposadr[0] for joint in joints])
        self.speed_at = np.array([self.model.joint(joint).dofadr[0] for joint in joints])
        self._engine, self._groups = engine, tuple(groups)
        self._renderers: dict[tuple[int, int], Any] = {}

    def advance(self) -> None:
        """One control period of physics.

        Raises:
            Unstable: MuJoCo found a position, velocity or acceleration that is NaN or huge. It would start
                the arm anew there, and what moved on would be another start.
        """
        self._engine.mj_step(self.model, self.data, nstep=self._substeps)
        kinds = self._engine.mjtWarning
        for kind in (kinds.mjWARN_BADQPOS, kinds.mjWARN_BADQVEL, kinds.mjWARN_BADQACC):
            if self.data.warning[kind].number:
                raise Unstable(f"MuJoCo's {kind.name}")

    def begin(self, qpos: Array, ctrl: Array) -> None:
        """At rest in a configuration, with these targets."""
        self._engine.mj_resetData(self.model, self.data)
        self.data.qpos[:] = qpos
        self.data.ctrl[:] = ctrl
        self._engine.mj_forward(self.model, self.data)

    def place(self, qpos: Array) -> None:
        """Put it in a configuration, to be looked at."""
        self.data.qpos[:] = qpos
        self._engine.mj_kinematics(self.model, self.data)
        self._engine.mj_camlight(self.model, self.data)

    def configuration(self) -> Array:
        """What :meth:`place` takes."""
        return np.array(self.data.qpos)

    def image(self, camera: str, height: int, width: int) -> Array:
        """See :class:`~pytest_reflex.judge.rollout.environments.Environment`."""
        return self.drawn(camera, height, width, self._groups)

    def drawn(self, camera: str, height: int, width: int, groups: Sequence[int]) -> Array:
        """What a camera sees of some groups of geoms, uint8 [height, width, 3].

        Raises:
            SettingsError: there is no such camera.
            ReflexError: nothing can be drawn here.
        """
        if camera not in self.cameras:
            near = did_you_mean(camera, self.cameras)
            raise SettingsError(
                f"camera {camera!r} is none of {self.name}'s{near}; give one of {self.cameras}"
            )
        renderer = self._renderer(height, width)
        shown = self._engine.MjvOption()
        shown.geomgroup[:] = 0
        shown.geomgroup[list(groups)] = 1
        renderer.update_scene(self.data, camera=camera, scene_option=shown)
        return np.array(renderer.render())

    def _renderer(self, height: int, width: int) -> Any:
        held = self._renderers.get((height, width))
        if held is None:
            self.model.vis.global_.offwidth = max(width, self.model.vis.global_.offwidth)
            self.model.vis.global_.offheight = max(height, self.model.vis.global_.offheight)
            try:
                held = self._engine.Renderer(self.model, height, width)
            except Exception as error:
                said = " ".join(f"{type(error).__name__}: {error}".split())
                backend = os.environ.get("MUJOCO_GL")
                way = "install libegl1 (MUJOCO_GL=egl) or libosmesa6 (MUJOCO_GL=osmesa)"
                if backend is None:  # somebody imported it first
                    way = f"set it before anything imports mujoco; where that is not enough, {way}"
                raise ReflexError(
                    f"{self.name} cannot draw what a camera sees with MUJOCO_GL={backend or 'nothing'} "
                    f"({said}); {way}"
                ) from None
            self._renderers[(height, width)] = held
        return held

    def close(self) -> None:
        """See :class:`~pytest_reflex.judge.rollout.environments.Environment`."""
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()
