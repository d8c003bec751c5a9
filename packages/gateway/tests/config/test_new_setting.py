"""A setting is one row of the table and one field of the part that uses it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from rateway.cache.policy import CacheSettings
from rateway.config import ConfigurationError, load, values
from rateway.config.document import settings_page
from rateway.config.reload import changed, reloaded
from rateway.config.settings import Settings
from rateway.config.table import CACHE, ROWS, Row

REQUIRED = {"DISCORD_TOKEN": "token", "INTENTS": "1", "AMQP_URI": "amqp://guest:guest@localhost/"}

NEW = Row("cache_probes", "cache.probes", "CACHE_PROBES", "cache.probes", values.integer(1, 9), "1 to 9", 3,
    "Probes of the cache.", CACHE, reloads=True)  # fmt: skip
TABLE = (*ROWS, NEW)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbedCache(CacheSettings):
    """The part that uses the new setting: the field is all that is added."""

    probes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbedSettings(Settings):
    cache: ProbedCache


def read(file: Path | None = None, **environ: str) -> ProbedSettings:
    return load(file, REQUIRED | environ, rows=TABLE, record=ProbedSettings)


def test_one_row_and_one_field_are_read_from_the_environment_and_the_file(tmp_path: Path) -> None:
    file = tmp_path / "rateway.toml"
    file.write_text("[cache]\nprobes = 5\n")
    assert (read().cache.probes, read(file).cache.probes) == (3, 5)
    assert read(file, CACHE_PROBES="7").cache.probes == 7
    assert read(file).origins["cache_probes"].endswith("line 2: cache.probes")
    assert read().cache.enabled and read().session.intents == 1


def test_what_it_does_not_take_is_refused_where_it_stands() -> None:
    with pytest.raises(ConfigurationError) as refused:
        read(CACHE_PROBES="10")
    assert [problem.where for problem in refused.value.problems] == ["CACHE_PROBES"]
    with pytest.raises(ConfigurationError, match="CACHE_PROBES"):
        read(CACHE_PROBE="4")


def test_it_is_documented() -> None:
    line = "| `CACHE_PROBES` | `cache.probes` | 1 to 9 | `3` | Probes of the cache. |"
    assert line in settings_page(TABLE).replace("| 3 |", "| `3` |")
    assert "CACHE_PROBES" not in settings_page()


def test_it_is_reloaded_as_its_row_says() -> None:
    old, new = read(CACHE_PROBES="4"), read(CACHE_PROBES="6", CACHE_RENEW="true", LOG_LEVEL="debug")
    assert {row.name for row in changed(old, new, TABLE)} == {"cache_probes", "cache_renew", "log_level"}
    held, fixed = reloaded(old, new, TABLE)
    assert (held.cache.probes, held.log.level) == (6, "debug")
    assert (held.cache.renew, fixed) == (False, ["cache_renew"])


def test_a_broker_address_in_the_same_file_is_taken_over_and_another_file_is_not(tmp_path: Path) -> None:
    address, other = tmp_path / "amqp", tmp_path / "other"
    address.write_text("amqp://a:b@first/")
    other.write_text("amqp://a:b@second/")
    environ = {name: value for name, value in REQUIRED.items() if name != "AMQP_URI"}
    old = load(None, environ | {"AMQP_URI_FILE": str(address)})
    moved = load(None, environ | {"AMQP_URI_FILE": str(other)})
    held, fixed = reloaded(old, moved)
    assert (held, fixed) == (old, ["amqp", "amqp_file"])
    address.write_text("amqp://a:b@third/")
    held, fixed = reloaded(old, load(None, environ | {"AMQP_URI_FILE": str(address)}))
    assert (held.broker.address.reveal(), fixed) == ("amqp://a:b@third/", [])
