"""The identify governor: decides which shard may identify now, and when the others may.

Identify is the scarce resource of a bot (Discord: *Gateway: Sharding, Max Concurrency* and *Session Start Limit*):

- shard ``i`` belongs to bucket ``i % max_concurrency``, and a bucket takes one identify per 5 seconds;
- a day has ``total`` of them; beyond that number Discord resets the token and ends all sessions.

The governor keeps both, for every schedule of failures. It receives requests, spends and outcomes, and returns
decisions. Times (``now``) are monotonic seconds. What must survive a restart is a :class:`Ledger`, which holds ages
beside the moment of writing, so that neither a new monotonic clock nor a jump of the wall clock can free a bucket
early.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from rateway.permit_outcome import PermitOutcome

__all__ = [
    "Alert", "Budget", "CommonFault", "Granted", "IdentifyGovernor", "IdentifySettings", "Ledger", "Moment",
    "Refusal", "RefusalKind", "beside", "is_beside", "shard_of_asker",
]  # fmt: skip

RefusalKind = Literal["budget", "crash_loop", "bucket", "unauthorized", "ledger", "right"]

# A second session that only fills a cold cache may fail so often within an hour: nobody waits for it.
MOST_FAILURES_BESIDE = 3
# Discord's window is 5 s; the pad covers the network's jitter between two arrivals at Discord.
SPACING = 5.0 + 0.25
# A READY that takes longer than the window is waited for this long, counted from op 2: starting a large shard is work
# for Discord. One that never comes must not keep the other shards of its bucket away.
LONGEST_HOLD = 15.0
# What a restored time may lag behind the moment op 2 was really written: the ledger is on disk *before* that.
RESTORED_ALLOWANCE = 1.0
DAY = 86_400.0
HOUR = 3_600.0
# The moment a window resets at Discord is not ours to the second.
RESET_MARGIN = 5.0
# A budget that was asked for this long ago may have changed, and with it max_concurrency.
BUDGET_AGE = HOUR
# Near the reserve each identify counts, so Discord's own figure is asked for again, but not at every step.
BUDGET_AGE_NEAR_RESERVE = 60.0
RESERVE_SHARE = 0.05
# Lost sessions may use the reserve, but not its last hundredth of the day: a person must be able to start something.
FLOOR_SHARE = 0.01
ALERTS = (50, 80)
# A session that dies within a minute after READY counts as a failing identify: READY-then-die loops burn tokens.
STABLE_AFTER = 60.0
# How long a shard that crash-loops gets no identify; afterwards one, and none for as long again if it fails.
STOPPED_FOR = 6 * HOUR
# Shards that fail alike until it is Discord's fault and no shard's own (all of them, where there are fewer), and how
# many failures they have together.
ALIKE_SHARDS = 3
ALIKE_FAILURES = 3
# In a common fault one of the failing shards tries at a time. The pause between two tries is a tenth of the fault's
# age: recovery takes at most that much longer than the fault. At the cap a day of it costs 144 identifies and the 50
# or so before that, a fifth of what a small bot has.
TRY_SHARE = 0.1
LONGEST_TRY_PAUSE = 600.0
# Shards that have not failed in the fault themselves are not held back, up to so many failing ones: three sick shards
# of a thousand are no reason to keep a healthy one away, a thousand that fail would use up a day.
ALIKE_FRESH = 20
# A fault that comes back so soon after a READY ended it is the same one: READYs come, but sessions do not last.
RELAPSE = 600.0


def beside(shard_id: int) -> int:
    """Return the number by which the second session of a shard asks, which only fills a cold cache: below 0.

    It is an asker of its own, so that what becomes of its identifies is never held against the shard.
    """
    return ~shard_id


def is_beside(asker: int) -> bool:
    """Return whether a second session asks, and not the shard itself."""
    return asker < 0


def shard_of_asker(asker: int) -> int:
    """Return the shard that identifies, whoever asks for it."""
    return ~asker if asker < 0 else asker


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentifySettings:
    """The settings of identifying."""

    buckets: frozenset[int] | None
    """The identify buckets that this gateway may use; None: all."""
    crash_loop: int
    """Failing identifies of one shard within an hour after which it is stopped; 0: never."""


@dataclass(frozen=True, slots=True)
class Budget:
    """The session starts that are left, as ``GET /gateway/bot`` gives them. ``reset_after_ms`` is in milliseconds."""

    total: int
    remaining: int
    reset_after_ms: int
    max_concurrency: int


@dataclass(frozen=True, slots=True)
class Granted:
    """This shard may identify now; its bucket is held until ``finished``."""

    shard_id: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """No permit for now. ``until`` is when to ask again (monotonic seconds); ``None``: not without a person's help."""

    kind: RefusalKind
    until: float | None
    why: str


