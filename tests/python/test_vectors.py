"""The client of this folder against the test vectors that docs/protocol.md names.

Runs by itself (``python test_vectors.py``) and under pytest. Vectors are checked in both
directions: the bytes decode to what the page says they mean, and that meaning encodes to them.
"""

from __future__ import annotations

import re
import struct
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc as ipc

import quiver_compact as compact
import quiver_protocol as q

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
PAGE = ROOT / "docs" / "protocol.md"

PRODUCER = 0x1122334455667788
INSTANCE = 0x0102030405060708
CONFLICT = "field coolant_temp is float64, not utf8"


def vector(name: str) -> bytes:
    return (GOLDEN / "protocol" / name).read_bytes()


MEANINGS = {
    "hello.bin": q.ClientMessage(
        hello=q.Hello(
            protocol=1,
            instance=INSTANCE,
            client="example/1.0",
            last_acks=[q.LastAck(PRODUCER, "readings", 2)],
        )
    ),
    "hello_token.bin": q.ClientMessage(
        hello=q.Hello(protocol=1, device_id="truck_1", instance=INSTANCE, token="secret")
    ),
    "welcome.bin": q.ServerMessage(
        welcome=q.Welcome(
            limits=q.version_1_limits("device"),
            resume=[
                q.Resume(
                    PRODUCER,
                    "readings",
                    next_sequence=4,
                    known=True,
                    rejects=[q.ResumeReject(3, q.RejectCode.TYPE_CONFLICT, CONFLICT)],
                    rejects_total=1,
                )
            ],
            session=7,
            server="quiver/0.1.0",
        )
    ),
    "ack.bin": q.ServerMessage(ack=q.Ack(PRODUCER, "readings", 5)),
    "ack_refused_rows.bin": q.ServerMessage(
        ack=q.Ack(
            PRODUCER,
            "readings",
            5,
            refused_rows=[
                q.RefusedRows(q.RowCode.FUTURE_TIMESTAMP, 2),
                q.RefusedRows(q.RowCode.NOT_ENROLLED, 300),
            ],
        )
    ),
    "reject.bin": q.ServerMessage(
        reject=q.Reject(PRODUCER, "readings", 6, q.RejectCode.TYPE_CONFLICT, CONFLICT)
    ),
    "stream_closed.bin": q.ServerMessage(
        stream_closed=q.StreamClosed(
            PRODUCER,
            "readings",
            next_sequence=7,
            code=q.StreamCode.GAP,
            message="expected first_sequence 7 or lower, got 9",
            quic_stream=6,
        )
    ),
    "bye.bin": q.ServerMessage(
        bye=q.Bye(q.ConnectionCode.SHUTTING_DOWN, "the server restarts", reconnect_after=2000)
    ),
    "open_stream.bin": q.OpenStream("readings", PRODUCER, first_sequence=2, encoding=1),
    "open_stream_lost.bin": q.OpenStream(
        "readings", PRODUCER, first_sequence=9, lost_before=9, encoding=1, replayed=True
    ),
}


def test_messages_decode_to_what_the_page_says_and_encode_back():
    for name, meaning in MEANINGS.items():
        data = vector(name)
        (body,) = q.Splitter().feed(data)
        assert q.decode(type(meaning), body) == meaning, name
        assert q.delimited(meaning) == data, name


def test_messages_arrive_in_pieces_of_any_size():
    names = [name for name in MEANINGS if isinstance(MEANINGS[name], q.ServerMessage)]
    wire = b"".join(vector(name) for name in names)
    for size in (1, 2, 7, len(wire)):
        splitter = q.Splitter()
        got = []
        for at in range(0, len(wire), size):
            got += [q.decode(q.ServerMessage, m) for m in splitter.feed(wire[at : at + size])]
        assert got == [MEANINGS[name] for name in names], size
        assert splitter.rest == b""


def test_a_member_of_a_later_version_is_ignored():
    (body,) = q.Splitter().feed(vector("unknown_member.bin"))
    assert q.member(q.decode(q.ServerMessage, body)) is None


def test_an_overlong_message_is_refused_on_its_length_alone():
    try:
        list(q.Splitter().feed(q.encode_varint(q.MAX_CONTROL_MESSAGE + 1)))
    except q.ProtocolError:
        return
    raise AssertionError("a length over the limit was accepted")


