"""A config written down: templates for the files that people read, JSON for those that only the agent reads."""

from __future__ import annotations

import json
import tomllib
from dataclasses import asdict
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from drivers.network.virtual_router import wireguard
from drivers.network.virtual_router.config import Interface, RouterConfig
from drivers.network.virtual_router.vpn_config import Ipsec
from systemvm.bundle import Elements, File

_FOLDER = "router"


@cache
def _templates() -> Environment:
    return Environment(  # noqa: S701 - these are not web pages; what goes in was checked against strict patterns
        loader=PackageLoader("templates", _FOLDER),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


@cache
def _manifest() -> list[dict[str, Any]]:
    """Return the files that a router can have: template, target, service and the part of the config it is made of."""
    loader = _templates().loader
    assert loader is not None
    text = loader.get_source(_templates(), "manifest.toml")[0]
    files: list[dict[str, Any]] = tomllib.loads(text)["file"]
    return files


def render(config: RouterConfig) -> tuple[tuple[File, ...], tuple[Elements, ...]]:
    """Write a router down as files, sorted by path, and elements, sorted by set."""
    files = [
        File(
            entry["target"],
            _templates().get_template(entry["template"]).render(part=part),
            entry["service"],
            entry.get("secret", False),
        )
        for entry in _manifest()
        if (part := getattr(config, entry["part"])) is not None
    ]
    links = config.links
    files.append(
        _json(
            "interfaces.json",
            {
                "interfaces": [_interface(interface) for interface in links.interfaces],
                "routes": links.routes,
                "rules": links.rules,
                "sysctls": links.sysctls,
            },
            "links",
        )
    )
    if config.metadata is not None:
        files.append(_json("metadata.json", config.metadata, "metadata", secret=True))
    if config.redundancy is not None:
        files.append(_json("redundancy.json", asdict(config.redundancy), "redundancy"))
    if config.wireguard is not None:
        files.append(_json("wireguard.json", wireguard.written(config.wireguard), "wireguard", secret=True))
    if config.ipsec is not None:
        files.append(_json("strongswan/connections.json", _connections(config.ipsec), "strongswan", secret=True))
    if config.haproxy is not None:
        files += [File(path, pem, "haproxy", secret=True) for path, pem in config.haproxy.certificates]
    elements = tuple(Elements(name, items) for name, items in sorted(config.ruleset.elements.items()))
    return tuple(sorted(files, key=lambda file: file.path)), elements


def _interface(interface: Interface) -> dict[str, Any]:
    found = asdict(interface)
    return found if interface.shared else {name: value for name, value in found.items() if name != "shared"}


def _connections(ipsec: Ipsec) -> dict[str, Any]:
    """Return what the agent tells the IKE daemon; its routes are beside it."""
    sections = asdict(ipsec)
    routes = {"from": sections.pop("sources"), "to": sections.pop("destinations")}
    return sections | {"routes": routes}


def _json(path: str, value: Any, service: str, *, secret: bool = False) -> File:
    return File(path, json.dumps(value, indent=1, sort_keys=True) + "\n", service, secret)
