"""The requirements on a server's certificate, the same for Discord, its REST and the broker."""

from __future__ import annotations

import ssl

__all__ = ["client_context"]


def client_context(cafile: str | None = None) -> ssl.SSLContext:
    """Return a context that trusts the system's authorities, or those in the file *cafile* (OSError or SSLError when it
    cannot be read), and takes a host's name from the certificate's subjectAltName only: a common name says nothing of
    hosts (RFC 9525, section 6.3), and authorities do not check it.
    """
    context = ssl.create_default_context(cafile=cafile)
    context.hostname_checks_common_name = False
    return context
