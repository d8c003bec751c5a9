"""Decide the layout and find Discord's gateway, once, before anything connects."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from rateway.cache.policy import CachePolicy
from rateway.config import Settings
from rateway.fleet.choice import Choice, StoredLayout, keep_stored, take_recommended
from rateway.fleet.layout import MOST_SHARDS, Layout
from rateway.runtime.identify.permits import Rest
from rateway.runtime.resumable import misfit
from rateway.session.compression import ZSTD_MOST_SHARDS, compression_of
from rateway.transports.folder import FolderRefused, make_below
from rateway.transports.rest import GatewayBot, RestFailure, backoff
from rateway.transports.state import FatalRecord, StateDir
from rateway.transports.store import SessionRecord, Store, StoreFault, read_sessions, read_sessions_beside
from rateway_protocol.contract import topology
from rateway_protocol.discord.envelope import FAILURES
from rateway_protocol.discord.intents import Intents

log = logging.getLogger(__name__)

LAYOUT = "layout.json"

__all__ = [
    "FatalEnd",
    "Identity",
    "StoredSessions",
    "account_with",
    "choose",
    "clusters_of",
    "dead_token",
    "kept_choice",
    "leftover_sessions",
    "new_choice",
    "open_store",
    "refuse_layout",
    "remember_layout",
    "running_clusters",
    "sessions_as_they_are",
    "store_folder",
    "stored_layout",
    "stored_sessions",
    "unauthorized",
]


class FatalEnd(Exception):
    """Nothing can work until a person changes something; ``record`` says what."""

    def __init__(self, record: FatalRecord) -> None:
        super().__init__(record.meaning)
        self.record = record


class Identity(msgspec.Struct, frozen=True):
    """Which bot and which settings, as keyed hashes: what is written down beside sessions and fatal ends."""

    bot: str
    settings: str
    account: str = ""
    """The bot whatever its token: Discord counts identifies by it, and a reset does not begin a new count."""
    former: list[str] = []
    """``bot`` as it was with the salts that the state folder had before it joined a fleet."""

    @classmethod
    def of(cls, settings: Settings, state: StateDir) -> Identity:
        token = settings.session.token.reveal()
        shape = (
            str(settings.session.intents),
            str(settings.layout.shards),
            settings.rest.api_url,
            str(settings.layout.extra),
        )
        return cls(
            state.fingerprint("token", token, settings.rest.api_url),
            state.fingerprint("settings", token, *shape),
            state.fingerprint(*_account(settings)),
            state.former_fingerprints("token", token, settings.rest.api_url),
        )


def _account(settings: Settings) -> tuple[str, ...]:
    # A token is the bot's id in base64, a time and a signature, joined by dots.
    return "account", settings.session.token.reveal().partition(".")[0], settings.rest.api_url


def account_with(settings: Settings, salt: bytes) -> str:
    """Return ``Identity.account`` as it is with another salt."""
    return StateDir.fingerprint_with(salt, *_account(settings))


async def choose(settings: Settings, state: StateDir, rest: Rest, identity: Identity) -> Choice:
    """Return the layout that holds, or a new one from Discord's recommendation, asked for as long as it takes.

    Raises FatalEnd when Discord refuses the token.
    """
    sessions = StoredSessions(settings, identity.bot, lambda number: stored_sessions(settings, state, number))
    stored = stored_layout(state)
    kept = kept_choice(settings, stored, sessions)
    if isinstance(kept, Choice):
        choice = kept
    else:
        if kept:
            log.warning("%s", kept, extra={"action": "layout"})
        choice = new_choice(settings, await _ask_discord(rest), stored)
    lost = sessions.given_up(choice.layout, stored)
    if lost:
        log.warning(
            "%d stored sessions belong to other intents, another token or another layout and cannot be resumed%s: "
            "their shards identify",
            lost,
            # Which token they belong to is written down as a hash that is keyed with it.
            " (the file `salt` of the state folder was missing, without which none is known again)"
            if state.salt_is_new
            else "",
            extra={"action": "layout"},
        )
    clusters = choice.layout.clusters
    log.info(
        "%s, in %d cluster%s: workers bind their queue to %s",
        choice.words,
        len(clusters),
        "s" * (len(clusters) > 1),
        topology.exchanges(clusters),
        extra={"action": "layout"},
    )
    if settings.session.compression is None and choice.layout.shards > ZSTD_MOST_SHARDS:
        log.info(
            "COMPRESSION is not set: new sessions use %s, because zstd would take up to 2 MB of memory for each of the "
            "bot's %d shards (zlib takes 40 KB)",
            compression_of(None, choice.layout.shards),
            choice.layout.shards,
            extra={"action": "compression"},
        )
    remember_layout(state, choice)
    return choice


class StoredSessions:
    """The sessions that are written down, and which of them a start with these settings resumes.

    ``read`` gives those of a cluster's store, in whatever way that can be read now; each is read once.
    """

    def __init__(
        self, settings: Settings, token_hash: str, read: Callable[[int], Sequence[SessionRecord]]
    ) -> None:
        self._settings = settings
        self._token_hash = token_hash
        self._read = read
        self._found: dict[int, list[SessionRecord]] = {}

    def resumed(self, layout: Layout) -> list[int]:
        """Return the shards of a layout, as far as this gateway runs them, that resume."""
        return [
            record.shard_id
            for number in running_clusters(self._settings, layout)
            for record in self._of(number)
            if record.shard_id in layout.shards_of(number) and self._fits(record, layout)
        ]

    def given_up(self, layout: Layout, stored: StoredLayout | None) -> int:
        """Return how many stored sessions a start in this layout does not resume, of the clusters that it
        runs or ran.
        """
        numbers = set(running_clusters(self._settings, layout))
        if stored is not None:
            numbers |= set(running_clusters(self._settings, Layout(stored.shards, stored.per_cluster)))
        held = sum(1 for number in numbers for record in self._of(number) if record.session_id)
        return held - len(self.resumed(layout))

    def _fits(self, record: SessionRecord, layout: Layout) -> bool:
        intents, token_hash = self._settings.session.intents, self._token_hash
        return not misfit(record, shard_count=layout.shards, intents=intents, token_hash=token_hash)

    def _of(self, number: int) -> list[SessionRecord]:
        if number not in self._found:
            self._found[number] = list(self._read(number))
        return self._found[number]


def kept_choice(settings: Settings, stored: StoredLayout | None, sessions: StoredSessions) -> Choice | str:
    """Return the stored layout if it holds, else why not (empty when there is none)."""
    layout = None if stored is None else Layout(stored.shards, stored.per_cluster)
    return keep_stored(
        stored,
        resumable=0 if layout is None else len(sessions.resumed(layout)),
        reshard=settings.layout.reshard,
        shards=settings.layout.shards,
        per_cluster=settings.layout.per_cluster,
    )


def new_choice(settings: Settings, answer: GatewayBot, stored: StoredLayout | None) -> Choice:
    """Return the layout where the stored one does not hold."""
    return take_recommended(
        shards=settings.layout.shards,
        recommended=answer.shards,
        extra=settings.layout.extra,
        per_cluster=settings.layout.per_cluster,
        gateway_url=answer.url,
        refused=stored.refused if stored is not None else 0,
    )


def remember_layout(state: StateDir, choice: Choice) -> None:
    """Write the layout down for the next start, if it is not there already."""
    layout = StoredLayout(choice.layout.shards, choice.layout.per_cluster, choice.gateway_url, choice.refused)
    if layout != stored_layout(state):
        state.write(LAYOUT, msgspec.json.encode(layout))


def refuse_layout(state: StateDir, choice: Choice) -> None:
    """Write down that Discord refuses this layout: the next :func:`choose` takes another one."""
    remember_layout(state, msgspec.structs.replace(choice, refused=choice.layout.shards))


def stored_layout(state: StateDir) -> StoredLayout | None:
    """Return the layout of the last start; None when there is none, or none that can be read."""
    data = state.read(LAYOUT)
    if not data:
        return None
    try:
        layout = msgspec.json.decode(data, type=StoredLayout)
    except FAILURES:
        layout = None
    # Recommended and extra shards, each within its bound.
    if layout is None or not (1 <= layout.shards <= 2 * MOST_SHARDS and layout.per_cluster >= 1):
        log.warning("the stored layout cannot be read and is not used", extra={"action": "layout"})
        return None
    return layout


async def _ask_discord(rest: Rest) -> GatewayBot:
    attempts = 0
    while True:
        answer = await rest.gateway_bot()
        if isinstance(answer, GatewayBot):
            return answer
        unauthorized(answer)
        attempts += 1
        delay = backoff(answer, attempts, random.random())
        log.warning(
            "Discord does not say where its gateway is: %s; asking again in %.0f s",
            answer.text,
            delay,
            extra={"action": "rest"},
        )
        await asyncio.sleep(delay)


def unauthorized(answer: RestFailure) -> None:
    """Raise FatalEnd when the answer says that the token is dead."""
    if answer.kind == "unauthorized":
        raise FatalEnd(dead_token(answer))


def dead_token(answer: RestFailure) -> FatalRecord:
    """Return the text about a token that Discord refuses."""
    help_text = "put the bot's current token into DISCORD_TOKEN (developer portal → Bot → Reset Token)"
    return FatalRecord(answer.status or 401, "Discord does not know this token", help_text, time.time())


def clusters_of(settings: Settings, layout: Layout) -> list[int]:
    """Return the clusters of the layout that this gateway runs. Says which of CLUSTERS there are not."""
    missing = sorted(set(settings.layout.clusters or ()) - set(layout.clusters))
    if missing:
        log.warning(
            "CLUSTERS names %s, but there are only clusters 1-%d",
            ", ".join(map(str, missing)),
            len(layout.clusters),
            extra={"action": "layout"},
        )
    return running_clusters(settings, layout)


def running_clusters(settings: Settings, layout: Layout) -> list[int]:
    """Return the clusters of the layout that this gateway runs."""
    chosen = settings.layout.clusters
    return [number for number in layout.clusters if chosen is None or number in chosen]


def store_folder(settings: Settings, state: StateDir, number: int) -> Path:
    return (settings.cache.path or state.path / "clusters") / str(number) / "store"


def policy_of(settings: Settings) -> CachePolicy:
    """Return the cache's policy."""
    return settings.cache.policy(message_content=bool(settings.session.intents & Intents.MESSAGE_CONTENT))


