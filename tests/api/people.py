"""A small company for the tests of who may do what: its domains, their admins and their users.

::

    ROOT           admin (root admin), rita (domain admin)
    ROOT/sales     sally (domain admin), sam, sid (users)
    ROOT/sales/east    eve (user)
    ROOT/labs      laura (domain admin), larry (user)
"""

from __future__ import annotations

import time
from typing import Any

from tests.conftest import Cloud

PASSWORD = "a good password"
PEOPLE = {
    "rita": ("ROOT", 2),
    "sally": ("sales", 2),
    "sam": ("sales", 0),
    "sid": ("sales", 0),
    "eve": ("east", 0),
    "laura": ("labs", 2),
    "larry": ("labs", 0),
}


class Company:
    """The company, made as far as it is asked for."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.domains = {"ROOT": cloud("listDomains", level=0)["domain"][0]["id"]}

    def domain(self, name: str) -> str:
        """The id of a domain."""
        if name not in self.domains:
            parent = self.domain("sales") if name == "east" else self.domains["ROOT"]
            made = self.cloud("createDomain", name=name, parentdomainid=parent)
            self.domains[name] = made["domain"]["id"]
        return self.domains[name]

    def account(self, name: str) -> dict[str, Any]:
        """An account of this name with its only user, as the API shows it."""
        domain, kind = PEOPLE[name]
        found = self.cloud("listAccounts", name=name, domainid=self.domain(domain))
        return found["account"][0] if found else hire(self.cloud, name, self.domain(domain), kind)

    def user(self, name: str) -> dict[str, Any]:
        """A user, as the API shows it."""
        return self.account(name)["user"][0]

    def __call__(self, name: str) -> Cloud:
        """The cloud as this person calls it."""
        self.account(name)
        return self.cloud.as_user(name)


def hire(cloud: Cloud, name: str, domain: str, kind: int = 0, **more: Any) -> dict[str, Any]:
    """Make an account with a user of the same name."""
    more = {"accounttype": kind, **more} if "roleid" not in more else more
    fields = {"firstname": name.title(), "lastname": "Doe", "email": f"{name}@example.org"}
    return cloud("createAccount", username=name, password=PASSWORD, domainid=domain, **fields, **more)["account"]


def done(cloud: Cloud, reference: dict[str, Any], seconds: float = 20) -> dict[str, Any]:
    """The job, once it has ended."""
    deadline = time.monotonic() + seconds
    while True:
        job = cloud("queryAsyncJobResult", jobid=reference["jobid"])
        if job["jobstatus"]:
            return job
        assert time.monotonic() < deadline, f"the job has not ended: {job}"
        time.sleep(0.02)
