"""Fixtures of the tests of the storage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from forge import SQLStorage

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def storage(storage_url: str) -> Iterator[SQLStorage]:
    storage = SQLStorage(storage_url)
    yield storage
    storage.close()
