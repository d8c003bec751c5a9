"""The broker's address.

``amqp://user:password@host:port/vhost?parameters`` and ``amqps://``, as RabbitMQ documents them (*RabbitMQ
URI Specification*, *RabbitMQ URI Query Parameters*), with two differences: an address that ends in ``/`` means
the default virtual host, and the nodes of a RabbitMQ cluster are separated by commas, as hosts
(``amqp://user:password@a,b:5673/vhost``) or as whole addresses that are alike but for host and port.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from rateway.transports.tls import client_context
from rateway_protocol.discord.hosts import is_host_name

__all__ = ["LEAST_FRAME_MAX", "AddressSource", "AmqpAddress", "parse"]

# AMQP 0-9-1, 4.2.3 and its constant frame-min-size: every peer takes frames of so many bytes.
LEAST_FRAME_MAX = 4096
# Nodes of one cluster. RabbitMQ advises against more than seven; a longer list is a mistake.
_MOST_HOSTS = 32
_AUTHORITY = re.compile(r"(amqps?://)([^/?#]*)(.*)", re.DOTALL)
_PORTS = {"amqp": 5672, "amqps": 5671}
_MECHANISMS = ("plain", "external")
_VERIFY = ("verify_peer", "verify_none")
_TLS_ONLY = (
    "cacertfile",
    "certfile",
    "keyfile",
    "password",
    "server_name_indication",
    "verify",
    "fail_if_no_peer_cert",
)


class AddressSource(Protocol):
    """The source of the broker's address for each attempt to connect."""

    def current(self) -> AmqpAddress:
        """Return the address that holds now."""


class HastenedAddress:
    """Implements AddressSource: *source*, whose addresses get a heartbeat of so many seconds unless they name one."""

    def __init__(self, source: AddressSource, heartbeat: int) -> None:
        self._source = source
        self._heartbeat = heartbeat

    def current(self) -> AmqpAddress:
        """See :class:`AddressSource`."""
        address = self._source.current()
        return address if address.heartbeat is not None else replace(address, heartbeat=self._heartbeat)


@dataclass(frozen=True, slots=True)
class AmqpAddress:
    """The address of the broker, with its credentials and parameters. Its ``repr`` and ``str`` show no password."""

    host: str = "localhost"
    port: int = 5672
    tls: bool = False
    user: str = "guest"
    password: str = field(default="guest", repr=False)
    vhost: str = "/"
    # Files in PEM. Without a CA file the system's certificates are trusted.
    cacertfile: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    key_password: str | None = field(default=None, repr=False)
    verify: bool = True
    server_name: str | None = None
    external: bool = False
    # Seconds; None takes the gateway's own choice, 0 switches heartbeats off.
    heartbeat: int | None = None
    connection_timeout: float = 10.0
    channel_max: int | None = None
    frame_max: int | None = None
    # Host and port of the cluster's other nodes.
    others: tuple[tuple[str, int], ...] = ()

    def __str__(self) -> str:
        return f"{'amqps' if self.tls else 'amqp'}://{self.user}@{self.hosts}{self.vhost_path}"

    @property
    def hosts(self) -> str:
        """``host:port`` of each node, separated by commas."""
        places = ((self.host, self.port), *self.others)
        return ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in places)

    def current(self) -> AmqpAddress:
        """Return the address itself: it does not change. See :class:`AddressSource`."""
        return self

    def nodes(self) -> list[AmqpAddress]:
        """Return the address of each node by itself."""
        places = ((self.host, self.port), *self.others)
        return [replace(self, host=host, port=port, others=()) for host, port in places]

    @property
    def vhost_path(self) -> str:
        """``/`` for the default virtual host, else ``/name``."""
        return "/" if self.vhost == "/" else f"/{self.vhost}"

    def tls_context(self) -> ssl.SSLContext | None:
        """Return the context of ``amqps://``, or ``None``; :class:`ValueError` names the file that cannot be used."""
        if not self.tls:
            return None
        try:
            context = client_context(self.cacertfile)
        except (OSError, ssl.SSLError) as error:
            raise ValueError(
                f"the CA certificates in {self.cacertfile} cannot be read: {_reason(error)}"
            ) from None
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.certfile is not None:
            try:
                context.load_cert_chain(self.certfile, self.keyfile, self.key_password or "")
            except (OSError, ssl.SSLError) as error:
                files = (
                    self.certfile if self.keyfile is None else f"{self.certfile} with the key {self.keyfile}"
                )
                raise ValueError(f"the client certificate {files} cannot be used: {_reason(error)}") from None
        return context


