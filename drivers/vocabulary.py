"""The nouns that the control plane and its drivers share: facts, as frozen plain values.

Facts say what is wanted of a target in CloudStack's own terms; they name no daemon and no device, so the same facts
fit a virtual router and an SRX. Values that come by the ten thousand are named tuples, the cheapest to compare.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from drivers.balancing import LoadBalancer
from drivers.config_drive import ConfigDrive
from drivers.elastic import Elastic
from drivers.ipsec import RemoteAccess, Tunnel
from drivers.redundancy import Redundancy
from drivers.routing import Bgp, RoutedRule
from drivers.security import GroupMembers, PortFilter, SecurityGroup
from drivers.vpc import AclItem, Vpc
from drivers.wireguard import Wireguard

SERVICES = (
    "Dhcp",
    "Dns",
    "Firewall",
    "Gateway",
    "Lb",
    "NetworkACL",
    "PortForwarding",
    "SecurityGroup",
    "SourceNat",
    "StaticNat",
    "UserData",
    "Vpn",
    "Connectivity",
    "BaremetalPxeService",
)
"""CloudStack's network services (listSupportedNetworkServices)."""

Traffic = Literal["Guest", "Public", "Management", "Storage", "Control"]


class Segment(NamedTuple):
    """One broadcast domain that a host carries.

    :param id: the network's UUID, or the UUID of the public range.
    :param uri: ``vxlan://5001``, ``vlan://100``, ``vlan://untagged`` …: CloudStack's broadcast URI.
    :param traffic: which kind of traffic it carries.
    :param label: the host's bridge or device for this traffic type (its traffic label); empty means the default.
    :param mtu: of the guests' frames, in bytes.
    :param secondaries: of the promiscuous side of a private VLAN (``pvlan://900-p900``): the VLANs below it.
    :param hub: each guest sees all frames on the host's part of it (``promiscuousMode``).
    """

    id: str
    uri: str
    traffic: str
    label: str = ""
    mtu: int = 1500
    secondaries: tuple[int, ...] = ()
    hub: bool = False


class Nic(NamedTuple):
    """A network interface of a guest or an appliance.

    :param id: UUID.
    :param mac: lower case, colon separated; also how a router knows which of its interfaces is meant.
    :param segment: the id of the segment that it is plugged into.
    :param traffic: ``Guest``, ``Public`` or ``Control``.
    :param address: IPv4 address without a length; empty where it has none.
    :param prefix: length of the network's prefix.
    :param gateway: IPv4; empty where there is none.
    :param device: position, counted from 0: the router names it ``ethN``.
    :param network: the guest network's UUID; empty on a public interface.
    :param rate: Mbit/s in each direction; 0 is unlimited.
    :param default: the guest's default route goes through it.
    :param address6: IPv6 address without a length, ``prefix6`` and ``gateway6`` as for IPv4; empty where it has none.
    """

    id: str
    mac: str
    segment: str
    traffic: str
    address: str
    prefix: int
    gateway: str
    device: int
    network: str = ""
    rate: int = 0
    default: bool = False
    mtu: int = 1500
    address6: str = ""
    prefix6: int = 0
    gateway6: str = ""


class PublicAddress(NamedTuple):
    """A public IPv4 address that a network uses.

    :param nic: the MAC of the appliance's interface that carries it.
    :param source_nat: guests of ``network`` (or of all networks, where that is empty) leave with this address.
    """

    id: str
    address: str
    prefix: int
    gateway: str
    nic: str
    source_nat: bool
    network: str = ""


class IngressRule(NamedTuple):
    """Firewall rule on a public address (createFirewallRule): what may come in.

    :param protocol: ``tcp``, ``udp``, ``icmp`` or ``all``.
    :param start: first port, or the ICMP type (-1 is any).
    :param end: last port, or the ICMP code (-1 is any).
    :param sources: CIDRs.
    """

    id: str
    address: str
    protocol: str
    start: int
    end: int
    sources: tuple[str, ...]


