"""The PostgreSQL server that tests start for themselves."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from sandbox import engine, postgres
from sandbox.progress import StageFailed, run


@pytest.fixture(autouse=True)
def possible() -> None:
    if missing := postgres.postgres_missing():
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)


def test_a_server_answers_until_its_block_ends_and_leaves_nothing() -> None:
    with postgres.server() as first, postgres.server() as second:
        assert first.sql("CREATE TABLE numbers (n int); INSERT INTO numbers VALUES (1), (2); TABLE numbers") == "1\n2"
        with pytest.raises(StageFailed, match='relation "numbers" does not exist'):
            second.sql("TABLE numbers")
        folder = Path(first.sql("SHOW data_directory")).parent
        assert folder.is_dir()
    assert not folder.exists()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", first.port), timeout=5)


def test_nobody_is_let_in_without_the_password() -> None:
    with postgres.server() as server:
        stranger = server.address().replace(server.password, "guessed")
        with pytest.raises(StageFailed, match="password authentication failed"):
            run([server.programs / "psql", "-d", stranger, "-c", "SELECT 1"], timeout=30)


def test_where_it_can_not_be_installed_it_is_said_how_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "_programs", lambda: None)
    monkeypatch.setattr(engine, "_is_root", lambda: False)
    with pytest.raises(postgres.NoPostgres, match="sudo apt-get install postgresql"), postgres.server():
        pass
