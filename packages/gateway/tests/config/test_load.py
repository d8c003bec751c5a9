"""Settings from file and environment; every mistake told at once, where it stands."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rateway.config import ConfigurationError, Problem, Settings, load
from rateway.config.broker import broker_address
from rateway.config.reload import value_of
from rateway.config.table import ROWS
from rateway.runtime.startup import Identity
from rateway.transports.state import StateDir

TOKEN = "MTIzNDU2Nzg5MDEyMzQ1Njc4.Gabcde.abcdefghijklmnopqrstuvwxyz0123456789AB"
REQUIRED = {"DISCORD_TOKEN": TOKEN, "INTENTS": "513", "AMQP_URI": "amqp://guest:hunter2hunter2@localhost/"}

ORIGINAL = """\
token = "token"
intents = 19553
amqp = "amqp://guest:guest@localhost/"
cache_enabled = true

[shards]
per_cluster = 8
extra = 8
"""


def of(**environ: str) -> Settings:
    return load(None, REQUIRED | environ)


def problems(file: Path | None = None, /, **environ: str) -> list[Problem]:
    base = {} if file is not None else REQUIRED
    with pytest.raises(ConfigurationError) as caught:
        load(file, base | environ)
    return caught.value.problems


def problem(**environ: str) -> Problem:
    (only,) = problems(None, **environ)
    return only


@pytest.fixture
def toml(tmp_path: Path) -> Any:
    def write(text: str) -> Path:
        file = tmp_path / "rateway.toml"
        file.write_text(text)
        return file

    return write


def test_the_environment_of_the_original_works(tmp_path: Path) -> None:
    settings = of(SHARDS_PER_CLUSTER="4", EXTRA_SHARDS="2", CACHE_ENABLED="false", MESSAGE_CACHE_SIZE="10")
    assert settings.session.token.reveal() == TOKEN
    assert settings.session.intents == 513
    assert settings.broker.address.reveal() == REQUIRED["AMQP_URI"]
    assert (settings.layout.per_cluster, settings.layout.extra) == (4, 2)
    assert (settings.cache.enabled, settings.cache.messages_per_channel) == (False, 10)


def test_the_sample_file_of_the_original_works(toml: Any) -> None:
    settings = load(toml(ORIGINAL), {})
    assert settings.session.token.reveal() == "token"
    assert settings.session.intents == 19553
    assert settings.broker.address.reveal() == "amqp://guest:guest@localhost/"
    assert (settings.layout.per_cluster, settings.layout.extra, settings.cache.enabled) == (8, 8, True)


def test_defaults_are_those_that_are_documented() -> None:
    settings = of()
    assert (settings.layout.per_cluster, settings.layout.extra, settings.cache.messages_per_channel) == (
        8,
        8,
        0,
    )
    assert settings.rest.api_url == "https://discord.com/api/v10"
    assert settings.session.compression is None
    assert (
        settings.published.only is None
        and settings.layout.clusters is None
        and settings.layout.shards is None
    )
    assert (settings.delivery.events, settings.broker.spool_bytes) == (100_000, 1 << 30)
    assert settings.published.publishes("MESSAGE_CREATE") and settings.published.publishes(
        "INVENTED_YESTERDAY"
    )


def test_the_environment_goes_over_the_file(toml: Any) -> None:
    settings = load(toml(ORIGINAL), {"INTENTS": "GUILDS", "EXTRA_SHARDS": "0"})
    assert (settings.session.intents, settings.layout.extra) == (1, 0)
    assert settings.origins["intents"] == "INTENTS"
    assert settings.origins["token"].endswith("rateway.toml, line 1: token")


@pytest.mark.parametrize(
    ("written", "bits"),
    [
        ("19553", 19553),
        ("GUILDS,GUILD_MESSAGES", 513),
        (" guilds | guild_messages ", 513),
        ("GUILDS GUILD_BANS", 5),
        ("1,512", 513),
        ("ALL", 53608447),
    ],
)
def test_intents_are_a_number_or_names(written: str, bits: int) -> None:
    assert of(INTENTS=written).session.intents == bits


def test_intents_of_the_file_may_be_a_list(toml: Any) -> None:
    text = ORIGINAL.replace("19553", '["GUILDS", "GUILD_MESSAGES", 4096]')
    assert load(toml(text), {}).session.intents == 1 + 512 + 4096


def test_each_wrong_intent_is_told_with_the_nearest_name() -> None:
    found = problems(None, INTENTS="GUILDS,GUILD_MESAGES,MESSAGE_CONTENTS")
    assert [(each.where, each.instead) for each in found] == [
        ("INTENTS", "did you mean GUILD_MESSAGES?"),
        ("INTENTS", "did you mean MESSAGE_CONTENT?"),
    ]


def test_unknown_bits_are_named_and_never_cut() -> None:
    found = problem(INTENTS=str(1 | 1 << 17 | 1 << 40))
    assert "bit 17, 40" in found.wrong


@pytest.mark.checklist("B20")
@pytest.mark.parametrize("written", [TOKEN, f"Bot {TOKEN}", f"  bot   {TOKEN}\n", f"\n{TOKEN}\r\n"])
def test_the_prefix_and_white_space_around_a_token_are_taken_off(written: str) -> None:
    assert of(DISCORD_TOKEN=written).session.token.reveal() == TOKEN


@pytest.mark.parametrize("quote", ['"', "'"])
@pytest.mark.parametrize(
    ("name", "value"),
    [("DISCORD_TOKEN", TOKEN), ("AMQP_URI", "amqp://guest:sw0rdfish@h/"), ("INTENTS", "GUILDS")],
)
def test_a_value_in_quotes_is_told_and_not_shown(name: str, value: str, quote: str) -> None:
    (found,) = problems(None, **{name: f" {quote}{value}{quote}\n"})
    assert (found.where, found.wrong) == (name, "it stands in quotes, which are a part of it here")
    assert "leave the quotes out" in found.instead and value not in str(found)


def test_secrets_come_from_files(tmp_path: Path, toml: Any) -> None:
    token, amqp = tmp_path / "token", tmp_path / "amqp"
    token.write_text(f"Bot {TOKEN}\n\n")
    amqp.write_text("  amqp://a:b@c/d\n")
    settings = load(None, {"DISCORD_TOKEN_FILE": str(token), "AMQP_URI_FILE": str(amqp), "INTENTS": "0"})
    assert (settings.session.token.reveal(), settings.broker.address.reveal()) == (TOKEN, "amqp://a:b@c/d")
    beside = load(toml('token_file = "token"\namqp_file = "amqp"\nintents = 1\n'), {})
    assert beside.session.token.reveal() == TOKEN


@pytest.mark.parametrize(
    ("content", "wrong"),
    [(None, "cannot be read"), (b"", "no lines"), (b"a\nb\n", "2 lines"), (b"\xff\xfe", "not text")],
)
def test_a_secret_file_that_is_none_is_told(tmp_path: Path, content: bytes | None, wrong: str) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        load(None, {"DISCORD_TOKEN_FILE": str(file), "AMQP_URI": "amqp://localhost/", "INTENTS": "1"})
    (only,) = caught.value.problems
    assert only.where == "DISCORD_TOKEN_FILE"
    assert wrong in only.wrong


def test_a_secret_given_twice_is_told(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(TOKEN)
    assert problem(DISCORD_TOKEN_FILE=str(file)).where == "DISCORD_TOKEN_FILE"


def test_all_mistakes_are_told_at_once(toml: Any) -> None:
    file = toml(
        'tokn = "x"\nintents = "GUILD"\n[shards]\nper_cluster = 0\nextra = "many"\n[shard]\ntotal = 3\n'
    )
    found = problems(file, COMPRESSION="zstd", LOG_LEVEL="verbose", CLUSTERS="4-1", IDENTIFY_BUCKETS="x")
    where = [each.where.partition("rateway.toml")[2] or each.where for each in found]
    assert where == [
        ", line 1: tokn", ", line 2: intents", ", line 4: shards.per_cluster", ", line 5: shards.extra",
        ", line 7: shard.total", "COMPRESSION", "IDENTIFY_BUCKETS", "CLUSTERS", "LOG_LEVEL", "DISCORD_TOKEN",
        "AMQP_URI",
    ]  # fmt: skip
    assert all(each.wrong and each.instead for each in found)


def test_nothing_set_names_the_three_that_are_required() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(None, {})
    assert [each.where for each in caught.value.problems] == ["DISCORD_TOKEN", "INTENTS", "AMQP_URI"]


@pytest.mark.parametrize("content", [None, b'token = "a', b"\xff"])
def test_a_file_that_cannot_be_read_is_the_only_mistake(tmp_path: Path, content: bytes | None) -> None:
    """Whether the required settings are missing is not known then."""
    file = tmp_path / "rateway.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        load(file, {})
    assert [str(file) in each.where for each in caught.value.problems] == [True]


def test_other_names_for_the_required_ones_are_recognised() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(None, {"BOT_TOKEN": "x", "AMQP_URL": "y", "INTENTS": "1"})
    assert [
        "BOT_TOKEN" in caught.value.problems[0].instead,
        "AMQP_URL" in caught.value.problems[1].instead,
    ] == [True, True]


@pytest.mark.parametrize(
    ("name", "meant"), [("SHARD_PER_CLUSTER", "SHARDS_PER_CLUSTER"), ("EVENT_EXCEPT", "EVENTS_EXCEPT")]
)
def test_a_slip_in_a_variable_is_told(name: str, meant: str) -> None:
    found = problem(**{name: "1"})
    assert found.where == name
    assert meant in found.instead


def test_variables_of_others_are_let_be() -> None:
    others = {"PATH": "/bin", "HOME": "/root", "LANG": "C", "SHLVL": "1", "RATEWAY_PORT": "tcp://10.0.0.1",
              "HTTP_PROXY": "x", "NODE_ENV": "x", "STATE_DIRECTORY": "/x", "LOGNAME": "me", "EVENT": "x"}  # fmt: skip
    assert of(**others).session.intents == 513


def test_a_key_below_the_wrong_section_is_told_where_it_belongs(toml: Any) -> None:
    (found,) = problems(toml(ORIGINAL + 'log_level = "info"\n'))
    assert found.where.endswith("line 9: shards.log_level")
    assert "above the first [section]" in found.instead


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("intents = 19553\ntoken = token\n", 2),
        ("[shards\nextra = 1\n", 1),
        ("token =\n", 1),
        ('token = "a', 1),
    ],
)
def test_a_syntax_error_is_told_with_its_line_and_without_its_content(
    toml: Any, text: str, line: int
) -> None:
    found = problems(toml(text))[0]
    assert f"line {line}" in found.where
    assert "not TOML" in found.wrong
    assert '"a' not in str(found)


def test_a_file_that_is_not_there_or_not_text_is_told(tmp_path: Path) -> None:
    assert "cannot be read" in problems(tmp_path / "none.toml")[0].wrong
    (tmp_path / "latin.toml").write_bytes(b'token = "\xe4"')
    assert "UTF-8" in problems(tmp_path / "latin.toml")[0].wrong


def test_the_same_setting_under_two_keys_is_told(toml: Any) -> None:
    (found,) = problems(toml(ORIGINAL + "[cache]\nenabled = false\n"))
    assert "cache_enabled" in found.wrong


def test_a_total_and_extra_shards_contradict_each_other(toml: Any) -> None:
    assert "both set" in problem(SHARDS="16", EXTRA_SHARDS="4").wrong
    assert load(toml(ORIGINAL), {"SHARDS": "16"}).layout.shards == 16, "the environment goes over the file"
    assert of(SHARDS="16").layout.shards == 16


def test_events_that_are_published_and_not_contradict_each_other() -> None:
    settings = of(EVENTS="MESSAGE_CREATE,READY", EVENTS_EXCEPT="TYPING_START")
    assert [
        settings.published.publishes(name) for name in ("MESSAGE_CREATE", "TYPING_START", "GUILD_CREATE")
    ] == [
        True,
        False,
        False,
    ]
    assert "READY" in problem(EVENTS="READY", EVENTS_EXCEPT="READY").wrong
    assert "MESSAGE_CREATE" in problem(EVENTS="MESSAGE_CRATE").instead
    assert "own" in problem(EVENTS="RATEWAY_GAP").wrong
    assert of(EVENTS="SOMETHING_NEW").published.only == frozenset({"SOMETHING_NEW"}), "Discord invents events"


def test_a_port_that_others_can_reach_needs_a_token() -> None:
    assert "HTTP_TOKEN" in problem(HTTP_ADDRESS="0.0.0.0:8650").wrong
    assert "HTTP_TOKEN" in problem(HTTP_ADDRESS=":8650").wrong
    assert of(HTTP_ADDRESS="0.0.0.0:8650", HTTP_TOKEN="long-and-random-text").http.address == "0.0.0.0:8650"
    for loopback in ("127.0.0.1:1", "[::1]:8650", "localhost:8650"):
        assert of(HTTP_ADDRESS=loopback).http.address == loopback
    assert of(HTTP_ADDRESS="").http.address is None


PROXY_TOKEN = "long-and-random-text"


def test_a_proxy_that_others_can_reach_needs_a_token_and_tls() -> None:
    mistakes = problems(None, PROXY_ADDRESS="0.0.0.0:7878")
    assert {each.where for each in mistakes} == {"PROXY_ADDRESS"}
    assert any("PROXY_TOKEN" in each.wrong for each in mistakes)
    assert any("PROXY_CERT" in each.instead and "PROXY_BEHIND_TLS" in each.instead for each in mistakes)
    open_to_all = {"PROXY_ADDRESS": "0.0.0.0:7878", "PROXY_TOKEN": PROXY_TOKEN}
    assert "clear" in problem(**open_to_all).wrong
    assert of(**open_to_all, PROXY_CERT="/etc/proxy.pem").proxy.cert == Path("/etc/proxy.pem")
    assert of(**open_to_all, PROXY_BEHIND_TLS="true").proxy.address == "0.0.0.0:7878"
    for loopback in ("127.0.0.1:7878", "[::1]:7878", "localhost:7878"):
        assert of(PROXY_ADDRESS=loopback).proxy.address == loopback
    assert of().proxy.address is None and of(PROXY_ADDRESS="").proxy.address is None


def test_a_proxy_needs_an_event_log_and_gets_one() -> None:
    assert not of().event_log.is_on and not of(PROXY_ADDRESS="").event_log.is_on
    assert of(PROXY_ADDRESS="127.0.0.1:7878").event_log.is_on
    assert of(PROXY_ADDRESS="127.0.0.1:7878").origins["event_log"] == "PROXY_ADDRESS"
    wrong = problem(PROXY_ADDRESS="127.0.0.1:7878", EVENT_LOG="off")
    assert wrong.where == "EVENT_LOG" and "leave it out" in wrong.instead


def test_an_event_log_smaller_or_shorter_than_is_of_use_is_refused() -> None:
    assert "16777216" in problem(EVENT_LOG_BYTES="1MiB").instead
    assert "60 s" in problem(EVENT_LOG_AGE="5s").instead


def test_the_key_of_a_proxy_without_a_certificate_is_a_mistake() -> None:
    assert "PROXY_CERT" in problem(PROXY_KEY="/etc/key.pem").instead
    assert of(PROXY_KEY="/etc/key.pem", PROXY_CERT="/etc/cert.pem").proxy.key == Path("/etc/key.pem")


@pytest.mark.parametrize(
    ("written", "base"),
    [
        ("http://nirn-proxy:8080", "http://nirn-proxy:8080"),
        ("http://nirn-proxy:8080/", "http://nirn-proxy:8080"),
        ("https://discord.com/api/v10", "https://discord.com"),
        ("https://discord.com/api/", "https://discord.com"),
        ("http://localhost/under/here", "http://localhost/under/here"),
    ],
)
def test_the_base_of_rest_is_taken_with_a_version_and_without(written: str, base: str) -> None:
    assert of(PROXY_REST_URL=written).proxy.rest_url == base


@pytest.mark.parametrize(
    "written", ["https://bots.example.org", "bots.example.org", "wss://", "wss://a/?v=10"]
)
def test_the_address_that_bots_are_told_is_one_of_a_websocket(written: str) -> None:
    assert "wss://" in problem(PROXY_URL=written).instead
    assert of(PROXY_URL="wss://bots.example.org/").proxy.url == "wss://bots.example.org"


@pytest.mark.checklist("K62")
@pytest.mark.parametrize("length", [1, 2, 8, 15, 16, 40])
def test_a_token_that_could_be_guessed_is_refused(length: int) -> None:
    token = "!%$&!%$&!%$&!%$&!%$&!%$&!%$&!%$&!%$&!%$&"[:length]
    if length >= 16:
        assert of(HTTP_TOKEN=token).http.token is not None
    else:
        wrong = problem(HTTP_TOKEN=token)
        assert "16" in wrong.wrong and "random" in wrong.instead
        assert token not in str(wrong)


@pytest.mark.parametrize(
    ("variable", "value", "field", "wanted"),
    [
        ("SPOOL_BYTES", "2GiB", "spool_bytes", 2 << 30),
        ("SPOOL_BYTES", "0", "spool_bytes", 0),
        ("UNCONFIRMED_BYTES", "500 MB", "unconfirmed_bytes", 500_000_000),
        ("MAX_MESSAGE_BYTES", "1.5GiB", "max_message_bytes", 3 << 29),
        ("RESUME_PATIENCE", "3m", "resume_patience", 180.0),
        ("COMMAND_DEADLINE", "250ms", "command_deadline", 0.25),
        ("COMMAND_DEADLINE_MAX", "5m", "command_deadline_max", 300.0),
        ("SESSION_MAX_AGE", "2d", "session_max_age", 172800.0),
        ("SESSION_MAX_AGE", "off", "session_max_age", None),
        ("NACK_PATIENCE", "90", "nack_patience", 90.0),
        (
            "URGENT",
            "INTERACTION_CREATE, VOICE_SERVER_UPDATE",
            "urgent",
            frozenset({"INTERACTION_CREATE", "VOICE_SERVER_UPDATE"}),
        ),
        ("EVENT_LOG", "Stream", "event_log", "stream"),
        ("EVENT_LOG_AGE", "1h", "event_log_age", 3600.0),
        ("EVENT_LOG_BYTES", "16MiB", "event_log_bytes", 16 << 20),
        ("CLUSTERS", "1-4,7", "clusters", frozenset({1, 2, 3, 4, 7})),
        ("CLUSTERS", "", "clusters", None),
        ("IDENTIFY_BUCKETS", "0-2, 8", "identify_buckets", frozenset({0, 1, 2, 8})),
        ("COMPRESSION", "ZLIB-stream", "compression", "zlib-stream"),
        ("RESHARD", "1", "reshard", True),
        ("CACHE_ENABLED", "no", "cache_enabled", False),
        ("CACHE_KINDS", "members,roles", "cache_kinds", frozenset({"members", "roles"})),
        ("DISCORD_API_URL", "http://127.0.0.1:8080/api/v10/", "api_url", "http://127.0.0.1:8080/api/v10"),
        ("PROCESSES", "4", "processes", 4),
        ("SHARDS", "1_000", "shards", 1000),
    ],
)
def test_values_are_read_in_the_forms_that_people_write(
    variable: str, value: str, field: str, wanted: object
) -> None:
    # A subset of the clusters needs a total of shards.
    total = {"SHARDS": "56"} if field == "clusters" else {}
    (row,) = (row for row in ROWS if row.name == field)
    assert value_of(of(**{variable: value}, **total), row) == wanted


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SPOOL_BYTES", "1 furlong"), ("SPOOL_BYTES", "-1"), ("SPOOL_BYTES", "5"), ("UNCONFIRMED_BYTES", "0"),
        ("RESUME_PATIENCE", "0"), ("RESUME_PATIENCE", "soon"), ("SESSION_MAX_AGE", "5m"), ("SHARDS", "0"),
        ("SHARDS", "1.5"),
        ("CLUSTERS", "0"), ("CLUSTERS", "a-b"), ("IDENTIFY_BUCKETS", "3-1"), ("COMPRESSION", "gzip"),
        ("RESHARD", "maybe"),
        ("CACHE_KINDS", "member,rolls"), ("DISCORD_API_URL", "discord.com"), ("DISCORD_API_URL", "ftp://x/"),
        ("HTTP_ADDRESS", "8650"), ("HTTP_ADDRESS", "127.0.0.1:99999"), ("LARGE_THRESHOLD", "251"), ("PROCESSES", "-2"),
        ("AMQP_URI", "http://localhost/"), ("AMQP_URI", "localhost"), ("AMQP_URI", "amqp://localhost:port/"),
        ("AMQP_URI", "amqp://localhost/?hartbeat=3"), ("AMQP_URI", "amqps://localhost/?cacertfile=/none.pem"),
        ("DISCORD_TOKEN", "two words"), ("DISCORD_TOKEN", "tökén"), ("EVENTS", "message create!"), ("PRESENCE", "away"),
        ("AMQP_URI", "amqp://a..b/"), ("AMQP_URI", f"amqp://h,{'a' * 64}/"), ("DISCORD_API_URL", "https://a..b/api/v10"),
        ("DISCORD_API_URL", f"https://{'a' * 64}.org/api/v10"), ("DISCORD_API_URL", "https://discord.com:0/api"),
        ("HTTP_ADDRESS", "a..b:80"), ("HTTP_ADDRESS", f"{'a' * 64}:80"), ("PRESENCE", "[" * 100_000),
        ("PRESENCE", '{"activity": "\\ud800"}'), ("SHARDS", "²"), ("SHARDS", "9" * 5_000), ("INTENTS", "²"),
        ("CLUSTERS", "²-3"), ("COMMAND_DEADLINE", "1e400"),
    ],
)  # fmt: skip
@pytest.mark.checklist("K73")
def test_a_wrong_value_is_told_with_what_to_write(variable: str, value: str) -> None:
    found = problems(None, **{variable: value})
    assert {each.where for each in found} == {variable}
    assert all(each.wrong and each.instead for each in found)


@pytest.mark.parametrize(
    ("variable", "value"),
    [("AMQP_URI", "amqp://u:sw0rdfish-marked@h:port/"), ("AMQP_URI", "amqp://u:sw0rdfish-marked@h/a/b"),
     ("AMQP_URI", "http://u:sw0rdfish-marked@h/"), ("DISCORD_TOKEN", "sw0rdfish-marked two"),
     ("HTTP_TOKEN", "sw0rdfish-marked ä"), ("PROXY_TOKEN", "sw0rdfish-marked ä")],
)  # fmt: skip
def test_no_error_shows_a_secret(variable: str, value: str) -> None:
    assert "sw0rdfish" not in " ".join(map(str, problems(None, **{variable: value})))


def test_settings_never_show_their_secrets() -> None:
    settings = of(HTTP_TOKEN="sw0rdfish-marked", PROXY_TOKEN="sw0rdfish-of-bots")
    for shown in (repr(settings), str(settings), f"{settings.session.token}", f"{settings.broker.address!r}"):
        assert TOKEN not in shown and "hunter2" not in shown and "sw0rdfish" not in shown
    assert {secret.reveal() for secret in settings.secrets()} == {
        TOKEN,
        REQUIRED["AMQP_URI"],
        "sw0rdfish-marked",
        "sw0rdfish-of-bots",
    }


def test_the_state_folder_is_where_the_system_says() -> None:
    assert of(HOME="/home/me").process.state_dir == Path("/home/me/.local/state/rateway")
    assert of(HOME="/home/me", XDG_STATE_HOME="/x").process.state_dir == Path("/x/rateway")
    assert of(STATE_DIRECTORY="/var/lib/rateway:/b", XDG_STATE_HOME="/x").process.state_dir == Path(
        "/var/lib/rateway"
    )
    assert of(STATE_DIR="/own", STATE_DIRECTORY="/x").process.state_dir == Path("/own")


def test_what_discord_remembers_of_a_fatal_end_depends_on_token_intents_and_shards(tmp_path: Path) -> None:
    with StateDir.open(tmp_path / "state") as state:

        def identity(**environment: str) -> Identity:
            return Identity.of(of(**environment), state)

        same = identity().settings
        assert identity(LOG_LEVEL="debug", EVENTS="READY").settings == same
        for change in (
            {"INTENTS": "1"},
            {"SHARDS": "3"},
            {"EXTRA_SHARDS": "3"},
            {"DISCORD_TOKEN": "another"},
        ):
            assert identity(**change).settings != same
        renewed = identity(DISCORD_TOKEN=TOKEN[:-3] + "new")
        assert renewed.account == identity().account, "a new token of the same bot"


def test_each_setting_has_a_variable_and_a_key_of_its_own() -> None:
    assert (
        len({row.env for row in ROWS})
        == len({row.key for row in ROWS})
        == len({row.name for row in ROWS})
        == len(ROWS)
    )
    assert len({row.fills for row in ROWS}) == len(ROWS)


def test_each_field_of_a_part_is_filled_by_a_row_or_has_a_default() -> None:
    filled = {row.fills for row in ROWS}
    parts = get_type_hints(Settings)
    unset = {
        f"{part.name}.{field.name}"
        for part in dataclasses.fields(Settings)
        if part.name not in ("source", "origins", "amqp_file")
        for field in dataclasses.fields(parts[part.name])
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    assert unset <= filled
    assert {fills.partition(".")[0] for fills in filled} == {
        name.partition(".")[0] for name in unset | filled
    }


VALUES = (
    st.text(max_size=30)
    | st.integers()
    | st.booleans()
    | st.floats()
    | st.lists(st.text(max_size=6), max_size=3)
)


@given(st.sampled_from(ROWS), VALUES | st.dictionaries(st.text(max_size=6), st.text(max_size=6), max_size=2))
@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_value_of_any_setting_is_read_or_told_as_a_mistake(row: Any, value: object) -> None:
    from rateway.config.values import ManyWrong, Wrong

    try:
        row.read(value)
    except Wrong as wrong:
        told = [wrong]
    except ManyWrong as many:
        told = many.mistakes
    else:
        told = []
    assert all(each.wrong for each in told)


@given(st.text(max_size=60))
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_file_is_read_or_told_as_mistakes(tmp_path: Path, text: str) -> None:
    file = tmp_path / "any.toml"
    file.write_text(text, "utf-8", errors="replace")
    found = problems(file)
    assert found
    try:
        tomllib.loads(file.read_text("utf-8"))
    except tomllib.TOMLDecodeError:
        assert "not TOML" in found[0].wrong


REMOVED = ("guilds", "members", "messages", "presences", "users")


@pytest.mark.parametrize("kind", REMOVED)
def test_a_choice_of_fields_is_refused_in_the_environment_and_the_file(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "rateway.toml"
    file.write_text(f'[cache]\n{kind}_fields = ["-banner"]\n')
    name = f"CACHE_{kind.upper()}_FIELDS"
    for found in (problem(**{name: "-banner"}), *problems(file, **REQUIRED)):
        assert found.wrong == "there is no such setting any more"
        assert "CACHE_KINDS" in found.instead and "CACHE_ACTIVITIES" in found.instead
    assert problem(**{name: "-banner"}).where == name
    assert problems(file, **REQUIRED)[0].where == f"{file}, line 2: cache.{kind}_fields"
    assert load(None, REQUIRED | {name: " "}).cache.activities, "an empty variable is none"


def test_a_fleet_makes_the_heartbeat_to_the_broker_short_unless_the_address_names_one() -> None:
    assert broker_address(of()).current().heartbeat is None
    assert broker_address(of(FLEET="bot-1")).current().heartbeat == 5
    named = of(FLEET="bot-1", AMQP_URI="amqp://localhost/?heartbeat=30")
    assert broker_address(named).current().heartbeat == 30


def test_a_fleet_has_one_layout_so_its_clusters_need_no_shards() -> None:
    assert of(FLEET="bot-1", CLUSTERS="1-2").layout.clusters == frozenset({1, 2})
    assert "or FLEET" in problem(CLUSTERS="1-2").instead
    assert of(FLEET="off").fleet.name is None
    for wrong in ("Bot", "a" * 41, "a.b", "a b"):
        assert "hyphens" in problem(FLEET=wrong).instead
