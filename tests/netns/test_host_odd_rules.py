"""Whatever rules a tenant wrote: the kernel takes the host's filter, in one transaction, and the next change, too."""

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drivers.hypervisor.namespace import Namespace
from drivers.security import GroupMembers, PortFilter, SecurityGroup
from drivers.vocabulary import HostFacts
from systemvm import netns
from systemvm.bundle import Bundle
from systemvm.libnftables import Context
from systemvm.services import elements
from tests.unit.test_host_filters import HEADS, MEMBERS, NET, OWN, STRANGE, rules

pytestmark = pytest.mark.netns

DRIVER = Namespace()
MANY = st.lists(rules(st.integers(0, 99), cidrs=STRANGE, heads=HEADS), max_size=12)


@pytest.fixture(scope="module")
def kernel():
    name = f"tf{os.getpid()}-odd"
    netns.ensure(name)
    context = Context(name)
    yield context
    context.close()
    netns.ensure_no(name)


def bundle(generation, incoming, outgoing, members):
    port = PortFilter(
        "n", "net", "02:00:00:00:00:05", tuple(OWN.values()), ("g", "h"), servers=("10.1.1.1", "2001:db8::1")
    )
    found = (SecurityGroup("g", tuple(incoming), tuple(outgoing)), SecurityGroup("h", tuple(outgoing), ()))
    named = tuple(map(GroupMembers, members, map(tuple, members.values())))
    files, sets = DRIVER.render(DRIVER.plan(HostFacts("h", "h", (NET,), (), (), (), (port,), found, named)))
    return Bundle("h", "h", "host", generation, files, sets)


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(MANY, MANY, MEMBERS), min_size=1, max_size=4))
def test_the_kernel_takes_the_elements_of_any_rules_and_their_differences(kernel, changes):
    held = None
    for generation, (incoming, outgoing, members) in enumerate(changes, 1):
        wanted = bundle(generation, incoming, outgoing, members)
        skeleton = next(file.content for file in wanted.files if file.service == "nft" and file.path.endswith(".nft"))
        text = elements.changing(skeleton, held, wanted) if held else elements.replacing(skeleton, wanted.elements)
        kernel.run(text or "list tables")
        held = wanted
    count = sum(len(entry.items) for entry in held.elements)
    listed = [item for table in elements.tables_of(skeleton) for item in kernel.listing(f"table {' '.join(table)}")]
    kept = (each.get("set") or each.get("map") or {} for each in listed)
    assert sum(len(each.get("elem", ())) for each in kept) == count
