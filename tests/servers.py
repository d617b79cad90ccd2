"""Real servers that tests start and stop: PostgreSQL, MariaDB, Chroma and `langgraph dev`, each on a free port."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa


@contextmanager
def postgres() -> Iterator[str]:
    """Run a PostgreSQL with an empty database; yield its SQLAlchemy URL."""
    initdb, server = _find("initdb"), _find("postgres")
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # socket paths must be short
    folder.chmod(0o777)  # postgres must get in
    port = _free_port()
    user = ["runuser", "-u", "postgres", "--"] if getpass.getuser() == "root" else []  # it refuses to run as root
    subprocess.run(
        [*user, initdb, "-D", f"{folder}/data", "-U", "tester", "-A", "trust"], check=True, capture_output=True
    )
    words = [*user, server, "-D", f"{folder}/data", "-h", "127.0.0.1", "-p", str(port), "-k", str(folder), "-F"]
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    url = f"postgresql+psycopg://tester@127.0.0.1:{port}/postgres"
    engine = sa.create_engine(url)
    for _ in range(100):
        try:
            engine.connect().close()
            break
        except sa.exc.OperationalError:
            time.sleep(0.1)
    try:
        yield url
    finally:
        engine.dispose()
        process.terminate()
        process.wait(20)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def mariadb(folder: Path) -> Iterator[str]:
    """Run a MariaDB with an empty database; yield its SQLAlchemy URL, for PyMySQL."""
    pytest.importorskip("pymysql", reason="PyMySQL is not installed (extra mysql)")
    install, server = shutil.which("mariadb-install-db"), shutil.which("mariadbd")
    if install is None or server is None:
        pytest.skip("MariaDB is not installed (Debian: mariadb-server)")
    port, user = _free_port(), f"--user={getpass.getuser()}"  # as root it runs only where it is told to
    data = folder / "mariadb"
    made = [install, "--no-defaults", f"--datadir={data}", user, "--auth-root-authentication-method=normal"]
    subprocess.run([*made, "--skip-test-db"], check=True, capture_output=True)
    words = [server, "--no-defaults", f"--datadir={data}", user, "--bind-address=127.0.0.1", f"--port={port}"]
    socket_file = f"/tmp/mariadb-{port}.sock"  # socket paths must be short
    log = folder / "mariadb.log"
    with log.open("w") as file:
        process = subprocess.Popen([*words, f"--socket={socket_file}"], stdout=file, stderr=file)
    url = f"mysql+pymysql://root@127.0.0.1:{port}/?charset=utf8mb4"
    engine = sa.create_engine(url)
    try:
        for _ in range(300):
            assert process.poll() is None, log.read_text()
            try:
                with engine.begin() as connection:
                    connection.exec_driver_sql("CREATE DATABASE tasks")
                break
            except sa.exc.OperationalError:
                time.sleep(0.1)
        else:
            raise AssertionError(log.read_text())
        yield url.replace("/?", "/tasks?")
    finally:
        engine.dispose()
        process.terminate()
        process.wait(30)


@contextmanager
def chroma(folder: Path, port: int = 0) -> Iterator[tuple[str, int]]:
    """Run a Chroma server on a folder; yield its host and port, and kill it at the end as a power cut would."""
    program = shutil.which("chroma", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if program is None:
        pytest.skip("chromadb's program chroma is not installed")
    host, port = "127.0.0.1", port or _free_port()
    words = [program, "run", "--path", str(folder), "--host", host, "--port", str(port)]
    with (Path(folder).parent / f"chroma-{port}.log").open("a") as file:
        process = subprocess.Popen(words, stdout=file, stderr=file)
    try:
        for _ in range(200):
            assert process.poll() is None, Path(file.name).read_text()
            try:
                urllib.request.urlopen(f"http://{host}:{port}/api/v2/heartbeat", timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        else:
            raise AssertionError(Path(file.name).read_text())
        yield host, port
    finally:
        process.kill()
        process.wait(20)


@contextmanager
def langgraph_dev(folder: Path, **environment: str) -> Iterator[str]:
    """Run `langgraph dev` on the langgraph.json of a folder; yield its URL."""
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    command = str(Path(sys.executable).with_name("langgraph"))
    words = [command, "dev", "--no-browser", "--no-reload", "--port", str(port)]
    quiet = os.environ | {"LANGGRAPH_CLI_NO_ANALYTICS": "1", "OMP_NUM_THREADS": "1"} | environment
    log = folder / "log"
    with log.open("w") as file:
        process = subprocess.Popen(words, cwd=folder, stdout=file, stderr=file, env=quiet)
    try:
        for _ in range(240):
            assert process.poll() is None, log.read_text()
            try:
                urllib.request.urlopen(f"{url}/ok", timeout=1)
                break
            except OSError:
                time.sleep(0.5)
        else:
            raise AssertionError(log.read_text())
        yield url
    finally:
        process.terminate()
        process.wait(20)


def _find(program: str) -> str:
    found = shutil.which(program) or next(iter(sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"))), None)
    return str(found) if found else pytest.skip(f"PostgreSQL's {program} is not installed (Debian: postgresql)")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
