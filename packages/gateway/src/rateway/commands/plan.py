"""The plan of a start and whether it would work, from settings and from what Discord and the broker answered."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import msgspec
from rateway.config import Settings
from rateway.fleet.choice import Choice, StoredLayout
from rateway.fleet.identify import SPACING, Budget, IdentifyGovernor, Ledger, Moment
from rateway.fleet.layout import Layout
from rateway.proxy.needs import judge
from rateway.runtime.startup import StoredSessions, kept_choice, new_choice, running_clusters
from rateway.session.compression import compression_of
from rateway.session.options import Compression
from rateway.transports.rest import Application, GatewayBot, RestFailure
from rateway_protocol.contract import topology
from rateway_protocol.contract.snapshots import ClusterList
from rateway_protocol.discord.events import EVENTS
from rateway_protocol.discord.intents import PRIVILEGED, Intents

__all__ = ["BrokerSaid", "Finding", "Known", "Plan", "choice_of", "kept_of", "make_plan"]

# Resident memory after 5 MB of traffic: a zstd context with window log 18 to 21, and zlib-ng's.
ZSTD_BYTES = (444_000, 2_100_000)
ZLIB_BYTES = 37_000
# A shard without its decompressor, and a process without guilds.
SHARD_BYTES = 150_000
PROCESS_BYTES = 50_000_000
# When zstd's contexts could take more of the machine than this, zlib is the better choice.
ZSTD_SHARE = 0.25
# Discord's bound for guilds of one shard is 2,500, and its recommendation aims at 1,000.
LEAST_SHARE_OF_RECOMMENDED = 0.4


class Finding(msgspec.Struct, frozen=True):
    """Something that a person should know: where it lies, what it is, what to do."""

    where: str
    what: str
    do: str = ""


class ClusterPlan(msgspec.Struct, frozen=True):
    """One cluster; ``here``: this gateway runs it."""

    cluster: int
    first_shard: int
    last_shard: int
    exchange: str
    queue: str
    here: bool


class IdentifyPlan(msgspec.Struct, frozen=True):
    """Identifies of the day. ``needed`` when no session can be resumed, ``spends`` what this start sends; ``reserve``
    is kept for lost sessions."""

    needed: int
    spends: int
    total: int
    left: int
    reserve: int
    resets_in_s: float
    max_concurrency: int
    suffices: bool


class StartPlan(msgspec.Struct, frozen=True):
    """The duration of a start, in seconds, and its reasons."""

    seconds: float
    why: str


class MemoryPlan(msgspec.Struct, frozen=True):
    """Bytes after some traffic, without the cache, which is a file. ``advice`` is empty when all is well."""

    least: int
    most: int
    with_zlib: int
    machine: int | None
    advice: str


class IntentPlan(msgspec.Struct, frozen=True):
    """One intent that is asked for. ``switched_on`` is ``None`` for one that needs no switch, or when not known."""

    name: str
    privileged: bool
    switched_on: bool | None


class NodeSaid(msgspec.Struct, frozen=True):
    """The answer of one of several nodes of the broker. ``cluster`` is the RabbitMQ cluster that it belongs to."""

    address: str
    reached: bool
    server: str = ""
    cluster: str = ""
    problem: str = ""


class BrokerSaid(msgspec.Struct, frozen=True):
    """The broker's answer. ``address`` has no password; ``server`` is its product and version."""

    address: str
    reached: bool
    server: str = ""
    problem: str = ""
    findings: list[Finding] = []
    exchanges: int = 0
    """The number of this gateway's exchanges that exist."""
    warnings: list[Finding] = []
    nodes: list[NodeSaid] = []
    """Every node that the address names, when it names several."""
    do: str = ""
    """The remedy, where one is known."""


class ProxyPlan(msgspec.Struct, frozen=True):
    """The proxy that the gateway starts. ``address`` has its scheme; ``shows`` is what bots show to be let in, ``tls``
    says who does TLS."""

    address: str
    shows: str
    tls: str


