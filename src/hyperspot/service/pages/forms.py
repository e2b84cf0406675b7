"""Forms for settings models, from their JSON schema."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import FormData

from hyperspot.service.form_settings import FormSettings


@dataclass(frozen=True)
class Field:
    """A field of a form.

    Attributes:
        name: Of the setting.
        title: Above the field.
        description: Below it.
        kind: `text`, `number`, `password`, `check` or `choice`.
        value: Shown at first.
        choices: Of the kind `choice`.
        is_required: Whether it has no default.
        limits: `min`, `max` and `step` of a number, `maxlength` of a text.
    """

    name: str
    title: str
    description: str
    kind: str
    value: Any
    choices: tuple[str, ...] = ()
    is_required: bool = False
    limits: tuple[tuple[str, Any], ...] = ()


def fields_of(form: type[FormSettings], values: Mapping[str, Any] | None = None) -> list[Field]:
    """Return the fields of a settings model.

    Args:
        form: The model.
        values: Shown at first, by name; default: the defaults.

    Examples:
        >>> from pydantic import Field as Setting
        >>> from hyperspot.service.form_settings import FormSettings
        >>> from hyperspot.service.pages.forms import fields_of
        >>> class Lamp(FormSettings):
        ...     level: float = Setting(0.5, ge=0, le=1, title="Level", description="Share")
        >>> field = fields_of(Lamp)[0]
        >>> field.kind, field.value, field.limits
        ('number', 0.5, (('min', 0), ('max', 1), ('step', 'any')))

    """
    schema = form.model_json_schema()
    required = schema.get("required", [])
    fields = []
    for name, given in schema["properties"].items():
        described = _resolved(given, schema.get("$defs", {}))
        value = described.get("default") if values is None else values.get(name, described.get("default"))
        fields.append(
            Field(
                name=name,
                title=described.get("title", name),
                description=described.get("description", ""),
                kind=_kind(described),
                value=value,
                choices=tuple(str(one) for one in described.get("enum", ())),
                is_required=name in required,
                limits=tuple(_limits(described)),
            )
        )
    return fields


def values_of(form: type[FormSettings], sent: FormData) -> dict[str, Any]:
    """Return what a form of `fields_of` sent; a box that is not checked sends nothing."""
    return {
        field.name: field.name in sent if field.kind == "check" else str(sent.get(field.name, ""))
        for field in fields_of(form)
    }


def _resolved(given: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of a setting without `null`, with what it refers to."""
    merged = dict(given)
    for one in merged.pop("anyOf", ()):
        if one.get("type") != "null":
            merged = {**one, **merged}
    if "$ref" in merged:
        merged = {**definitions[merged.pop("$ref").rpartition("/")[2]], **merged}
    if "const" in merged:
        merged["enum"] = [merged["const"]]
    return merged


def _kind(described: Mapping[str, Any]) -> str:
    if described.get("enum"):
        return "choice"
    if described.get("format") == "password":
        return "password"
    return {"boolean": "check", "integer": "number", "number": "number"}.get(described.get("type", ""), "text")


def _limits(described: Mapping[str, Any]) -> list[tuple[str, Any]]:
    limits = [("min", "minimum"), ("max", "maximum"), ("maxlength", "maxLength")]
    found = [(name, described[key]) for name, key in limits if key in described]
    if described.get("type") == "number":
        # Without it browsers accept whole numbers alone.
        found.append(("step", "any"))
    return found
