"""Virtual machines."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, Session, mapped_column, relationship

from controlplane.db.base import Base, Created, Owned, Removable, Row
from controlplane.db.secrets import Secret
from controlplane.network.nics import Nic
from controlplane.offering.service_offerings import ServiceOffering
from controlplane.reconcile.targets import Target
from controlplane.storage.templates import Template
from controlplane.zone.hosts import Host

HOLDING = ("Starting", "Running", "Stopping", "Migrating")
"""States in which a machine holds its host's processors and memory."""
GONE = ("Destroyed", "Expunging", "Error")
"""States in which a machine is none any more to its networks, though the API may still show it."""
PASSING = ("Starting", "Stopping", "Migrating", "Expunging")
"""States that last only as long as somebody works on the machine."""


class InstanceGroup(Created, Owned, Row):
    """A name that machines of an account are shown under (createInstanceGroup)."""

    __tablename__ = "instance_groups"
    __table_args__ = (UniqueConstraint("account_id", "name"),)

    name: Mapped[str] = mapped_column(String(255))


class UserData(Created, Owned, Removable, Row):
    """Registered user data (registerUserData); ``data`` is base64, as it was given."""

    __tablename__ = "user_data"

    name: Mapped[str] = mapped_column(String(255))
    data: Mapped[str] = mapped_column(Text)
    params: Mapped[str | None] = mapped_column(String(4096))


class SshKeyPair(Created, Owned, Row):
    """A public key that guests are given (registerSSHKeyPair)."""

    __tablename__ = "ssh_keypairs"
    __table_args__ = (UniqueConstraint("account_id", "name"),)

    name: Mapped[str] = mapped_column(String(255), index=True)
    public_key: Mapped[str] = mapped_column(String(5120))
    fingerprint: Mapped[str] = mapped_column(String(100))


class MachineKeyPair(Base):
    """A machine has a key pair."""

    __tablename__ = "virtual_machine_keypairs"

    vm_id: Mapped[int] = mapped_column(ForeignKey("virtual_machines.id", ondelete="CASCADE"), primary_key=True)
    keypair_id: Mapped[int] = mapped_column(ForeignKey("ssh_keypairs.id", ondelete="CASCADE"), primary_key=True)


class VirtualMachine(Created, Removable, Owned, Row):
    """A tenant's machine (deployVirtualMachine).

    :ivar name: as the tenant named it, or ``VM-uuid``; ``hostname`` is what DHCP and DNS call it.
    :ivar instance_name: ``i-2-3-VM``: the name on the host.
    :ivar state: ``Starting``, ``Running``, ``Stopping``, ``Stopped``, ``Destroyed``, ``Expunging``, ``Error`` …
    :ivar running: what is wanted of its host; ``boot`` is raised to restart it.
    :ivar host_id: the host that holds it, or held it last; None when no host has anything of it.
    :ivar password: the one that waits to be fetched; None when there is none.
    :ivar password_boot: which of its starts was the last one before it was given that.
    :ivar told_password: the same one, until the job that made it has told its caller.
    :ivar counted: it counts in its account's user_vm, cpu and memory.
    :ivar user_data_details: values for the variables of its user data; the guest reads them as metadata.
    :ivar dhcp_options: network UUID → DHCP option number → value.
    """

    __tablename__ = "virtual_machines"

    name: Mapped[str] = mapped_column(String(255), index=True)
    display_name: Mapped[str | None] = mapped_column(String(255))
    hostname: Mapped[str] = mapped_column(String(63))
    instance_name: Mapped[str] = mapped_column(String(255), default="")
    state: Mapped[str] = mapped_column(String(20), default="Stopped", index=True)
    running: Mapped[bool] = mapped_column(default=False)
    boot: Mapped[int] = mapped_column(default=0)
    zone_id: Mapped[int] = mapped_column(ForeignKey("zones.id"), index=True)
    host_id: Mapped[int | None] = mapped_column(ForeignKey("hosts.id"), index=True)
    last_host_id: Mapped[int | None] = mapped_column(ForeignKey("hosts.id"))
    template_id: Mapped[int] = mapped_column(ForeignKey("templates.id"))
    iso_id: Mapped[int | None] = mapped_column(ForeignKey("templates.id"))
    offering_id: Mapped[int] = mapped_column(ForeignKey("service_offerings.id"))
    hypervisor: Mapped[str] = mapped_column(String(20))
    cpus: Mapped[int]
    mhz: Mapped[int]
    memory: Mapped[int]
    root_size: Mapped[int] = mapped_column(BigInteger, default=0)
    user_data: Mapped[str | None] = mapped_column(Text)
    user_data_id: Mapped[int | None] = mapped_column(ForeignKey("user_data.id"))
    password: Mapped[str | None] = mapped_column(Secret)
    password_boot: Mapped[int] = mapped_column(default=0)
    details: Mapped[dict[str, str]] = mapped_column(default=dict)
    display: Mapped[bool] = mapped_column(default=True)
    told_password: Mapped[str | None] = mapped_column(Secret)
    user_data_details: Mapped[dict[str, str]] = mapped_column(default=dict)
    dhcp_options: Mapped[dict[str, dict[str, str]]] = mapped_column(default=dict)
    group_id: Mapped[int | None] = mapped_column(ForeignKey("instance_groups.id", ondelete="SET NULL"), index=True)
    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    os_type_id: Mapped[int | None] = mapped_column(ForeignKey("os_types.id"))
    dynamic: Mapped[bool] = mapped_column(default=False)
    counted: Mapped[bool] = mapped_column(default=False)
    updated: Mapped[datetime | None]
    ha_enabled: Mapped[bool] = mapped_column(default=False)
    delete_protection: Mapped[bool] = mapped_column(default=False)
    error: Mapped[str | None] = mapped_column(Text)
    template: Mapped[Template] = relationship(foreign_keys=[template_id])
    offering: Mapped[ServiceOffering] = relationship()
    host: Mapped[Host | None] = relationship(foreign_keys=[host_id])
    nics: Mapped[list[Nic]] = relationship(order_by=Nic.device, foreign_keys=[Nic.vm_id])
    keypairs: Mapped[list[SshKeyPair]] = relationship(secondary="virtual_machine_keypairs", order_by=SshKeyPair.id)
    group: Mapped[InstanceGroup | None] = relationship()

    def targets(self, session: Session) -> Sequence[Target]:
        """Return the target of the host that holds it."""
        return session.get_one(Host, self.host_id).targets(session) if self.host_id else []
