"""The proxy's certificate is read again when it is renewed, and a wrong one changes nothing."""

from __future__ import annotations

import asyncio
import logging
import shutil
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from rateway.proxy.http.certificate import Certificate, CertificateError
from rateway_simulator import certificate as certificates

from tests.aio import run


class Files:
    """The files that the proxy reads, and pairs that can be put there."""

    def __init__(self, folder: Path) -> None:
        self.pairs = []
        for name in ("first", "second"):
            (folder / name).mkdir()
            self.pairs.append(certificates.make(folder / name, "127.0.0.1"))
        self.cert, self.key = folder / "cert.pem", folder / "key.pem"

    def put(self, number: int) -> Files:
        """Have that pair there, as a renewal does: by another file under the same name."""
        for source, place in zip(self.pairs[number], (self.cert, self.key), strict=True):
            new = place.with_suffix(".new")
            shutil.copy(source, new)
            new.replace(place)
        return self

    def der(self, number: int) -> bytes:
        return ssl.PEM_cert_to_DER_cert(self.pairs[number][0].read_text())


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]]:
    """A connection, and the certificate that it was shown."""
    anybody = ssl.create_default_context()
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=anybody)
    try:
        yield reader, writer, writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        writer.transport.abort()


@asynccontextmanager
async def served(certificate: Certificate) -> AsyncIterator[int]:
    """A server that sends back each line; its port."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=certificate.context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def test_new_connections_get_a_renewed_certificate_and_open_ones_go_on(tmp_path: Path) -> None:
    files = Files(tmp_path).put(0)

    async def it() -> None:
        certificate = Certificate(files.cert, files.key)
        async with served(certificate) as port, connected(port) as (reader, writer, shown):
            assert shown == files.der(0)
            files.put(1)
            certificate.look()
            certificate.look()
            async with connected(port) as (_, _, now):
                assert now == files.der(1)
            writer.write(b"still here\n")
            assert await reader.readline() == b"still here\n"

    run(it())


def test_files_that_are_being_written_are_left_until_they_rest(tmp_path: Path) -> None:
    files = Files(tmp_path).put(0)
    certificate = Certificate(files.cert, files.key)
    files.cert.write_text("half a certi")
    certificate.look()
    files.put(1)
    certificate.look()
    assert certificate.refusal == ""
    certificate.look()
    assert certificate.refusal == ""


@pytest.mark.parametrize("wrong", ["no PEM", "another's key", "gone"])
def test_a_wrong_certificate_is_said_once_and_the_one_before_stays(
    tmp_path: Path, wrong: str, caplog: pytest.LogCaptureFixture
) -> None:
    files = Files(tmp_path).put(0)

    async def it() -> None:
        certificate = Certificate(files.cert, files.key)
        async with served(certificate) as port:
            if wrong == "no PEM":
                files.cert.write_text("nothing of the kind")
            elif wrong == "gone":
                files.cert.unlink()
            else:
                shutil.copy(files.pairs[1][1], files.key)
            for _ in range(4):
                certificate.look()
            assert certificate.refusal
            (line,) = [each for each in caplog.records if each.levelno == logging.ERROR]
            assert str(files.cert) in line.getMessage() and "PEM" in line.getMessage()
            async with connected(port) as (_, _, shown):
                assert shown == files.der(0)
            files.put(1)
            certificate.renew()
            assert certificate.refusal == ""
            async with connected(port) as (_, _, shown):
                assert shown == files.der(1)

    run(it())


def test_an_encrypted_key_is_refused_without_a_question(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    files = Files(tmp_path).put(0)
    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    files.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"words"),
        )
    )
    with pytest.raises(CertificateError, match="encrypted"):
        Certificate(files.cert, files.key)