class EgressRule(NamedTuple):
    """Egress rule of a guest network (createEgressFirewallRule); allows or denies by the offering's default."""

    id: str
    protocol: str
    start: int
    end: int
    sources: tuple[str, ...]
    destinations: tuple[str, ...]


class Ipv6Rule(NamedTuple):
    """createIpv6FirewallRule, of either direction: addresses are not translated, so it names guests by their own.

    :param protocol: ``tcp``, ``udp``, ``icmp`` (which is ICMPv6 here) or ``all``; ports, types and codes as for IPv4.
    :param sources: IPv6 CIDRs; none is everyone. ``destinations`` likewise.
    """

    id: str
    protocol: str
    start: int
    end: int
    sources: tuple[str, ...]
    destinations: tuple[str, ...]


class PortForward(NamedTuple):
    """createPortForwardingRule. Both ranges have the same length and keep their offsets."""

    id: str
    address: str
    protocol: str
    public_start: int
    public_end: int
    guest: str
    private_start: int
    private_end: int
    sources: tuple[str, ...] = ()


class StaticNat(NamedTuple):
    """enableStaticNat: one public address is one guest address, both ways."""

    id: str
    address: str
    guest: str


class Lease(NamedTuple):
    """A guest's address on a network, for DHCP, DNS and metadata.

    :param vm: the virtual machine's UUID.
    :param default: this network is the guest's default: only then it is told a gateway.
    :param options: extra DHCP options as (number, value).
    :param address6: its IPv6 address; ``address`` is empty on a network of IPv6 alone.
    """

    vm: str
    mac: str
    address: str
    hostname: str
    default: bool = True
    options: tuple[tuple[int, str], ...] = ()
    address6: str = ""


@dataclass(frozen=True, slots=True)
class Metadata:
    """What one guest may read about itself on one network.

    :param items: the paths under ``/latest/meta-data/`` and their values.
    :param user_data: base64, as it was given; empty means none.
    :param password: waiting to be fetched once; empty means none.
    :param sources6: the IPv6 addresses that it asks from, its link-local one among them.
    """

    vm: str
    address: str
    items: tuple[tuple[str, str], ...]
    user_data: str = ""
    password: str = field(default="", repr=False)
    sources6: tuple[str, ...] = ()


class GuestSubnet(NamedTuple):
    """A subnet of a network whose gateways are somebody else's (Shared), IPv4 or IPv6.

    :param gateway: what guests leave by; ``address`` is the router's own, which serves there.
    :param slaac: of IPv6: guests make their addresses themselves (RFC 4862); otherwise DHCPv6 alone gives them.
    """

    cidr: str
    gateway: str
    address: str
    slaac: bool = True


@dataclass(frozen=True, slots=True)
class Network:
    """What one guest network wants of one provider.

    :param nic: the MAC of the appliance's interface on this network.
    :param services: only those that this provider gives this network.
    :param egress_allow: what happens to a packet that no egress rule names.
    :param rate: Mbit/s of the public traffic, 0 is unlimited.
    :param cidr: IPv4; empty, as ``gateway``, on a network of IPv6 alone.
    :param cidr6: its /64; empty on a network of IPv4 alone. ``gateway6`` is the router's own address in it.
    :param ingress6: what may come in over IPv6, ``egress6`` what may leave, by its default (``egress_allow``) or not.
    :param acl: the rules of a VPC's tier; None lets everything through.
    :param routed: IPv4 is not translated: guests are reached by their own addresses, as ``ingress4`` says.
    :param subnets: of a Shared network: all of them, ``cidr`` and ``cidr6`` among them. Its router has no gateway's
        address and forwards nothing; ``gateway`` is the first subnet's. Empty where the router is the gateway.
    :param elastic: on a shared network: its guests have public addresses, or are balanced, without leaving it.
    """

    id: str
    cidr: str
    gateway: str
    nic: str
    domain: str
    services: frozenset[str]
    egress_allow: bool = True
    rate: int = 0
    mtu: int = 1500
    leases: tuple[Lease, ...] = ()
    metadata: tuple[Metadata, ...] = ()
    egress: tuple[EgressRule, ...] = ()
    ingress: tuple[IngressRule, ...] = ()
    forwards: tuple[PortForward, ...] = ()
    static_nats: tuple[StaticNat, ...] = ()
    balancers: tuple[LoadBalancer, ...] = ()
    acl: tuple[AclItem, ...] | None = None
    cidr6: str = ""
    gateway6: str = ""
    ingress6: tuple[Ipv6Rule, ...] = ()
    egress6: tuple[Ipv6Rule, ...] = ()
    routed: bool = False
    ingress4: tuple[RoutedRule, ...] = ()
    subnets: tuple[GuestSubnet, ...] = ()
    elastic: Elastic | None = None


