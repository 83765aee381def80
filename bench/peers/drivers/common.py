"""What all drivers share: processes and their cost, HTTP, timing, sizes."""
from __future__ import annotations

import http.client
import itertools
import os
import signal
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from email.message import Message
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    """A peer could not be measured; the text says why."""


@dataclass
class Result:
    """One peer's medians. Times are in milliseconds, rates per second."""

    peer: str
    version: str
    acknowledged: str
    points_per_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    client_cpu_s: list[float] = field(default_factory=list)
    peak_bytes: list[int] = field(default_factory=list)
    bytes_per_point: float | None = None
    queries: dict[str, float] = field(default_factory=dict)
    answers: dict[str, int] = field(default_factory=dict)
    messages_per_s: list[float] = field(default_factory=list)
    bytes_per_message: float | None = None
    # What only this peer has, by what it is.
    notes: dict[str, float] = field(default_factory=dict)

    def json(self) -> dict:
        return asdict(self)


def cpu_seconds(pid: int | str = "self") -> float:
    """Processor seconds of a process, all threads; 0 once it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS


def peak_bytes(pid: int | str = "self") -> int:
    """The most resident memory that a process has had so far."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def directory_bytes(path: Path) -> int:
    """What all files below a directory take; what vanishes meanwhile does not count."""
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                status = os.lstat(os.path.join(folder, name))
                # What is preallocated and was never written takes no room.
                total += min(status.st_size, status.st_blocks * 512)
            except FileNotFoundError:
                pass
    return total


class Server:
    """A peer's server; ended when its `with` block is."""

    def __init__(self, argv: list, log: Path, env: dict | None = None):
        self.name = Path(str(argv[0])).name
        self.path = log
        self.log = open(log, "ab")
        self.process = subprocess.Popen([str(word) for word in argv], stdout=self.log,
                                        stderr=self.log, env={**os.environ, **(env or {})})
        self.cpu_before = 0.0

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self.process.pid

    def begin(self) -> None:
        """From here on its processor time counts."""
        self.cpu_before = cpu_seconds(self.pid)

    def cpu(self) -> float:
        return cpu_seconds(self.pid) - self.cpu_before

    def peak(self) -> int:
        return peak_bytes(self.pid)

    def stop(self, timeout: float = 120) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()

    def until(self, is_ready: Callable[[], bool], timeout: float = 60) -> None:
        """Waits until the server is ready; says what it wrote if it ends before."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if self.process.poll() is not None:
                text = self.path.read_text(errors="replace")[-500:]
                raise Failed(f"{self.name} ended with {self.process.returncode}: {text}")
            try:
                if is_ready():
                    return
            except OSError:
                pass
            time.sleep(0.05)
        raise Failed(f"{self.name} is not ready after {timeout} s")


def request(port: int, method: str, path: str, body: bytes | None = None,
            headers: dict | None = None, timeout: float = 600) -> bytes:
    """One HTTP request to this machine."""
    return exchange(port, method, path, body, headers, timeout)[0]


def exchange(port: int, method: str, path: str, body: bytes | None = None,
             headers: dict | None = None, timeout: float = 600) -> tuple[bytes, Message]:
    """One HTTP request to this machine: the body and the headers of its answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        answer = connection.getresponse()
        text = answer.read()
    finally:
        connection.close()
    if answer.status >= 300:
        raise Failed(f"{method} {path[:80]}: {answer.status} {text[:300]!r}")
    return text, answer.headers


def post_all(port: int, path: str, bodies: Iterable[bytes], connections: int) -> None:
    """Posts every body once, over some connections that are kept."""
    bodies, lock, faults = iter(bodies), threading.Lock(), []

    def work() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        try:
            while not faults:
                with lock:
                    body = next(bodies, None)
                if body is None:
                    break
                connection.request("POST", path, body=body)
                answer = connection.getresponse()
                text = answer.read()
                if answer.status >= 300:
                    faults.append(f"POST {path}: {answer.status} {text[:200]!r}")
        except OSError as fault:
            faults.append(str(fault))
        finally:
            connection.close()

    threads = [threading.Thread(target=work) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise Failed(faults[0])


def line_bodies(path: Path, lines: int) -> Iterable[bytes]:
    """The lines of a file in bodies of so many."""
    with open(path, "rb") as file:
        while body := b"".join(itertools.islice(file, lines)):
            yield body


def median_ms(run: Callable[[], int], times: int) -> tuple[float, int]:
    """Median time of a query after one run that is not counted, and its answer."""
    answer = run()
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        taken.append((time.perf_counter() - start) * 1e3)
    return statistics.median(taken), answer


def free_port() -> int:
    """A TCP port of the loopback that nobody listens on."""
    import socket
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