def stored_sessions(settings: Settings, state: StateDir, number: int) -> list[SessionRecord]:
    """Return the sessions in a cluster's store, even if it cannot be written just now."""
    if not store_folder(settings, state, number).exists():
        # A question makes no store: its being there says that this state folder has run the cluster.
        return []
    store = open_store(settings, state, number)
    if isinstance(store, StoreFault):
        return leftover_sessions(settings, state, number)
    found = store.sessions()
    store.close()
    return found


def sessions_as_they_are(
    settings: Settings, state: StateDir, number: int, *, in_use: bool
) -> list[SessionRecord]:
    """Return the sessions that a start would find in a cluster's store; nothing is changed. ``in_use``: a
    gateway runs.
    """
    folder = store_folder(settings, state, number)
    return read_sessions_beside(folder) if in_use else read_sessions(folder, cluster=number)


def leftover_sessions(settings: Settings, state: StateDir, number: int) -> list[SessionRecord]:
    """Return the sessions in a store that cannot be opened for writing; none of a store in another user's folder."""
    try:
        folder = _private(settings, state, number)
    except FolderRefused:
        return []
    except OSError:
        # A disk that is full or read-only.
        folder = store_folder(settings, state, number)
    return read_sessions(folder, cluster=number)


def open_store(settings: Settings, state: StateDir, number: int) -> Store | StoreFault:
    """Open the store of a cluster, with the cache's policy of the settings."""
    try:
        folder = _private(settings, state, number)
    except OSError as error:
        folder = store_folder(settings, state, number)
        words = error.strerror or str(error)
        advice = f"; {error.advice}" if isinstance(error, FolderRefused) else ""
        return StoreFault(f"{error.filename or folder} cannot be used: {words}{advice}")
    return Store.open(folder, cluster=number, policy=policy_of(settings), wall=time.time())


def _private(settings: Settings, state: StateDir, number: int) -> Path:
    """Return the folder of a store, which is made if missing and must be this user's alone. Raises OSError."""
    if settings.cache.path is None:
        return state.folder_below("clusters", str(number), "store")
    return make_below(settings.cache.path, str(number), "store")
