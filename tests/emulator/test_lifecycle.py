"""Starting, finding and stopping the emulator."""

from __future__ import annotations

import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox import aws as emulator
from sandbox.aws import Aws
from sandbox.progress import StageFailed
from tests.emulator.conftest import Images, until


@pytest.fixture
def taken() -> Iterator[int]:
    """A port where something answers that is not ours."""

    class Foreign(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"edition": "a foreign emulator"}).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Foreign)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def test_it_survives_the_process_that_started_it_and_is_found_by_its_folder(tmp_path: Path) -> None:
    program = f"from pathlib import Path; from sandbox import aws; aws.start(Path({str(tmp_path)!r}), aws.any_port())"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, cwd=emulator.ROOT)
    found = emulator.attach(tmp_path)
    assert found is not None
    with found:
        assert found.client("sts").get_caller_identity()["Account"] == "123456789012"
        assert found.env()["AWS_ENDPOINT_URL"] == found.endpoint_url
        assert (tmp_path / "aws.json").stat().st_mode & 0o077 == 0, "others could read the credentials"
        assert emulator.start(tmp_path) == found, "a second start uses the first"
        with pytest.raises(StageFailed, match=f"process {found.pid}.*other settings"):
            emulator.start(tmp_path, auth=True)
    assert emulator.attach(tmp_path) is None
    until(lambda: not Path(f"/proc/{found.pid}").exists())
    found.stop()


def test_a_foreign_program_on_the_port_is_named_and_left_alone(tmp_path: Path, taken: int) -> None:
    with pytest.raises(StageFailed, match=f"Port {taken} is taken by another AWS emulator .a foreign emulator"):
        emulator.start(tmp_path, port=taken)
    assert emulator.attach(tmp_path) is None


def test_without_a_port_it_goes_elsewhere_when_the_usual_one_is_taken(
    tmp_path: Path, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emulator, "DEFAULT_PORT", taken)
    with emulator.start(tmp_path, account_id="210987654321", region="us-west-2") as running:
        assert running.port != taken
        uri = running.client("ecr").create_repository(repositoryName="models")["repository"]["repositoryUri"]
        assert uri == f"127.0.0.1:{running.port}/models"
        assert running.client("sts").get_caller_identity()["Account"] == "210987654321"


def test_two_emulators_know_nothing_of_each_other(aws: Aws, tmp_path: Path) -> None:
    with emulator.start(tmp_path, port=emulator.any_port()) as other:
        other.client("s3").create_bucket(
            Bucket="only-there", CreateBucketConfiguration={"LocationConstraint": other.region}
        )
        names = {bucket["Name"] for bucket in aws.client("s3").list_buckets()["Buckets"]}
        assert "only-there" not in names
    assert aws.client("sts").get_caller_identity()["Account"] == aws.account_id


def test_it_does_not_listen_to_the_network(aws: Aws) -> None:
    listening = {address.rpartition(":")[0] for address in aws.listens_on}
    assert "127.0.0.1" in listening
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        # Connecting a datagram socket sends nothing; it tells the address this machine has in its network.
        probe.connect(("192.0.2.1", 9))
        address = probe.getsockname()[0]
    if address in listening:
        pytest.skip(f"this machine has no address but those it listens on: {address}")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address, aws.port), timeout=5)


@pytest.mark.container
def test_stopping_removes_the_function_containers_even_after_a_crash(aws: Aws, images: Images, tmp_path: Path) -> None:
    import docker

    engine = docker.from_env()
    with emulator.start(tmp_path, port=emulator.any_port()) as other:
        label = other.container_label.partition("=")
        container = engine.containers.create(images.by_digest("one"), labels={label[0]: label[2]})
        os.kill(other.pid, signal.SIGKILL)
    remaining = engine.containers.list(all=True, filters={"id": container.id})
    assert remaining == []
    assert emulator.attach(Path(aws.state_dir)) == aws
