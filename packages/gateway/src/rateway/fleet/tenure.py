"""One member's side of the election of one subject, over a queue with a single active consumer.

The queue holds the subject's records. Its active consumer is given all of them, and each one that is written from then
on; the other consumers wait in line, and are given nothing. When the active one goes, what it has not acknowledged goes
to the next. Everything here follows from the order in which a consumer is given records, which is the queue's:

- A record counts as *confirmed* when the broker has confirmed it **and** it was delivered to its writer. So its writer
  was the active consumer then, and whoever is active later has been given this record. An owner that was replaced
  without its knowledge is confirmed nothing more.
- A candidate that becomes active collects for :data:`~rateway.fleet.port.RIGHT_S`: what the former owner was confirmed
  was sent before that, so its right is over then. A released record needs no such wait. Then it *claims* an epoch with
  a record of its own (number 0). The claim stands if it is delivered with nothing in between: another record may
  say that the candidate was not active all the time, and it collects again.
- A claim's body counts for nothing, so a late one, of a candidate that has gone, can replace an owner and no record.
  The body of the greatest (epoch, number) is written once more under the new epoch; once that is confirmed, the tenure
  begins.
- The lower records are acknowledged when a greater one is confirmed, never before.
- A greater epoch ends a tenure. A lost channel does not: on the next one the owner writes its newest body until it is
  delivered (it was replaced by nobody), or was confirmed for :data:`DOUBT_S` and was not (another one is active). A
  candidate that sees such a record while it collects lets the living owner have the subject back.

Pure: facts come with the time (seconds of one clock), orders go out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from rateway.fleet.port import RENEW_S, RIGHT_S, FleetRecord, Owned, WriteResult

__all__ = [
    "DOUBT_S", "MOST_FLYING", "MOST_YIELDS", "QUEUE_LENGTH", "Acknowledge", "Answer", "Close", "Lost", "Order",
    "Publish", "Released", "Reopen", "SubjectElection", "Won",
]  # fmt: skip

# All times in seconds.

# Collected where no record was ever written: there is no owner whose right could last.
NEW_S: Final = 1.0
# A candidate that is given nothing for so long writes a claim of nobody's: a queue may have lost its records, and only
# a delivery shows who is active. Twice as long each time, up to the second figure.
SILENT_S: Final = 10.0
MOST_SILENT_S: Final = 60.0
# If nothing comes of that for so long, it goes to the end of the line, with another channel: RabbitMQ has been known to
# leave a queue whose consumers all wait, and gives its messages only to one that is new.
UNANSWERED_S: Final = 3.0
# From a confirm to the delivery of the same record, which takes milliseconds: longer, and another one is active.
DELIVERY_S: Final = 1.0
# An owner whose records are confirmed and not delivered for so long was replaced. Until then it may be its own former
# channel that is active, on a node that is silent and not given up yet (net_ticktime), or a candidate that is about to
# see that the owner lives.
DOUBT_S: Final = 12.0
DOUBT_WRITE_S: Final = 0.75
# A body that comes so long after the first record was written just now, by a living owner.
FRESH_S: Final = 0.25
# How often a candidate lets a living owner have the subject back within the second figure: one that does not get it by
# then does not matter any more.
MOST_YIELDS: Final = 2
YIELDS_WITHIN_S: Final = 30.0
# A released record waits so long for the member that it is meant for, and others look again after the second figure.
MEANT_S: Final = 5.0
LOOK_S: Final = 0.25
# The queue drops the oldest record above so many: several members may have written all that they write in a doubt, and
# the newest record must not be the oldest of these.
QUEUE_LENGTH: Final = 64
# Records that are written and not confirmed.
MOST_FLYING: Final = 4
# Nothing is confirmed on an open channel: another channel has to do. A queue without a majority answers on no channel.
STUCK_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Publish:
    """Write a record to the queue. The publishes of a channel are counted from 1 by their confirms."""

    record: FleetRecord


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """Acknowledge these deliveries."""

    tags: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Close:
    """Close the channel; no other one is wanted."""


@dataclass(frozen=True, slots=True)
class Reopen:
    """Close the channel and open another one *after* so many seconds: the end of the line."""

    after: float


@dataclass(frozen=True, slots=True)
class Won:
    """The tenure begins."""

    owned: Owned


@dataclass(frozen=True, slots=True)
class Lost:
    """The tenure is over, without a release."""

    why: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of a write; *waiter* is what it was asked with."""

    waiter: int
    result: WriteResult


@dataclass(frozen=True, slots=True)
class Released:
    """The result of a release."""

    confirmed: bool


Order: TypeAlias = Publish | Acknowledge | Close | Reopen | Won | Lost | Answer | Released