class Plan(msgspec.Struct):
    """All of it; ``ok`` when a start would work."""

    ok: bool = True
    problems: list[Finding] = []
    warnings: list[Finding] = []
    notes: list[str] = []
    gateway_url: str | None = None
    application: str | None = None
    shards: int | None = None
    shards_here: int | None = None
    recommended: int | None = None
    shards_why: str = ""
    resumed: int | None = None
    """Shards here whose stored session is resumed, as far as Discord still holds it."""
    clusters: list[ClusterPlan] = []
    identifies: IdentifyPlan | None = None
    start: StartPlan | None = None
    memory: MemoryPlan | None = None
    intents: list[IntentPlan] = []
    broker: BrokerSaid | None = None
    proxy: ProxyPlan | None = None
    state_dir: str = ""
    running_pid: int | None = None
    form: str = ""


@dataclass(frozen=True, slots=True)
class Known:
    """The facts of the plan. ``machine`` is the memory that may be used, in bytes, ``cores`` those of this process,
    ``form`` how this installation runs.
    """

    gateway: GatewayBot | RestFailure
    application: Application | RestFailure
    broker: BrokerSaid
    moment: Moment
    form: str
    stored: StoredLayout | None = None
    sessions: StoredSessions | None = None
    ledger: Ledger | None = None
    running_pid: int | None = None
    machine: int | None = None
    cores: int = 1
    problems: tuple[Finding, ...] = field(default=())
    warnings: tuple[Finding, ...] = field(default=())


def make_plan(settings: Settings, known: Known) -> Plan:
    """Return the plan of a start with *settings*. Never raises for anything that is *known*."""
    plan = Plan(state_dir=str(settings.process.state_dir), form=known.form)
    plan.running_pid, plan.broker = known.running_pid, known.broker
    plan.problems, plan.warnings = list(known.problems), list(known.warnings)
    _broker(plan, known.broker)
    _intents(plan, settings, known.application)
    _proxy(plan, settings)
    kept = kept_of(settings, known.stored, known.sessions)
    if isinstance(known.gateway, RestFailure):
        do = {
            "unauthorized": "put the bot's current token into DISCORD_TOKEN (developer portal → Bot → Reset Token)",
            "invalid": "see what stands between this machine and Discord, and whether DISCORD_API_URL is right",
        }.get(known.gateway.kind, "try again later; a gateway that runs waits for it by itself")
        if "CERTIFICATE_VERIFY_FAILED" in known.gateway.text:
            do = "see who stands between this machine and Discord; SSL_CERT_FILE names an authority to trust"
        plan.problems.append(Finding("Discord", known.gateway.text, do))
    else:
        plan.gateway_url = known.gateway.url
    choice = choice_of(settings, known.gateway, kept, known.stored)
    if choice is not None:
        _shards(plan, settings, choice, kept, known)
    plan.ok = not plan.problems
    return plan


def _unseen(plan: Plan, settings: Settings) -> None:
    """Events that are named and that Discord does not send with these intents."""
    for where, names in (("EVENTS", settings.published.only), ("BEFORE", settings.cache.before)):
        for name in sorted(names or ()):
            wanted = EVENTS[name].intents if name in EVENTS else 0
            if wanted and not settings.session.intents & wanted:
                by_name = " or ".join(str(intent.name) for intent in Intents if intent & wanted)
                what = f"{name} is named, and Discord sends it only with the intent {by_name}"
                plan.warnings.append(Finding(where, what, f"add {by_name} to INTENTS, or take {name} out"))


def kept_of(settings: Settings, stored: StoredLayout | None, sessions: StoredSessions | None) -> Choice | str:
    """Return the stored layout if a start keeps it, else why not; by the start's own function."""
    return "" if sessions is None else kept_choice(settings, stored, sessions)