def test_the_telemetry_vector_is_an_open_stream_and_an_ipc_stream():
    splitter = q.Splitter(q.MAX_OPEN_STREAM)
    splitter.append(vector("telemetry.bin"))
    opening = splitter.take()
    assert opening is not None
    assert q.decode(q.OpenStream, opening) == MEANINGS["open_stream.bin"]
    batches = list(ipc.open_stream(splitter.rest))
    assert [batch.num_rows for batch in batches] == [2]
    types = {"ts": pa.timestamp("us", "UTC"), "coolant_temp": pa.float64(), "driver": pa.string()}
    assert {f.name: f.type for f in batches[0].schema} == types
    assert batches[0].column("coolant_temp").to_pylist() == [80.0, 80.5]
    assert batches[0].column("driver").to_pylist() == ["driver 0", "driver 1"]
    assert splitter.rest.endswith(q.END_OF_STREAM)
    kinds = [message.header_type for message in q.split_ipc(splitter.rest)]
    assert kinds == [q.SCHEMA, q.RECORD_BATCH]


def test_the_compact_vector_is_read_and_written():
    splitter = q.Splitter(q.MAX_OPEN_STREAM)
    splitter.append(vector("telemetry_compact.bin"))
    opening = splitter.take()
    assert opening is not None
    assert q.decode(q.OpenStream, opening).encoding == q.ENCODING_COMPACT
    assert splitter.rest.endswith(b"\0")
    schema, *payloads = compact.split(splitter.rest)
    decoder = compact.Decoder(schema)
    batches = [decoder.batch(payload) for payload in payloads]
    assert [batch.num_rows for batch in batches] == [2, 1, 1]
    table = pa.Table.from_batches(batches)
    times = table.column("ts").cast(pa.int64()).to_pylist()
    assert times == [1_700_000_000_000_000 + second * 1_000_000 for second in range(4)]
    temperatures = table.column("coolant_temp").to_pylist()
    assert temperatures == [80.0, 80.5, 80.4, 0.0] and str(temperatures[3]) == "-0.0"
    drivers = table.column("driver").to_pylist()
    assert drivers == ["driver 0", "driver 1", "driver 1", None]
    # Modes are free, so that these bytes may differ; what they mean may not.
    encoder = compact.Encoder(batches[0].schema)
    assert compact.split(encoder.schema())[0] == batches[0].schema.serialize().to_pybytes()
    again = compact.Decoder(compact.split(encoder.schema())[0])
    written = [encoder.payload(batch) for batch in batches]
    assert [again.batch(payload) for payload in written] == batches
    assert len(written[1]) == len(payloads[1]) == 4


def test_the_compact_vector_of_times_is_read_and_written():
    splitter = q.Splitter(q.MAX_OPEN_STREAM)
    splitter.append(vector("telemetry_compact_times.bin"))
    assert splitter.take() is not None
    schema, *payloads = compact.split(splitter.rest)
    decoder = compact.Decoder(schema)
    batches = [decoder.batch(payload) for payload in payloads]
    assert [batch.num_rows for batch in batches] == [2, 1, 1]
    opened = pa.Table.from_batches(batches).column("opened")
    assert opened.type == pa.timestamp("us", "UTC")
    times = [1_699_999_980_000_000, -1_000_000, None, 1_699_999_990_123_456]
    assert opened.cast(pa.int64()).to_pylist() == times
    encoder = compact.Encoder(batches[0].schema)
    again = compact.Decoder(compact.split(encoder.schema())[0])
    assert [again.batch(encoder.payload(batch)) for batch in batches] == batches


def test_every_type_comes_back_from_the_compact_encoding():
    values = [0.1, -0.0, None, float("inf"), 1e300, 81.25, 5e-324, 3.0]
    integers = [0, -1, None, 127, -128, 5, 5, 7]
    columns = {
        "ts": pa.array([1, 2, 3, 5, 8, 13, 2**50, 21], pa.timestamp("us", "UTC")),
        "f64": pa.array(values, pa.float64()),
        "f32": pa.array([1.5, -0.0, None, 0.1, 3.25, 1e30, 7.0, 7.0], pa.float32()),
        "whole": pa.array([1.0] * 8, pa.float64()),
        "i8": pa.array(integers, pa.int8()),
        "u64": pa.array([0, 2**64 - 1, 2**63, 1, None, 5, 6, 7], pa.uint64()),
        "flag": pa.array([True, None, False, True, True, None, True, False]),
        "text": pa.array(["a", "b", "a", None, "", "ä" * 200, "b", "a"]),
        "large": pa.array(["x"] * 8, pa.large_string()),
        "nothing": pa.nulls(8),
        "absent": pa.nulls(8, pa.int32()),
    }
    whole = pa.RecordBatch.from_pydict(columns)
    encoder = compact.Encoder(whole.schema)
    decoder = compact.Decoder(compact.split(encoder.schema())[0])
    for restart in (False, True):
        for batch in [whole, *(whole.slice(row, 1) for row in range(8)), whole, whole.slice(0, 0)]:
            got = decoder.batch(encoder.payload(batch, restart=restart))
            assert repr(got.to_pylist()) == repr(batch.to_pylist())
            assert got.schema.types == batch.schema.types


