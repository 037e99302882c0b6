"""Sizes: what processors, memory and root disk a machine gets from its offering and its caller's wishes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from controlplane.api.context import Context
from controlplane.db.configuration import define
from controlplane.errors import BadParameter
from controlplane.identity.accounts import Account
from controlplane.offering.disk_offerings import DiskOffering
from controlplane.offering.service_offerings import ServiceOffering
from controlplane.storage.templates import Template
from controlplane.zone.zones import Zone

GIB = 1 << 30
SIZES = ("cpuNumber", "cpuSpeed", "memory")
"""The details that choose the size where the offering leaves it open; memory in MiB, the speed in MHz."""
ALLOWED = define(
    "vm.details.allowed",
    "",
    "Names of details, joined by commas, that a machine may carry beside cpuNumber, cpuSpeed and memory",
)


@dataclass(frozen=True, slots=True)
class Size:
    """Processors of ``mhz`` each, and memory in MiB."""

    cpus: int
    mhz: int
    memory: int


def size_of(offering: ServiceOffering, details: Mapping[str, str]) -> Size:
    """Return the size that an offering and the details make.

    :raises BadParameter: a value that the offering leaves open is missing or outside its bounds, or one is given that
        the offering has fixed.
    """
    return Size(
        _one(offering, offering.cpus, "cpuNumber", details),
        _one(offering, offering.mhz, "cpuSpeed", details),
        _one(offering, offering.memory, "memory", details),
    )


def _one(offering: ServiceOffering, fixed: int | None, name: str, details: Mapping[str, str]) -> int:
    given = details.get(name)
    if fixed is not None:
        if given is not None and given != str(fixed):
            raise BadParameter(
                f"Invalid parameter details: offering {offering.name} fixes {name} at {fixed}; leave it out."
            )
        return fixed
    if given is None or not given.isascii() or not given.isdigit() or int(given) < 1:
        raise BadParameter(
            f"Invalid parameter details: offering {offering.name} needs details[0].{name}, a whole number from 1."
        )
    low, high = (offering.details.get(f"{end}{name.lower()}") for end in ("min", "max"))
    if (low and int(given) < int(low)) or (high and int(given) > int(high)):
        raise BadParameter(
            f"Invalid parameter details: {name}={given}, and offering {offering.name} allows {low or 1} to {high}."
        )
    return int(given)


def check_details(ctx: Context, details: Mapping[str, str]) -> dict[str, str]:
    """Return the details when each is on the list of allowed ones.

    :raises BadParameter: one is not.
    """
    allowed = {*SIZES, *(name.strip() for name in ALLOWED.text(ctx.session).split(",") if name.strip())}
    for name in details:
        if name not in allowed:
            raise BadParameter(
                f"Invalid parameter details: {name} is none that a machine may have ({', '.join(sorted(allowed))})."
            )
    return dict(details)


def check_offering(ctx: Context, offering: ServiceOffering, zone: Zone, owner: Account) -> None:
    """Make sure that the owner may use the offering in the zone.

    :raises BadParameter: it is for system VMs, inactive, or for other domains or zones.
    """
    problem = ""
    if offering.system_vm_type:
        problem = "it is for system VMs"
    elif offering.state != "Active":
        problem = f"it is {offering.state}"
    elif offering.zone_uuids and zone.uuid not in offering.zone_uuids:
        problem = f"it is not offered in zone {zone.name}"
    elif offering.domain_uuids and not _offered_to(ctx, offering, owner):
        problem = f"it is not offered to domain {owner.domain.name_path}"
    if problem:
        raise BadParameter(f"Invalid parameter serviceofferingid value={offering.uuid}: {problem}.")


def _offered_to(ctx: Context, offering: ServiceOffering, owner: Account) -> bool:
    from sqlalchemy import select

    from controlplane.identity.domains import Domain

    above = [int(part) for part in owner.domain.path.split("/") if part]
    uuids = set(ctx.session.scalars(select(Domain.uuid).where(Domain.id.in_(above))))
    return bool(uuids & set(offering.domain_uuids))


def root_size(template: Template, offering: ServiceOffering, disk: DiskOffering | None, wanted_gib: int | None) -> int:
    """Return the root disk's size in bytes.

    :param disk: the disk offering that overrides the compute offering's disk.
    :param wanted_gib: what the caller asks for.
    :raises BadParameter: it is smaller than the template, or the offering does not let the caller choose.
    """
    fixed = disk.size if disk is not None else offering.root_disk_size
    if wanted_gib is None:
        size = fixed or template.size
    elif fixed and not (disk is not None and disk.customized):
        raise BadParameter(
            f"Invalid parameter rootdisksize value={wanted_gib}: the offering fixes it at {fixed // GIB} GiB."
        )
    else:
        size = wanted_gib * GIB
    if wanted_gib is not None and (wanted_gib < 1 or size < template.size):
        raise BadParameter(
            f"Invalid parameter rootdisksize value={wanted_gib}: template {template.name} needs at least "
            f"{max(1, -(-template.size // GIB))} GiB."
        )
    return max(size, template.size)
