"""Short transactions beside the turns, which rather try again later than wait for what an application holds."""

from __future__ import annotations

from collections.abc import Callable

from django.db import Error, OperationalError
from django.db.backends.utils import CursorWrapper

from .database import Database


def attempt(database: Database, work: Callable[[CursorWrapper], None], refuse: Callable[[Exception], None]) -> bool:
    """Do the work in a transaction of its own; return False where a lock could not be had yet.

    `refuse` is called outside of it with the error of an item that cannot be read or that the database does not take,
    so that it fails alone.
    """
    try:
        with database.dialect.impatient_transaction() as cursor:
            work(cursor)
    except OperationalError as error:
        if database.dialect.is_lock_timeout(error) or database.dialect.is_deadlock(error):
            return False
        raise
    except Exception as error:
        if isinstance(error, Error) and not database.dialect.is_data_error(error):
            raise
        refuse(error)
    return True