def choice_of(
    settings: Settings, gateway: GatewayBot | RestFailure, kept: Choice | str, stored: StoredLayout | None
) -> Choice | None:
    """Return the layout that a start takes; None while Discord has to be asked for it."""
    if isinstance(kept, Choice):
        return kept
    return new_choice(settings, gateway, stored) if isinstance(gateway, GatewayBot) else None


def _broker(plan: Plan, said: BrokerSaid) -> None:
    if not said.reached:
        do = said.do or "see AMQP_URI, and whether the broker runs"
        plan.problems.append(
            Finding("broker", said.problem, f"{do}; a gateway that runs goes on trying by itself")
        )
    plan.problems += said.findings
    plan.warnings += said.warnings
    names = sorted({node.cluster for node in said.nodes if node.reached})
    if len(names) > 1:
        what = f"the nodes belong to different RabbitMQ clusters: {', '.join(names)}"
        do = "name nodes of one cluster: exchanges and queues of one are not there for the others"
        plan.problems.append(Finding("AMQP_URI", what, do))
    elif len(said.nodes) > 1 and names:
        plan.notes.append(
            f"the broker is the RabbitMQ cluster {names[0]}: workers' queues should be quorum queues. A classic queue "
            "is away with its node, and what is published meanwhile is confirmed and lost (docs/rabbitmq.md)"
        )


def _proxy(plan: Plan, settings: Settings) -> None:
    """The proxy at PROXY_ADDRESS, judged as it judges its gateway at its start."""
    given = settings.proxy
    if given.address is None:
        return
    plan.proxy = ProxyPlan(
        f"{'ws' if given.cert is None else 'wss'}://{given.address}",
        "the bot's token" if given.token is None else "the bot's token or PROXY_TOKEN",
        "the proxy (PROXY_CERT)"
        if given.cert is not None
        else "another server in front of it (PROXY_BEHIND_TLS)"
        if given.behind_tls
        else "nobody",
    )
    published = settings.published
    message_content = bool(settings.session.intents & Intents.MESSAGE_CONTENT)
    judgement = judge(
        ClusterList(
            shard_count=0,
            clusters=(),
            intents=settings.session.intents,
            kinds=tuple(settings.cache.policy(message_content=message_content).kept()),
            events=None if published.only is None else tuple(published.only),
            events_except=tuple(published.never),
        )
    )
    plan.problems += [Finding("PROXY_ADDRESS", words) for words in judgement.refusals]
    plan.warnings += [Finding("PROXY_ADDRESS", words) for words in judgement.notes]


def _intents(plan: Plan, settings: Settings, application: Application | RestFailure) -> None:
    allowed = application.privileged_intents if isinstance(application, Application) else None
    if isinstance(application, Application):
        plan.application = f"{application.name} ({application.id})"
    elif application.kind != "unauthorized":
        what = f"it is not known which privileged intents are switched on: {application.text}"
        plan.warnings.append(Finding("intents", what))
    for intent in Intents:
        if not settings.session.intents & intent:
            continue
        privileged = bool(intent & PRIVILEGED)
        switched_on = bool(allowed & intent) if privileged and allowed is not None else None
        plan.intents.append(IntentPlan(str(intent.name), privileged, switched_on))
        if switched_on is False:
            what = (
                f"the privileged intent {intent.name} is not switched on for this application (Discord: 4014)"
            )
            do = f"developer portal → Bot → Privileged Gateway Intents; or take {intent.name} out of INTENTS"
            plan.problems.append(Finding("INTENTS", what, do))
    _unseen(plan, settings)
    if settings.cache.enabled and not settings.session.intents & Intents.GUILDS:
        what = "without the intent GUILDS no guild comes, and the cache stays empty"
        plan.warnings.append(Finding("INTENTS", what, "add GUILDS, or set CACHE_ENABLED=false"))


