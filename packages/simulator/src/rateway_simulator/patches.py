"""Changes of libraries that have no option for Discord's address, as text to paste."""

from __future__ import annotations

from typing import Final

_DISCORD_PY: Final = """\
import discord.gateway, discord.http, yarl
discord.http.Route.BASE = "{api_url}"
discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL("{gateway_url}/")
"""


def discord_py(api_url: str, gateway_url: str) -> str:
    """Return lines of Python that send discord.py (2.x) to a simulator; to be run before the client is made.

    `api_url` is `http://127.0.0.1:1235/api/v10`, `gateway_url` is `ws://127.0.0.1:1234`.
    """
    return _DISCORD_PY.format(api_url=api_url, gateway_url=gateway_url.rstrip("/"))
