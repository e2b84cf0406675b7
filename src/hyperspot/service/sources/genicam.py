"""Industrial cameras with GenICam (GigE Vision, USB3 Vision), by harvesters and the producer (.cti) of their vendor."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped
from PIL import Image
from pydantic import Field, field_validator

from hyperspot.service.finishing import in_thread
from hyperspot.service.sources.base import SourceError
from hyperspot.service.sources.taking import CameraSource, Frames, TakingSettings
from hyperspot.utils.optional_packages import require

MONO_8, MONO_16 = frozenset({"Mono8"}), frozenset({"Mono10", "Mono12", "Mono14", "Mono16"})
COLORS = {"RGB8": slice(None), "BGR8": slice(None, None, -1)}
BITS = {"Mono10": 10, "Mono12": 12, "Mono14": 14, "Mono16": 16}


class GenicamSettings(TakingSettings):
    """Settings of a GenICam camera."""

    producer: Path = Field(title="Producer", description="Full path of the .cti file of the camera's vendor")
    camera: str | None = Field(
        None, title="Camera", description="Serial number of the camera; empty takes the first one that is found"
    )
    pixel_format: str | None = Field(
        None, title="Pixel format", description="Mono8, Mono10, Mono12, Mono16, RGB8 or BGR8; empty leaves it as it is"
    )
    exposure: float | None = Field(None, gt=0, title="Exposure", description="Microseconds; empty leaves it as it is")
    silence: float = Field(5.0, gt=0, title="Gone after", description="Seconds without an image after a trigger")

    @field_validator("producer")
    @classmethod
    def _absolute(cls, producer: Path) -> Path:
        if not producer.is_absolute() or producer.suffix != ".cti":
            raise ValueError("give the full path of a .cti file")
        return producer

    @field_validator("pixel_format")
    @classmethod
    def _known(cls, name: str | None) -> str | None:
        if name is not None and name not in MONO_8 | MONO_16 | set(COLORS):
            raise ValueError("choose Mono8, Mono10, Mono12, Mono14, Mono16, RGB8 or BGR8")
        return name


class GenicamCamera(CameraSource):
    """Has a GenICam camera expose by software trigger, so that each image is taken when it is asked for."""

    form = GenicamSettings

    async def open(self) -> Frames:
        """Open the camera; raises SourceError, and MissingPackageError without harvesters."""
        core = require("harvesters.core", "genicam", "a GenICam source")
        frames = GenicamFrames(core.Harvester(), self.settings)
        try:
            await in_thread(frames.open)
        except BaseException:
            await frames.close()
            raise
        return frames


class GenicamFrames(Frames):
    """Images of a camera, each exposed by a software trigger.

    Args:
        harvester: `harvesters.core.Harvester()`.
        settings: Of the source.
    """

    def __init__(self, harvester: Any, settings: GenicamSettings) -> None:
        self._harvester, self._settings = harvester, settings
        self._camera: Any = None

    def open(self) -> None:
        """Find the camera and let it wait for triggers; raises SourceError."""
        settings = self._settings
        if not settings.producer.is_file():
            raise SourceError(f"there is no producer {settings.producer}; install the software of the camera's vendor")
        try:
            self._harvester.add_file(str(settings.producer))
            self._harvester.update()
            if not self._harvester.device_info_list:
                raise SourceError("the producer finds no camera; check cable, power and network")
            self._camera = self._harvester.create(0 if settings.camera is None else {"serial_number": settings.camera})
            nodes = self._camera.remote_device.node_map
            values = {
                "TriggerSelector": "FrameStart",
                "TriggerMode": "On",
                "TriggerSource": "Software",
                "PixelFormat": settings.pixel_format,
                "ExposureTime": settings.exposure,
            }
            for name, value in values.items():
                if value is not None:
                    getattr(nodes, name).value = value
            self._camera.start()
        except SourceError:
            raise
        # Producers are foreign code with exceptions of their own.
        except Exception as error:  # noqa: BLE001
            raise SourceError(
                f"the camera cannot be opened ({_said(error)}); check it with its vendor's tool"
            ) from None

    async def next(self, step: int) -> bytes | None:
        """Expose `step` images and return the last as PNG; raises SourceError if the camera is gone."""
        return await in_thread(self._next, step)

    def _next(self, step: int) -> bytes:
        try:
            for _ in range(step):
                self._camera.remote_device.node_map.TriggerSoftware.execute()
                with self._camera.fetch(timeout=self._settings.silence) as buffer:
                    component = buffer.payload.components[0]
                    # The buffer goes back to the camera.
                    pixels = np.array(component.data, copy=True)
                    name, size = str(component.data_format), (int(component.height), int(component.width))
        except Exception as error:  # noqa: BLE001
            raise SourceError(f"the camera sends no image ({_said(error)}); check its cable and power") from None
        return encode(pixels, name, size)

    async def close(self) -> None:
        """Let the camera go."""
        await in_thread(self._close)

    def _close(self) -> None:
        steps = [] if self._camera is None else [self._camera.stop, self._camera.destroy]
        for step in [*steps, self._harvester.reset]:
            try:
                step()
            except Exception:  # noqa: BLE001, S112 - a camera that is gone cannot be stopped
                continue


def encode(pixels: Shaped[np.ndarray, "*shape"], pixel_format: str, size: tuple[int, int]) -> bytes:
    """Return the pixels of a camera as PNG; 10 to 14 bits become 16.

    Args:
        pixels: As the camera sends them, flat.
        pixel_format: Of GenICam's pixel format naming convention.
        size: Height and width.

    Raises:
        SourceError: The format is not known.

    Examples:
        >>> import numpy as np
        >>> from hyperspot.service.sources.genicam import encode
        >>> encode(np.zeros(6, np.uint8), "Mono8", (2, 3))[1:4]
        b'PNG'

    """
    if pixel_format in MONO_8:
        picture = Image.fromarray(pixels.reshape(size).astype(np.uint8))
    elif pixel_format in MONO_16:
        picture = Image.fromarray(pixels.reshape(size).astype(np.uint16) << (16 - BITS[pixel_format]))
    elif pixel_format in COLORS:
        picture = Image.fromarray(np.ascontiguousarray(pixels.reshape(*size, 3)[..., COLORS[pixel_format]]))
    else:
        raise SourceError(
            f"the pixel format {pixel_format} is not read; choose Mono8, Mono10, Mono12, Mono16, RGB8 or BGR8"
        )
    content = io.BytesIO()
    picture.save(content, "PNG", compress_level=1)
    return content.getvalue()


def _said(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