def test_cutting_an_ipc_stream_loses_no_byte():
    for path in sorted((GOLDEN / "ipc").glob("*.arrows")):
        data = path.read_bytes()
        if "legacy" in path.name:
            try:
                list(q.split_ipc(data))
            except q.ProtocolError:
                continue
            raise AssertionError("framing without FF FF FF FF was accepted")
        messages = list(q.split_ipc(data))
        assert b"".join(m.to_bytes() for m in messages) + q.END_OF_STREAM == data, path.name
        batches = sum(m.header_type == q.RECORD_BATCH for m in messages)
        assert batches == len(list(ipc.open_stream(data))), path.name


def test_a_forged_body_length_changes_the_metadata_alone():
    _, batch = q.split_ipc((GOLDEN / "ipc" / "plain_none.arrows").read_bytes())
    forged = batch.announcing(1 << 40)
    assert forged.body == batch.body and len(forged.metadata) == len(batch.metadata)
    assert forged.announcing(len(batch.body)).to_bytes() == batch.to_bytes()


def _page_dumps() -> dict[str, bytes]:
    """The dumps of the page as bytes, by file name."""
    dumps = {}
    pattern = r"<!-- begin vector (\S+) -->.*?```text\n(.*?)```"
    for name, dump in re.findall(pattern, PAGE.read_text(), re.DOTALL):
        columns = (line[6:53] for line in dump.splitlines())
        dumps[name] = bytes.fromhex("".join(columns))
    return dumps


def test_the_page_shows_the_bytes_of_the_files():
    dumps = _page_dumps()
    files = {path.name for path in (GOLDEN / "protocol").glob("*.bin")}
    assert set(dumps) == files
    for name, dump in dumps.items():
        assert dump == vector(name), name


def _page_table(heading: str, column: int = 0) -> list[list[str]]:
    """Cells of the first table under a heading of the page, without its head."""
    section = PAGE.read_text().split(heading, 1)[1]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    table, text = [], section.splitlines()
    start = text.index(rows[0])
    for line in text[start + 2 :]:
        if not line.startswith("|"):
            break
        table.append([cell.strip().strip("`") for cell in line.strip("|").split("|")])
    return table


def test_the_codes_are_those_of_the_page():
    rejects = {int(n): word.upper() for n, word, _ in _page_table("### Rejects:") if int(n) < 100}
    assert rejects == {code.value: code.name for code in q.RejectCode}
    closed = {int(n): word for n, word, _ in _page_table("### Closed QUIC streams:")}
    assert closed == {code.value: code.name for code in q.StreamCode}
    connection = {int(n): word for n, word, _ in _page_table("### Closed connections:")}
    assert connection == {code.value: code.name for code in q.ConnectionCode}


def test_the_limits_are_those_of_the_page():
    limits = q.version_1_limits("device")
    announced = [(value, field) for _, value, field in _page_table("## 8. Limits") if field]
    assert len(announced) == 10
    for value, field in announced:
        assert getattr(limits, field) == int(value.split()[0]), field
    assert q.version_1_limits("gateway").quic_streams == 128


def test_varints_at_their_boundaries():
    for value, data in {
        0: b"\0",
        127: b"\x7f",
        128: b"\x80\x01",
        16384: b"\x80\x80\x01",
        (1 << 64) - 1: b"\xff" * 9 + b"\x01",
    }.items():
        assert q.encode_varint(value) == data
        assert q.decode_varint(data) == (value, len(data))
        assert q.decode_varint(data[:-1]) is None
    for wrong in (b"\xff" * 10, b"\xff" * 9 + b"\x02"):
        try:
            q.decode_varint(wrong)
        except q.ProtocolError:
            continue
        raise AssertionError(f"{wrong.hex()} was accepted")


def test_hostile_protobuf_is_an_error_and_unknown_fields_are_not():
    known = q.encode(q.Ack(1, "s", 2))
    unknown = bytes([0x50, 1, 0x59]) + struct.pack("<Q", 9) + bytes([0x62, 1, 0, 0x6D, 0, 0, 0, 0])
    assert q.decode(q.Ack, known + unknown) == q.Ack(1, "s", 2)
    for end in range(1, len(unknown)):
        if end in (2, 11, 14):
            continue  # whole fields
        try:
            q.decode(q.Ack, unknown[:end])
        except q.ProtocolError:
            continue
        raise AssertionError(f"{unknown[:end].hex()} was accepted")
    for wrong in (b"\x08\x01", b"\x00\x00", b"\x12\x01\xff", b"\x0b"):
        try:
            q.decode(q.Ack, wrong)
        except q.ProtocolError:
            continue
        raise AssertionError(f"{wrong.hex()} was accepted")


if __name__ == "__main__":
    tests = [(name, test) for name, test in globals().items() if name.startswith("test_")]
    for name, test in tests:
        test()
        print("ok", name)
    print(len(tests), "tests passed")
    sys.exit(0)
