"""``netspine run``: a whole cloud on this machine, in the foreground, in network namespaces of its own.

It plays the operator: it lays the cables (:mod:`systemvm.fabric`), starts the control plane without root and an agent
for each host with it, and then asks for everything else through the API. Ctrl-C takes all of it down but the folder;
the next run finds the same cloud there.
"""

from __future__ import annotations

import configparser
import fcntl
import io
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import httpx
from cs import CloudStack, CloudStackException

from controlplane import demo_basic, demo_zone
from controlplane.settings import FIRST_LOGIN, Settings
from systemvm import guest_image, netns
from systemvm.daemon import Daemon
from systemvm.fabric import Fabric, Flat

PROGRAMS = ("nft", "dnsmasq", "haproxy", "busybox", "ip")
PATIENCE = 30.0
MOST_ENDS, LATELY = 3, 60.0
"""How often, and in how many seconds, a process may end by itself and be started again."""
UNPRIVILEGED = "nobody"


class Refused(Exception):
    """The cloud cannot be run here; the sentence says why and what to do."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where everything of this cloud lies."""

    folder: Path

    @property
    def control(self) -> Path:
        """The control plane's own folder: the only one that it may write."""
        return self.folder / "control"

    @property
    def template(self) -> Path:
        """The guests' template."""
        return self.folder / "templates" / "busybox.tar.gz"

    @property
    def ini(self) -> Path:
        """The admin's endpoint, key and secret, as the ``cs`` client reads them."""
        return self.folder / "cloudstack.ini"

    @property
    def password(self) -> str:
        """The admin's password, as it was first made."""
        return (self.control / FIRST_LOGIN).read_text().strip()

    def log(self, name: str) -> Path:
        """Return the log file of a process."""
        return self.folder / "log" / f"{name}.log"

    def token(self, host: str) -> Path:
        """Return the file with the token of a host's agent."""
        return self.folder / "agents" / f"{host}.token"

    def state(self, host: str) -> Path:
        """Return the folder of a host's agent."""
        return self.folder / "agents" / host


@dataclass(frozen=True, slots=True)
class Standing:
    """A cloud that runs.

    :ivar client: calls it as the root admin.
    :ivar processes: the control plane, then the agents.
    """

    settings: Settings
    place: Place
    fabric: Fabric
    client: CloudStack
    processes: list[subprocess.Popen[bytes]]


