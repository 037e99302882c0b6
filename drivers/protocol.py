"""What the control plane needs from the outside: small Protocols, and nothing else.

Every driver turns facts into a config and a config into files, without a session, clock, I/O or randomness: the same
facts give the same bytes. Whoever applies them is the other half: an agent that pulls (``systemvm``), or, for what has
no agent, the control plane itself through :class:`Hosted`. A new kind of router, device or hypervisor is a class with
these methods, found by its entry point (``netspine.network``, ``netspine.hypervisor``); nobody imports it by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeVar, runtime_checkable

from drivers.vocabulary import ApplianceFacts, HostFacts
from systemvm.bundle import Bundle, Elements, File, Observation, Outcome

Capabilities = Mapping[str, Mapping[str, str]]
"""Network service → capability → value, as listSupportedNetworkServices shows them.

``{"Lb": {"SupportedLBAlgorithms": "roundrobin,leastconn,source", …}, "Dhcp": {…}}``. A service that is not a key is
not offered, and an offering that asks it of this provider is refused.
"""

Rendered = tuple[tuple[File, ...], tuple[Elements, ...]]

Config = TypeVar("Config")


@runtime_checkable
class NetworkProvider(Protocol[Config]):
    """A provider of network services.

    ``name`` is CloudStack's provider name (``VirtualRouter``), ``kind`` the kind of its targets (``router``).
    """

    name: str
    kind: str
    capabilities: Capabilities

    def plan(self, facts: ApplianceFacts) -> Config:
        """Decide what the appliance is to be.

        :raises ValueError: the facts ask for something that this provider cannot do; the sentence says what.
        """
        ...

    def render(self, config: Config) -> Rendered:
        """Write the config down as files and set elements."""
        ...


@runtime_checkable
class HypervisorDriver(Protocol[Config]):
    """A kind of host. ``name`` is CloudStack's hypervisor type (``LXC``, ``KVM``, ``Simulator``)."""

    name: str
    kind: str

    def plan(self, facts: HostFacts) -> Config:
        """Decide what the host is to hold.

        A config that has ``refused`` names there what it leaves out, as (UUID, reason): jobs about these fail.

        :raises ValueError: the facts ask for something that this hypervisor cannot do; the sentence says what.
        """
        ...

    def render(self, config: Config) -> Rendered:
        """Write the config down as files."""
        ...


@runtime_checkable
class Hosted(Protocol):
    """A driver for targets without an agent: the control plane applies their bundles, one at a time per target.

    :param address: where the device answers (its URL), ``settings`` its credentials and options.
    """

    def apply(self, address: str, settings: Mapping[str, str], bundle: Bundle) -> Outcome:
        """Make the device be what the bundle says; repeatable."""
        ...

    def observe(self, address: str, settings: Mapping[str, str], bundle: Bundle) -> Observation:
        """Read the device back."""
        ...
