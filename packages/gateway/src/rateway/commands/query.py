"""`rateway query`: ask the running gateway's cache, as a worker would, and print the answer."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from typing import Any

from rateway import exit_codes, logs
from rateway.commands import broker_access
from rateway_protocol.contract import topology
from rateway_protocol.contract.errors import Fault
from rateway_protocol.contract.queries import QUERY_TYPES, QueryType, parse_query
from rich.console import Console
from rich.markup import escape
from rich.table import Table

SUMMARY = "ask the running gateway's cache"


def _types() -> str:
    lines = []
    for kind in QUERY_TYPES.values():
        names = [name if at < kind.required else f"[{name}]" for at, name in enumerate(kind.arguments)]
        lines.append(f"  {' '.join([kind.name, *names]):38} {kind.help}{' *' if kind.lists else ''}")
    return "\n".join(lines)


DESCRIPTION = f"""\
Ask the cache of the running gateway, over the broker. Any cluster answers for every entity of its host. Arguments
are ids. What is printed is Discord's own JSON, as a table or (--json) as it came.

types and their arguments (* lists, with --limit and --after):
{_types()}
"""
EPILOG = """\
examples:
  rateway query Guild 290926798626357250 --fields name,owner_id
  rateway query GuildMembers 290926798626357250 --limit 10
  rateway query GuildMembers 290926798626357250 --limit 10 --after 80351110224678912
  rateway query MemberPermissions 290926798626357250 80351110224678912
  rateway query Stats --json

exit codes: 0 answered, 1 refused by the gateway, 2 wrong type or arguments, 3 not known, 69 no gateway or no broker,
            78 no broker's address
"""

PAGES = "A list: 100 entries, or --limit (at most 1000). The next page: --after with the last id of this one."

# What the arguments of the types are, and ids for examples.
MEANINGS = {
    "guild": "a guild's id",
    "shard": "a shard's number",
    "user": "a user's id",
    "channel": "a channel's or thread's id",
    "message": "a message's id",
    "role": "a role's id",
    "emoji": "an emoji's id",
    "group": "a group's id",
    "place": "the id of the voice channel or of the guild",
}
EXAMPLES = {
    "guild": "290926798626357250",
    "shard": "0",
    "user": "80351110224678912",
    "channel": "41771983423143937",
    "message": "155117677105512449",
    "role": "41771983423143936",
    "emoji": "41771983429993937",
    "group": "319674150115610528",
    "place": "157733188964188161",
}

# What else a type takes, as an example has it.
OPTIONS = {
    "GuildSnapshot": ["--intents 33281", "--large-threshold 250"],
    "MembersMatching": ["--query ann", "--limit 10"],
}

# A table of more columns than these is unreadable in a terminal.
COLUMNS = 8


class _Type(argparse.Action):
    """Remembers the type; `rateway query Member --help` then tells of that one."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        setattr(namespace, self.dest, values)
        kind = QUERY_TYPES.get(str(values))
        if kind is not None:
            parser.usage, parser.description, parser.epilog = about(kind)


def about(kind: QueryType) -> tuple[str, str, str]:
    """Return one type's usage, what it and its arguments are, and an example."""
    names = [
        name.upper() if at < kind.required else f"[{name.upper()}]" for at, name in enumerate(kind.arguments)
    ]
    paging = " [--limit N] [--after ID]" if kind.lists else ""
    fields = "" if kind.name in OPTIONS else " [--fields A,B]"
    more = "".join(f" [{option}]" for option in OPTIONS.get(kind.name, ()))
    usage = f"rateway query {' '.join([kind.name, *names])}{fields}{more}{paging} [--json]"
    lines = [f"{kind.help[0].upper()}{kind.help[1:]}."]
    lines += [f"  {name.upper():10} {MEANINGS[name]}" for name in kind.arguments]
    if kind.lists:
        lines.append(PAGES)
    given = OPTIONS.get(kind.name, ["--limit 10"] if kind.lists else [])
    words = [kind.name, *(EXAMPLES[name] for name in kind.arguments), *given]
    example = (
        f"example:\n  rateway query {' '.join(words)}\n\nThe answer: docs/queries.md#{kind.name.lower()}\n"
    )
    return usage, "\n".join(lines) + "\n", example


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `rateway query`."""
    broker_access.add_options(parser)
    parser.add_argument(
        "type", action=_Type, help="what is asked for (see above); with --help after it: more about it"
    )
    parser.add_argument("arguments", nargs="*", metavar="ID", help="the type's arguments")
    parser.add_argument("--fields", metavar="A,B", help="only these fields")
    parser.add_argument(
        "--limit",
        type=int,
        metavar="N",
        help="lists: at most so many (default 100, at most 1000); MembersMatching: 0 for all",
    )
    parser.add_argument(
        "--intents", type=int, metavar="N", help="GuildSnapshot: the bot's intents (default: all)"
    )
    parser.add_argument(
        "--large-threshold", type=int, metavar="N", help="GuildSnapshot: 50 to 250 (default 50)"
    )
    parser.add_argument("--query", metavar="TEXT", help="MembersMatching: the beginning of a name")
    parser.add_argument("--user-ids", metavar="A,B", help="MembersMatching: these users")
    parser.add_argument("--presences", action="store_true", help="MembersMatching: with presences")
    parser.add_argument("--after", metavar="ID", help="lists: only ids above this one, for the next page")
    parser.add_argument(
        "--timeout", type=float, default=5.0, metavar="S", help="how long to wait (default: 5 s)"
    )
    parser.add_argument("--json", action="store_true", help="print the answer's JSON as it came, on one line")


def run(options: argparse.Namespace) -> int:
    """Ask and print; the exit code."""
    try:
        body = question(options)
        return asyncio.run(_ask(options, body))
    except broker_access.Refused as refused:
        print(f"rateway query: {refused}", file=sys.stderr)
        return refused.code
    except KeyboardInterrupt:
        return exit_codes.INTERRUPTED


def question(options: argparse.Namespace) -> bytes:
    """Return the query's body; Refused with what is wrong with it, before anything is sent."""
    said: dict[str, Any] = {"type": options.type, "arguments": options.arguments}
    if options.fields:
        said["fields"] = [name.strip() for name in options.fields.split(",") if name.strip()]
    if options.user_ids is not None:
        said["user_ids"] = [user_id.strip() for user_id in options.user_ids.split(",") if user_id.strip()]
    if options.presences:
        said["presences"] = True
    for name in ("limit", "after", "intents", "large_threshold", "query"):
        if getattr(options, name) is not None:
            said[name] = getattr(options, name)
    body = json.dumps(said).encode()
    request = parse_query(body, has_reply_to=True)
    faults = (
        [request]
        if isinstance(request, Fault)
        else [each for each in request.queries if isinstance(each, Fault)]
    )
    if faults:
        raise broker_access.Refused(faults[0].message, 2)
    return body


