"""The command line: the gateway itself or one subcommand; only what is asked for is imported."""

from __future__ import annotations

import argparse
import difflib
import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from rateway import __version__, exit_codes
from rateway.native.form import form

__all__ = ["COMMANDS", "available_commands", "command_module", "main", "split_words"]


# Each is a module of rateway.commands with SUMMARY, DESCRIPTION, EPILOG, configure(parser) and run(options). The
# sentence stands here as well, so that --help imports none of them (a test holds the two together).
COMMANDS = {
    "check": "ask Discord and the broker whether a start would work, and show the plan",
    "status": "show what the running gateway does",
    "health": "ask the running gateway over HTTP whether it is live or ready",
    "stop": "stop the running gateway, keeping its sessions",
    "restart-shard": "reconnect one shard of the running gateway",
    "drain": "give one cluster of the running gateway up for another to take",
    "fleet": "move clusters between the members of the running gateway's fleet",
    "query": "ask the running gateway's cache",
    "tail": "show what a cluster's exchange carries, live",
    "send": "send a gateway command to Discord through the running gateway",
    "proxy": "serve Discord's gateway and REST to bots of any library, from the events of a running gateway",
    "simulate": "run a fake Discord to try bots and gateways against",
    "demo": "see it work: simulated Discord, gateway, workers, faults",
}
# The package rateway-simulator is an extra of the gateway's: who runs a bot needs none.
WITH_SIMULATOR = ("simulate", "demo")

DESCRIPTION = """\
Hold all shards of a Discord bot and publish every event to RabbitMQ, until told to stop.

Without a command this runs the gateway. It takes its settings from variables of the environment and from a TOML
file; a variable goes over the file. Three are required: DISCORD_TOKEN, INTENTS and AMQP_URI. All of them, with
their defaults, are listed in docs/settings.md; `rateway check` says what a start with them would do.

SIGTERM and SIGINT stop it: what the broker has not confirmed is waited for, the sessions are kept, and the next
start resumes them without an identify.
"""
EPILOG = """\
examples:
  DISCORD_TOKEN=… INTENTS=GUILDS,GUILD_MESSAGES AMQP_URI=amqp://localhost/ rateway
  rateway -c /etc/rateway.toml
  rateway /etc/rateway.toml                 the same, in the form of the original rateway
  DISCORD_TOKEN_FILE=/run/secrets/token rateway -c rateway.toml
  rateway check -c rateway.toml             before the first start

exit codes:
  0    stopped as it was told to
  1    an unexpected error
  2    the command line is wrong
  75   the state folder's disk is full: another start may succeed
  78   the configuration has to be changed (a mistake in it, or Discord refuses token or intents): starting again
       with the same settings would end the same way, and sends nothing to Discord
  130  interrupted while it waited for another gateway to leave
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run what *argv* (default: the process's own) asks for; return the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        name, rest = split_words(words)
        return _run_gateway(rest) if name is None else _run_command(name, rest)
    except KeyboardInterrupt:
        return exit_codes.INTERRUPTED
    except BrokenPipeError:
        # The reader of the output has left, `rateway tail | head` for one; Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def split_words(words: list[str]) -> tuple[str | None, list[str]]:
    """Return the subcommand and its words. ``-c FILE`` may stand before it, as it does without one."""
    if words and words[0] in COMMANDS:
        return words[0], words[1:]
    for size in (1, 2):
        option = words[:size]
        given = len(option) == size and (
            option[0] in ("-c", "--config") if size == 2 else option[0].startswith("--config=")
        )
        if given and len(words) > size and words[size] in COMMANDS:
            return words[size], [*option, *words[size + 1 :]]
    return None, words


def _run_command(name: str, words: list[str]) -> int:
    if name in WITH_SIMULATOR and importlib.util.find_spec("rateway_simulator") is None:
        print(
            f"rateway {name} needs the package rateway-simulator, which is not installed: pip install 'rateway[demo]'",
            file=sys.stderr,
        )
        return exit_codes.UNAVAILABLE
    module = command_module(name)
    parser = argparse.ArgumentParser(
        prog=f"rateway {name}",
        description=module.DESCRIPTION,
        epilog=module.EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.configure(parser)
    code: int = module.run(parser.parse_args(words))
    return code


def command_module(name: str) -> ModuleType:
    """Return the module of a command."""
    return importlib.import_module(f"rateway.commands.{name.replace('-', '_')}")


def available_commands() -> dict[str, str]:
    """Return the commands of this installation, each with its summary."""

    def there(name: str) -> bool:
        return importlib.util.find_spec(f"rateway.commands.{name.replace('-', '_')}") is not None

    return {name: summary for name, summary in COMMANDS.items() if there(name)}


def _run_gateway(words: list[str]) -> int:
    listed = "\n".join(f"  {name:<14} {summary}" for name, summary in available_commands().items())
    parser = argparse.ArgumentParser(
        prog="rateway",
        usage="rateway [-h] [--version] [-c FILE | FILE]\n       rateway COMMAND [-h] …",
        description=DESCRIPTION,
        epilog=f"commands (each with a --help of its own):\n{listed}\n\n{EPILOG}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("-c", "--config", metavar="FILE", type=Path, help="read settings from this TOML file")
    parser.add_argument("file", metavar="FILE", nargs="?", help="the same, without -c")
    parser.add_argument("--version", action="store_true", help="show program's version and form, and exit")
    options = parser.parse_args(words)
    if options.version:
        # Asked only now: it looks whether compiled modules can be imported.
        print(f"rateway {__version__} ({form()})")
        return 0
    if options.file is not None:
        if options.config is not None:
            parser.error(f"two files are named: {options.config} and {options.file}")
        if not Path(options.file).exists() and "/" not in options.file and "." not in options.file:
            near = difflib.get_close_matches(options.file, COMMANDS, n=1, cutoff=0.5)
            hint = (
                f": did you mean rateway {near[0]}?"
                if near
                else f"; commands are {', '.join(available_commands())}"
            )
            parser.error(f"there is neither a command nor a file {options.file!r}{hint}")
    file = options.config or (Path(options.file) if options.file is not None else None)

    from rateway.commands import configuration

    settings = configuration.load_or_explain(file)
    if settings is None:
        return exit_codes.CONFIGURATION
    from rateway import app

    return app.run(settings)


if __name__ == "__main__":
    sys.exit(main())
