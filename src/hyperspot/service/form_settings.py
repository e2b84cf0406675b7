"""Settings of a source or an output: checked, and without its secrets for pages and the API."""

from collections.abc import Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError

from hyperspot.errors import SettingsError

REDACTED = "********"
"""Stands for a secret that is set."""
Form = TypeVar("Form", bound="FormSettings")


class FormSettings(BaseModel):
    """Settings that the Set-up page shows as a form, by their JSON schema: flat, each with a title and a description.

    Examples:
        >>> from pydantic import Field, SecretStr
        >>> from hyperspot.service.form_settings import FormSettings
        >>> class Mail(FormSettings):
        ...     server: str = Field(title="Server")
        ...     password: SecretStr | None = Field(None, title="Password")
        >>> mail = Mail.read({"server": "mail.local", "password": "secret"})
        >>> mail.stored()
        {'server': 'mail.local', 'password': 'secret'}
        >>> Mail.public(mail.stored())
        {'server': 'mail.local', 'password': '********'}

    """

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True, allow_inf_nan=False)

    @classmethod
    def read(cls: type[Form], values: Mapping[str, Any]) -> Form:
        """Return checked settings; raises SettingsError, one sentence, where a value does not fit.

        An empty text is the default, as a form sends one for a field that was left empty.
        """
        try:
            return cls(**{name: value for name, value in values.items() if value != ""})
        except ValidationError as error:
            # Without the input, which may be a secret.
            first = error.errors(include_input=False, include_context=False)[0]
            name = str(first["loc"][0]) if first["loc"] else ""
            field = cls.model_fields.get(name)
            label = (field.title or name) if field is not None else name
            message = first["msg"].removeprefix("Value error, ")
            raise SettingsError(f"{label}: {message}" if label else message) from None

    def stored(self) -> dict[str, Any]:
        """Return JSON values with secrets, for the database."""
        secrets = {name: value.get_secret_value() for name, value in self if isinstance(value, SecretStr)}
        return self.model_dump(mode="json") | secrets

    @classmethod
    def public(cls, stored: Mapping[str, Any]) -> dict[str, Any]:
        """Return stored settings in which REDACTED stands for each secret and for what is not known."""
        plain = {
            name
            for name, field in cls.model_fields.items()
            if SecretStr not in (field.annotation, *get_args(field.annotation))
        }
        return {name: value if name in plain or value is None else REDACTED for name, value in stored.items()}


def merge_settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return new settings that keep an old secret where the form sends REDACTED.

    Examples:
        >>> from hyperspot.service.form_settings import merge_settings
        >>> merge_settings({"user": "ann", "password": "secret"}, {"user": "bob", "password": "********"})
        {'user': 'bob', 'password': 'secret'}

    """
    return {name: old.get(name) if value == REDACTED else value for name, value in new.items()}
