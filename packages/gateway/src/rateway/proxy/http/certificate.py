"""The proxy's certificate: read at the start, and again when its files change, as a renewal leaves them.

Connections that are open keep the certificate that they began with. A certificate that cannot be used changes nothing:
the one before stays in use.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from pathlib import Path
from typing import Final

__all__ = ["REMEDY", "Certificate", "CertificateError"]

log = logging.getLogger(__name__)

# Seconds between two looks at the files. A renewed certificate is good weeks before the former one ends.
LOOK_EVERY_S: Final = 10.0
REMEDY: Final = "write certificate and key in PEM, readable for this process"


class CertificateError(Exception):
    """The certificate cannot be used; the message says why."""


class Certificate:
    """A certificate and its key in PEM; *key* is None where it stands in the certificate's file."""

    def __init__(self, cert: Path, key: Path | None) -> None:
        """Read them. Raises CertificateError."""
        self.refusal = ""
        """Why the files as they are now cannot be used; empty where they can."""
        self._cert = cert
        self._key = key
        # What the files were when they were read, and at the last look.
        self._read = self._seen = self._state()
        self.context = self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        """For the server; new connections get what was read last."""
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2

    async def watch(self) -> None:
        """Look at the files until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            self.look()

    def look(self) -> None:
        """Read the files again if they changed, and are as they were at the last look: certificate and key are not
        written at once."""
        seen, self._seen = self._seen, self._state()
        if self._read != self._seen == seen:
            self.renew()

    def renew(self) -> None:
        """Read the files again. What cannot be used is logged, and the certificate before stays."""
        self._read = self._state()
        try:
            # In a context of its own first: one that is in use must not be left with half of a pair.
            self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
            self._load(self.context)
        except CertificateError as error:
            self.refusal = str(error)
            log.error(
                "PROXY_CERT %s has changed and cannot be used (%s): the certificate before it stays in use; %s",
                self._cert,
                error,
                REMEDY,
                extra={"action": "certificate"},
            )
            return
        self.refusal = ""
        log.info("PROXY_CERT %s was read again", self._cert, extra={"action": "certificate"})

    def _load(self, context: ssl.SSLContext) -> ssl.SSLContext:
        try:
            context.load_cert_chain(self._cert, self._key, password=_no_password)
        except ssl.SSLError as error:
            raise CertificateError(error.reason or "it is no PEM") from None
        except OSError as error:
            raise CertificateError(error.strerror or "it cannot be read") from None
        except _Encrypted:
            raise CertificateError("its key is encrypted") from None
        return context

    def _state(self) -> tuple[object, ...]:
        return tuple(_state_of(path) for path in (self._cert, self._key) if path is not None)


class _Encrypted(Exception):
    pass


def _no_password() -> str:
    """Without it OpenSSL would ask at the terminal."""
    raise _Encrypted


def _state_of(path: Path) -> object:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
