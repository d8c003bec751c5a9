"""Ask RabbitMQ's management API which queues are bound to exchanges, for what, and who reads them."""

from __future__ import annotations

import asyncio
import base64
import http.client
import logging
import urllib.error
import urllib.request
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote, unquote, urlsplit

import msgspec
from rateway.delivery.port import Bound, QueueCount
from rateway.secret import Secret
from rateway.transports.tls import client_context
from rateway_protocol.contract import topology

__all__ = ["RabbitManagement"]

log = logging.getLogger(__name__)

_ANSWER_S: Final = 10.0
# Ten thousand queues with the columns that are asked for.
_MOST_BYTES: Final = 8 << 20


class _Binding(msgspec.Struct, frozen=True):
    source: str
    destination: str
    destination_type: str
    routing_key: str


class _Queue(msgspec.Struct, frozen=True):
    name: str
    # Missing while the queue's node is down.
    messages: int = 0
    consumers: int | None = None


class RabbitManagement:
    """The API at *address*, which holds user and password, about one virtual host."""

    def __init__(self, address: Secret, vhost: str) -> None:
        parts = urlsplit(address.reveal())
        self._base = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}/api"
        password = f"{unquote(parts.username or 'guest')}:{unquote(parts.password or 'guest')}"
        self._authorization = "Basic " + base64.b64encode(password.encode()).decode()
        self._vhost = quote(vhost, safe="")
        self._said = ""

    async def bound_to(self, exchanges: Iterable[str]) -> Bound | None:
        """Return what is bound to the exchanges; None when the API gives no usable answer."""
        try:
            found = await asyncio.to_thread(self._ask, frozenset(exchanges))
        except (OSError, http.client.HTTPException, ValueError) as error:
            why = str(getattr(error, "reason", "") or error)
            if why != self._said:
                log.warning("the management API of RabbitMQ: %s", why, extra={"action": "queues"})
            self._said = why
            return None
        self._said = ""
        return found

    def _ask(self, exchanges: frozenset[str]) -> Bound:
        bindings = msgspec.json.decode(self._get(f"bindings/{self._vhost}"), type=list[_Binding])
        bindings = [each for each in bindings if each.source in exchanges]
        destinations = {each.destination for each in bindings if each.destination_type == "queue"}
        names: dict[str, set[str]] = {exchange: set() for exchange in exchanges}
        for each in bindings:
            if each.destination_type != "queue" or topology.is_workers_queue(each.destination):
                names[each.source].add(each.routing_key)
        columns = "columns=name,messages,consumers"
        queues = msgspec.json.decode(self._get(f"queues/{self._vhost}?{columns}"), type=list[_Queue])
        found = [
            QueueCount(each.name, each.messages, each.consumers)
            for each in queues
            if each.name in destinations and each.consumers is not None
        ]
        return Bound(found, {exchange: frozenset(bound) for exchange, bound in names.items()})

    def _get(self, path: str) -> bytes:
        request = urllib.request.Request(f"{self._base}/{path}", headers={"Accept": "application/json"})
        request.add_unredirected_header("Authorization", self._authorization)
        handlers = (urllib.request.HTTPHandler(), urllib.request.HTTPSHandler(context=client_context()))
        opener = urllib.request.OpenerDirector()
        for handler in handlers:
            opener.add_handler(handler)
        with opener.open(request, timeout=_ANSWER_S) as answer:
            if answer.status != 200:
                raise ValueError(f"HTTP {answer.status} for {self._base}/{path}")
            body: bytes = answer.read(_MOST_BYTES + 1)
            if len(body) > _MOST_BYTES:
                raise ValueError(f"{self._base}/{path} answers more than {_MOST_BYTES >> 20} MiB")
            return body