def _shards(plan: Plan, settings: Settings, choice: Choice, kept: Choice | str, known: Known) -> None:
    layout, total = choice.layout, choice.layout.shards
    plan.shards, plan.shards_why = total, choice.words
    if settings.layout.shards is not None:
        plan.shards_why = "SHARDS says so"
    elif isinstance(known.gateway, GatewayBot) and total == known.gateway.shards + settings.layout.extra:
        extra = settings.layout.extra
        plan.shards_why = f"{known.gateway.shards} recommended by Discord + {extra} extra (EXTRA_SHARDS)"
    mine = _clusters(plan, settings, layout)
    shards = [shard for cluster in mine for shard in layout.shards_of(cluster)]
    plan.shards_here = len(shards)
    resumed = set() if known.sessions is None else set(known.sessions.resumed(layout))
    plan.resumed = len(resumed)
    _stored(plan, choice, kept, known)
    identifying = [shard for shard in shards if shard not in resumed]
    if isinstance(known.gateway, GatewayBot):
        answer = known.gateway
        plan.recommended = answer.shards
        _recommended(plan, settings, known.stored, answer, kept)
        if total < answer.shards * LEAST_SHARE_OF_RECOMMENDED:
            what = f"{total} shards where Discord recommends {answer.shards}: it refuses over 2,500 guilds a shard"
            what += " (4011)"
            do = f"set SHARDS={answer.shards} or more, or leave it out"
            plan.warnings.append(Finding("SHARDS", what, do))
        _buckets(plan, settings, answer, shards)
        _identifies(plan, answer, shards, identifying, known)
    compression = compression_of(settings.session.compression, total)
    _memory(plan, settings, compression, len(shards), known)


def _stored(plan: Plan, choice: Choice, kept: Choice | str, known: Known) -> None:
    """What becomes of the sessions that are written down."""
    if plan.resumed:
        plan.notes.append(
            f"{plan.resumed} of {plan.shards_here} shards resume their stored session, without an identify, as far as "
            "Discord still holds it"
        )
    if isinstance(kept, str) and kept and known.stored is not None:
        plan.notes.append(kept)
    lost = 0 if known.sessions is None else known.sessions.given_up(choice.layout, known.stored)
    if lost:
        what = f"{lost} stored sessions belong to other intents, another token or another layout: they are given up"
        do = "their shards identify anew, and RATEWAY_GAP tells workers what they may have missed"
        plan.warnings.append(Finding("sessions", what, do))


def _recommended(
    plan: Plan, settings: Settings, stored: StoredLayout | None, answer: GatewayBot, kept: Choice | str
) -> None:
    fresh = new_choice(settings, answer, stored).layout.shards
    if isinstance(kept, Choice) and kept.layout.shards != fresh:
        plan.notes.append(
            f"{kept.layout.shards} shards are stored from the last start and stay in force while their sessions can be "
            f"resumed. With the {answer.shards} that Discord recommends and EXTRA_SHARDS={settings.layout.extra} it "
            f"would be {fresh}: RESHARD=1 changes it, and ends every session"
        )


def _clusters(plan: Plan, settings: Settings, layout: Layout) -> list[int]:
    chosen = settings.layout.clusters
    missing = sorted((chosen or frozenset()) - set(layout.clusters))
    if missing:
        what = f"there is no cluster {', '.join(map(str, missing))}: {layout.shards} shards make {len(layout.clusters)}"
        plan.problems.append(Finding("CLUSTERS", what, f"write clusters from 1 to {len(layout.clusters)}"))
    mine = running_clusters(settings, layout)
    for cluster in layout.clusters:
        shards = layout.shards_of(cluster)
        exchange, queue = topology.exchange(cluster), topology.incoming(cluster)
        plan.clusters.append(ClusterPlan(cluster, shards[0], shards[-1], exchange, queue, cluster in mine))
    if len(mine) < len(layout.clusters) and settings.identify.buckets is None:
        what = "this gateway runs some of the clusters, and does not count the identifies of those that run the others"
        plan.warnings.append(Finding("CLUSTERS", what, "give each gateway IDENTIFY_BUCKETS of its own"))
    return mine


