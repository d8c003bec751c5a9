"""Reload the settings whose rows allow it."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

from rateway.config.settings import Settings
from rateway.config.table import ROWS, Row

__all__ = ["changed", "reloaded", "value_of"]

Form = TypeVar("Form", bound=Settings)


def value_of(settings: Settings, row: Row) -> object:
    """Return the value of the setting of that row."""
    part, _, name = row.fills.partition(".")
    value: object = getattr(getattr(settings, part), name)
    return value


def changed(old: Settings, new: Settings, rows: tuple[Row, ...] = ROWS) -> list[Row]:
    """Return the rows of the settings that differ."""
    return [row for row in rows if value_of(old, row) != value_of(new, row)]


def reloaded(old: Form, new: Form, rows: tuple[Row, ...] = ROWS) -> tuple[Form, list[str]]:
    """Return the settings that hold after a reload, and the names of the changed ones that need a restart.

    The broker's address is taken over where it stands in the same file of its own: the next attempt to connect reads
    that file anyway.
    """
    same_file = old.amqp_file is not None and old.amqp_file == new.amqp_file
    fixed = [
        row for row in changed(old, new, rows) if not row.reloads and not (row.name == "amqp" and same_file)
    ]
    names = [row.name for row in fixed]
    kept: dict[str, Any] = {}
    for row in fixed:
        part, _, name = row.fills.partition(".")
        record = kept.get(part, getattr(new, part))
        kept[part] = dataclasses.replace(record, **{name: value_of(old, row)})
    if old.amqp_file != new.amqp_file:
        names.append("amqp_file")
        kept["amqp_file"] = old.amqp_file
    return dataclasses.replace(new, **kept), names
