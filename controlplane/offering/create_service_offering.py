"""Commands that make, change and end service offerings."""

from __future__ import annotations

from controlplane.api.command import Command, one, success
from controlplane.api.context import Context
from controlplane.api.parameters import Long, optional, required
from controlplane.errors import BadParameter
from controlplane.identity.domains import Domain
from controlplane.offering import scope
from controlplane.offering.service_offerings import GIB, ServiceOffering, service_offering_views
from controlplane.zone import syntax
from controlplane.zone.zones import Zone

SYSTEM_VM_TYPES = ("domainrouter", "consoleproxy", "secondarystoragevm", "internalloadbalancervm")
PLANNERS = ("FirstFitPlanner", "UserDispersingPlanner", "UserConcentratedPodPlanner", "ImplicitDedicationPlanner")
LIMITS = ("mincpunumber", "maxcpunumber", "minmemory", "maxmemory")
MOST_CPUS, MOST_MHZ, MOST_MEMORY, MOST_DISK = 240, 100_000, 16 << 20, 64 << 10
IO_LIMITS = tuple(
    f"{unit}{way}rate{part}"
    for unit in ("bytes", "iops")
    for way in ("read", "write")
    for part in ("", "max", "maxlength")
)
"""The parameters that would throttle a disk: no hypervisor driver does that yet."""


def checked_details(value: dict[str, str]) -> dict[str, str]:
    """Accept the details of an offering: names of letters and digits, values on one line."""
    for name, text in value.items():
        try:
            syntax.tag(name)
        except ValueError:
            raise BadParameter(
                f"Invalid parameter details: the name {name!r} has other than letters and digits."
            ) from None
        if any(ord(letter) < ord(" ") for letter in text):
            raise BadParameter(f"Invalid parameter details: the value of {name} must be on one line.")
    return value


class CreateServiceOffering(
    Command,
    name="createServiceOffering",
    answer=one("serviceoffering", service_offering_views),
    instance="ServiceOffering",
    event="SERVICE.OFFERING.CREATE",
):
    """Create a compute offering.

    Without cpunumber, cpuspeed and memory tenants choose all three; with limits for cpunumber and memory they choose
    these two within them.
    """

    unsupported = (
        *IO_LIMITS,
        "cachemode",
        "customizediops",
        "diskofferingid",
        "diskofferingstrictness",
        "encryptroot",
        "externaldetails",
        "gpucount",
        "gpudisplay",
        "hypervisorsnapshotreserve",
        "leaseduration",
        "leaseexpiryaction",
        "maxiops",
        "miniops",
        "purgeresources",
        "storagepolicy",
        "vgpuprofileid",
    )

    name: str = required(check=syntax.name)
    displaytext: str | None = optional(check=syntax.name)
    cpunumber: int | None = optional()
    cpuspeed: int | None = optional(description="MHz")
    memory: int | None = optional(description="MiB")
    customized: bool | None = optional()
    mincpunumber: int | None = optional()
    maxcpunumber: int | None = optional()
    minmemory: int | None = optional(description="MiB")
    maxmemory: int | None = optional(description="MiB")
    deploymentplanner: str | None = optional(choices=PLANNERS)
    domainid: list[Domain] | None = optional()
    zoneid: list[Zone] | None = optional()
    dynamicscalingenabled: bool | None = optional(True)
    hosttags: str | None = optional("", check=syntax.tags)
    tags: str | None = optional("", check=syntax.tags, description="of storage pools")
    issystem: bool | None = optional(False)
    systemvmtype: str | None = optional(choices=SYSTEM_VM_TYPES)
    isvolatile: bool | None = optional(False)
    limitcpuuse: bool | None = optional(False)
    networkrate: int | None = optional(description="Mbit/s; 0 is unlimited")
    offerha: bool | None = optional(False)
    provisioningtype: str | None = optional("thin", choices=("thin", "sparse", "fat"))
    rootdisksize: Long | None = optional(description="GiB; 0 is the template's own size")
    serviceofferingdetails: dict[str, str] | None = optional(check=checked_details)
    storagetype: str | None = optional("shared", choices=("shared", "local"))

    def run(self, ctx: Context) -> ServiceOffering:
        """Check the amounts, and write the row."""
        limits = self._amounts()
        if self.systemvmtype and not self.issystem:
            raise BadParameter("Invalid parameter systemvmtype: it goes together with issystem=true.")
        if self.networkrate is not None and self.networkrate < 0:
            raise BadParameter(f"Invalid parameter networkrate value={self.networkrate}: it is in Mbit/s, from 0.")
        row = ServiceOffering(
            name=self.name,
            display_text=self.displaytext or self.name,
            cpus=self.cpunumber,
            mhz=self.cpuspeed,
            memory=self.memory,
            system_vm_type=(self.systemvmtype or "domainrouter") if self.issystem else "",
            storage_type=self.storagetype,
            provisioning_type=self.provisioningtype,
            root_disk_size=_within("rootdisksize", self.rootdisksize or 0, 0, MOST_DISK) * GIB,
            limit_cpu_use=bool(self.limitcpuuse),
            offer_ha=bool(self.offerha),
            is_volatile=bool(self.isvolatile),
            dynamic_scaling=bool(self.dynamicscalingenabled),
            network_rate=self.networkrate,
            deployment_planner=self.deploymentplanner,
            host_tags=[tag for tag in (self.hosttags or "").split(",") if tag],
            storage_tags=[tag for tag in (self.tags or "").split(",") if tag],
            domain_uuids=scope.uuids(self.domainid),
            zone_uuids=scope.uuids(self.zoneid),
            details=(self.serviceofferingdetails or {}) | limits,
        )
        ctx.session.add(row)
        ctx.session.flush()
        return row

    def _amounts(self) -> dict[str, str]:
        """Return the limits of a customized offering; a fixed one has none."""
        limits = {name: getattr(self, name) for name in LIMITS if getattr(self, name) is not None}
        fixed = self.cpunumber is not None and self.cpuspeed is not None and self.memory is not None
        free = self.cpunumber is None and self.memory is None
        if self.cpuspeed is not None:
            _within("cpuspeed", self.cpuspeed, 1, MOST_MHZ)
        if fixed and not self.customized:
            if limits:
                raise BadParameter(f"Invalid parameter {next(iter(limits))}: an offering of fixed size has no limits.")
            _within("cpunumber", self.cpunumber or 0, 1, MOST_CPUS)
            _within("memory", self.memory or 0, 32, MOST_MEMORY)
            return {}
        if not free or (self.customized is False):
            raise BadParameter(
                "Invalid parameter cpunumber: give cpunumber, cpuspeed and memory for an offering of fixed size, "
                "or neither cpunumber nor memory for one whose size tenants choose."
            )
        if self.issystem:
            raise BadParameter("Invalid parameter issystem: the offering of a system VM has a fixed size.")
        if not limits:
            return {}
        if set(limits) != set(LIMITS) or self.cpuspeed is None:
            raise BadParameter(f"Invalid parameter {next(iter(limits))}: {', '.join(LIMITS)} and cpuspeed go together.")
        for low, high, most in (("mincpunumber", "maxcpunumber", MOST_CPUS), ("minmemory", "maxmemory", MOST_MEMORY)):
            _within(low, limits[low], 1, most)
            _within(high, limits[high], limits[low], most)
        return {name: str(value) for name, value in limits.items()}


