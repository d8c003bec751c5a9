"""One step of the world: an event drawn by the mix, in a guild drawn by chance."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from rateway_simulator.world.changes import (
    channels,
    expressions,
    guilds,
    interactions,
    members,
    messages,
    moderation,
    reactions,
    threads,
    voice,
)
from rateway_simulator.world.dispatch import Chance, Dispatch
from rateway_simulator.world.guild import Guild
from rateway_simulator.world.world import World

# Draws after which a step gives up: an event may be impossible now (nothing left to delete).
_DRAWS: Final = 16

Action = Callable[[World, Guild, Chance], None]

_ACTIONS: Final[Mapping[str, Action]] = {
    **channels.ACTIONS,
    **expressions.ACTIONS,
    **guilds.ACTIONS,
    **interactions.ACTIONS,
    **members.ACTIONS,
    **messages.ACTIONS,
    **moderation.ACTIONS,
    **reactions.ACTIONS,
    **threads.ACTIONS,
    **voice.ACTIONS,
}


def step(world: World, chance: Chance, wall: float | None = None, guild_id: int | None = None) -> Dispatch:
    """Return the next event.

    Args:
        world: The world to change.
        chance: The source of every random decision.
        wall: The time in Unix seconds; without it the world's clock advances by 1 ms.
        guild_id: The guild in which the event happens, unless the outbox still has another one.
    """
    world.wall = world.wall + 0.001 if wall is None else wall
    if not world.outbox:
        _happen(world, chance, guild_id)
    return world.outbox.popleft()


def _happen(world: World, chance: Chance, guild_id: int | None) -> None:
    world.advance(chance)
    chosen = world.guild(guild_id) if guild_id is not None and world.is_available(guild_id) else None
    for _ in range(_DRAWS):
        guild = chosen or world.pick(chance)
        if guild is None:
            break
        _ACTIONS[world.mix.draw(chance)](world, guild, chance)
        if world.outbox:
            return
    # Nothing that was drawn is possible here, or all guilds are away.
    members.update_own_user(world)
