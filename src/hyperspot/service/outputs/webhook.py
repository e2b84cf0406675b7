"""Verdicts by HTTP POST."""

import hashlib
import hmac
import json
import ssl
import time
from pathlib import Path

import httpx
from pydantic import Field, SecretStr, field_validator

from hyperspot import __version__
from hyperspot.service.finishing import in_thread
from hyperspot.service.outputs.base import Output, OutputContext, OutputError, OutputSettings, Payload, RefusedError

SIGNATURE = "X-Hyperspot-Signature"
TEMPORARY = frozenset({408, 425, 429})
"""Statuses below 500 that may be different later."""


class WebhookSettings(OutputSettings):
    """Settings of a webhook."""

    address: str = Field(title="Address", description="https:// address that receives each verdict by POST as JSON")
    secret: SecretStr | None = Field(
        None, title="Secret", description=f"Signs each request by HMAC-SHA256 in the header {SIGNATURE}"
    )
    timeout: float = Field(10.0, gt=0, le=50, title="Time-out", description="Seconds to wait for an answer")
    ca_file: Path | None = Field(
        None, title="CA file", description="PEM file of the authority that signed the receiver's certificate"
    )

    @field_validator("address")
    @classmethod
    def _plain(cls, address: str) -> str:
        try:
            url = httpx.URL(address)
        except httpx.InvalidURL:
            raise ValueError("this is no address; give https://HOST/PATH") from None
        if url.scheme not in ("http", "https") or not url.host:
            raise ValueError("give an address that begins with https:// or http://")
        if url.userinfo:
            raise ValueError("give no password in the address; set a secret, which signs the requests")
        return address


class Webhook(Output):
    """Posts each verdict; the receiver has it when it answers 2xx."""

    form = WebhookSettings

    def __init__(self, settings: WebhookSettings, context: OutputContext) -> None:
        super().__init__(settings, context)
        self._client: httpx.AsyncClient | None = None

    async def open(self) -> None:
        """Make the client; raises OutputError without the CA file."""
        try:
            context = await in_thread(ssl.create_default_context, cafile=self.settings.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise OutputError(f"the CA file {self.settings.ca_file} cannot be read ({error}); check it") from None
        # Redirects could lead verdicts elsewhere; proxies of the environment as well.
        self._client = httpx.AsyncClient(
            verify=context, timeout=self.settings.timeout, follow_redirects=False, trust_env=False
        )

    async def send(self, payload: Payload) -> None:
        """Post a verdict; raises OutputError or RefusedError."""
        assert self._client is not None
        body = json.dumps(payload, separators=(",", ":")).encode()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"hyperspot/{__version__}",
            "Idempotency-Key": str(payload["id"]),
        }
        if self.settings.secret is not None:
            headers[SIGNATURE] = signature(self.settings.secret.get_secret_value(), body, int(time.time()))
        try:
            async with self._client.stream("POST", self.settings.address, content=body, headers=headers) as answer:
                status = answer.status_code
        except httpx.HTTPError as error:
            raise OutputError(f"the receiver cannot be reached ({error or type(error).__name__})") from None
        if 200 <= status < 300:
            return
        if status < 500 and status not in TEMPORARY:
            raise RefusedError(f"the receiver answers {status}; it has to answer 2xx, and without a redirect")
        raise OutputError(f"the receiver answers {status}")

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()


def signature(secret: str, body: bytes, at: int) -> str:
    """Return the header that proves who sent a body and when: `t=SECONDS,v1=HMAC-SHA256 of "SECONDS.BODY"`.

    Examples:
        >>> from hyperspot.service.outputs.webhook import signature
        >>> signature("secret", b"{}", 1700000000)[:20]
        't=1700000000,v1=b856'

    """
    digest = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"
