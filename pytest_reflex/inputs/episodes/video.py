"""One camera's frames from video files, decoded one at a time through PyAV; nothing of a video is kept."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

Array = np.ndarray[Any, Any]

# What a frame may be away from its moment, in seconds, as lerobot's own reader has it.
_TOLERANCE: Final = 1e-4
# So far ahead the frames in between are decoded; beyond that the next key frame is looked for.
_AHEAD: Final = 1.0


class VideoError(Exception):
    """What of a video cannot be read, in words."""


class Video:
    """The frames of one file by their moments, those in order being decoded once each.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        import av

        self.path = path
        try:
            self._container = av.open(str(path))
            self._stream = self._container.streams.video[0]
            # A frame at a time, which threads would only wait for each other at.
            self._stream.codec_context.thread_count = 1
        except Exception as error:  # whatever a damaged file leads to
            raise VideoError(f"{path.name} cannot be opened as a video ({_said(error)})") from error
        # One for all frames: each would set up its own, for longer than it takes to use it.
        self._reformatter = av.video.reformatter.VideoReformatter()
        # Starting threads takes a hundred times as long as a frame; older versions have no say in it.
        threaded = "threads" in (self._reformatter.reformat.__doc__ or "")
        self._form: dict[str, Any] = {"format": "rgb24", **({"threads": 1} if threaded else {})}
        self._frames: Iterator[Any] = iter(())
        self._at = float("inf")

    def close(self) -> None:
        self._container.close()

    def frame(self, moment: float) -> Array:
        """The frame of a moment in seconds, uint8 [height, width, 3].

        Raises:
            VideoError: the video has none there, or cannot be decoded so far.
        """
        # Moments are float32 in recordings.
        tolerance = max(_TOLERANCE, 2 * abs(moment) * float(np.finfo(np.float32).eps))
        try:
            if not self._at < moment - tolerance < self._at + _AHEAD:
                self._seek(moment)
            found = self._decoded(moment - tolerance)
        except VideoError:
            raise
        except Exception as error:  # whatever a damaged file leads to
            raise VideoError(
                f"{self.path.name} cannot be decoded at {moment:.3f} s ({_said(error)})"
            ) from error
        if found is None:
            ends = f"ends at {self._at:.3f} s" if np.isfinite(self._at) else "has no frame at all"
            raise VideoError(
                f"{self.path.name} {ends}, before the frame's {moment:.3f} s: it is truncated, or not this "
                "recording's"
            )
        if self._at > moment + tolerance:
            raise VideoError(
                f"{self.path.name} has no frame at {moment:.3f} s, the next is at {self._at:.3f} s"
            )
        return np.asarray(self._reformatter.reformat(found, **self._form).to_ndarray())

    def _seek(self, moment: float) -> None:
        before = round(moment / self._stream.time_base) - 1
        self._container.seek(max(before, 0), backward=True, any_frame=False, stream=self._stream)
        self._frames, self._at = self._container.decode(self._stream), float("-inf")

    def _decoded(self, least: float) -> Any:
        """The first frame from that moment on; None where the video ends before."""
        for frame in self._frames:
            if frame.pts is None:
                continue
            self._at = float(frame.pts * self._stream.time_base)
            if self._at >= least:
                return frame
        return None


def picture(data: bytes) -> Array:
    """An image file's pixels, uint8 [height, width, 3].

    Raises:
        VideoError: it is none.
    """
    import av

    try:
        with av.open(io.BytesIO(data)) as container:
            return np.asarray(next(container.decode(video=0)).to_ndarray(format="rgb24"))
    except Exception as error:  # whatever a damaged file leads to
        raise VideoError(f"an image cannot be decoded ({_said(error)})") from error


def _said(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