def run(settings: Settings, *, example: bool, basic: bool = False) -> int:
    """Run the cloud until Ctrl-C; return the exit status.

    :param basic: its zone is a basic one of two pods.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    place = Place(settings.folder.absolute())
    try:
        _check_machine()
        with standing(settings, place, flat_fabric(settings.prefix) if basic else Fabric(settings.prefix)) as cloud:
            _refuse_other_zone(cloud, basic=basic)
            lines = _fill_basic(cloud, example=example) if basic else _fill(cloud, example=example)
            print("\n".join(_welcome(cloud, lines)), flush=True)
            watch(cloud)
    except (Refused, CloudStackException, TimeoutError) as refused:
        print(refused, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    return 0


def flat_fabric(prefix: str) -> Fabric:
    """Return the cables of a basic zone of two pods, each with one host."""
    hosts = ("host-1", "host-2")
    pods = tuple(Flat(f"10.1{number}.0.1/24", (host,)) for number, host in enumerate(hosts, start=1))
    return Fabric(prefix, hosts, pods=pods)


def pods_of(cloud: Standing) -> list[demo_basic.PodSpec]:
    """Return the pods of a cloud with flat guest networks, as they are to be made."""
    specs = {spec.name: spec for spec in specs_of(cloud)}
    return [
        demo_basic.PodSpec(f"pod-{number}", pod.gateway.rpartition(".")[0], tuple(specs[host] for host in pod.hosts))
        for number, pod in enumerate(cloud.fabric.pods, start=1)
    ]


def _refuse_other_zone(cloud: Standing, *, basic: bool) -> None:
    """Refuse a folder whose zone is of the other type: its cables are others, too."""
    wanted = "Basic" if basic else "Advanced"
    for zone in cloud.client.listZones().get("zone", []):
        if zone["networktype"] != wanted:
            raise Refused(
                f"{cloud.place.folder} holds {zone['name']}, a zone of type {zone['networktype']}: "
                f"run it with --zone {zone['networktype'].lower()}, or set NETSPINE_DIR to another folder."
            )


def _fill(cloud: Standing, *, example: bool) -> list[str]:
    """Make the advanced zone and its example; return what to tell of it."""
    zone = demo_zone.ensure_zone(cloud.client, specs_of(cloud), cloud.place.template)
    if not example:
        return []
    made = demo_zone.ensure_example(cloud.client, zone["id"])
    demo_zone.wait_for(partial(_answers, cloud.fabric, made.balancer), "The example's load balancer")
    guests = ", ".join(f"{name} {address}" for name, address in made.guests.items())
    return [
        f"  VPC             {made.vpc}: {guests}, router {made.router}",
        f"  load balancer   http://{made.balancer}/ on the zone's own internet",
        "Try it:",
        f"  .venv/bin/netspine exec internet -- curl -s http://{made.balancer}/",
        f"  .venv/bin/netspine exec vm/{next(iter(made.guests))} -- ip addr",
        f"  .venv/bin/netspine exec router/{made.router} -- nft list ruleset",
    ]


def _fill_basic(cloud: Standing, *, example: bool) -> list[str]:
    """Make the basic zone and its example; return what to tell of it."""
    pods = pods_of(cloud)
    zone = demo_basic.ensure_zone(cloud.client, pods, cloud.place.template)
    if not example:
        return []
    made = demo_basic.ensure_example(cloud.client, zone["id"], pods)
    for address in (*made.public.values(), made.balancer):
        demo_zone.wait_for(partial(_answers, cloud.fabric, address), f"The example at {address}")
    guests = ", ".join(f"{name} {address} = {made.public[name]}" for name, address in made.guests.items())
    first = next(iter(made.public.values()))
    return [
        f"  guests          {guests}",
        f"  routers         {', '.join(made.routers)}",
        f"  load balancer   http://{made.balancer}/ on the zone's own internet",
        "Try it:",
        f"  .venv/bin/netspine exec internet -- curl -s http://{first}/",
        f"  .venv/bin/netspine exec vm/{next(iter(made.guests))} -- ip route",
        f"  .venv/bin/netspine exec router/{made.routers[0]} -- nft list ruleset",
    ]


@contextmanager
def standing(settings: Settings, place: Place, fabric: Fabric) -> Iterator[Standing]:
    """Hold a cloud up for the length of the block: the fabric, the control plane and the hosts' agents.

    :param settings: address and ports; its folder is not looked at, ``place`` says where everything lies.
    """
    own = replace(settings, folder=place.control)
    processes: list[subprocess.Popen[bytes]] = []
    with _alone_in(place), _alone_with(fabric.prefix):
        for name in ("control", *(f"agent-{host}" for host in fabric.hosts)):
            Daemon(name, "", place.folder / "log").stop()  # what a killed run left
        _must_be_free(own)
        _clean(place, fabric)
        try:
            fabric.ensure()
            guest_image.pack(place.template)
            processes.append(_start_control(own, place))
            _wait_until_up(own, place, processes[0])
            _ensure_keys(own, place)
            cloud = Standing(own, place, fabric, client_of(place), processes)
            processes += [_start_agent(cloud, host) for host in fabric.hosts]
            yield cloud
        finally:
            for process in reversed(processes):
                _end(process)
            _clean(place, fabric)


def start_again(cloud: Standing, number: int) -> None:
    """Start a process of the cloud that has ended, with the same command line; the control plane is up on return.

    :param number: its place in ``cloud.processes``.
    """
    place = cloud.place
    if number:
        cloud.processes[number] = _start_agent(cloud, cloud.fabric.hosts[number - 1])
    else:
        cloud.processes[0] = _start_control(cloud.settings, place)
        _wait_until_up(cloud.settings, place, cloud.processes[0])


def specs_of(cloud: Standing) -> list[demo_zone.HostSpec]:
    """Return the hosts of the cloud as they are to be added."""
    return [demo_zone.HostSpec(host, cloud.place.token(host).read_text().strip()) for host in cloud.fabric.hosts]


def _check_machine() -> None:
    if os.geteuid():
        raise Refused("netspine run makes network namespaces: run it as root. The control plane itself drops root.")
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        raise Refused(f"These programs are missing: {', '.join(missing)}. `make setup` installs them.")


def _must_be_free(settings: Settings) -> None:
    """Refuse a port that another process has: its answers would be taken for the control plane's."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.address, settings.port))
        except OSError as error:
            raise Refused(
                f"{settings.address}:{settings.port} cannot be listened on ({error.strerror}): end what has it, "
                "or set NETSPINE_PORT to another port."
            ) from None


