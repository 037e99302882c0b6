"""The details of machines."""

from __future__ import annotations

from controlplane.api.context import Context
from controlplane.compute import sizes
from controlplane.compute.machine_views import is_shown
from controlplane.compute.passwords import ENCRYPTED
from controlplane.compute.virtual_machines import GONE, VirtualMachine
from controlplane.db.base import now
from controlplane.errors import BadParameter
from controlplane.identity.details import Detailed, detailed

_FIXED = dict.fromkeys(sizes.SIZES, "scaleVirtualMachine") | {ENCRYPTED: "resetPasswordForVirtualMachine"}


def describe(ctx: Context, vm: VirtualMachine, given: dict[str, str]) -> None:
    """Accept what ``vm.details.allowed`` has.

    :raises BadParameter: a name is not on that list, or the machine is being taken away.
    """
    if vm.state in GONE:
        raise BadParameter(f"Invalid parameter resourceid value={vm.uuid}: instance {vm.name} is {vm.state}.")
    sizes.check_details(ctx, given)
    vm.updated = now()


detailed(Detailed("UserVm", VirtualMachine, "details", describe, fixed=_FIXED, shown=is_shown))
