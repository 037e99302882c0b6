"""Whether a network ACL list can be enforced: asked before it is accepted, not found out on a router.

One list that a provider cannot plan would keep every other change from its router.
"""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy.orm import Session

from controlplane.errors import BadParameter
from controlplane.network.acls import AclList, acl_facts
from controlplane.network.implement import VPC_PROVIDER
from drivers import registry
from drivers.vocabulary import ApplianceFacts, Network, Nic
from drivers.vpc import Vpc

_MAC, _CIDR, _OWN = "02:00:00:00:00:01", "10.1.1.0/24", "10.1.1.1"


def must_be_possible(session: Session, acl: AclList) -> None:
    """Have the provider plan a tier that has the list as it is now.

    :raises BadParameter: it cannot; the sentence is the provider's.
    """
    session.flush()
    items = acl_facts(session, {acl.id})[acl.id]
    tier = Network("trial", _CIDR, _OWN, _MAC, "", frozenset({"NetworkACL"}), acl=items)
    if any(":" in other for item in items for other in item.cidrs):
        tier = replace(tier, cidr6="2001:db8::/64", gateway6="2001:db8::1")
    nic = Nic("trial", _MAC, "trial", "Guest", _OWN, 24, "", 0, "trial")
    facts = ApplianceFacts("trial", "trial", (nic,), (), (tier,), vpc=Vpc("trial", "trial", "10.1.0.0/16", ""))
    try:
        registry.network_providers()[VPC_PROVIDER].plan(facts)
    except ValueError as error:
        raise BadParameter(f"Network ACL list {acl.name} cannot be enforced: {error}") from None
