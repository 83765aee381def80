"""Message brokers: NATS JetStream that syncs before it acknowledges, and mosquitto.

The clients are raw sockets that pipeline within a window and count acknowledgements by pattern or
by length, so that Python's part stays small. mosquitto keeps no log: its PUBACK is not durable.
"""
from __future__ import annotations

import json
import shutil
import socket
import struct
import subprocess
import threading
import time
from pathlib import Path

from .common import Failed, Result, Server, directory_bytes, free_port
from .line_protocol import debian_version

MESSAGE_BYTES = 256
CONNECTIONS = 2
WINDOW = 2_000
BURST = 100


class Counter:
    """Counts a marker in a stream of bytes, also where it is cut."""

    def __init__(self, marker: bytes):
        self.marker, self.tail, self.count = marker, b"", 0

    def feed(self, data: bytes) -> int:
        data = self.tail + data
        self.count += data.count(self.marker)
        # One byte too short to hold a whole marker.
        self.tail = data[-(len(self.marker) - 1):]
        return self.count


def in_threads(work, count: int) -> float:
    """Runs `work(number)` on so many threads; the seconds it took."""
    faults: list[str] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except Exception as fault:  # pylint: disable=broad-except
            faults.append(f"{type(fault).__name__}: {fault}")

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise Failed(faults[0])
    return time.perf_counter() - start


class NatsConnection:
    """As much of a NATS client as it takes to publish and to ask JetStream."""

    def __init__(self, port: int):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=120)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.recv(1 << 16)
        self.socket.sendall(b'CONNECT {"verbose":false,"pedantic":false,"protocol":1,'
                            b'"headers":true}\r\nPING\r\n')
        seen = b""
        while b"PONG" not in seen:
            seen += self.socket.recv(1 << 16)

    def ask(self, subject: str, body: dict) -> dict:
        """A request of JetStream's API, and its answer."""
        data = json.dumps(body).encode()
        self.socket.sendall(b"SUB _R.a 9\r\nUNSUB 9 1\r\nPUB %s _R.a %d\r\n%s\r\n"
                            % (subject.encode(), len(data), data))
        seen = b""
        while True:
            seen += self.socket.recv(1 << 16)
            head, cut, rest = seen.partition(b"\r\n")
            while cut and not head.startswith(b"MSG"):
                head, cut, rest = rest.partition(b"\r\n")
            if cut and len(rest) >= int(head.split()[-1]) + 2:
                return json.loads(rest[:int(head.split()[-1])])


def nats_publish(port: int, number: int, messages: int) -> None:
    """Publishes, with at most WINDOW messages unacknowledged."""
    connection = NatsConnection(port)
    inbox = b"_A.%d" % number
    connection.socket.sendall(b"SUB %s 1\r\n" % inbox)
    one = b"PUB tel.%d %s %d\r\n%s\r\n" % (number, inbox, MESSAGE_BYTES, b"x" * MESSAGE_BYTES)
    acknowledged, errors, sent = Counter(b'"seq":'), Counter(b'"error":'), 0
    while acknowledged.count < messages:
        while sent < messages and sent - acknowledged.count <= WINDOW - BURST:
            burst = min(BURST, messages - sent)
            connection.socket.sendall(one * burst)
            sent += burst
        data = connection.socket.recv(1 << 18)
        acknowledged.feed(data)
        if not data or errors.feed(data):
            raise Failed(f"nats refused a message: {data[:200]!r}")
    connection.socket.close()