_Phase = Literal[
    "idle",  # neither a campaign nor a tenure
    "away",  # one of them, and no channel
    "waiting",  # in line: nothing was delivered yet
    "collecting",  # active, for all that is known
    "claiming",  # the claim is written
    "beginning",  # the claim stands, the first record is written
    "owning",
    "doubtful",  # a tenure; whether this member is the active consumer is not known
    "releasing",
]


@dataclass(slots=True, eq=False)
class _Sent:
    """A record that was written on this channel and is not confirmed in full."""

    record: FleetRecord
    at: float
    confirmed_at: float | None = None
    tag: int | None = None
    """Of its delivery."""


@dataclass(slots=True, eq=False)
class _Tenure:
    epoch: int
    body: bytes
    former: FleetRecord | None
    number: int = 0
    """Of the newest record that was written."""
    confirmed_at: float | None = None
    """When the newest confirmed record was sent."""
    confirmed_number: int = 0
    unwritten: bool = False
    """Whether *body* is newer than the newest record."""


@dataclass(slots=True, eq=False)
class _Waiter:
    name: int
    number: int
    """The record that answers it, or any later one."""
    until: float


@dataclass(slots=True, eq=False)
class _ChannelState:
    """What happened on one channel."""

    # Publishes, from 1.
    count: int = 0
    flying: dict[int, _Sent] = field(default_factory=dict)
    # Deliveries that are not acknowledged. None: it could not be read.
    held: dict[int, FleetRecord | None] = field(default_factory=dict)
    best: FleetRecord | None = None
    """The greatest record with a body."""
    first_at: float = 0.0
    """When the member became the active consumer, for all that is known."""
    has_claimed: bool = False
    """Whether a claim was written."""


