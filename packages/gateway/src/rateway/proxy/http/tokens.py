"""The tokens that admit a bot, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac

from rateway.secret import Secret
from rateway_protocol.discord.commands import bare_token

__all__ = ["Tokens"]


class Tokens:
    """The bot's token, and ``PROXY_TOKEN`` where it is set: each of them admits the bot."""

    def __init__(self, bot: Secret, proxy: Secret | None) -> None:
        self._bot = bot
        # Digests are of one length: comparing them tells nothing of a token's own.
        self._digests = [_digest(token.reveal()) for token in (bot, proxy) if token is not None]

    def admits(self, token: str) -> bool:
        """Return whether *token* is one of them, with ``Bot `` in front of it or without."""
        given = _digest(bare_token(token))
        # Each is compared, whatever the others say: which one it was takes no other time.
        return sum(hmac.compare_digest(given, known) for known in self._digests) > 0

    def admits_header(self, authorization: str) -> bool:
        """Return whether the value of an ``Authorization`` header is ``Bot`` and one of them."""
        return authorization.strip()[:4].lower() == "bot " and self.admits(authorization)

    def admits_viewer(self, authorization: str) -> bool:
        """Return whether the value of an ``Authorization`` header lets see the proxy's own state: one of the tokens as
        ``Bot``, or as ``Bearer``, which is what scrapers of metrics write."""
        scheme, _, token = authorization.strip().partition(" ")
        return scheme.lower() in ("bot", "bearer") and self.admits(token)

    def header(self) -> str:
        """Return the value of the header that Discord wants."""
        return f"Bot {self._bot.reveal()}"

    def proof(self, challenge: str) -> str:
        """Return what only a proxy of this bot can answer to *challenge*; it tells nothing of the token."""
        return hmac.digest(self.key(b"proof"), challenge.encode("utf-8", "surrogatepass"), "sha256").hex()

    def key(self, purpose: bytes) -> bytes:
        """Return 32 bytes that need the bot's token to compute: the same in every proxy of the bot."""
        return hmac.digest(self._bot.reveal().encode(), b"rateway proxy: " + purpose, "sha256")


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
