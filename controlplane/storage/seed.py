"""The standard catalogue of storage: the default image store, and operating systems by their families."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane.storage.image_stores import ImageStore, default_folder
from controlplane.storage.templates import OsCategory, OsType

OS_TYPES: dict[str, tuple[str, ...]] = {
    "CentOS": ("CentOS 7", "CentOS 8", "CentOS Stream 9", "CentOS Stream 10"),
    "Debian": (
        "Debian GNU/Linux 10 (64-bit)",
        "Debian GNU/Linux 11 (64-bit)",
        "Debian GNU/Linux 12 (64-bit)",
        "Debian GNU/Linux 13 (64-bit)",
    ),
    "Oracle": ("Oracle Linux 7", "Oracle Linux 8", "Oracle Linux 9"),
    "RedHat": ("Red Hat Enterprise Linux 7", "Red Hat Enterprise Linux 8", "Red Hat Enterprise Linux 9"),
    "SUSE": (
        "SUSE Linux Enterprise Server 12 (64-bit)",
        "SUSE Linux Enterprise Server 15 (64-bit)",
        "openSUSE Leap 15",
    ),
    "Windows": (
        "Windows Server 2016 (64-bit)",
        "Windows Server 2019 (64-bit)",
        "Windows Server 2022 (64-bit)",
        "Windows Server 2025 (64-bit)",
        "Windows 10 (64-bit)",
        "Windows 11 (64-bit)",
    ),
    "Other": ("Other (32-bit)", "Other (64-bit)", "Other Linux (32-bit)", "Other Linux (64-bit)", "Other PV (64-bit)"),
    "Novel": ("Other SUSE Linux(64-bit)",),
    "Unix": ("FreeBSD 13 (64-bit)", "FreeBSD 14 (64-bit)", "Sun Solaris 11 (64-bit)"),
    "Ubuntu": ("Ubuntu 20.04 LTS", "Ubuntu 22.04 LTS", "Ubuntu 24.04 LTS"),
    "None": ("None",),
    "Fedora": ("Fedora Linux (64 bit)",),
    "Rocky Linux": ("Rocky Linux 8", "Rocky Linux 9"),
    "AlmaLinux": ("AlmaLinux 8", "AlmaLinux 9"),
    "Alpine": ("Alpine Linux 3 (64-bit)",),
}
"""Families, by CloudStack's names, and what is in each."""
FEATURED = ("AlmaLinux", "CentOS", "Debian", "Fedora", "Rocky Linux", "Ubuntu", "Windows")


def fill(session: Session) -> None:
    """Put in what is missing."""
    if session.scalar(select(ImageStore.id).limit(1)) is None:
        folder = default_folder()
        session.add(ImageStore(name="default", url=folder.as_uri(), path=str(folder)))
    categories = {row.name: row for row in session.scalars(select(OsCategory))}
    known = set(session.scalars(select(OsType.name)))
    for family, names in OS_TYPES.items():
        category = categories.get(family)
        if category is None:
            category = OsCategory(name=family, featured=family in FEATURED)
            session.add(category)
            session.flush()
        session.add_all(OsType(category_id=category.id, name=name) for name in names if name not in known)