def parse(uri: str) -> AmqpAddress:
    """Read an address; :class:`ValueError` says in words what is wrong with it, and never shows a password."""
    found = [_parse_one(each) for each in _each_node(uri)]
    first = found[0]
    for other in found[1:]:
        if replace(other, host=first.host, port=first.port) != first:
            raise ValueError(
                "the addresses differ in more than host and port: they must name nodes of one RabbitMQ cluster, with "
                "the same user, password, virtual host and parameters"
            )
    places = dict.fromkeys((each.host, each.port) for each in found)
    del places[first.host, first.port]
    return replace(first, others=tuple(places))


def _each_node(uri: str) -> list[str]:
    """Return the address of each node by itself: hosts, and whole addresses, are separated by commas."""
    each = []
    for whole in re.split(r",(?=amqps?://)", uri.strip()):
        match = _AUTHORITY.fullmatch(whole)
        if match is None:
            each.append(whole)
            continue
        userinfo, at, places = match[2].rpartition("@")
        hosts = places.split(",")
        if len(hosts) > 1 and not all(hosts):
            raise ValueError("the list of hosts has an empty one: write a comma between two hosts only")
        each += [f"{match[1]}{userinfo}{at}{host}{match[3]}" for host in hosts]
    if len(each) > _MOST_HOSTS:
        raise ValueError(f"the address names {len(each)} hosts, at most {_MOST_HOSTS} are read")
    return each


def _parse_one(uri: str) -> AmqpAddress:
    if any(character.isspace() for character in uri.strip()):
        raise ValueError("the address has white space in it")
    try:
        parts = urlsplit(uri.strip())
    except ValueError:
        raise ValueError("the address cannot be read: is the host's [IPv6] address complete?") from None
    default_port = _PORTS.get(parts.scheme)
    if default_port is None or "://" not in uri:
        raise ValueError("the address must begin with amqp:// or amqps://")
    # A '/', '?' or '#' in a password ends the part with user and host, and its rest would be taken for a virtual host
    # or a parameter. Where no '@' stands behind that part, none of what is read there belongs to a password.
    if "@" in f"{parts.path}{parts.query}{parts.fragment}":
        raise ValueError(
            "the address has a '@' behind its host: in user or password write %2F for '/', %3F for '?', %23 for '#' "
            "and %40 for '@'; in virtual host and parameters write %40 as well"
        )
    if parts.fragment or uri.rstrip().endswith("#"):
        raise ValueError("the address has a '#': write it as %23 in user, password or virtual host")
    tls = parts.scheme == "amqps"
    user, password = _credentials(parts)
    host, port, vhost = _host(parts), _port(parts, default_port), _vhost(parts.path)
    place = AmqpAddress(host=host, port=port, tls=tls, user=user, password=password, vhost=vhost)
    known: dict[str, object] = {}
    # Names and values are not shown: this may be the password of an address whose '@' and host were forgotten.
    for number, (name, value) in enumerate(_query(parts.query), 1):
        if not tls and name in _TLS_ONLY:
            raise ValueError(f"the parameter {name} needs amqps://")
        read = _PARAMETERS.get(name)
        if read is None:
            near = difflib.get_close_matches(name, _PARAMETERS, n=1)
            hint = f", did you mean {near[0]}?" if near else f"; known are {', '.join(sorted(_PARAMETERS))}"
            raise ValueError(f"the parameter number {number} is unknown{hint}")
        key, converted = read(name, value)
        known[key] = converted
    if (known.get("keyfile") is not None) and known.get("certfile") is None:
        raise ValueError("the parameter keyfile needs certfile beside it")
    known.pop("", None)
    return replace(place, **known)  # type: ignore[arg-type]  # each reader below returns its field's type


def _query(query: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), errors="strict")
    except ValueError:
        raise ValueError("the parameters after '?' must read name=value, joined by '&'") from None


