"""What a container of the stack may do."""

from __future__ import annotations

from typing import Any

from .engine import ADDRESS


def assert_confined(found: dict[str, Any]) -> None:
    """Fail where a container, as the engine describes it, may do more than it has to."""
    host = found["HostConfig"]

    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert not host["Privileged"]
    assert int(found["Config"]["User"].partition(":")[0]) > 0
    assert 0 < host["Memory"] <= 2**30
    assert not found["State"]["OOMKilled"]
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-file": "3", "max-size": "10m"}}
    published = [each for ports in found["NetworkSettings"]["Ports"].values() for each in ports or ()]
    assert {port["HostIp"] for port in published} <= {ADDRESS}