@dataclass(frozen=True, slots=True)
class Alert:
    """More than ``percent`` of the day's identifies are used. ``reset_after`` is in seconds."""

    percent: int
    used: int
    total: int
    reset_after: float


@dataclass(frozen=True, slots=True)
class CommonFault:
    """Identifies of many shards fail alike, which is Discord's fault (or the network's) and not a shard's own."""

    since: float
    """The time of the first failure (monotonic seconds)."""
    shards: int
    """The number of shards that failed and have had no READY since."""
    outcomes: Mapping[str, int]
    """Their last identifies, counted by how they ended; ``lost`` is a READY whose session ended within a minute."""


@dataclass(frozen=True, slots=True)
class Moment:
    """One moment on both clocks. ``boot`` names the boot of the machine: within it, ``monotonic`` can be compared."""

    monotonic: float
    wall: float
    boot: str

    def since(self, earlier: Moment) -> float:
        """Seconds since *earlier*, never negative: a clock that went back makes everything young, not old."""
        if self.boot and self.boot == earlier.boot:
            elapsed = self.monotonic - earlier.monotonic
        else:
            elapsed = self.wall - earlier.wall
        return max(0.0, elapsed)


@dataclass(frozen=True, slots=True)
class Ledger:
    """The part of the governor's state that outlives the process. Every number of seconds is an age at ``written``
    (``stopped``: the remaining time).
    """

    written: Moment
    spends: list[tuple[int, float]]
    """Shard and age of each identify of the last day, oldest first. Below 0: of a second session (:func:`beside`)."""
    failures: dict[int, list[float]]
    """Per shard, the ages of identifies that failed within the last hour."""
    stopped: dict[int, float]
    """Shards that crash-looped, and for how long they still get nothing (0: one more try)."""


