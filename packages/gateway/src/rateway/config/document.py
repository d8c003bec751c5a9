"""Write ``docs/settings.md`` from the table of settings."""

from __future__ import annotations

from rateway.config.table import GROUPS, REQUIRED, ROWS, Row
from rateway_protocol.discord.intents import PRIVILEGED, Intents

__all__ = ["settings_page"]

HEAD = """\
# Settings

<!-- Written by `python -m rateway.config.document > docs/settings.md` from its table. -->

Each setting is a variable of the environment and a key of a TOML file (`rateway -c rateway.toml`); the environment
goes over the file. A mistake ends the start with exit code 78, and all mistakes are listed at once.

- Required: `DISCORD_TOKEN`, `INTENTS`, `AMQP_URI`.
- A secret can stand in a file of its own: `DISCORD_TOKEN_FILE`, `AMQP_URI_FILE`, `HTTP_TOKEN_FILE`,
  `PROXY_TOKEN_FILE` (in TOML `token_file`, `amqp_file`, `http_token_file`, `proxy.token_file`,
  relative to the TOML file).
- A size is a number of bytes or one with a unit: `256MiB`, `1GiB`, `500MB`. A time is a number of seconds or one with
  a unit: `250ms`, `180s`, `5m`, `1h`, `2d`.
- A list is names with commas between them, in TOML also a list: `["GUILDS", "GUILD_MESSAGES"]`.
- An empty variable is one that is not set (but `HTTP_ADDRESS=` switches HTTP off).

A file to start from, which the original rateway reads as well:

```toml
token = "token"
intents = 19553
amqp = "amqp://guest:guest@localhost/"
cache_enabled = true

[shards]
per_cluster = 8
extra = 8
```
"""


def _row(row: Row) -> str:
    default = "**required**" if row.default is REQUIRED else row.default_words
    if row.default is not REQUIRED and "`" not in default:
        default = f"`{default}`" if row.shown_default is None else default
    secret = " (a secret)" if row.secret else ""
    text = row.help.replace("|", "\\|")
    return f"| `{row.env}` | `{row.key}` | {row.form}{secret} | {default} | {text} |"


def settings_page(rows: tuple[Row, ...] = ROWS) -> str:
    """Return the whole page, in Markdown."""
    parts = [HEAD]
    for group in GROUPS:
        parts.append(f"## {group}\n")
        parts.append("| Variable | Key | Form | Default | What it does |\n|---|---|---|---|---|")
        parts.append("\n".join(_row(row) for row in rows if row.group == group) + "\n")
    parts.append("## Intents\n")
    parts.append("| Name | Value | Privileged |\n|---|---:|:---:|")
    intents = (f"| `{item.name}` | {item.value} | {'yes' if item & PRIVILEGED else ''} |" for item in Intents)
    parts.append("\n".join(intents) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    print(settings_page(), end="")
