"""An S3 server that enforces rights: moto's, in a process of its own."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import botocore.session

from .ports import free_port
from .runs import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Bucket:
    """The bucket `shared`, and a user with the rights to objects below its prefix `team`."""

    endpoint: str
    owner: Any
    """A client of botocore with all rights."""
    options: dict[str, Any]
    """Options of `ArtifactStore` for the user."""
    owner_credentials: tuple[str, str]
    """Key and secret of the owner."""

    def keys(self) -> list[str]:
        """The keys of all objects."""
        return [found["Key"] for found in self.owner.list_objects_v2(Bucket="shared").get("Contents", [])]


@contextlib.contextmanager
def shared_bucket() -> Iterator[Bucket]:
    """Start a server with the bucket, and stop it at the end."""
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                urllib.request.urlopen(f"{endpoint}/moto-api/").close()
                break
            except urllib.error.URLError:
                assert time.monotonic() < deadline
                assert server.poll() is None
                time.sleep(0.05)
        rights = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"]
        team = _user(endpoint, "team", [{"Action": rights, "Resource": "arn:aws:s3:::shared/team/*"}])
        owner = _user(endpoint, "owner", [{"Action": "s3:*", "Resource": "*"}])
        _client(endpoint, "s3", ("any", "any")).create_bucket(Bucket="shared")
        enforce = urllib.request.Request(
            f"{endpoint}/moto-api/reset-auth", data=b"0", headers={"Content-Type": "text/plain"}
        )
        urllib.request.urlopen(enforce).close()
        options = {"key": team[0], "secret": team[1], "endpoint_url": endpoint, "skip_instance_cache": True}
        yield Bucket(endpoint, _client(endpoint, "s3", owner), options, owner)
    finally:
        server.terminate()
        server.wait()


def _user(endpoint: str, name: str, statements: list[dict[str, Any]]) -> tuple[str, str]:
    """Create a user with rights; returns its key and secret."""
    iam = _client(endpoint, "iam", ("any", "any"))
    iam.create_user(UserName=name)
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **statement} for statement in statements]}
    iam.put_user_policy(UserName=name, PolicyName="rights", PolicyDocument=json.dumps(policy))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return key["AccessKeyId"], key["SecretAccessKey"]


def _client(endpoint: str, service: str, credentials: tuple[str, str]) -> Any:
    return botocore.session.get_session().create_client(
        service,
        region_name="us-east-1",
        endpoint_url=endpoint,
        aws_access_key_id=credentials[0],
        aws_secret_access_key=credentials[1],
    )
