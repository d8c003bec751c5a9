"""The broker's address: as RabbitMQ documents it, and never a password in a message."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import example, given
from hypothesis import strategies as st
from rateway.config import ConfigurationError, load
from rateway.transports.amqp.wire.uri import AmqpAddress, parse


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("amqp://", AmqpAddress()),
        ("amqp://guest:guest@localhost/", AmqpAddress(vhost="/")),
        ("amqp://h", AmqpAddress(host="h")),
        ("amqp://h/%2f", AmqpAddress(host="h", vhost="/")),
        ("amqp://h/%2Fbots", AmqpAddress(host="h", vhost="/bots")),
        ("amqp://u@h:10/v", AmqpAddress(host="h", port=10, user="u", vhost="v")),
        (
            "amqp://user%61:p%40ss%2f@ho%61st:10000/v%2fhost",
            AmqpAddress("hoast", 10000, False, "usera", "p@ss/", "v/host"),
        ),
        ("amqps://h", AmqpAddress(host="h", port=5671, tls=True)),
        ("amqp://[::1]:7/", AmqpAddress(host="::1", port=7)),
        ("amqp://:@/", AmqpAddress(password="")),
        (
            "amqp://h?heartbeat=5&connection_timeout=2500&channel_max=8",
            AmqpAddress("h", heartbeat=5, connection_timeout=2.5, channel_max=8),
        ),
        (
            (
                "amqps://h/?cacertfile=/a%20b.pem&certfile=/c.pem&keyfile=/k.pem&password=x&verify=verify_none"
                "&server_name_indication=other&auth_mechanism=external&fail_if_no_peer_cert=true"
            ),
            AmqpAddress(
                "h", 5671, True, cacertfile="/a b.pem", certfile="/c.pem", keyfile="/k.pem", key_password="x",
                verify=False, server_name="other", external=True,
            ),
        ),
    ],
)  # fmt: skip
def test_an_address_is_read_as_rabbitmq_documents_it(uri: str, expected: AmqpAddress) -> None:
    assert parse(uri) == expected


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("http://u:s3cret@h", "must begin with amqp:// or amqps://"),
        ("amqp:h", "must begin with"),
        ("amqp://u:s3cret@h:port", "the port must be a number"),
        ("amqp://u:s3cret@h:0", "the port must be a number"),
        ("amqp://u:s3cret@h:70000", "the port must be a number"),
        ("amqp://u:s3/cret@h", "%2F for '/'"),
        ("amqp://u:s3cret#x@h", "%23"),
        ("amqp://u:s3cret@h/#x", "'#'"),
        ("amqp://u:s3@cret@h", "two '@'"),
        ("amqp://u:s3cret@h/a/b", "%2F"),
        ("amqp://u:s3cret@h/?heartbeet=5", "did you mean heartbeat"),
        ("amqp://u:s3cret@h/?colour=5", "known are"),
        ("amqp://u:s3cret@h/?heartbeat=soon", "from 0 to 65535"),
        ("amqp://u:s3cret@h/?heartbeat", "name=value"),
        ("amqp://u:s3cret@h/?cacertfile=/a", "needs amqps"),
        ("amqps://u:s3cret@h/?keyfile=/a", "needs certfile"),
        ("amqps://u:s3cret@h/?verify=maybe", "verify_peer or verify_none"),
        ("amqps://u:s3cret@h/?certfile=", "is empty"),
        ("amqp://u:s3%ffcret@h", "not UTF-8"),
        ("amqp://u:s3cret@[::g]/", "IPv6"),
        ("amqp://u:s3cret@a:b:5/", "IPv6 address stands in"),
        ("amqp://u:s3 cret@h", "white space"),
    ],
)
def test_a_wrong_address_says_what_is_wrong_without_the_password(uri: str, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse(uri)
    assert words in str(caught.value)
    assert "s3" not in str(caught.value) and "cret" not in str(caught.value)


def parts_of(password: str) -> set[str]:
    """What of a password must not be seen: runs of four characters that no message has of its own."""
    return {password[at : at + 4] for at in range(len(password) - 3)}


# No four of these characters, one after the other, stand in any message.
SECRET = st.text("QXZJqxzj0918?#@/%:[]&=,;+\\é\n", min_size=4, max_size=16)


@pytest.mark.checklist("K59")
@given(
    SECRET,
    st.sampled_from(["amqp", "amqps"]),
    st.sampled_from(["user:", "u%40x:", ":", ""]),
    st.sampled_from(
        ["@host", "@host:5672/vhost", "@a,b,c:1/", "@host/?heartbeat=5", "@", "", "/", "@[::1]/"]
    ),
)
@example("qxzj?91qz", "amqp", "user:", "@host")
@example("qxzj#91qz", "amqp", "user:", "@host/")
@example("qxzj/91qz", "amqp", "user:", "@host")
@example("1234/qxzj", "amqp", "user:", "@host")
@example("p@12/qxzj", "amqp", "user:", "@host")
@example("1234?qxzj=1", "amqps", "user:", "")
@example("1234?verify=qxzj", "amqps", "user:", "@host")
@example("qxzj%ff", "amqp", "user:", "@host")
@example("qxzj?heartbeat=qzqz", "amqp", "user:", "@host/")
def test_no_part_of_a_password_stands_in_an_error_or_in_what_is_shown_of_an_address(
    password: str, scheme: str, user: str, rest: str
) -> None:
    given_as = f"{scheme}://{user}{password}{rest}"
    said = []
    try:
        address = parse(given_as)
        # Without an @ there is no password: what stands there is a host.
        if "@" in given_as:
            said += [str(address), repr(address), *map(str, address.nodes())]
    except ValueError as error:
        said.append(str(error))
    try:
        load(None, {"AMQP_URI": given_as, "DISCORD_TOKEN": "a.b.c", "INTENTS": "1", "HOME": "/root"})
    except ConfigurationError as error:
        said.append(str(error))
    # Before the first colon is the user's name, behind the last @ the host, which may look like a part of the rest.
    secret, _, host = f"{user}{password}{rest}".partition(":")[2].rpartition("@")
    parts = [part for part in parts_of(secret) if part not in host]
    for each in said:
        assert not [part for part in parts if part in each], each


@pytest.mark.checklist("K59")
def test_a_password_with_an_unescaped_question_mark_says_what_to_write() -> None:
    with pytest.raises(ValueError, match="%3F") as caught:
        parse("amqp://bot:sw0rd?fish=marked@host:5672/vhost")
    for part in ("sw0rd", "fish", "marked"):
        assert part not in str(caught.value)


def test_an_address_shows_no_password() -> None:
    address = parse("amqps://bot:s3cret@h/v?certfile=/c&keyfile=/k&password=k3y")
    assert "s3cret" not in repr(address) + str(address) and "k3y" not in repr(address)
    assert str(address) == "amqps://bot@h:5671/v"


@given(st.text(max_size=60))
def test_garbage_is_an_address_or_an_error_in_words(text: str) -> None:
    found, words = None, ""
    try:
        found = parse("amqp://" + text)
    except ValueError as error:
        words = str(error)
    if found is None:
        assert words.startswith("the ")
    else:
        assert 0 < found.port < 65536 and found.vhost


def test_a_certificate_file_that_cannot_be_read_is_named() -> None:
    with pytest.raises(
        ValueError, match=r"the CA certificates in /nowhere\.pem cannot be read: No such file"
    ):
        parse("amqps://h/?cacertfile=/nowhere.pem").tls_context()
    with pytest.raises(ValueError, match=r"client certificate /nowhere\.pem cannot be used: No such file"):
        parse("amqps://h/?certfile=/nowhere.pem").tls_context()


def test_certificates_are_checked_unless_told_otherwise(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"k3y"),
    )
    (tmp_path / "c.pem").write_bytes(pem)
    (tmp_path / "k.pem").write_bytes(secret)
    files = f"cacertfile={tmp_path}/c.pem&certfile={tmp_path}/c.pem&keyfile={tmp_path}/k.pem"
    context = parse(f"amqps://h/?{files}&password=k3y").tls_context()
    assert context is not None and context.check_hostname
    with pytest.raises(ValueError, match="cannot be used"):
        parse(f"amqps://h/?{files}&password=wrong").tls_context()
    trusting = parse("amqps://h/?verify=verify_none").tls_context()
    assert trusting is not None and not trusting.check_hostname
    assert parse("amqp://h").tls_context() is None


@pytest.mark.checklist("K73")
@pytest.mark.parametrize("host", ["a..b", ".", "a" * 64, "xn--ä", "a%20b", "a,b..c", "%00"])
def test_a_host_that_cannot_be_looked_up_is_told_and_not_shown(host: str) -> None:
    with pytest.raises(ValueError, match="the host is no name that can be looked up") as caught:
        parse(f"amqp://user:s3cret@{host}:5672/")
    assert "s3cret" not in str(caught.value) and host not in str(caught.value)


@pytest.mark.checklist("K73")
@pytest.mark.parametrize("name", ["", "a..b", "a" * 64, "%20"])
def test_a_name_for_tls_that_is_no_hosts_is_told(name: str) -> None:
    with pytest.raises(ValueError, match="server_name_indication"):
        parse(f"amqps://h/?server_name_indication={name}")