def _decoded(text: str, what: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise ValueError(f"the {what} has percent codes that are not UTF-8") from None


def _credentials(parts: SplitResult) -> tuple[str, str]:
    userinfo, at, _ = parts.netloc.rpartition("@")
    if not at:
        return "guest", "guest"
    # A '/' or '?' in a password ends the host part early: what follows then holds the '@'.
    user, colon, password = userinfo.partition(":")
    if "@" in userinfo:
        raise ValueError("the address has two '@': write %40 for one in user or password")
    return _decoded(user, "user") or "guest", _decoded(password, "password") if colon else "guest"


def _host(parts: SplitResult) -> str:
    place = parts.netloc.rpartition("@")[2]
    if place.startswith("["):
        inside = place[1:].partition("]")[0]
        try:
            ipaddress.IPv6Address(inside.partition("%")[0])
        except ValueError:
            raise ValueError("the host in [ ] is not an IPv6 address") from None
        return inside
    host = _decoded(place.rpartition(":")[0] if ":" in place else place, "host")
    if ":" in host:
        raise ValueError(
            "the host has a ':' too many: an IPv6 address stands in [ ]; in a password write %3A, %2F and %40"
        )
    if host and not is_host_name(host):
        # Not shown: a password with an unescaped character may stand here.
        raise ValueError(
            "the host is no name that can be looked up: between two dots stand 1 to 63 letters or digits; in a "
            "password write %2F for '/', %3F for '?', %40 for '@'"
        )
    return host or "localhost"


def _port(parts: SplitResult, default: int) -> int:
    place = parts.netloc.rpartition("@")[2].rpartition("]")[2]
    digits = place.rpartition(":")[2] if ":" in place else ""
    if not digits:
        return default
    # The text itself is not shown: a password with an unescaped '/' ends up here.
    if not (digits.isascii() and digits.isdigit() and 0 < int(digits[:6]) < 65536):
        raise ValueError(
            "the port must be a number from 1 to 65535; in a password write %2F for '/', %3F for '?', %40 for '@'"
        )
    return int(digits)


def _vhost(path: str) -> str:
    name = path[1:]
    if "/" in name:
        raise ValueError("the virtual host has a '/': write it as %2F")
    return _decoded(name, "virtual host") or "/"


def _reason(error: OSError) -> str:
    return error.strerror or getattr(error, "reason", None) or type(error).__name__


def _number(
    key: str, least: int, most: int, unit: float | None = None
) -> Callable[[str, str], tuple[str, int | float]]:
    def read(name: str, value: str) -> tuple[str, int | float]:
        if not (value.isascii() and value.isdigit() and least <= int(value[:12]) <= most):
            raise ValueError(f"the parameter {name} must be a number from {least} to {most}")
        return key, int(value) if unit is None else int(value) * unit

    return read


def _text(key: str) -> Callable[[str, str], tuple[str, str]]:
    def read(name: str, value: str) -> tuple[str, str]:
        if not value:
            raise ValueError(f"the parameter {name} is empty")
        return key, value

    return read


def _word(
    key: str, words: tuple[str, ...], meaning: Callable[[str], object]
) -> Callable[[str, str], tuple[str, object]]:
    def read(name: str, value: str) -> tuple[str, object]:
        if value.lower() not in words:
            raise ValueError(f"the parameter {name} must be {' or '.join(words)}")
        return key, meaning(value.lower())

    return read


def _server_name(name: str, value: str) -> tuple[str, object]:
    if not is_host_name(value):
        raise ValueError(f"the parameter {name} is no host's name")
    return "server_name", value


_PARAMETERS: dict[str, Callable[[str, str], tuple[str, object]]] = {
    "cacertfile": _text("cacertfile"),
    "certfile": _text("certfile"),
    "keyfile": _text("keyfile"),
    "password": _text("key_password"),
    "verify": _word("verify", _VERIFY, lambda word: word == "verify_peer"),
    # Has a meaning for servers only; RabbitMQ's own examples give it to clients as well.
    "fail_if_no_peer_cert": _word("", ("true", "false"), lambda word: None),
    "server_name_indication": _server_name,
    "auth_mechanism": _word("external", _MECHANISMS, lambda word: word == "external"),
    "heartbeat": _number("heartbeat", 0, 65535),
    # Milliseconds, as RabbitMQ's clients take it.
    "connection_timeout": _number("connection_timeout", 1, 600_000, 0.001),
    "channel_max": _number("channel_max", 0, 65535),
    "frame_max": _number("frame_max", LEAST_FRAME_MAX, 2**31 - 1),
}
