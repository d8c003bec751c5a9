"""A RabbitMQ of one's own: a private node on free loopback ports that leaves nothing behind.

The node is started below Debian's wrapper script (which insists on the service's user and folders), with a
cookie, data folder, distribution port and epmd of its own, so that it neither meets a system service nor
another private node. Everything belongs to one process group: it ends with `close`, and a small leash
(a shell that waits on a pipe) ends it as well should this process be killed.

All calls block (a start takes some seconds); from a coroutine call them through `asyncio.to_thread`.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote
from urllib.request import Request, urlopen

#: Where the programs of RabbitMQ's packages lie: Debian, then other distributions and Homebrew.
PROGRAM_FOLDERS = ("/usr/lib/rabbitmq/bin", "/usr/lib/rabbitmq/sbin", "/usr/local/sbin", "/opt/homebrew/sbin")

#: The folder of another RabbitMQ's `rabbitmq-server` and `rabbitmqctl`, to be used instead (docs/rabbitmq.md).
PROGRAMS_VARIABLE = "RATEWAY_RABBITMQ_PROGRAMS"

#: How long a node may take to start or stop, seconds: 4 s is usual on two idle cores, busy ones take minutes.
PATIENCE = 240.0

#: Ports for nodes: Linux gives 32768 and above to outgoing connections (ip(7), ip_local_port_range).
PORTS = range(20000, 32768)
#: Ports that are tried before the system is asked for one; few of them are ever taken.
TRIES = 200

INSTALL_HELP = """RabbitMQ is not installed here. As root, run

    make broker

which installs Debian's package without starting a service, or

    sudo apt-get install rabbitmq-server     # starts the system's service as well

or give the address of a broker of yours: AMQP_URI=amqp://user:password@host/vhost"""


class BrokerUnavailable(RuntimeError):
    """RabbitMQ is not installed, or its node did not come up; the text says what to do."""


def find_programs() -> Path:
    """Return the folder of `rabbitmq-server` and `rabbitmqctl`; BrokerUnavailable with advice when there is none."""
    if named := os.environ.get(PROGRAMS_VARIABLE):
        if Path(named, "rabbitmq-server").exists():
            return Path(named)
        raise BrokerUnavailable(f"{PROGRAMS_VARIABLE}={named}: there is no rabbitmq-server in that folder")
    for folder in PROGRAM_FOLDERS:
        if Path(folder, "rabbitmq-server").exists():
            return Path(folder)
    found = shutil.which("rabbitmq-server")
    # /usr/sbin holds Debian's wrapper, which cannot be told where to put its data.
    if found and not found.startswith("/usr/sbin"):
        return Path(found).parent
    raise BrokerUnavailable(INSTALL_HELP)


def free_ports(count: int) -> list[int]:
    """Return *count* different TCP ports of 127.0.0.1 that are free now.

    They are below those that the system gives to outgoing connections, as far as there are any: a node that is away for
    some seconds has to find its ports free when it comes back.
    """
    found: list[int] = []
    for _ in range(TRIES):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", secrets.choice(PORTS)))
            except OSError:
                continue
            port = int(probe.getsockname()[1])
        if port not in found:
            found.append(port)
        if len(found) == count:
            return found
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


@dataclass(frozen=True, slots=True)
class Ports:
    amqp: int
    management: int
    distribution: int
    epmd: int
    control: int