def _buckets(plan: Plan, settings: Settings, answer: GatewayBot, shards: list[int]) -> None:
    mine = settings.identify.buckets
    if mine is None:
        return
    outside = [shard for shard in shards if shard % answer.max_concurrency not in mine]
    if outside:
        few = ", ".join(map(str, outside[:8])) + (" …" if len(outside) > 8 else "")
        what = f"the shards {few} identify in other buckets (shard modulo max_concurrency, {answer.max_concurrency})"
        do = "give this gateway the buckets of its shards, or other clusters"
        plan.problems.append(Finding("IDENTIFY_BUCKETS", what, do))


def _identifies(
    plan: Plan, answer: GatewayBot, shards: list[int], identifying: list[int], known: Known
) -> None:
    governor = IdentifyGovernor(shards=shards)
    now = known.moment.monotonic
    if known.ledger is not None:
        governor.restore(known.ledger, known.moment)
    governor.budget(
        Budget(answer.total, answer.remaining, answer.reset_after_ms, answer.max_concurrency), now
    )
    left = governor.available(now)
    resets_in = answer.reset_after_ms / 1000
    started = {shard for shard, _ in known.ledger.spends} if known.ledger is not None else set()

    def suffices(wanted: list[int]) -> bool:
        # A first start of the day may use the reserve; a shard that identified today already may not.
        return left - (governor.reserve if started & set(wanted) else 0) >= len(wanted)

    plan.identifies = IdentifyPlan(
        len(shards), len(identifying), answer.total, left, governor.reserve, resets_in, answer.max_concurrency,
        suffices(shards),
    )  # fmt: skip
    do = f"the count starts anew in {resets_in / 3600:.1f} h; {governor.reserve} are kept for lost sessions"
    if not suffices(identifying):
        what = f"{len(identifying)} identifies are needed for this start; {left} of {answer.total} are left"
        plan.problems.append(Finding("identifies", what, do))
    elif not suffices(shards):
        what = f"{len(shards)} identifies are needed if no session can be resumed; {left} of {answer.total} are left"
        plan.warnings.append(Finding("identifies", what, do))
    concurrency = answer.max_concurrency
    rounds = max(Counter(shard % concurrency for shard in identifying).values(), default=0)
    each = "one" if concurrency == 1 else f"{concurrency} at a time (max_concurrency)"
    why = (
        f"{len(identifying)} shards identify, {each} every {SPACING:g} s: {rounds} rounds; slow READYs take longer"
        if identifying
        else "every shard resumes"
    )
    plan.start = StartPlan(rounds * SPACING, why)


def _memory(plan: Plan, settings: Settings, compression: Compression, shards: int, known: Known) -> None:
    machine = known.machine
    workers = min(
        settings.process.processes or known.cores, max(1, len([row for row in plan.clusters if row.here]))
    )
    # One process does everything itself; several have a supervisor beside them.
    processes = workers if workers == 1 else workers + 1
    base = processes * PROCESS_BYTES + shards * SHARD_BYTES
    spans = {"zstd-stream": ZSTD_BYTES, "zlib-stream": (ZLIB_BYTES, ZLIB_BYTES), "none": (0, 0)}
    low, high = spans[compression]
    with_zlib = base + shards * ZLIB_BYTES
    advice = ""
    if compression == "zstd-stream" and machine is not None and shards * high > machine * ZSTD_SHARE:
        advice = "COMPRESSION=zlib-stream is the better choice here: 37 KB a shard, for about 1 µs more CPU an event"
    elif compression == "none":
        advice = "COMPRESSION=zlib-stream costs 37 KB a shard and saves most of the traffic"
    plan.memory = MemoryPlan(base + shards * low, base + shards * high, with_zlib, machine, advice)
