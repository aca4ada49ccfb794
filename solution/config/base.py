"""The base of all settings: unknown names are refused, and what makes their hash."""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict

from solution.files import content_hash

Name = TypeVar("Name", bound=str)


def distinct_names(names: list[Name], what: str) -> list[Name]:
    """The names; a `ValueError` where there is none, or one is listed twice. `what` says what they name."""
    if not names:
        raise ValueError(f"at least one {what} is needed")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"the {what} {repeated[0]} is listed twice")
    return names


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False)

    _HASHED_WHERE_SET: ClassVar[frozenset[str]] = frozenset()
    """Settings that a version of the program added after working folders existed. At their defaults they stay out of
    the hash: the weights and contexts of the version before stay valid."""

    def hashed_values(self, exclude: dict[str, Any] | None = None) -> dict[str, Any]:
        """The values that make the hash, without those that `exclude` names (in the form of pydantic's `exclude`)."""
        values = self.model_dump(mode="json", exclude=exclude)
        _leave_out_defaults(self, values)
        return values

    def hash(self) -> str:
        return content_hash(self.hashed_values())


def _leave_out_defaults(settings: Settings, values: dict[str, Any]) -> None:
    """Remove, from the dumped `values` of the settings and of those inside them, new settings at their defaults."""
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if name in settings._HASHED_WHERE_SET and value == field.get_default(call_default_factory=True):
            values.pop(name, None)
        elif isinstance(value, Settings) and name in values:
            _leave_out_defaults(value, values[name])