class PrivateBroker:
    """One private node. `start`, then use `uri`; `close` (or leaving the `with`) ends it and its files.

    *settings* are further lines of rabbitmq.conf (`{"max_message_size": "16777216"}`), *plugins* are enabled.
    With *management* the HTTP API is there too, through which vhosts and policies are made in milliseconds;
    stopping takes 5 s more. *programs* is the folder of another RabbitMQ than the one of :func:`find_programs`.
    *beside* is a node that may belong to the same RabbitMQ cluster: its epmd and its cookie are used. *erlang* are
    further arguments for the virtual machine.
    """

    def __init__(
        self,
        *,
        settings: Mapping[str, str] | None = None,
        management: bool = True,
        plugins: Sequence[str] = (),
        programs: Path | None = None,
        beside: PrivateBroker | None = None,
        erlang: str = "",
    ) -> None:
        self.programs = programs or find_programs()
        self.directory = Path(tempfile.mkdtemp(prefix="rateway-rabbitmq-"))
        self.management = management
        self.settings = dict(settings or {})
        self.plugins = (*plugins, *(["rabbitmq_management"] if management else []))
        ports = free_ports(5)
        if beside is not None:
            ports[3] = beside.ports.epmd
        self.ports: Ports = Ports(*ports)
        self.node = f"rateway-{self.ports.amqp}@localhost"
        self._epmd: subprocess.Popen[bytes] | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self._leash: subprocess.Popen[bytes] | None = None
        self._beside = beside
        self._erlang = erlang
        self._write_files()

    def __enter__(self) -> PrivateBroker:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def uri(self) -> str:
        """The address of the default virtual host."""
        return self.uri_of("/")

    def uri_of(self, vhost: str) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.ports.amqp}/{quote(vhost, safe='')}"

    @property
    def cookie(self) -> str:
        """The secret that the nodes of one cluster share."""
        return (self.directory / ".erlang.cookie").read_text()

    @property
    def pid(self) -> int | None:
        """The process id of the node's virtual machine while it runs."""
        return None if self._server is None else self._server.pid

    # ---- life ----

    def configure(self, settings: Mapping[str, str]) -> None:
        """Add lines to rabbitmq.conf, which the next `start` reads."""
        self.settings |= settings
        self._write_files()

    def start(self) -> None:
        """Start the node and wait until it takes AMQP connections; BrokerUnavailable with the end of its log."""
        if self._server is not None:
            return
        if self._epmd is None:
            self._start_epmd()
        assert self._epmd is not None
        with (self.directory / "console.log").open("ab") as console:
            self._server = subprocess.Popen(
                [str(self.programs / "rabbitmq-server")],
                cwd=self.directory,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                process_group=self._epmd.pid,
            )
        try:
            self._await_listening()
        except BrokerUnavailable:
            self.kill()
            raise

    def stop(self) -> None:
        """Stop the node as an operator would; its data stays for the next `start`."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the node with SIGKILL; its data stays as the crash left it."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        self.stop()
        self.start()

    def freeze(self) -> None:
        """SIGSTOP: connections stay open and nothing answers, until `thaw`."""
        if self._server is not None:
            self._server.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        if self._server is not None:
            self._server.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End node, epmd and leash and remove every file; calling it again does nothing."""
        self.kill()
        for process in (self._leash, self._epmd):
            if process is not None:
                if process.stdin is not None:
                    process.stdin.close()
                process.kill()
                process.wait()
        self._leash = self._epmd = None
        shutil.rmtree(self.directory, ignore_errors=True)

    # ---- control ----

    def ctl(self, *arguments: str, program: str = "rabbitmqctl") -> str:
        """What `rabbitmqctl ARGUMENTS` prints; RuntimeError with its words when it fails. Takes about 2 s."""
        done = subprocess.run(
            [str(self.programs / program), "-q", "-n", self.node, *arguments],
            cwd=self.directory,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(
                f"{program} {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}"
            )
        return done.stdout

    def api(self, method: str, path: str, body: object = None) -> Any:
        """One call of the management API (*path* below `/api/`); the decoded answer, None for an empty one."""
        request = Request(
            f"http://127.0.0.1:{self.ports.management}/api/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": "Basic " + base64.b64encode(b"guest:guest").decode(),
                "Content-Type": "application/json",
            },
        )
        with urlopen(request, timeout=PATIENCE) as response:
            text = response.read()
        return json.loads(text) if text else None

    def create_vhost(self, name: str) -> str:
        """Create the virtual host *name* with all rights for guest; its address."""
        self.api("PUT", f"vhosts/{quote(name, safe='')}", {})
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        self.api("PUT", f"permissions/{quote(name, safe='')}/guest", everything)
        return self.uri_of(name)

    def delete_vhost(self, name: str) -> None:
        """Delete the virtual host with all it holds; its connections are closed by the broker."""
        self.api("DELETE", f"vhosts/{quote(name, safe='')}")

    def connections(self, vhost: str = "/") -> int:
        """Return how many AMQP connections to *vhost* are open."""
        return self.ctl("list_connections", "vhost").split("\n").count(vhost)

    def close_connections(self, vhost: str = "/", reason: str = "closed on request") -> None:
        """Have the broker close every connection to *vhost* (320 CONNECTION_FORCED)."""
        self.ctl("close_all_connections", "--vhost", vhost, reason)

    # ---- inside ----

    def _environment(self) -> dict[str, str]:
        home = str(self.directory)
        loopback = "-kernel inet_dist_use_interface {127,0,0,1}"
        kept = {key: os.environ[key] for key in ("PATH", "LANG", "TMPDIR") if key in os.environ}
        return kept | {
            "HOME": home,
            "ERL_EPMD_PORT": str(self.ports.epmd),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_CONF_ENV_FILE": f"{home}/none",
            "RABBITMQ_CONFIG_FILE": f"{home}/rabbitmq.conf",
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{home}/none.config",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{home}/enabled_plugins",
            "RABBITMQ_MNESIA_BASE": f"{home}/data",
            "RABBITMQ_LOG_BASE": f"{home}/log",
            "RABBITMQ_LOGS": f"{home}/log/node.log",
            "RABBITMQ_PID_FILE": f"{home}/node.pid",
            "RABBITMQ_DIST_PORT": str(self.ports.distribution),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"{loopback} {self._erlang}".strip(),
            "RABBITMQ_CTL_ERL_ARGS": loopback,
            "RABBITMQ_CTL_DIST_PORT_MIN": str(self.ports.control),
            "RABBITMQ_CTL_DIST_PORT_MAX": str(self.ports.control),
            # The script then becomes the virtual machine instead of waiting for it, so that our child is the node.
            "RUNNING_UNDER_SYSTEMD": "true",
        }

    def _write_files(self) -> None:
        lines = {
            "listeners.tcp.1": f"127.0.0.1:{self.ports.amqp}",
            # The disk of a developer may be nearly full; a demo must not be blocked by the default's caution.
            "disk_free_limit.absolute": "50MB",
            "log.file.level": "warning",
        }
        if self.management:
            lines["management.tcp.ip"] = "127.0.0.1"
            lines["management.tcp.port"] = str(self.ports.management)
        lines |= self.settings
        text = "".join(f"{key} = {value}\n" for key, value in lines.items())
        (self.directory / "rabbitmq.conf").write_text(text)
        (self.directory / "enabled_plugins").write_text(f"[{','.join(self.plugins)}].\n")
        cookie = self.directory / ".erlang.cookie"
        if cookie.exists():
            return
        cookie.write_text(secrets.token_hex(16) if self._beside is None else self._beside.cookie)
        cookie.chmod(0o400)

    def _start_epmd(self) -> None:
        epmd = ["epmd", "-address", "127.0.0.1", "-port", str(self.ports.epmd)]
        self._epmd = subprocess.Popen(
            # The first process of this node's group. Beside another node, whose epmd is shared, it does nothing.
            epmd if self._beside is None else ["sleep", "infinity"],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            process_group=0,
        )
        # The pipe's other end closes when this process ends in whatever way; the shell then ends the group.
        self._leash = subprocess.Popen(
            [
                "sh",
                "-c",
                'cat >/dev/null; kill -s KILL -- "-$0"; rm -rf "$1"',
                str(self._epmd.pid),
                str(self.directory),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            process_group=0,
        )

    def _await_listening(self) -> None:
        assert self._server is not None
        wanted = [self.ports.amqp] + ([self.ports.management] if self.management else [])
        wanted += [
            int(value.rpartition(":")[2])
            for key, value in self.settings.items()
            if key.startswith("listeners.ssl")
        ]
        for _ in range(int(PATIENCE / 0.1)):
            if all(_listens(port) for port in wanted):
                return
            try:
                # Waits for a tenth of a second, less when the node has died.
                self._server.wait(0.1)
            except subprocess.TimeoutExpired:
                continue
            break
        log = self.directory / "console.log"
        tail = log.read_text(errors="replace")[-2000:] if log.exists() else ""
        raise BrokerUnavailable(f"the private RabbitMQ node {self.node} did not start:\n{tail}")

    def _end(self, how: signal.Signals) -> None:
        server, self._server = self._server, None
        if server is None:
            return
        server.send_signal(how)
        server.send_signal(signal.SIGCONT)
        try:
            server.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