@contextmanager
def _alone_in(place: Place) -> Iterator[None]:
    """Hold the folder; a second run in it is refused."""
    for folder in (place.folder, place.control, place.template.parent, place.folder / "log", place.folder / "agents"):
        folder.mkdir(parents=True, exist_ok=True)
    with (place.folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(
                f"Another netspine run has {place.folder}: stop that one first, or set NETSPINE_DIR."
            ) from None
        yield


@contextmanager
def _alone_with(prefix: str) -> Iterator[None]:
    """Hold the namespaces' prefix, which is the machine's: a run in another folder would take them for its own."""
    with socket.socket(socket.AF_UNIX) as held:
        try:
            held.bind(f"\0netspine/{prefix}")  # an abstract name: it goes with this process, however that ends
        except OSError:
            raise Refused(
                f"Another netspine run on this machine has the namespaces {prefix}*: stop that one first, "
                "or set NETSPINE_PREFIX (and NETSPINE_PORT) to others."
            ) from None
        yield


def watch(cloud: Standing) -> None:
    """Stay until Ctrl-C, and start each process that ends by itself again: the guests' packets go on meanwhile.

    :raises Refused: one ends again and again.
    """
    names = ["control plane", *(f"agent of {host}" for host in cloud.fabric.hosts)]
    ends: list[list[float]] = [[] for _ in names]
    while True:
        for number, name in enumerate(names):
            status, moment = cloud.processes[number].poll(), time.monotonic()
            if status is None:
                continue
            ends[number] = [*(end for end in ends[number] if moment - end < LATELY), moment]
            if len(ends[number]) > MOST_ENDS:
                raise Refused(f"The {name} ended {len(ends[number])} times in {LATELY:.0f} s: its log says why.")
            print(f"The {name} ended with {status} and is started again.", flush=True)
            start_again(cloud, number)
        time.sleep(0.5)


def _ensure_keys(settings: Settings, place: Place) -> None:
    """Give the admin API keys by logging in with its first password, and write them down for clients."""
    if place.ini.exists():
        return
    endpoint = f"http://{settings.address}:{settings.port}/client/api"
    with httpx.Client(base_url=endpoint, timeout=30) as session:
        form = {"command": "login", "username": "admin", "password": place.password, "response": "json"}
        login = session.post("", data=form).raise_for_status().json()["loginresponse"]
        query = {"command": "registerUserKeys", "id": login["userid"], "sessionkey": login["sessionkey"]}
        answer = session.post("", data=query | {"response": "json"}).raise_for_status().json()
    keys = answer["registeruserkeysresponse"]["userkeys"]
    ini = configparser.ConfigParser(interpolation=None)
    ini["cloudstack"] = {"endpoint": endpoint, "key": keys["apikey"], "secret": keys["secretkey"], "timeout": "60"}
    text = io.StringIO()
    ini.write(text)
    _write_secret(place.ini, text.getvalue())


def _write_secret(file: Path, text: str) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as out:
        out.write(text)


def client_of(place: Place) -> CloudStack:
    """Return a client that calls the cloud as its ini file says."""
    ini = configparser.ConfigParser(interpolation=None)
    ini.read(place.ini)
    section = ini["cloudstack"]
    return CloudStack(section["endpoint"], section["key"], section["secret"], timeout=60, poll_interval=0.1)


def _start_control(settings: Settings, place: Place) -> subprocess.Popen[bytes]:
    environment = os.environ | {
        "NETSPINE_DIR": str(settings.folder),
        "NETSPINE_ADDRESS": settings.address,
        "NETSPINE_PORT": str(settings.port),
        "NETSPINE_INTEGRATION_PORT": str(settings.integration_port),
    }
    argv = [sys.executable, "-m", "controlplane", "serve", "--user", UNPRIVILEGED]
    return _start(argv, place, "control", environment)


def _start_agent(cloud: Standing, host: str) -> subprocess.Popen[bytes]:
    settings, place, fabric = cloud.settings, cloud.place, cloud.fabric
    file = place.token(host)
    if not file.exists():
        _write_secret(file, secrets.token_urlsafe(32))
    own = fabric.settings(host, place.state(host))
    uplinks = [word for traffic, device in own.uplinks.items() for word in ("--uplink", f"{traffic}={device}")]
    argv = [sys.executable, "-m", "systemvm", "--server", f"http://{settings.address}:{settings.port}"]
    argv += ["--host", host, "--token-file", str(file), "--state", str(own.state), "--tunnel", own.tunnel]
    argv += ["--namespace", own.namespace, "--prefix", own.prefix, *uplinks]
    return _start(argv, place, f"agent-{host}", dict(os.environ))


def _start(argv: list[str], place: Place, name: str, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    with place.log(name).open("ab") as out:
        # its own session: Ctrl-C reaches this process only, which then ends the others in their order
        process = subprocess.Popen(argv, stdout=out, stderr=out, env=environment, start_new_session=True)
    Daemon(name, "", place.folder / "log").note(process.pid)
    return process


def _wait_until_up(settings: Settings, place: Place, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if process.poll() is not None:
            said = place.log("control").read_text(errors="replace").strip().splitlines()[-3:]
            raise Refused("\n".join(["The control plane ended; its log's last lines are:", *said]))
        try:
            if httpx.get(f"http://{settings.address}:{settings.port}/healthz", timeout=1).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise Refused(f"The control plane does not answer on port {settings.port} after {PATIENCE:.0f} s.")


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _clean(place: Place, fabric: Fabric) -> None:
    """Take down what the agents made, and the fabric; the guests' disks and the database stay."""
    for host in fabric.hosts:
        own = fabric.settings(host, place.state(host))
        if own.state.exists():
            argv = [sys.executable, "-m", "systemvm", "--clean", "--host", host, "--state", str(own.state)]
            subprocess.run([*argv, "--namespace", own.namespace, "--prefix", own.prefix], check=False, timeout=120)
    fabric.ensure_no()


def _answers(fabric: Fabric, address: str) -> bool:
    """Ask, out on the zone's internet, whether the example's guests answer."""
    with netns.entered(fabric.internet):
        try:
            with socket.create_connection((address, 80), timeout=2) as connection:
                connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
                return b" 200 " in connection.recv(200)
        except OSError:
            return False


def _welcome(cloud: Standing, lines: list[str]) -> list[str]:
    settings = cloud.settings
    return [
        "",
        f"Netspine is up: http://{settings.address}:{settings.port}/client/api",
        f"  admin's login   admin / {cloud.place.password}",
        f"  for clients     CLOUDSTACK_CONFIG={cloud.place.ini} .venv/bin/cs listZones",
        *lines,
        "Ctrl-C takes it down; the next run finds it again.",
        "",
    ]
