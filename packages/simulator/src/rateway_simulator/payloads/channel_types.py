"""The types of channels (docs: Channel, Channel Types) and what each set of them has in common."""

from __future__ import annotations

from typing import Final

TEXT: Final = 0
DIRECT: Final = 1
VOICE: Final = 2
CATEGORY: Final = 4
ANNOUNCEMENT: Final = 5
ANNOUNCEMENT_THREAD: Final = 10
PUBLIC_THREAD: Final = 11
PRIVATE_THREAD: Final = 12
STAGE: Final = 13
DIRECTORY: Final = 14
FORUM: Final = 15
MEDIA: Final = 16

# Messages can be written in them.
WRITABLE: Final = frozenset({TEXT, VOICE, ANNOUNCEMENT, STAGE})
# They have voice.
SPOKEN: Final = frozenset({VOICE, STAGE})
# Threads can be made in them.
THREADED: Final = frozenset({TEXT, ANNOUNCEMENT, FORUM, MEDIA})
# They are threads themselves.
THREADS: Final = frozenset({ANNOUNCEMENT_THREAD, PUBLIC_THREAD, PRIVATE_THREAD})
