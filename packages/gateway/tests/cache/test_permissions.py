"""Permissions, worked out by hand from Discord's rules."""

# ruff: noqa: E501  (one case is one line: a table is read down its columns)

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from rateway.cache.permissions import ALL, channel_permissions, guild_permissions, permissions
from tests.cache.scene import BOT, GUILD, Scene, channel, member, role, thread

OWNER, ANN = 10 << 40, 11 << 40
MOD, MUTED, ADMIN = 40, 41, 42

# The bits, as https://docs.discord.com/developers/topics/permissions numbers them.
INVITE, KICK, VIEW, SEND, TTS, LINKS, FILES, HISTORY, MENTION = (
    1,
    2,
    1 << 10,
    1 << 11,
    1 << 12,
    1 << 14,
    1 << 15,
    1 << 16,
    1 << 17,
)
CONNECT, SPEAK, MANAGE, IN_THREADS = 1 << 20, 1 << 21, 1 << 4, 1 << 38

TEXT, VOICE, THREAD = 20, 21, 30
EVERYONE = VIEW | SEND | LINKS | FILES | HISTORY | CONNECT | SPEAK


@dataclass(frozen=True)
class Case:
    """A member's roles, a channel's overwrites, and what must come out."""

    says: str
    wanted: int
    roles: tuple[int, ...] = ()
    overwrites: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Role or member → (allow, deny)."""
    channel: int | None = TEXT
    until: str | None = None
    user: int = ANN


CASES = [
    Case("in the guild: @everyone alone", EVERYONE, channel=None),
    Case("in the guild: roles add up", EVERYONE | KICK | MANAGE, (MOD,), channel=None),
    Case("an administrator has everything", ALL, (ADMIN,), channel=None),
    Case("the owner has everything", ALL, channel=None, user=OWNER),
    Case("a role that is not there gives nothing", EVERYONE, (99,), channel=None),
    Case("a channel without overwrites gives what the guild gives", EVERYONE),
    Case("@everyone is denied", EVERYONE & ~FILES, overwrites={GUILD: (0, FILES)}),
    Case("@everyone is allowed more", EVERYONE | MENTION, overwrites={GUILD: (MENTION, 0)}),
    Case("a role's allowance beats @everyone's denial", EVERYONE | KICK | MANAGE, (MOD,), {GUILD: (0, FILES), MOD: (FILES, 0)}),
    Case("of roles, allowance beats denial", EVERYONE | KICK | MANAGE, (MOD, MUTED), {MUTED: (0, FILES), MOD: (FILES, 0)}),
    Case("a role that the member does not have says nothing", EVERYONE, overwrites={MOD: (0, VIEW)}),
    Case("the member's own denial beats a role's allowance", EVERYONE & ~FILES | KICK | MANAGE, (MOD,), {MOD: (FILES, 0), ANN: (0, FILES)}),
    Case("the member's own allowance beats everything", EVERYONE | MENTION, (MUTED,), {GUILD: (0, MENTION), MUTED: (0, MENTION), ANN: (MENTION, 0)}),
    Case("who cannot see has nothing", 0, overwrites={GUILD: (0, VIEW)}),
    Case("who cannot see has nothing, however allowed", 0, overwrites={GUILD: (MENTION, VIEW)}),
    Case("who cannot send cannot attach, embed or mention", VIEW | HISTORY | CONNECT | SPEAK, overwrites={GUILD: (MENTION | TTS, SEND)}),
    Case("no overwrite binds an administrator", ALL, (ADMIN,), {GUILD: (0, VIEW), ANN: (0, VIEW)}),
    Case("no overwrite binds the owner", ALL, overwrites={GUILD: (0, VIEW)}, user=OWNER),
    Case("who cannot connect to a voice channel cannot speak or manage it", VIEW | SEND | LINKS | FILES | HISTORY | KICK, (MOD,), {GUILD: (0, CONNECT)}, VOICE),
    Case("connecting means nothing to a text channel", EVERYONE & ~CONNECT, overwrites={GUILD: (0, CONNECT)}),
    Case("a thread has its parent's overwrites", 0, overwrites={GUILD: (0, VIEW)}, channel=THREAD),
    Case("in a thread, sending in threads is what counts", EVERYONE & ~(LINKS | FILES), channel=THREAD),
    Case("in a thread, sending in channels is not", (EVERYONE | IN_THREADS) & ~SEND, overwrites={GUILD: (IN_THREADS, SEND)}, channel=THREAD),
    Case("timed out: seeing and reading only", VIEW | HISTORY, (MOD,), until="2030-01-01T00:00:00+00:00"),
    Case("a time-out that is over is none", EVERYONE, until="2020-01-01T00:00:00+00:00"),
    Case("an administrator cannot be timed out", ALL, (ADMIN,), until="2030-01-01T00:00:00+00:00"),
    Case("timed out and blind", 0, overwrites={GUILD: (0, VIEW)}, until="2030-01-01T00:00:00+00:00"),
    Case("an unknown overwrite is passed over", EVERYONE, overwrites={12345: (0, VIEW)}),
]  # fmt: skip

NOW = 1_800_000_000.0  # 2027


@pytest.mark.checklist("F12")
@pytest.mark.parametrize("case", CASES, ids=[case.says for case in CASES])
def test_a_members_permissions_are_those_worked_out_by_hand(case: Case) -> None:
    items: list[dict[str, Any]] = [
        {"id": str(entity_id), "type": int(entity_id == ANN), "allow": str(allow), "deny": str(deny)}
        for entity_id, (allow, deny) in case.overwrites.items()
    ]
    scene = Scene().start(
        owner_id=str(OWNER),
        roles=[role(GUILD, EVERYONE), role(MOD, KICK | MANAGE), role(MUTED, 0), role(ADMIN, 8)],
        members=[
            member(BOT), member(OWNER),
            member(ANN, roles=[str(role_id) for role_id in case.roles], communication_disabled_until=case.until),
        ],
        channels=[channel(TEXT, permission_overwrites=items), channel(VOICE, 2, permission_overwrites=items)],
        threads=[thread(THREAD, TEXT)],
    )  # fmt: skip
    assert permissions(scene.view, GUILD, case.user, case.channel, wall=NOW) == case.wanted


@pytest.mark.parametrize(
    ("guild_id", "user_id", "channel_id"), [(5, ANN, None), (GUILD, 5, None), (GUILD, BOT, 999)]
)
def test_what_is_not_known_has_no_permissions(guild_id: int, user_id: int, channel_id: int | None) -> None:
    scene = Scene().start(members=[member(BOT), member(ANN)], channels=[channel(TEXT)])
    assert permissions(scene.view, guild_id, user_id, channel_id, wall=NOW) is None


def test_a_thread_without_a_known_parent_has_none_to_go_by() -> None:
    scene = Scene().start(threads=[thread(THREAD, 999)])
    assert permissions(scene.view, GUILD, BOT, THREAD, wall=NOW) is None


def test_the_rules_alone_need_no_cache() -> None:
    base = guild_permissions(GUILD, OWNER, ANN, [MOD], {GUILD: VIEW, MOD: KICK})
    assert base == VIEW | KICK
    assert channel_permissions(base, GUILD, ANN, [MOD], [], 0) == VIEW | KICK