class SubjectElection:
    """What one member does about one subject. Times never go back."""

    def __init__(self, member: str, nonce: bytes = b"") -> None:
        """*nonce*: of this process alone. Its claims carry it: no claim of a former process of the same member, whose
        epoch may be the same, is taken for one of these.
        """
        self._member = member
        self._nonce = nonce
        self._phase: _Phase = "idle"
        self._channel = _ChannelState()
        self._tenure: _Tenure | None = None
        # The greatest epoch that was seen or claimed. No claim repeats one.
        self._epoch = 0
        # Begin of the phase, or of another collection.
        self._since = 0.0
        self._silent_s = SILENT_S
        # Whether the claim of nobody's of this silence is written.
        self._has_asked = False
        # When the subject was left to a living owner lately.
        self._yields: list[float] = []
        # The newest record that was meant for another member, and when it was seen first.
        self._meant: tuple[tuple[int, int], float] | None = None
        self._waiters: list[_Waiter] = []
        self._wrote_at = 0.0
        # The first confirm of this doubt whose record was not delivered.
        self._doubt_since: float | None = None
        self._release_until = 0.0

    @property
    def epoch(self) -> int | None:
        """The tenure's; None when there is none."""
        return self._tenure.epoch if self._tenure is not None and self._phase != "beginning" else None

    @property
    def confirmed_at(self) -> float | None:
        """When the newest confirmed record of the tenure was sent; None when there is none, or it is being released."""
        if self._tenure is None or self._phase in ("beginning", "releasing"):
            return None
        return self._tenure.confirmed_at

    @property
    def confirmed_order(self) -> tuple[int, int] | None:
        """(epoch, number) of the tenure's newest confirmed record."""
        tenure = self._tenure
        if tenure is None or tenure.confirmed_number == 0:
            return None
        return tenure.epoch, tenure.confirmed_number

    @property
    def is_idle(self) -> bool:
        return self._phase == "idle"

    @property
    def is_doubtful(self) -> bool:
        """Whether there is a tenure whose records are not confirmed at present."""
        return self._tenure is not None and self._phase in ("away", "doubtful")

    # The caller's calls.

    def campaign(self) -> None:
        """Take part. A channel is wanted from now on."""
        if self._phase != "idle":
            raise RuntimeError("a campaign or a tenure is under way")
        self._phase = "away"
        self._silent_s = SILENT_S
        self._yields = []
        self._meant = None

    def withdraw(self) -> list[Order]:
        """Take part no more."""
        self._phase, self._tenure = "idle", None
        return [Close()]

    def write(self, now: float, epoch: int, body: bytes, waiter: int) -> list[Order]:
        """Write *body* as the owner's record."""
        tenure = self._tenure
        if tenure is None or tenure.epoch != epoch or self._phase not in ("owning", "doubtful", "away"):
            return [Answer(waiter, "stale")]
        tenure.body, tenure.unwritten = body, True
        if self._phase != "owning":
            return [Answer(waiter, "away")]
        self._waiters.append(_Waiter(waiter, tenure.number + 1, now + RIGHT_S))
        return self._write_on(now)

    def release(self, now: float, epoch: int, body: bytes, to: str) -> list[Order]:
        """Give the subject up; answered with :class:`Released`."""
        tenure = self._tenure
        if tenure is None or tenure.epoch != epoch or self._phase not in ("owning", "doubtful", "away"):
            return [Released(False)]
        if self._phase == "away":
            return [*self._over(), Released(False)]
        tenure.body, tenure.unwritten = body, False
        self._phase, self._release_until = "releasing", now + RIGHT_S
        return [self._record(now, FleetRecord(epoch, tenure.number + 1, self._member, True, to, body))]

    # What the broker says.

    def opened(self, now: float, is_empty: bool) -> list[Order]:
        """A channel consumes. *is_empty*: there was neither a record nor another consumer before it did."""
        self._channel = _ChannelState()
        self._since = now
        if self._tenure is not None:
            self._phase, self._doubt_since = "doubtful", None
            return [self._write_newest(now)]
        self._phase, self._has_asked = "waiting", False
        return [self._publish(now, FleetRecord(0, 0, ""))] if is_empty else []

    def closed(self, now: float) -> list[Order]:
        """The channel has ended."""
        if self._phase == "idle":
            return []
        self._channel = _ChannelState()
        if self._phase == "releasing":
            return [*self._over(), Released(False)]
        if self._phase == "beginning":
            self._tenure = None
        self._phase = "away"
        return self._answer_all("away")

    def confirmed(self, now: float, tag: int, multiple: bool) -> list[Order]:
        """The broker has the publish *tag*, or all up to it."""
        orders: list[Order] = []
        for sent in self._sent(tag, multiple):
            if sent.confirmed_at is None:
                sent.confirmed_at = now
                if self._phase == "doubtful" and sent.tag is None and self._doubt_since is None:
                    self._doubt_since = now
                orders += self._settle(now, sent)
        # Nothing waits for the delivery of a claim of nobody's.
        flying = self._channel.flying
        for each in [
            each for each, sent in flying.items() if sent.confirmed_at is not None and not sent.record.owner
        ]:
            del flying[each]
        return orders

    def refused(self, tag: int, multiple: bool) -> list[Order]:
        """The broker did not take the publish *tag*, or none up to it. RabbitMQ 3.10 refuses all that a channel
        publishes from then on (docs/rabbitmq.md), and delivers it all the same: what remains is another channel.
        """
        flying = self._channel.flying
        refused = [found for found in flying if found == tag or (multiple and found < tag)]
        for each in refused:
            del flying[each]
        if self._tenure is not None:
            self._tenure.unwritten = True
        if not refused or self._phase in ("idle", "away", "releasing"):
            return []
        return self._reopen(LOOK_S)

    def delivered(self, now: float, tag: int, record: FleetRecord | None) -> list[Order]:
        """A record was delivered; None: a message that is none."""
        channel = self._channel
        channel.held[tag] = record
        if record is None or self._phase in ("idle", "away"):
            return []
        best = channel.best
        is_newer = record.number > 0 and (best is None or record.order > best.order)
        if is_newer:
            channel.best = record
        if self._phase in ("waiting", "collecting", "claiming"):
            return self._collected(now, record, is_newer)
        return self._delivered_to_owner(now, tag, record)

    def tick(self, now: float) -> list[Order]:
        """Do what is due; see :meth:`wake_at`."""
        channel, tenure, phase = self._channel, self._tenure, self._phase
        orders: list[Order] = []
        late = [each for each in self._waiters if each.until <= now]
        if late:
            self._waiters = [each for each in self._waiters if each.until > now]
            orders += [Answer(each.name, "away") for each in late]
        if phase in ("idle", "away"):
            return orders
        if phase == "releasing":
            if now >= self._release_until:
                orders += [*self._over(), Released(False)]
            return orders
        if any(sent.confirmed_at is None and now >= sent.at + STUCK_S for sent in channel.flying.values()):
            return orders + self._reopen(0.0)
        match phase:
            case "waiting" if now >= self._since + self._silent_for():
                if self._has_asked:
                    orders += self._reopen(0.0)
                else:
                    self._since, self._has_asked = now, True
                    self._silent_s = min(MOST_SILENT_S, self._silent_s * 2)
                    orders.append(self._publish(now, FleetRecord(0, 0, "")))
            case "collecting":
                orders += self._decide(now)
            case "claiming" | "beginning":
                if self._undelivered_at() <= now:
                    # In line again, behind the one that is active.
                    orders += self._reopen(0.0)
            case "owning":
                if (since := self._undelivered_at()) <= now:
                    self._phase, self._doubt_since = "doubtful", since - DELIVERY_S
                    orders += self._answer_all("away")
                elif now >= self._wrote_at + RENEW_S:
                    assert tenure is not None
                    tenure.unwritten = True
                    orders += self._write_on(now)
            case "doubtful":
                if self._doubt_since is not None and now >= self._doubt_since + DOUBT_S:
                    orders += self._lost("another member is the active one")
                elif now >= self._wrote_at + DOUBT_WRITE_S and self._has_room():
                    orders.append(self._write_newest(now))
        return orders

    def wake_at(self) -> float | None:
        """Return when :meth:`tick` has something to do, unless something else happens before."""
        times = [each.until for each in self._waiters]
        phase = self._phase
        if phase in ("idle", "away"):
            return min(times, default=None)
        if phase == "releasing":
            return min([*times, self._release_until])
        times += [sent.at + STUCK_S for sent in self._channel.flying.values() if sent.confirmed_at is None]
        match phase:
            case "waiting":
                times.append(self._since + self._silent_for())
            case "collecting":
                times.append(self._since + (RIGHT_S if self._channel.best is not None else NEW_S))
            case "claiming" | "beginning":
                times.append(self._undelivered_at())
            case "owning":
                times.append(self._undelivered_at())
                if self._has_room():
                    times.append(self._wrote_at + RENEW_S)
            case "doubtful":
                if self._doubt_since is not None:
                    times.append(self._doubt_since + DOUBT_S)
                if self._has_room():
                    times.append(self._wrote_at + DOUBT_WRITE_S)
        found = min(times)
        return None if found == _NEVER else found

    # A candidate.

    def _silent_for(self) -> float:
        """How long nothing may be delivered in line, from ``_since`` on."""
        return UNANSWERED_S if self._has_asked else self._silent_s

    def _collected(self, now: float, record: FleetRecord, is_newer: bool) -> list[Order]:
        channel = self._channel
        if self._phase == "claiming" and self._is_sent(record):
            return self._begin(now, record)
        if self._phase == "claiming" and record.owner == self._member and record.order < (self._epoch, 0):
            # A claim of its own from before says nothing of others.
            return []
        self._epoch = max(self._epoch, record.epoch)
        is_living = (
            self._phase == "collecting"
            and is_newer
            and not record.released
            and record.owner != self._member
            and channel.first_at + FRESH_S <= now
        )
        self._silent_s = SILENT_S
        if self._phase == "waiting" or (record.owner and (self._phase == "claiming" or is_newer)):
            # Another one may have been active meanwhile, and was perhaps confirmed what it has written.
            self._collect_again(now)
        self._yields = [at for at in self._yields if now < at + YIELDS_WITHIN_S]
        if is_living and len(self._yields) < MOST_YIELDS:
            self._yields.append(now)
            return self._reopen(LOOK_S)
        return [] if self._phase == "claiming" else self._decide(now)

    def _collect_again(self, now: float) -> None:
        """Collect from now on."""
        self._phase, self._tenure = "collecting", None
        self._since = self._channel.first_at = now

    def _decide(self, now: float) -> list[Order]:
        """Claim, if everything that must be known is."""
        best = self._channel.best
        if best is not None and best.released and best.to not in ("", self._member):
            if self._meant is None or self._meant[0] != best.order:
                self._meant = best.order, now
            if now < self._meant[1] + MEANT_S:
                return self._reopen(LOOK_S)
        # At once only for the first time: a record that comes behind it begins the collection anew, and a claim for
        # each of many would chase the ones before it.
        is_free = best is not None and best.released and not self._channel.has_claimed
        if not is_free and now < self._since + (RIGHT_S if best is not None else NEW_S):
            return []
        self._phase, self._channel.has_claimed = "claiming", True
        # Only the claim that is written now can stand. One before it may have been delivered while it could not.
        self._channel.flying.clear()
        self._epoch += 1
        return [self._publish(now, FleetRecord(self._epoch, 0, self._member, body=self._nonce))]

    def _begin(self, now: float, claim: FleetRecord) -> list[Order]:
        """The claim stands."""
        best = self._channel.best
        self._phase = "beginning"
        self._tenure = _Tenure(claim.epoch, b"" if best is None else best.body, best)
        # Nothing waits for the claim itself any more.
        self._channel.flying.clear()
        return [self._write_newest(now)]

    # An owner.

    def _delivered_to_owner(self, now: float, tag: int, record: FleetRecord) -> list[Order]:
        tenure = self._tenure
        assert tenure is not None
        if record.epoch > tenure.epoch:
            self._epoch = max(self._epoch, record.epoch)
            if self._phase == "beginning":
                self._collect_again(now)
                return []
            if self._phase == "releasing":
                return [*self._over(), Released(False)]
            return self._lost(f"{record.owner or 'another member'} has claimed it with epoch {record.epoch}")
        for sent in self._channel.flying.values():
            if sent.record.order == record.order and record.owner == self._member:
                sent.tag = tag
                return self._settle(now, sent)
        return []

    def _settle(self, now: float, sent: _Sent) -> list[Order]:
        """Do what follows when *sent* is confirmed and delivered."""
        tenure, channel = self._tenure, self._channel
        if sent.confirmed_at is None or sent.tag is None or tenure is None:
            return []
        number = sent.record.number
        channel.flying = {tag: each for tag, each in channel.flying.items() if each.record.number > number}
        orders: list[Order] = []
        lower = [
            tag
            for tag, each in channel.held.items()
            if tag != sent.tag and (each is None or each.order <= sent.record.order)
        ]
        if lower:
            orders.append(Acknowledge(tuple(lower)))
            for tag in lower:
                del channel.held[tag]
        tenure.confirmed_at, tenure.confirmed_number = sent.at, number
        answers: list[Order] = [
            Answer(each.name, "confirmed") for each in self._waiters if each.number <= number
        ]
        self._waiters = [each for each in self._waiters if each.number > number]
        if self._phase == "releasing":
            if not sent.record.released:
                return orders + answers
            return [*orders, *answers, *self._over(), Released(True)]
        if self._phase == "beginning":
            self._meant = None
            former = tenure.former
            how: Literal["first", "released", "inherited"] = "inherited"
            if former is None:
                how = "first"
            elif former.released:
                how = "released"
            orders.append(Won(Owned(tenure.epoch, former, how)))
        self._phase, self._doubt_since = "owning", None
        return orders + answers + self._write_on(now)

    def _write_on(self, now: float) -> list[Order]:
        """Write the newest body, if it is not written and there is room for a record more."""
        tenure = self._tenure
        if tenure is None or not tenure.unwritten or not self._has_room():
            return []
        return [self._write_newest(now)]

    def _write_newest(self, now: float) -> Order:
        tenure = self._tenure
        assert tenure is not None
        return self._record(now, FleetRecord(tenure.epoch, tenure.number + 1, self._member, body=tenure.body))

    def _record(self, now: float, record: FleetRecord) -> Order:
        """Write a record of the tenure."""
        tenure = self._tenure
        assert tenure is not None
        tenure.number, tenure.unwritten = record.number, False
        self._wrote_at = now
        return self._publish(now, record)

    def _publish(self, now: float, record: FleetRecord) -> Order:
        channel = self._channel
        channel.count += 1
        channel.flying[channel.count] = _Sent(record, now)
        return Publish(record)

    def _lost(self, why: str) -> list[Order]:
        return [*self._over(), Lost(why)]

    def _over(self) -> list[Order]:
        """The tenure has ended."""
        self._phase, self._tenure = "idle", None
        return [*self._answer_all("stale"), Close()]

    # What both need.

    def _sent(self, tag: int, multiple: bool) -> list[_Sent]:
        flying = self._channel.flying
        if not multiple:
            return [flying[tag]] if tag in flying else []
        return [sent for each, sent in flying.items() if each <= tag]

    def _is_sent(self, record: FleetRecord) -> bool:
        """Whether *record* is the claim that was written last."""
        return any(
            sent.record == record and record.owner == self._member for sent in self._channel.flying.values()
        )

    def _has_room(self) -> bool:
        return sum(sent.confirmed_at is None for sent in self._channel.flying.values()) < MOST_FLYING

    def _undelivered_at(self) -> float:
        """When a record that is confirmed and not delivered says that another member is the active one."""
        return min(
            (
                sent.confirmed_at + DELIVERY_S
                for sent in self._channel.flying.values()
                if sent.confirmed_at is not None and sent.tag is None and sent.record.owner
            ),
            default=_NEVER,
        )

    def _reopen(self, after: float) -> list[Order]:
        """Go to the end of the line."""
        self._channel = _ChannelState()
        if self._phase == "beginning":
            self._tenure = None
        self._phase = "away"
        return [*self._answer_all("away"), Reopen(after)]

    def _answer_all(self, result: WriteResult) -> list[Order]:
        waiters, self._waiters = self._waiters, []
        return [Answer(each.name, result) for each in waiters]


_NEVER: Final = float("inf")
