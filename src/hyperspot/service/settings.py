"""The settings of a station."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hyperspot.errors import SettingsError


class StationSettings(BaseModel):
    """How a station runs; everything that the pages change is in the database instead.

    Attributes:
        data: Folder of the database, the images and the models; created if missing.
        database: SQLAlchemy address, for example `postgresql+psycopg://user:password@host/name`; default: SQLite in
            `data`.
        host: Address to listen on.
        port: To listen on; 0 takes a free one.
        tls_certificate: PEM file; with `tls_key` the station answers HTTPS alone.
        tls_key: PEM file of the private key.
        workers: Processes that predict.
        engine: `torch`, `openvino` or `onnxruntime`; default: by the file and by what is installed.
        threads: Of each worker; default: the cores divided by `workers`.
        models_in_memory: Models that a worker keeps ready; the least recently used one is dropped.
        max_batch: Images that a worker predicts together at most, under load.
        queue: Requests that wait at most; the next one is answered with 429.
        deadline: Seconds after which a waiting request is given up.
        max_upload: Bytes of a request at most.
        max_pixels: Pixels of an image at most.
        keep_days: Days that images are kept; None keeps them.
        keep_gigabytes: Space of images; beyond it the oldest images of good parts go first.
        allowed_hosts: Names by which browsers and programs reach the station, beside `host`, the name of this machine,
            localhost and addresses of numbers; requests to other names are refused.
        secure_cookies: Whether cookies are sent over HTTPS only; default: with TLS files. Set it behind a proxy with
            TLS.

    Examples:
        >>> from hyperspot.service.settings import StationSettings
        >>> settings = StationSettings(data="station", port=0)
        >>> settings.database_address
        'sqlite:///station/station.sqlite'

    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: Path
    database: str | None = None
    host: str = "127.0.0.1"
    port: int = Field(8765, ge=0, le=65535)
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    workers: int = Field(1, ge=1)
    engine: Literal["torch", "openvino", "onnxruntime"] | None = None
    threads: int | None = Field(None, ge=1)
    models_in_memory: int = Field(4, ge=1)
    max_batch: int = Field(8, ge=1)
    queue: int = Field(64, ge=1)
    deadline: float = Field(30.0, gt=0)
    max_upload: int = Field(200_000_000, ge=1000)
    max_pixels: int = Field(200_000_000, ge=1)
    keep_days: float | None = Field(None, gt=0)
    keep_gigabytes: float | None = Field(None, gt=0)
    allowed_hosts: tuple[str, ...] = ()
    secure_cookies: bool | None = None

    @model_validator(mode="after")
    def _whole(self) -> "StationSettings":
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("TLS takes two files; give the certificate and its key")
        return self

    @classmethod
    def make(cls, **values: Any) -> "StationSettings":
        """Return the settings; raises SettingsError, one sentence, where a value does not fit.

        Examples:
            >>> from hyperspot.service.settings import StationSettings
            >>> StationSettings.make(data="station").workers
            1

        """
        try:
            return cls(**values)
        except ValueError as error:
            details: list[dict[str, Any]] = getattr(error, "errors", list)()
            first = details[0] if details else {"loc": (), "msg": str(error)}
            name = ".".join(str(part) for part in first["loc"])
            message = str(first["msg"]).removeprefix("Value error, ")
            raise SettingsError(f"{name + ': ' if name else ''}{message}") from None

    @property
    def database_address(self) -> str:
        """SQLAlchemy address of the database."""
        return self.database or f"sqlite:///{self.data / 'station.sqlite'}"

    @property
    def sends_secure_cookies(self) -> bool:
        """Whether cookies are sent over HTTPS only."""
        return self.scheme == "https" if self.secure_cookies is None else self.secure_cookies

    @property
    def scheme(self) -> str:
        """`http` or `https`."""
        return "http" if self.tls_certificate is None else "https"
