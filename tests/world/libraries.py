"""The libraries that are tried: language, package, and what each is known to do against Discord's rules."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.world.toolchains import GO, JAVA, NODE, PYTHON, RUST, Toolchain


@dataclass(frozen=True, slots=True)
class Library:
    """One library, by the name that it is known by."""

    name: str
    toolchain: Toolchain
    package: str
    # Part of `make test`; the others run with `make test-world`.
    always: bool = False
    # Rules that the library itself breaks, each with the reason.
    own: Mapping[str, str] = field(default_factory=dict)
    # Its REST cannot be told to do without TLS.
    tls: bool = False
    # It resumes and does not tell its bot: what the simulator saw has to do.
    silent_resumes: bool = False
    # Its bot goes on with its session after a restart.
    keeps_session: bool = False

    @property
    def folder(self) -> str:
        """The name of its folder under `bots`: a dot would make a Python module of it."""
        return re.sub(r"[^A-Za-z0-9]+", "_", self.name).strip("_")


LIBRARIES = (
    Library("discord.py", PYTHON, "discord.py", always=True),
    Library("hikari", PYTHON, "hikari", always=True),
    Library("disnake", PYTHON, "disnake"),
    Library("nextcord", PYTHON, "nextcord"),
    Library("py-cord", PYTHON, "py-cord"),
    Library("discord.js", NODE, "discord.js"),
    Library("@discordjs/core", NODE, "@discordjs/core", keeps_session=True),
    Library("eris", NODE, "eris", tls=True),
    Library("oceanic.js", NODE, "oceanic.js"),
    Library("discordeno", NODE, "discordeno"),
    Library("discordgo", GO, "github.com/bwmarrin/discordgo"),
    Library("disgo", GO, "github.com/disgoorg/disgo", silent_resumes=True, keeps_session=True),
    Library("twilight", RUST, "twilight-gateway", keeps_session=True),
    Library("serenity", RUST, "serenity"),
    Library(
        "JDA",
        JAVA,
        "JDA",
        # WebSocketClient.invalidate() keeps the former session's sequence until READY is read, and a heartbeat that
        # goes out meanwhile carries it: a race, seen in one run of several.
        own={"heartbeat-ahead": "the sequence of the former session is sent until READY has been read"},
    ),
)
