"""Passwords of guests: made here, fetched once by the guest, told once to the caller."""

from __future__ import annotations

import re
import secrets
import string
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.compute.ssh_keypairs import encrypted
from controlplane.compute.virtual_machines import VirtualMachine
from controlplane.db.configuration import define
from controlplane.errors import BadParameter
from controlplane.work import jobs
from controlplane.work.jobs import Job

LENGTH = define("vm.password.length", 12, "Characters of a password that is made for a machine", within=(6, 64))
ENCRYPTED = "Encrypted.Password"
_ALPHABET = "".join(letter for letter in string.ascii_letters + string.digits if letter not in "0O1lI")
_GIVEN = re.compile(r"[\x21-\x7e]{6,64}")


def check_password(value: str | None) -> str | None:
    """Accept a password: 6 to 64 visible ASCII characters.

    :raises BadParameter: it is none; the sentence does not repeat it.
    """
    if value is not None and not _GIVEN.fullmatch(value):
        raise BadParameter("Invalid parameter password: it must have 6 to 64 visible ASCII characters and no blanks.")
    return value


def give_password(session: Session, vm: VirtualMachine, wanted: str | None) -> None:
    """Give the guest a new password, the wanted one or a random one, to be fetched by it and told to the caller."""
    made = wanted or "".join(secrets.choice(_ALPHABET) for _ in range(LENGTH.number(session)))
    vm.password = vm.told_password = made
    vm.password_boot = vm.boot
    details = {name: value for name, value in vm.details.items() if name != ENCRYPTED}
    for pair in vm.keypairs:
        sealed = encrypted(made, pair.public_key)
        if sealed is not None:
            details[ENCRYPTED] = sealed
            break
    vm.details = details


def _told(session: Session, ending: Sequence[Job]) -> None:
    machines = [job.instance_uuid for job in ending if job.instance_type == "VirtualMachine" and job.workflow]
    told = VirtualMachine.uuid.in_(machines), VirtualMachine.told_password.is_not(None)
    for vm in session.scalars(select(VirtualMachine).where(*told)) if machines else ():
        vm.told_password = None


jobs.on_end(_told)