class IdentifyGovernor:
    """Grants identifies for the shards of one bot.

    *shards* are the shards that this gateway runs: the reserve and the first start are measured by their number.
    *buckets* restricts it to some buckets, when other gateways of the same bot have the others. *crash_loop* is the
    number of failing identifies within an hour that stops a shard (0: never). *new_layout*: the layout was changed
    because Discord refused the one before it, or a person did, so that identifies of shards with the same numbers were
    other shards'.
    *lag*: seconds that may pass from ``spent`` until the identify is sent.

    Who asks is a shard, or its second session (:func:`beside`). That one goes last, never uses the reserve, gets
    nothing while identifies of many shards fail alike, and is stopped sooner.
    """

    def __init__(
        self,
        *,
        shards: Iterable[int] = (),
        buckets: frozenset[int] | None = None,
        crash_loop: int = 10,
        new_layout: bool = False,
        lag: float = 0.0,
    ) -> None:
        self._lag = lag
        self._planned = frozenset(shards)
        self._buckets = buckets
        self._crash_loop = crash_loop
        self._budget: Budget | None = None
        self._known_at = 0.0
        self._reset_at = 0.0
        self._remaining = 0
        self._waiting: dict[int, bool] = {}
        self._wanted = False
        self._granted: dict[int, float] = {}
        self._holds: dict[int, float] = {}
        self._spends: list[tuple[int, float]] = []
        self._failures: dict[int, list[float]] = {}
        self._ready: dict[int, float] = {}
        self._stopped: dict[int, float] = {}
        self._new_layout = new_layout
        # Identifies at the front of ``_spends`` that belong to another layout.
        self._former = 0
        # Per shard when its last identify of the last hour ended, and how; "ready" unless its session died young.
        self._outcomes: dict[int, tuple[float, str]] = {}
        self._fault_since: float | None = None
        self._relapsed = False
        self._forgiven_at = -math.inf
        # Since when the fault lasted that a READY ended last.
        self._before_relapse = math.inf
        self._tried_at = -math.inf
        self._alerted = 0
        self.alerts: list[Alert] = []
        """Alerts since the list was last cleared, which its reader does."""

    # What is known

    @property
    def max_concurrency(self) -> int | None:
        """The number of buckets, ``None`` before the first budget."""
        return self._budget.max_concurrency if self._budget else None

    @property
    def total(self) -> int | None:
        """Identifies a day, ``None`` before the first budget."""
        return self._budget.total if self._budget else None

    @property
    def fault(self) -> CommonFault | None:
        """The common fault that identifies meet now, if there is one."""
        if self._fault_since is None:
            return None
        failing = Counter(self._outcomes[shard][1] for shard in self._failing())
        return CommonFault(self._fault_since, failing.total(), failing)

    def needs(self, shards: int, now: float) -> bool:
        """Return whether the day's budget, as far as it is known, has an identify for each of so many shards."""
        return self._budget is not None and self.available(now) >= shards

    @property
    def waiting(self) -> int:
        """The number of shards that wait for a permit."""
        return len(self._waiting)

    @property
    def reserve(self) -> int:
        """Identifies that only lost sessions may use.

        5 % of the day or one for each shard, whichever is more, but never so many that a full start does not fit.
        """
        if self._budget is None:
            return 0
        wanted = max(math.ceil(self._budget.total * RESERVE_SHARE), len(self._planned))
        return max(0, min(wanted, self._budget.total - len(self._planned)))

    def available(self, now: float) -> int:
        """Return identifies left: Discord's figure, or less when the count of the last 24 hours here is higher."""
        if self._budget is None:
            return 0
        own = self._budget.total - len(self._of_last_day(now))
        return max(0, min(self._remaining, own) - len(self._granted))

    def reset_in(self, now: float) -> float | None:
        """Return seconds until Discord's window resets, ``None`` before the first budget."""
        return None if self._budget is None else max(0.0, self._reset_at - now)

    def budget(self, budget: Budget, now: float, *, asked_at: float | None = None) -> None:
        """Take in what Discord says. *asked_at*: when the question was sent; identifies since then are not in it."""
        self._budget = budget
        self._known_at = now
        self._wanted = False
        # A window that has not begun, or ends now, is no time to wait for: Discord is asked again a minute later.
        self._reset_at = now + (budget.reset_after_ms / 1000 or BUDGET_AGE_NEAR_RESERVE)
        since = now if asked_at is None else asked_at
        self._remaining = budget.remaining - sum(1 for _, at in self._spends if at >= since)
        self._mark(now)

    def want_budget(self) -> None:
        """Ask for the budget although no shard waits for a permit: sessions were resumed, and it is not known yet."""
        self._wanted = True

    def needs_budget(self, now: float) -> bool:
        """Whether a shard waits, or the budget was asked for, and what is known of it is out of date."""
        if not self._waiting and not self._wanted:
            return False
        return self._budget is None or now >= self._old_at(now)

    # What happens

    def request(self, shard_id: int, lost: bool, now: float) -> None:
        """Take in that *shard_id* asks to identify; *lost*: that replaces a lost session."""
        ready = self._ready.pop(shard_id, None)
        if ready is not None and not is_beside(shard_id):
            if now - ready < STABLE_AFTER:
                self._fail(shard_id, now, "lost")
            else:
                self._forgive(shard_id)
                self._outcomes[shard_id] = (ready, "ready")
        self._holds.pop(shard_id, None)
        self._granted.pop(shard_id, None)
        self._waiting[shard_id] = lost

    def withdraw(self, shard_id: int) -> None:
        """Withdraw the request of a shard that has no permit yet."""
        self._waiting.pop(shard_id, None)

    def restart(self, shard_id: int) -> None:
        """Forget a crash loop of the shard: an operator asks for it."""
        self._forgive(shard_id)
        self._outcomes.pop(shard_id, None)

    def decide(self, now: float) -> list[Granted | tuple[int, Refusal]]:
        """Return the permits granted and refused now. A refused shard must ask again later; the rest continue to wait.

        Lost sessions go first, and those before others that failed lately; then shards in ascending order. None is
        refused on a budget that is out of date.
        """
        self._forget(now)
        decisions: list[Granted | tuple[int, Refusal]] = []
        if self._budget is None or not self._waiting:
            self._look_at_fault(now)
            return decisions
        self._look_at_fault(now)
        may_change = self.needs_budget(now)
        taken = self._taken(now)
        held_back = self._held_back()
        for shard_id, lost in sorted(self._waiting.items(), key=self._rank):
            bucket = self._bucket(shard_id)
            refusal = self._never(shard_id, bucket, now)
            if refusal is None:
                tries = shard_id in held_back
                if taken.get(bucket, now) > now or (tries and self._next_try(now) > now):
                    continue
                refusal = self._over_budget(shard_id, lost, now)
                if refusal is not None and may_change:
                    continue
            if refusal is not None:
                decisions.append((shard_id, refusal))
            else:
                taken[bucket] = math.inf
                self._granted[shard_id] = now
                if tries:
                    self._tried_at = now
                decisions.append(Granted(shard_id))
            del self._waiting[shard_id]
        return decisions

    def why_not(self, shard_id: int, now: float) -> str:
        """Return why a new session of *shard_id* in place of one that is given up would have to wait; empty when it
        would not.

        Waiting for the bucket is not counted.
        """
        if self._budget is None:
            return ""
        refusal = self._never(shard_id, self._bucket(shard_id), now)
        refusal = refusal or self._over_budget(shard_id, True, now)
        if refusal is not None:
            again = "" if refusal.until is None else f"; again in {refusal.until - now:.0f} s"
            return f"{refusal.why}{again}"
        return "" if self._fault_since is None else "identifies of many shards fail alike just now"

    def spent(self, shard_id: int, now: float) -> bool:
        """Count an identify of *shard_id*, which is sent now. A second call moves its time; it is counted once, by the
        call that returns True.
        """
        is_counted = self._granted.pop(shard_id, None) is None and shard_id in self._holds
        if is_counted:
            self._spends.remove((shard_id, self._holds[shard_id]))
        else:
            self._remaining -= 1
        self._forget(now)
        self._spends.append((shard_id, now))
        self._holds[shard_id] = now
        self._mark(now)
        return not is_counted

    def may_send(self, shard_id: int, now: float) -> bool:
        """Return whether an identify of the shard may be sent: its permit was granted, has no outcome yet, and its
        bucket is still kept for it.
        """
        counted_at = self._holds.get(shard_id, -math.inf)
        return shard_id in self._granted or now < counted_at + LONGEST_HOLD + self._lag

    def finished(self, shard_id: int, outcome: PermitOutcome, now: float) -> None:
        """Take in the outcome of an identify, or that none was sent (``unused``)."""
        if self._granted.pop(shard_id, None) is not None or self._holds.pop(shard_id, None) is None:
            return
        if is_beside(shard_id):
            if outcome == "ready":
                self._forgive(shard_id)
            elif outcome != "unused":
                self._fail_beside(shard_id, now)
        elif outcome == "ready":
            self._ready[shard_id] = now
            # A failure stays one until the session has lasted.
            self._outcomes.setdefault(shard_id, (now, "ready"))
            if self._fault_since is not None and not self._relapsed:
                self._forgive_all(now)
        elif outcome != "unused":
            self._fail(shard_id, now, outcome)

    # When to look again

    def wake_at(self, now: float) -> float | None:
        """Return the time at which ``decide`` or ``needs_budget`` may answer otherwise without a new fact.

        ``None`` when that depends on a fact: a new budget, or the end of an identify that is under way.
        """
        times = []
        if self._fault_since is not None and self._relapsed:
            times += [at + STABLE_AFTER for at in self._ready.values() if at >= self._fault_since]
        if self._waiting and self._budget is not None:
            stale = self.needs_budget(now)
            if not stale:
                times.append(self._old_at(now))
            taken = self._taken(now)
            held_back = self._held_back()
            for shard_id in self._waiting:
                free = taken.get(self._bucket(shard_id), now)
                if shard_id in held_back:
                    free = max(free, self._next_try(now))
                # On a budget that is out of date a shard may wait for the next one although its bucket is free.
                if free < math.inf and not (stale and free <= now):
                    times.append(free)
        return max(now, min(times)) if times else None

    # What outlives the process

    def snapshot(self, moment: Moment) -> Ledger:
        """Return the state that a restart needs, as of *moment*."""
        now = moment.monotonic
        self._forget(now)
        return Ledger(
            written=moment,
            spends=[(shard, round(now - at, 3)) for shard, at in self._spends],
            failures={shard: [round(now - at, 3) for at in times] for shard, times in self._failures.items()},
            stopped={
                shard: round(max(0.0, until - now), 3)
                for shard, until in self._stopped.items()
                if now - self._ready.get(shard, now) < STABLE_AFTER
            },
        )

    def restore(self, ledger: Ledger, moment: Moment) -> None:
        """Take over what an earlier process wrote down."""
        now = moment.monotonic
        elapsed = moment.since(ledger.written)
        begun = now - elapsed
        # An age below zero would be a forged or broken ledger: such an identify counts as just sent.
        self._spends = [
            (shard, min(now, begun - max(0.0, age) + RESTORED_ALLOWANCE)) for shard, age in ledger.spends
        ]
        self._spends.sort(key=lambda spend: spend[1])
        self._failures = {shard: [begun - age for age in ages] for shard, ages in ledger.failures.items()}
        stopped = {shard: begun + left for shard, left in ledger.stopped.items()}
        self._stopped = {shard: until for shard, until in stopped.items() if now - until < HOUR}
        # How these ended was not written down. A shard that asks again within a minute did not live long.
        self._ready = (
            {}
            if self._new_layout
            else {shard: at for shard, at in self._spends if now - at < STABLE_AFTER and not is_beside(shard)}
        )
        self._forget(now)
        self._former = len(self._spends) if self._new_layout else 0
        # A restart in the middle of a common fault goes on where it was.
        self._outcomes = {
            shard: (max(times), "closed")
            for shard, times in self._failures.items()
            if now - max(times) < HOUR and not is_beside(shard)
        }
        if self._fails_alike(now):
            self._fault_since = min(at for at, _ in self._outcomes.values())

    # Inside

    def _taken(self, now: float) -> dict[int, float]:
        """Return when each bucket in use is free again. Derived on each call, so that max_concurrency may change at any
        time.
        """
        taken: dict[int, float] = {}
        for shard_id, at in reversed(self._spends):
            if at + SPACING + self._lag <= now:
                break
            bucket = self._bucket(shard_id)
            taken[bucket] = max(taken.get(bucket, 0.0), at + SPACING + self._lag)
        for shard_id, at in self._holds.items():
            # Its READY is still to come.
            bucket = self._bucket(shard_id)
            taken[bucket] = max(taken.get(bucket, 0.0), at + LONGEST_HOLD + self._lag)
        for shard_id in self._granted:
            taken[self._bucket(shard_id)] = math.inf
        return taken

    def _bucket(self, asker: int) -> int:
        assert self._budget is not None
        return shard_of_asker(asker) % self._budget.max_concurrency

    def _old_at(self, now: float) -> float:
        """Return the time from which the known budget is out of date."""
        assert self._budget is not None
        near = self.available(now) <= self.reserve + math.ceil(self._budget.total * RESERVE_SHARE)
        old = self._known_at + (BUDGET_AGE_NEAR_RESERVE if near else BUDGET_AGE)
        return min(old, self._reset_at + RESET_MARGIN)

    def _never(self, shard_id: int, bucket: int, now: float) -> Refusal | None:
        """Return the refusal of *shard_id* that neither its bucket nor the budget can lift; None without one."""
        if self._buckets is not None and bucket not in self._buckets:
            mine = ", ".join(map(str, sorted(self._buckets)))
            why = f"shard {shard_of_asker(shard_id)} identifies in bucket {bucket}"
            return Refusal("bucket", None, f"{why}, and this gateway may use only {mine} (IDENTIFY_BUCKETS)")
        until = self._stopped.get(shard_id)
        if is_beside(shard_id):
            until = max(until or 0.0, self._stopped.get(shard_of_asker(shard_id), 0.0))
            if self._fault_since is not None:
                until = max(until, now + LONGEST_TRY_PAUSE)
            if until > now:
                why = (
                    f"identifies of shard {shard_of_asker(shard_id)}, or of many, fail: its cache has to wait"
                )
                return Refusal("crash_loop", until, why)
            return None
        if until is not None and until > now:
            why = f"shard {shard_id} fails again and again after its identify: it is stopped"
            return Refusal("crash_loop", until, f"{why}, so that it does not use up the day's identifies")
        return None

    def _over_budget(self, shard_id: int, lost: bool, now: float) -> Refusal | None:
        assert self._budget is not None
        left = self.available(now)
        if is_beside(shard_id):
            enough = left > self.reserve
        elif lost:
            enough = left > max(1, int(self._budget.total * FLOOR_SHARE))
        else:
            enough = left > self.reserve or self._first_start_fits(shard_id, left)
        if enough:
            return None
        kept = "" if left == 0 else f" and {left} are kept for {'a person' if lost else 'lost sessions'}"
        why = f"{self._budget.total - left} of {self._budget.total} identifies of the day are used{kept}"
        return Refusal("budget", self._more_at(now), why)

    def _first_start_fits(self, shard_id: int, left: int) -> bool:
        """The first start of the day may use the reserve, if it suffices for all that have yet to start."""
        started = {shard for shard, _ in self._spends[self._former :]}
        if shard_id in started:
            return False
        outstanding = (
            self._planned
            | {shard for shard, lost in self._waiting.items() if not lost and not is_beside(shard)}
        ) - started
        return left >= len(outstanding - self._granted.keys())

    def _more_at(self, now: float) -> float:
        """Return when the budget may be larger: at Discord's reset, or when the oldest identifies counted here are a
        day old.
        """
        assert self._budget is not None
        spends = self._of_last_day(now)
        own = self._budget.total - len(spends)
        if own < self._remaining and spends:
            return max(now + RESET_MARGIN, spends[0][1] + DAY + RESET_MARGIN)
        return max(now, self._reset_at) + RESET_MARGIN

    # A fault that many shards meet

    def _rank(self, item: tuple[int, bool]) -> tuple[bool, bool, float, int]:
        """Lost sessions first, then those that have not failed lately, so that each has its turn; then ascending.
        Second sessions last.
        """
        shard_id, lost = item
        at, how = self._outcomes.get(shard_id, (0.0, "ready"))
        return is_beside(shard_id), not lost, 0.0 if how == "ready" else at, shard_of_asker(shard_id)

    def _held_back(self) -> Collection[int]:
        """Return the shards that wait and of which only one at a time may try, while a common fault lasts."""
        if self._fault_since is None:
            return ()
        failing = self._failing()
        return self._waiting if len(failing) >= ALIKE_FRESH else failing

    def _failing(self) -> set[int]:
        return {shard for shard, (_, how) in self._outcomes.items() if how != "ready"}

    def _next_try(self, now: float) -> float:
        assert self._fault_since is not None
        age = max(self._tried_at, self._fault_since) - self._fault_since
        return self._tried_at + min(LONGEST_TRY_PAUSE, max(SPACING, age * TRY_SHARE))

    def _fails_alike(self, now: float) -> bool:
        """Return whether at least half of the shards with a conclusive identify within the hour failed."""
        for shard_id, at in self._ready.items():
            if now - at >= STABLE_AFTER:
                self._outcomes[shard_id] = (at, "ready")
        self._outcomes = {shard: each for shard, each in self._outcomes.items() if now - each[0] < HOUR}
        failing = self._failing()
        together = sum(len(self._failures.get(shard, ())) for shard in failing)
        enough = min(ALIKE_SHARDS, len(self._planned) or ALIKE_SHARDS)
        lasting = [at for at, how in self._outcomes.values() if how == "ready" and now - at >= STABLE_AFTER]
        return len(failing) >= enough and together >= ALIKE_FAILURES and len(failing) >= len(lasting)

    def _look_at_fault(self, now: float) -> None:
        """End a common fault of which nothing was met for an hour, or whose READYs last by now."""
        since = self._fault_since
        if since is None:
            return
        lasts = any(at >= since and now - at >= STABLE_AFTER for at in self._ready.values())
        met = any(now - self._outcomes[shard][0] < HOUR for shard in self._failing())
        if (self._relapsed and lasts) or not met:
            self._forgive_all(now)

    def _meet_fault(self, now: float) -> None:
        if self._fault_since is not None:
            return
        first = min(self._outcomes[shard][0] for shard in self._failing())
        self._relapsed = now - self._forgiven_at < RELAPSE
        self._fault_since = min(first, self._before_relapse) if self._relapsed else first

    def _forgive_all(self, now: float) -> None:
        """The fault was common and is over: nothing of it is held against any shard."""
        self._before_relapse = now if self._fault_since is None else self._fault_since
        self._failures.clear()
        self._stopped.clear()
        self._outcomes.clear()
        self._fault_since = None
        self._relapsed = False
        self._forgiven_at = now

    def _fail(self, shard_id: int, now: float, how: str) -> None:
        count = self._note_failure(shard_id, now)
        self._outcomes[shard_id] = (now, how)
        if self._fault_since is not None or self._fails_alike(now):
            self._meet_fault(now)
            return
        # A shard that was stopped before has one try, not a new series of them.
        if self._crash_loop and (count >= self._crash_loop or shard_id in self._stopped):
            self._stop(shard_id, now)

    def _fail_beside(self, asker: int, now: float) -> None:
        """A second session got no READY. That is no fault of the shard, which has a session."""
        if self._note_failure(asker, now) >= MOST_FAILURES_BESIDE:
            self._stop(asker, now)

    def _note_failure(self, asker: int, now: float) -> int:
        """Note a failure; return how many there were within the last hour."""
        times = [*(at for at in self._failures.get(asker, []) if now - at < HOUR), now]
        self._failures[asker] = times
        return len(times)

    def _stop(self, asker: int, now: float) -> None:
        self._stopped[asker] = now + STOPPED_FOR
        del self._failures[asker]

    def _forgive(self, shard_id: int) -> None:
        self._failures.pop(shard_id, None)
        self._stopped.pop(shard_id, None)

    def _of_last_day(self, now: float) -> list[tuple[int, float]]:
        spends = self._spends
        if spends and now - spends[0][1] >= DAY:
            return [spend for spend in spends if now - spend[1] < DAY]
        return spends

    def _forget(self, now: float) -> None:
        """Drop identifies that are more than a day old."""
        before, self._spends = len(self._spends), self._of_last_day(now)
        self._former = max(0, self._former - (before - len(self._spends)))

    def _mark(self, now: float) -> None:
        if self._budget is None or self._budget.total <= 0:
            return
        used = self._budget.total - self.available(now)
        percent = 100 * used / self._budget.total
        reached = max((mark for mark in ALERTS if percent >= mark), default=0)
        if reached > self._alerted:
            self.alerts.append(Alert(reached, used, self._budget.total, max(0.0, self._reset_at - now)))
        self._alerted = reached
