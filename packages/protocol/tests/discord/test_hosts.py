"""The token goes to Discord, to the API's own domain and to what is configured, and never down from TLS."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rateway_protocol.discord.hosts import TokenHosts, is_host_name

DISCORD = "https://discord.com/api/v10"
LOCAL = "http://127.0.0.1:4000/api/v10"


@pytest.mark.checklist("K58")
@pytest.mark.parametrize(
    ("api", "url"),
    [
        (DISCORD, "wss://gateway.discord.gg"),
        (DISCORD, "wss://gateway-us-east1-b.discord.gg/?v=10"),
        (DISCORD, "wss://GATEWAY.discord.gg:443"),
        (LOCAL, "wss://gateway.discord.gg"),
        (LOCAL, "ws://127.0.0.1:5000"),
        (LOCAL, "ws://localhost:5000"),
        ("http://[::1]:4000/api", "ws://127.0.0.1:5000"),
        ("http://simulator:4000/api", "ws://simulator:5000"),
        ("https://api.example.org/v10", "wss://gateway.example.org"),
        ("https://example.org/v10", "wss://gateway.example.org"),
        ("https://bot.co.uk/v10", "wss://a.bot.co.uk"),
    ],
)
def test_addresses_of_the_apis_own_domain_are_trusted(api: str, url: str) -> None:
    assert TokenHosts(api).fault(url) == ""


@pytest.mark.checklist("K58")
@pytest.mark.parametrize(
    ("api", "url", "words"),
    [
        (DISCORD, "wss://evil.example", "not of the API's domain"),
        (DISCORD, "wss://discord.gg.evil.example", "not of the API's domain"),
        (DISCORD, "wss://notdiscord.gg", "not of the API's domain"),
        (DISCORD, "wss://gateway.discord.gg@evil.example", "not of the API's domain"),
        (DISCORD, "wss://127.0.0.1", "not of the API's domain"),
        (DISCORD, "wss://", "not of the API's domain"),
        (DISCORD, "wss://[", "no address"),
        (DISCORD, "ws://gateway.discord.gg", "without TLS"),
        (DISCORD, "https://gateway.discord.gg", "no address of a gateway"),
        (LOCAL, "ws://gateway.discord.gg", "without TLS"),
        (LOCAL, "ws://127.0.0.2", "not of the API's domain"),
        (LOCAL, "ws://1.127.0.0.1", "not of the API's domain"),
        ("https://api.example.org/v10", "ws://gateway.example.org", "without TLS"),
        ("https://bot.co.uk/v10", "wss://other.co.uk", "not of the API's domain"),
    ],
)
def test_other_hosts_and_plain_ways_get_no_token(api: str, url: str, words: str) -> None:
    assert words in TokenHosts(api).fault(url)


@pytest.mark.checklist("K58")
def test_what_is_configured_is_trusted_and_tls_is_never_given_up() -> None:
    hosts = TokenHosts(LOCAL, ["Example.org", "10.0.0.7"])
    for url in ("wss://example.org", "ws://a.b.example.org", "ws://10.0.0.7:80"):
        assert hosts.fault(url) == ""
    assert hosts.fault("ws://10.0.0.8")
    assert "without TLS" in hosts.fault("ws://example.org", "wss://example.org")


@given(st.text(max_size=40), st.text(max_size=40))
def test_no_text_makes_it_raise(url: str, host: str) -> None:
    hosts = TokenHosts(DISCORD)
    for each in (url, f"wss://{host}", f"wss://{host}.discord.gg:{url}"):
        assert isinstance(hosts.fault(each), str)


@pytest.mark.checklist("K70")
@pytest.mark.parametrize(
    "name",
    ["discord.gg", "gateway-us-east1-b.discord.gg", "discord.gg.", "my_host", "bücher.example", "127.0.0.1", "::1",
     "fe80::1%eth0", "a" * 63],
)  # fmt: skip
def test_names_and_addresses_of_hosts_are_host_names(name: str) -> None:
    assert is_host_name(name)


@pytest.mark.checklist("K70")
@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a..b",
        ".a",
        "a" * 64,
        "a." * 200,
        "a b",
        "a\tb",
        "a\0b",
        "\u200d.gg",
        "xn--ä.gg",
        "ä" * 60,
    ],
)
def test_what_cannot_be_looked_up_is_no_host_name(name: str) -> None:
    assert not is_host_name(name)
