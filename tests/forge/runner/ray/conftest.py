"""A Ray that the tests of a process share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.ray import local_ray


@pytest.fixture(scope="session")
def local_cluster() -> Iterator[None]:
    with local_ray():
        yield
