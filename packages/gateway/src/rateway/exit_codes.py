"""The exit codes of the gateway and its commands (README.md and each command's --help name them)."""

from __future__ import annotations

from typing import Final

# An unexpected error, or a "no" of a command that answers yes or no.
FAILED: Final = 1
# The command line is wrong.
USAGE: Final = 2
# `rateway query`: the cache does not know the entity.
NOT_FOUND: Final = 3
# sysexits.h, EX_UNAVAILABLE: no gateway or no broker answers.
UNAVAILABLE: Final = 69
# sysexits.h, EX_TEMPFAIL: another start may succeed; a restarter should try again.
TEMPORARY: Final = 75
# sysexits.h, EX_CONFIG: a person has to change something; a restarter must not try again (systemd's
# RestartPreventExitStatus=78 rests on it).
CONFIGURATION: Final = 78
# 128 + SIGINT, as a shell gives it.
INTERRUPTED: Final = 130
