"""Hand settings to a process that the gateway starts, over a socket pair: never in its arguments or environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from rateway.config.settings import Settings
from rateway.secret import Secret

__all__ = ["decode_settings", "encode_settings"]


def encode_settings(settings: Settings) -> msgspec.Raw:
    """Return all settings, secrets in the clear: for the socket pair only."""
    return msgspec.Raw(msgspec.json.encode(settings, enc_hook=_plain))


def decode_settings(data: msgspec.Raw) -> Settings:
    """Return the settings that :func:`encode_settings` wrote."""
    return msgspec.json.decode(data, type=Settings, dec_hook=_rich)


def _plain(value: Any) -> Any:
    if isinstance(value, Secret):
        return value.reveal()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"a setting of type {type(value).__name__} cannot be handed to a runner")


def _rich(kind: type, value: Any) -> Any:
    if kind is Secret:
        return Secret(value)
    if issubclass(kind, Path):
        return Path(value)
    raise TypeError(f"a setting of type {kind.__name__} cannot be taken from a supervisor")