async def _ask(options: argparse.Namespace, body: bytes) -> int:
    found = await broker_access.request(
        options,
        topology.CACHE_KEY,
        body,
        kind="queries",
        unread=f"no gateway reads {topology.incoming(options.cluster)}",
        expiration=options.timeout,
    )
    return report(str(found.headers.get("status", "ok")), found.body, as_json=options.json)


def report(status: str, body: bytes, *, as_json: bool) -> int:
    """Print an answer; the exit code."""
    if status == "not_found":
        print("null" if as_json else "not known", file=sys.stdout if as_json else sys.stderr)
        return exit_codes.NOT_FOUND
    try:
        found: object = json.loads(body, strict=False) if body else None
    except (ValueError, RecursionError) as fault:
        print(f"rateway query: the answer is no JSON: {logs.escape(str(fault))}", file=sys.stderr)
        return exit_codes.FAILED
    if status == "error":
        error = found.get("error") if isinstance(found, dict) else None
        told = error if isinstance(error, dict) else {}
        words = _json(body, found) if as_json else f"{told.get('code')}: {told.get('message')}"
        print(logs.escape(words), file=sys.stderr)
        return exit_codes.FAILED
    if as_json:
        print(_json(body, found))
    else:
        Console().print(table_of(found))
    return 0


def _json(body: bytes, found: object) -> str:
    """Return the answer as it came; encoded again where it holds control characters of a terminal."""
    text = body.decode()
    return text if logs.escape(text) == text else json.dumps(found)


def table_of(found: object) -> Table:
    """Return a list as rows, one entity as its fields."""
    if isinstance(found, list):
        rows = [item if isinstance(item, dict) else {"": item} for item in found]
        names = list(dict.fromkeys(name for row in rows for name in row))
        shown = sorted(names, key=lambda name: (_rank(name), names.index(name)))[:COLUMNS]
        table = Table(*map(_text, shown), caption=_caption(len(rows), len(names) - len(shown)))
        for row in rows:
            table.add_row(*(_cell(row.get(name, "")) for name in shown))
        return table
    table = Table("field", "value")
    for name, value in (found if isinstance(found, dict) else {"": found}).items():
        table.add_row(_text(name), _cell(value))
    return table


# What a person looks for first.
_FIRST = (
    "id",
    "user",
    "user_id",
    "sound_id",
    "name",
    "nick",
    "type",
    "status",
    "roles",
    "channel_id",
    "position",
)


def _rank(name: str) -> int:
    return _FIRST.index(name) if name in _FIRST else len(_FIRST)


def _caption(rows: int, hidden: int) -> str:
    more = f", {hidden} more fields (--json, --fields)" if hidden else ""
    return f"{rows} entr{'y' if rows == 1 else 'ies'}{more}"


def _cell(value: object) -> str:
    if isinstance(value, dict) and "username" in value:
        return _text(f"{value['username']} ({value.get('id')})")
    return _text(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _text(text: str) -> str:
    """Return a text to print as it is: names that Discord's users chose are no markup and no control sequences."""
    return escape(logs.escape(text))