@dataclass(frozen=True, slots=True)
class ApplianceFacts:
    """All that is wanted of one network appliance: a virtual router now, a hardware device alike.

    :param dns: the resolvers that it asks, IPv4; ``dns6`` those that have an IPv6 address.
    :param networks: the guest networks that it serves: one for an isolated network, many for a ``vpc``.
    """

    target: str
    name: str
    nics: tuple[Nic, ...]
    addresses: tuple[PublicAddress, ...]
    networks: tuple[Network, ...]
    dns: tuple[str, ...] = ()
    settings: tuple[tuple[str, str], ...] = ()
    vpc: Vpc | None = None
    wireguards: tuple[Wireguard, ...] = ()
    dns6: tuple[str, ...] = ()
    tunnels: tuple[Tunnel, ...] = ()
    remote_access: RemoteAccess | None = None
    redundancy: Redundancy | None = None
    bgp: Bgp | None = None


@dataclass(frozen=True, slots=True)
class Guest:
    """A virtual machine as its host is to hold it.

    :param name: the instance name (``i-2-3-VM``).
    :param image: the template's content, as a path or URL that the host can read.
    :param cpus: number of virtual processors; ``mhz`` the speed of each, ``memory`` in MiB.
    :param running: False means defined but stopped: its disks stay.
    :param root_size: bytes; 0 is the template's own size.
    :param boot: counts its starts: a higher number than the applied one means stop and start again (reboot).
    """

    id: str
    name: str
    hostname: str
    image: str
    cpus: int
    mhz: int
    memory: int
    nics: tuple[Nic, ...]
    running: bool = True
    root_size: int = 0
    boot: int = 0
    image_checksum: str = ""
    details: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Shell:
    """The machine that an appliance lives in: a namespace, or a VM booted from the system VM image.

    :param boot: as for a guest: a higher number means a new, empty shell.
    :param dark: made and running, but its interfaces are in no segment: it is yet to take over, or was taken over from.
    :param follows: the name of the shell on this host that it takes over from: the addresses move when it is lit.
    """

    target: str
    name: str
    nics: tuple[Nic, ...]
    running: bool = True
    boot: int = 0
    cpus: int = 1
    memory: int = 256
    image: str = ""
    dark: bool = False
    follows: str = ""


@dataclass(frozen=True, slots=True)
class HostFacts:
    """All that is wanted of one host.

    :param settings: what the hypervisor driver was told of this host (its details).
    :param filters: one for each guest's port here.
    :param groups: those of the guests here, ``members`` those of every group that a rule of ``groups`` names.
    :param drives: of the guests here that read about themselves on a drive.
    """

    target: str
    name: str
    segments: tuple[Segment, ...]
    guests: tuple[Guest, ...]
    shells: tuple[Shell, ...]
    settings: tuple[tuple[str, str], ...] = ()
    filters: tuple[PortFilter, ...] = ()
    groups: tuple[SecurityGroup, ...] = ()
    members: tuple[GroupMembers, ...] = ()
    drives: tuple[ConfigDrive, ...] = ()
