"""What every table shares: a number inside, a UUID outside, and who owns it."""

from __future__ import annotations

import secrets
import uuid
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, DateTime, ForeignKey, MetaData, String, TypeDecorator
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


def now() -> datetime:
    """Return the present time in UTC, to the microsecond."""
    return datetime.now(UTC)


def new_uuid() -> str:
    """Return a fresh random UUID in its canonical form."""
    return str(uuid.uuid4())


def new_stamp() -> int:
    """Return a random number of 48 bits: a few hundred of them add up to less than 2⁶³."""
    return secrets.randbits(48)


class UtcDateTime(TypeDecorator[datetime]):
    """A time that goes in and comes out with its zone, UTC, whatever the database keeps."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        """Store UTC."""
        del dialect
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        """Return UTC."""
        del dialect
        return value.replace(tzinfo=UTC) if value and value.tzinfo is None else value


class Base(DeclarativeBase):
    """All tables; constraint names follow one convention, so that migrations can name them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy declares it so
        datetime: UtcDateTime,
        dict[str, Any]: JSON,
        dict[str, str]: JSON,
        dict[str, list[str]]: JSON,
        dict[str, dict[str, str]]: JSON,
        list[list[int]]: JSON,
        list[str]: JSON,
        list[Any]: JSON,
    }


class Row(Base):
    """A table whose rows the API names by UUID; inside, rows refer to each other by number."""

    __abstract__ = True

    id: Mapped[int] = mapped_column(primary_key=True, sort_order=-10)
    uuid: Mapped[str] = mapped_column(String(40), unique=True, default=new_uuid, sort_order=-9)


class Created:
    """When the row was made."""

    created: Mapped[datetime] = mapped_column(default=now)


class Stamped:
    """Every change of the row gives it another random stamp: a sum over rows tells whether any of them changed."""

    stamp: Mapped[int] = mapped_column(BigInteger, default=new_stamp, onupdate=new_stamp)


class Removable:
    """The row outlives its object: lists leave it out, jobs and events may still name it."""

    removed: Mapped[datetime | None] = mapped_column(default=None)


class Owned:
    """It belongs to an account, in that account's domain; every query is scoped by these two columns."""

    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id"), index=True)
    domain_id: Mapped[int] = mapped_column(ForeignKey("domains.id"), index=True)