def nats(binary: Path, work: Path, runs: int, messages: int) -> Result:
    """JetStream with `sync_interval: always`: what it acknowledges is synced."""
    if not binary.exists():
        raise Failed(f"nats-server is not installed ({binary} is missing); run `cargo xtask peers`")
    version = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True)
    result = Result("nats", version.stdout.split()[-1], "synced (sync_interval: always)")
    each = messages // CONNECTIONS
    for _ in range(runs):
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        port, settings = free_port(), work / "nats.conf"
        settings.write_text(f'host: "127.0.0.1"\nport: {port}\njetstream {{ store_dir: '
                            f'"{work}/js"\n max_file_store: 20G\n sync_interval: always }}\n')
        with Server([binary, "-c", settings], work / "log") as server:
            server.until(lambda: NatsConnection(port) is not None)
            stream = {"name": "TEL", "subjects": ["tel.*"], "storage": "file",
                      "retention": "limits", "num_replicas": 1, "max_msgs": -1,
                      "max_bytes": -1, "discard": "old"}
            server.until(lambda: "error" not in NatsConnection(port).ask(
                "$JS.API.STREAM.CREATE.TEL", stream))
            server.begin()
            took = in_threads(lambda number: nats_publish(port, number, each), CONNECTIONS)
            result.messages_per_s.append(each * CONNECTIONS / took)
            result.cpu_s.append(server.cpu())
            result.peak_bytes.append(server.peak())
            state = NatsConnection(port).ask("$JS.API.STREAM.INFO.TEL", {})["state"]
            if state["messages"] != each * CONNECTIONS:
                raise Failed(f"nats stored {state['messages']} of {each * CONNECTIONS} messages")
            result.bytes_per_message = directory_bytes(work / "js") / (each * CONNECTIONS)
    shutil.rmtree(work, ignore_errors=True)
    return result


def mqtt_length(length: int) -> bytes:
    out = b""
    while True:
        length, digit = divmod(length, 128)
        out += bytes([digit | (0x80 if length else 0)])
        if not length:
            return out


def mqtt_connect(port: int, name: str) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=120)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    body = (b"\x00\x04MQTT\x04\x02\x00\x00" + struct.pack(">H", len(name)) + name.encode())
    connection.sendall(b"\x10" + mqtt_length(len(body)) + body)
    answer = connection.recv(4)
    if len(answer) < 4 or answer[3]:
        raise Failed(f"mosquitto refused a connection: {answer!r}")
    return connection


def mqtt_publish(port: int, number: int, messages: int) -> None:
    """Publishes with QoS 1, with at most WINDOW messages unacknowledged."""
    connection = mqtt_connect(port, f"publisher{number}")
    topic = b"tel/%d" % number
    length = 2 + len(topic) + 2 + MESSAGE_BYTES
    head = b"\x32" + mqtt_length(length) + struct.pack(">H", len(topic)) + topic
    tail, sent, acknowledged = b"x" * MESSAGE_BYTES, 0, 0
    while acknowledged < messages * 4:
        while sent < messages and sent - acknowledged // 4 <= WINDOW - BURST:
            burst = range(sent, min(sent + BURST, messages))
            connection.sendall(b"".join(head + struct.pack(">H", at % 60_000 + 1) + tail
                                        for at in burst))
            sent = burst.stop
        data = connection.recv(1 << 16)
        if not data:
            raise Failed("mosquitto closed the connection")
        acknowledged += len(data)  # a PUBACK has four bytes
    connection.close()


def mosquitto(debian: Path, work: Path, runs: int, messages: int) -> Result:
    """QoS 1, nobody subscribed: the broker at its quickest."""
    binary = debian / "usr/sbin/mosquitto"
    if not binary.exists():
        raise Failed(f"mosquitto is not installed ({binary} is missing); run `cargo xtask peers`")
    libraries = sorted({str(found.parent) for found in debian.glob("**/*.so.*")})
    environment = {"LD_LIBRARY_PATH": ":".join(libraries)}
    result = Result("mosquitto", debian_version(binary, "mosquitto"), "not durable (QoS 1)")
    each = messages // CONNECTIONS
    for _ in range(runs):
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        port, settings = free_port(), work / "mosquitto.conf"
        settings.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n"
                            "max_inflight_messages 0\nmax_queued_messages 0\n")
        with Server([binary, "-c", settings], work / "log", environment) as server:
            server.until(lambda: mqtt_connect(port, "probe").close() is None)
            server.begin()
            took = in_threads(lambda number: mqtt_publish(port, number, each), CONNECTIONS)
            result.messages_per_s.append(each * CONNECTIONS / took)
            result.cpu_s.append(server.cpu())
            result.peak_bytes.append(server.peak())
    shutil.rmtree(work, ignore_errors=True)
    return result


