"""What to do about a broker that is not reached or refuses: one table, for the gateway's log and `rateway check`."""

from __future__ import annotations

import re
from typing import Final

from rateway.transports.amqp.wire.uri import AmqpAddress

__all__ = ["HTTP_SPOKEN", "NO_GREETING", "TLS_SPOKEN", "remedy"]

HTTP_SPOKEN: Final = "HTTP is spoken there"
TLS_SPOKEN: Final = "TLS is spoken there"
# RabbitMQ closes a plain connection to its port of TLS before a word of AMQP.
NO_GREETING: Final = "the connection ended before a greeting"

_REMEDIES: Final = (
    (
        "Login was refused|user .* is not allowed",
        "the user or the password is wrong: correct them in AMQP_URI, where special characters are written as %xx",
    ),
    (
        "vhost .*not found|not_found.*vhost",
        "the virtual host {vhost} is not there: make it (rabbitmqctl add_vhost), or correct the end of AMQP_URI",
    ),
    (
        "access to vhost .*refused",
        "the user {user} may not use the virtual host {vhost}: give it rights (rabbitmqctl set_permissions)",
    ),
    ("vhost .*is down", "the virtual host {vhost} is down: it comes back with its node"),
    (HTTP_SPOKEN, "the port is wrong: AMQP has its own, usually 5672, or 5671 with amqps://"),
    (f"us: {TLS_SPOKEN}", "write amqps:// for this port, or take the plain one, usually 5672"),
    (NO_GREETING, "if this is the port of TLS, write amqps:// (the plain one is usually 5672)"),
    ("no TLS is spoken there", "the port of TLS is usually 5671; for the plain port, usually 5672, write amqp://"),
    ("certificate that is not trusted", "name the authority's file with cacertfile= in AMQP_URI"),
    ("does not offer the mechanism", "take auth_mechanism= out of AMQP_URI, or switch the mechanism on in RabbitMQ"),
    ("cannot be reached|did not answer|resolved", "see whether the broker runs, and host and port in AMQP_URI"),
)  # fmt: skip


def remedy(words: str, address: AmqpAddress) -> str:
    """Return what to do about *words*, with which a node was not reached or refused; empty when nothing is known."""
    for pattern, text in _REMEDIES:
        if re.search(pattern, words, re.IGNORECASE | re.DOTALL):
            return text.replace("{vhost}", address.vhost).replace("{user}", address.user)
    return ""
