"""The bot's direct channels and the messages in them."""

from __future__ import annotations

from rateway_simulator.payloads.values import Json
from rateway_simulator.world.guild import Message


class DirectMessages:
    """Direct channels by id and by recipient, and their messages by channel."""

    def __init__(self) -> None:
        self.channels: dict[str, Json] = {}
        self.by_user: dict[str, str] = {}
        self.messages: dict[str, dict[str, Message]] = {}