def _within(name: str, value: int, least: int, most: int) -> int:
    if not least <= value <= most:
        raise BadParameter(f"Invalid parameter {name} value={value}: it must be from {least} to {most}.")
    return value


class UpdateServiceOffering(
    Command,
    name="updateServiceOffering",
    answer=one("serviceoffering", service_offering_views),
    instance="ServiceOffering",
    event="SERVICE.OFFERING.EDIT",
):
    """Update an offering's texts, tags, state and scope; its size never changes, as machines have it."""

    unsupported = ("cleanupexternaldetails", "externaldetails", "purgeresources")

    id: ServiceOffering = required()
    name: str | None = optional(check=syntax.name)
    displaytext: str | None = optional(check=syntax.name)
    domainid: str | None = optional(length=4096, description="the new domains, or public")
    zoneid: str | None = optional(description="the new zones, or all")
    hosttags: str | None = optional(check=syntax.tags)
    storagetags: str | None = optional(check=syntax.tags)
    sortkey: int | None = optional()
    state: str | None = optional(choices=("Active", "Inactive"))

    def run(self, ctx: Context) -> ServiceOffering:
        """Change what is given."""
        row = self.id
        row.name, row.display_text = self.name or row.name, self.displaytext or row.display_text
        row.state = self.state or row.state
        if self.sortkey is not None:
            row.sort_key = self.sortkey
        if self.hosttags is not None:
            row.host_tags = [tag for tag in self.hosttags.split(",") if tag]
        if self.storagetags is not None:
            row.storage_tags = [tag for tag in self.storagetags.split(",") if tag]
        if self.domainid is not None:
            row.domain_uuids = scope.rescoped(ctx, Domain, self.domainid, "domainid")
        if self.zoneid is not None:
            row.zone_uuids = scope.rescoped(ctx, Zone, self.zoneid, "zoneid")
        return row


class DeleteServiceOffering(
    Command,
    name="deleteServiceOffering",
    answer=success(),
    instance="ServiceOffering",
    event="SERVICE.OFFERING.DELETE",
):
    """Delete an offering; machines that have it keep it."""

    id: ServiceOffering = required()

    def run(self, ctx: Context) -> None:
        """Refuse to delete what the cloud itself needs, and mark the row removed."""
        row, ctx.instance = self.id, self.id
        if row.unique_name and row.system_vm_type:
            raise BadParameter(f"Invalid parameter id value={row.uuid}: system VMs need the offering {row.name}.")
        row.removed, row.state = ctx.now, "Inactive"
