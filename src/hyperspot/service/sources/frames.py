"""Frames of cameras and video files, by OpenCV."""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import UInt8

from hyperspot.service.finishing import in_thread
from hyperspot.service.sources.base import SourceError
from hyperspot.service.sources.taking import Frames
from hyperspot.utils.optional_packages import require

Frame = UInt8[np.ndarray, "h w 3"]
"""Blue, green, red, as OpenCV has them."""
STOP_SECONDS = 5.0
"""For a camera that does not return from reading."""


def opencv() -> Any:
    """Return the module; raises MissingPackageError, which names the extra."""
    return require("cv2", "camera", "a camera source")


def encode_png(frame: Frame) -> bytes:
    """Return a frame as PNG; compressed little, as the time counts."""
    cv2 = opencv()
    done, content = cv2.imencode(".png", frame, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not done:
        raise SourceError("a frame of the camera cannot be encoded; check its pixel format")
    return bytes(content.tobytes())


class FileFrames(Frames):
    """Each frame of a video file, in order, however long an inspection takes.

    Args:
        open_file: Returns the opened file.
        is_endless: Whether it begins again at its end.
    """

    is_live = False

    def __init__(self, open_file: Callable[[], Any], is_endless: bool) -> None:
        self._open_file, self._is_endless = open_file, is_endless
        self._capture: Any = None

    def check(self) -> None:
        """Open the file; raises SourceError if that is impossible."""
        self._capture = self._open_file()

    async def next(self, step: int) -> bytes | None:
        """Return the `step`th frame from here; None at the end."""
        return await in_thread(self._next, step)

    def _next(self, step: int) -> bytes | None:
        frame = self._read(step)
        if frame is None and self._is_endless:
            self._capture.release()
            self._capture = self._open_file()
            frame = self._read(1)
        return None if frame is None else encode_png(frame)

    def _read(self, step: int) -> Frame | None:
        for _ in range(step - 1):
            if not self._capture.grab():
                return None
        done, frame = self._capture.read()
        return frame if done else None

    async def close(self) -> None:
        """Close the file."""
        if self._capture is not None:
            await in_thread(self._capture.release)


class LiveFrames(Frames):
    """The newest frame of a camera; a thread reads all of them, so that none is old.

    Args:
        capture: Opened.
        seconds: Without a frame after which the camera counts as gone.
    """

    def __init__(self, capture: Any, seconds: float) -> None:
        self._capture, self._seconds = capture, seconds
        self._loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()
        self._number = 0
        self._frame: Frame | None = None
        self._is_gone = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, name="camera", daemon=True)
        self._thread.start()

    async def next(self, step: int) -> bytes | None:
        """Return the `step`th frame from now; raises SourceError if the camera is gone."""
        wanted = self._number + step
        silent_at = time.monotonic() + self._seconds
        seen = self._number
        while self._number < wanted:
            if self._is_gone:
                raise SourceError("the camera is gone; check its cable and power")
            self._arrived.clear()
            try:
                async with asyncio.timeout(max(silent_at - time.monotonic(), 0)):
                    await self._arrived.wait()
            except TimeoutError:
                raise SourceError(f"the camera has sent no image for {self._seconds:g} seconds; check it") from None
            if self._number > seen:
                seen, silent_at = self._number, time.monotonic() + self._seconds
        assert self._frame is not None
        return await in_thread(encode_png, self._frame)

    async def close(self) -> None:
        """Close the camera."""
        self._stop.set()
        await in_thread(self._thread.join, STOP_SECONDS)

    def _read(self) -> None:
        try:
            while not self._stop.is_set():
                done, frame = self._capture.read()
                if not self._tell(frame if done else None) or not done:
                    return
        finally:
            self._capture.release()

    def _tell(self, frame: Frame | None) -> bool:
        try:
            self._loop.call_soon_threadsafe(self._note, frame)
        except RuntimeError:
            # The loop ended.
            return False
        return True

    def _note(self, frame: Frame | None) -> None:
        if frame is None:
            self._is_gone = True
        else:
            self._number, self._frame = self._number + 1, frame
        self._arrived.set()
