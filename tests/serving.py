"""A control plane as its clients meet it: its own process, real sockets, a database of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from sqlalchemy import select

from controlplane.api.signature import canonical, sign
from controlplane.app import prepare
from controlplane.db.secrets import load_key
from controlplane.db.session import Database
from controlplane.identity.accounts import Account
from controlplane.identity.roles import RoleRow
from controlplane.identity.seed import passwords
from controlplane.identity.users import User
from controlplane.settings import Settings

PASSWORD = "correct horse"
KEYS = {name: (f"{name.upper()}-api-key", f"{name}/secret+key") for name in ("admin", "alice")}


@dataclass
class Server:
    """One running control plane with a root admin (``admin``) and an ordinary user (``alice``)."""

    settings: Settings
    process: subprocess.Popen[bytes]
    http: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=30))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.settings.port}/client/api"

    @property
    def integration_url(self) -> str:
        return f"http://127.0.0.1:{self.settings.integration_port}/client/api"

    @property
    def log(self) -> str:
        return (self.settings.folder / "log").read_text()

    def signed(self, command: str, user: str = "admin", **parameters: str) -> dict[str, str]:
        key, secret = KEYS[user]
        sent = {"command": command, "response": "json", "apiKey": key, **parameters}
        return sent | {"signature": sign(secret, canonical(sent))}

    def get(self, command: str, user: str = "admin", **parameters: str) -> httpx.Response:
        return self.http.get(self.url, params=self.signed(command, user, **parameters))

    @contextlib.contextmanager
    def login(self, **parameters: str) -> Iterator[httpx.Client]:
        """A browser that is logged in."""
        sent = {"command": "login", "response": "json", "username": "admin", "password": PASSWORD} | parameters
        with httpx.Client(timeout=30) as browser:
            answer = browser.post(self.url, data=sent)
            assert answer.status_code == 200, answer.text
            yield browser

    @contextlib.contextmanager
    def rows(self) -> Iterator[Database]:
        """The server's own database, to look at and to change behind its back."""
        load_key(self.settings.folder / "key")
        database = Database(self.settings.database_url)
        try:
            yield database
        finally:
            database.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def running(*, integration: bool = True) -> Iterator[Server]:
    """Run a control plane; as root, it gives up root like anywhere else."""
    folder = Path(tempfile.mkdtemp(prefix="netspine-"))
    settings = Settings(folder, "", "127.0.0.1", free_port(), free_port() if integration else 0, "test")
    database = prepare(settings, PASSWORD)
    with database.write() as session:
        admin = session.scalars(select(User).where(User.username == "admin")).one()
        role = session.scalars(select(RoleRow).where(RoleRow.type == "User")).first()
        account = Account(name="alice", type=0, domain_id=admin.domain_id, role_id=role.id)
        session.add(account)
        session.flush()
        alice = User(username="alice", password=passwords.hash(PASSWORD), account_id=account.id, domain_id=1)
        alice.timezone = "Asia/Kolkata"
        session.add(alice)
        for user in (admin, alice):
            user.api_key, user.secret_key = KEYS[user.username]
    database.close()
    process = _start(settings)
    server = Server(settings, process)
    try:
        _wait_until_up(server)
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
        server.http.close()
        shutil.rmtree(folder)


def _start(settings: Settings) -> subprocess.Popen[bytes]:
    environment = os.environ | {
        "NETSPINE_DIR": str(settings.folder),
        "NETSPINE_ADDRESS": settings.address,
        "NETSPINE_PORT": str(settings.port),
        "NETSPINE_INTEGRATION_PORT": str(settings.integration_port),
        "NETSPINE_NAME": settings.name,
    }
    with (settings.folder / "log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "controlplane", "serve"], env=environment, stdout=log, stderr=log
        )


def _wait_until_up(server: Server) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        assert server.process.poll() is None, server.log
        with contextlib.suppress(httpx.TransportError):
            if server.http.get(server.url.replace("client/api", "healthz")).is_success:
                return
        time.sleep(0.05)
    raise AssertionError(f"the control plane did not come up: {server.log}")
