"""Cameras by USB and RTSP, and video files, by OpenCV."""

from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, urlsplit

from pydantic import Field, SecretStr, field_validator

from hyperspot.service.finishing import in_thread
from hyperspot.service.sources.base import SourceError
from hyperspot.service.sources.frames import FileFrames, LiveFrames, opencv
from hyperspot.service.sources.taking import CameraSource, Frames, TakingSettings

SCHEMES = ("rtsp", "rtsps", "http", "https")


class CameraSettings(TakingSettings):
    """Settings of a camera."""

    address: str = Field(
        title="Address",
        description="Number of a USB camera (0 is the first), rtsp:// address, or full path of a video file",
    )
    user: str | None = Field(None, title="User", description="Of an RTSP camera")
    password: SecretStr | None = Field(None, title="Password", description="Of an RTSP camera")
    at_end: Literal["stop", "rewind"] = Field(
        "stop", title="End of a video file", description="Stop there, or begin again"
    )
    width: int | None = Field(None, ge=1, title="Width", description="Pixels that a USB camera is asked for")
    height: int | None = Field(None, ge=1, title="Height", description="Pixels that a USB camera is asked for")
    silence: float = Field(
        10.0, gt=0, title="Gone after", description="Seconds without an image after which the camera counts as gone"
    )

    @field_validator("address")
    @classmethod
    def _known(cls, address: str) -> str:
        if address.isdecimal():
            return address
        if "://" in address:
            parts = urlsplit(address)
            if parts.scheme not in SCHEMES or not parts.hostname:
                raise ValueError(f"an address begins with {', '.join(f'{scheme}://' for scheme in SCHEMES)}")
            if "@" in parts.netloc:
                raise ValueError("give user and password in their own fields")
        elif not Path(address).is_absolute():
            raise ValueError("give a number, an rtsp:// address or the full path of a file")
        return address

    @property
    def is_file(self) -> bool:
        """Whether it is a video file."""
        return not self.address.isdecimal() and "://" not in self.address


class Camera(CameraSource):
    """Inspects frames of a camera or a video file."""

    form = CameraSettings

    async def open(self) -> Frames:
        """Open the camera; raises SourceError, and MissingPackageError without OpenCV."""
        if self.settings.is_file:
            frames = FileFrames(self._capture, self.settings.at_end == "rewind")
            await in_thread(frames.check)
            return frames
        return LiveFrames(await in_thread(self._capture), self.settings.silence)

    def _capture(self) -> Any:
        cv2 = opencv()
        settings: CameraSettings = self.settings
        if settings.address.isdecimal():
            capture = cv2.VideoCapture(int(settings.address))
            sizes = {cv2.CAP_PROP_FRAME_WIDTH: settings.width, cv2.CAP_PROP_FRAME_HEIGHT: settings.height}
            for wanted, size in sizes.items():
                if size is not None:
                    capture.set(wanted, size)
        elif settings.is_file:
            if not Path(settings.address).is_file():
                raise SourceError(f"there is no video file {settings.address}; check the path")
            capture = cv2.VideoCapture(settings.address, cv2.CAP_FFMPEG)
        else:
            wait = int(1000 * settings.silence)
            limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, wait, cv2.CAP_PROP_READ_TIMEOUT_MSEC, wait]
            capture = cv2.VideoCapture(_with_password(settings), cv2.CAP_FFMPEG, limits)
        if not capture.isOpened():
            capture.release()
            raise SourceError(f"{settings.address} cannot be opened; check the address, the cable and who else uses it")
        return capture


def _with_password(settings: CameraSettings) -> str:
    if settings.user is None:
        return settings.address
    password = "" if settings.password is None else settings.password.get_secret_value()
    scheme, _, rest = settings.address.partition("://")
    return f"{scheme}://{quote(settings.user, safe='')}:{quote(password, safe='')}@{rest}"
