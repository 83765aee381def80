"""The compact encoding (``OpenStream.encoding = 3``), both ways.

Written from docs/protocol.md, section "Compact batches", alone. ``Encoder`` makes the payloads of
one telemetry QUIC stream from pyarrow's record batches, ``Decoder`` makes record batches of them.
Plain Python, value by value: it is meant to be read beside the page, not to be fast.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.ipc as ipc

import quiver_protocol as q

RESTART, NULLS, MODES = 1, 2, 4
ALL_VALID, ALL_NULL, SOME_NULL = 0, 1, 2
DELTA, DELTA_OF_DELTA, DECIMAL, XOR = 0x00, 0x20, 0x40, 0x60
EXPONENT_MAX = 18
DECIMALS_TRIED = 10
TEXTS_MAX, TEXT_BYTES_MAX, TEXTS_BYTES_MAX, TEXT_COST = 1024, 256, 1024 * 1024, 32

WORD = 1 << 64


def zigzag(value: int) -> int:
    return (value << 1) ^ (value >> 63)


def unzigzag(value: int) -> int:
    return value >> 1 ^ -(value & 1)


def signed(value: int) -> int:
    """A number modulo 2^64 as what it is in two's complement."""
    value %= WORD
    return value - WORD if value >= WORD // 2 else value


def pack_bits(bits: list[bool]) -> bytes:
    out = bytearray((len(bits) + 7) // 8)
    for at, bit in enumerate(bits):
        out[at // 8] |= bit << at % 8
    return bytes(out)


def unpack_bits(data: bytes, count: int) -> list[bool]:
    return [bool(data[at // 8] >> at % 8 & 1) for at in range(count)]


def is_whole(kind: pa.DataType) -> bool:
    """Written as whole numbers: integers, half floats by their bits, timestamps."""
    return pa.types.is_integer(kind) or pa.types.is_float16(kind) or pa.types.is_timestamp(kind)


def is_float(kind: pa.DataType) -> bool:
    return pa.types.is_float64(kind) or pa.types.is_float32(kind)


def is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def float_bits(value: float, width: int) -> int:
    layout = ("<d", "<Q") if width == 8 else ("<f", "<I")
    return struct.unpack(layout[1], struct.pack(layout[0], value))[0]


def from_decimal(n: int, exponent: int, width: int) -> int:
    """The bits of n / 10^exponent."""
    return float_bits(float(n) / float(10**exponent), width)


@dataclass
class Column:
    """What both sides remember of a column."""

    type: pa.DataType
    mode: int = 0
    n: int = 0
    d: int = 0
    has_value: bool = False
    texts: list[str] = field(default_factory=list)
    next_text: int = 0

    @property
    def width(self) -> int:
        return self.type.bit_width // 8

    def begin_anew(self) -> None:
        self.n, self.d, self.has_value = 0, 0, False


class Memory:
    """The columns of a QUIC stream."""

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        self.columns = [Column(kind) for kind in schema.types]
        self.remembered = 0
        self.started = False

    def restart(self) -> None:
        self.started = True
        self.remembered = 0
        for column in self.columns:
            column.begin_anew()
            column.texts, column.next_text = [], 0

    def remember(self, column: Column, text: str) -> bool:
        """Remembers a text, if there is room."""
        length = len(text.encode())
        is_full = len(column.texts) == TEXTS_MAX
        replaced = column.texts[column.next_text] if is_full else None
        freed = 0 if replaced is None else len(replaced.encode()) + TEXT_COST
        total = self.remembered - freed + length + TEXT_COST
        if length > TEXT_BYTES_MAX or total > TEXTS_BYTES_MAX:
            return False
        self.remembered = total
        if is_full:
            column.texts[column.next_text] = text
            column.next_text = (column.next_text + 1) % TEXTS_MAX
        else:
            column.texts.append(text)
        return True


def raw_values(array: pa.Array) -> list[Any]:
    """Values as integers, bits of floats, bools or texts; None where null."""
    kind = array.type
    if pa.types.is_timestamp(kind):
        return array.cast(pa.int64()).to_pylist()
    if pa.types.is_float16(kind):
        bits = array.view(pa.uint16()) if array.null_count == 0 else None
        if bits is not None:
            return bits.to_pylist()
        return [
            None if value is None else struct.unpack("<H", struct.pack("<e", value))[0]
            for value in array.to_pylist()
        ]
    if is_float(kind):
        width = kind.bit_width // 8
        unsigned = array.view(pa.uint64() if width == 8 else pa.uint32())
        return unsigned.to_pylist()
    return array.to_pylist()


class Encoder:
    """Makes the payloads of one telemetry QUIC stream."""

    def __init__(self, schema: pa.Schema) -> None:
        self._memory = Memory(schema)

    def schema(self) -> bytes:
        """The first message."""
        message = self._memory.schema.remove_metadata().serialize().to_pybytes()
        return q.encode_varint(len(message)) + message

    def batch(self, batch: pa.RecordBatch, *, restart: bool = False) -> bytes:
        """The message of the next batch."""
        payload = self.payload(batch, restart=restart)
        return q.encode_varint(len(payload)) + payload

    def payload(self, batch: pa.RecordBatch, *, restart: bool = False) -> bytes:
        """The same without its length."""
        memory = self._memory
        restart = restart or not memory.started
        if restart:
            memory.restart()
        kinds, changes, blocks = [], [], bytearray()
        for at, (column, array) in enumerate(zip(memory.columns, batch.columns)):
            values = raw_values(array)
            valid = [value is not None for value in values]
            if all(valid) or pa.types.is_null(column.type):
                kinds.append(ALL_VALID)
            elif not any(valid):
                kinds.append(ALL_NULL)
            else:
                kinds.append(SOME_NULL)
                blocks += pack_bits(valid)
            there = [value for value in values if value is not None]
            mode, numbers = self._mode(column, there)
            if mode != column.mode:
                if not restart:
                    changes.append((at, mode))
                column.mode = mode
                column.begin_anew()
            blocks += self._column(column, there, numbers)
        header = batch.num_rows << 3
        header |= restart * RESTART | any(kinds) * NULLS | bool(changes) * MODES
        out = bytearray(q.encode_varint(header))
        if restart:
            out += bytes(c.mode for c in memory.columns if is_whole(c.type) or is_float(c.type))
        elif changes:
            out += q.encode_varint(len(changes))
            for at, mode in changes:
                out += q.encode_varint(at) + bytes([mode])
        if any(kinds):
            packed = bytearray((len(kinds) + 3) // 4)
            for at, kind in enumerate(kinds):
                packed[at // 4] |= kind << 2 * (at % 4)
            out += packed
        return bytes(out + blocks)

    @staticmethod
    def _mode(column: Column, values: list[Any]) -> tuple[int, list[int]]:
        """A mode that writes these values exactly, and the numbers it writes."""
        if not values:
            # Nothing to write, but float columns have no mode 0.
            is_unset = is_float(column.type) and column.mode == 0
            return (XOR if is_unset else column.mode), []
        if pa.types.is_timestamp(column.type):
            return DELTA_OF_DELTA, values
        if not is_float(column.type):
            return DELTA, values
        layout = ("<d", "<Q") if column.width == 8 else ("<f", "<I")
        first = column.mode - DECIMAL if DECIMAL <= column.mode < XOR else 0
        for exponent in range(first, DECIMALS_TRIED + 1):
            numbers = []
            for bits in values:
                value = struct.unpack(layout[0], struct.pack(layout[1], bits))[0]
                scaled = value * 10**exponent
                if not abs(scaled) <= 1 << 53:  # NaN and infinities too
                    break
                n = round(scaled)
                if from_decimal(n, exponent, column.width) != bits:
                    break
                numbers.append(n)
            else:
                return DECIMAL + exponent, numbers
        return XOR, values

    def _column(self, column: Column, values: list[Any], numbers: list[int]) -> bytes:
        if pa.types.is_null(column.type):
            return b""
        if pa.types.is_boolean(column.type):
            return pack_bits(values)
        out = bytearray()
        if is_text(column.type):
            for text in values:
                if text in column.texts:
                    out += q.encode_varint(column.texts.index(text) + 2)
                    continue
                out += q.encode_varint(int(self._memory.remember(column, text)))
                data = text.encode()
                out += q.encode_varint(len(data)) + data
            return bytes(out)
        for number in numbers:
            if column.mode == XOR:
                out += self._xor(number ^ column.n, column.width)
                column.n = number
            elif column.mode & 0xE0 == DELTA_OF_DELTA and column.has_value:
                delta = signed(number - column.n)
                out += q.encode_varint(zigzag(signed(delta - column.d)))
                column.d, column.n = delta, number
            else:
                out += q.encode_varint(zigzag(signed(number - column.n)))
                column.n = number
            column.has_value = True
        return bytes(out)

    @staticmethod
    def _xor(bits: int, width: int) -> bytes:
        data = bits.to_bytes(width, "big")
        if not bits:
            return b"\0"
        zeros = len(data) - len(data.lstrip(b"\0"))
        middle = data.strip(b"\0")
        return bytes([zeros << 4 | len(middle)]) + middle[::-1]


class Decoder:
    """Reads the payloads of one telemetry QUIC stream."""

    def __init__(self, schema_message: bytes) -> None:
        self._memory = Memory(ipc.read_schema(pa.py_buffer(schema_message)))
        self._data, self._at = b"", 0

    def batch(self, payload: bytes) -> pa.RecordBatch:
        """The next batch."""
        memory = self._memory
        self._data, self._at = payload, 0
        header = self._varint()
        rows = header >> 3
        if header & RESTART:
            memory.restart()
            for column in memory.columns:
                if is_whole(column.type) or is_float(column.type):
                    column.mode = self._take(1)[0]
        elif not memory.started:
            raise q.ProtocolError("the first batch does not begin anew")
        elif header & MODES:
            for _ in range(self._varint()):
                column = memory.columns[self._varint()]
                column.mode = self._take(1)[0]
                column.begin_anew()
        count = len(memory.columns)
        packed = self._take((count + 3) // 4) if header & NULLS else bytes((count + 3) // 4)
        arrays = []
        for at, column in enumerate(memory.columns):
            kind = packed[at // 4] >> 2 * (at % 4) & 3
            valid = [kind != ALL_NULL] * rows
            if kind == SOME_NULL:
                valid = unpack_bits(self._take((rows + 7) // 8), rows)
            there = iter(self._column(column, sum(valid)))
            values = [next(there) if is_there else None for is_there in valid]
            arrays.append(self._array(column.type, values))
        if self._at != len(payload):
            raise q.ProtocolError("bytes follow the last column")
        return pa.RecordBatch.from_arrays(arrays, schema=memory.schema)

    def _column(self, column: Column, count: int) -> list[Any]:
        if pa.types.is_null(column.type):
            return [None] * count
        if pa.types.is_boolean(column.type):
            return unpack_bits(self._take((count + 7) // 8), count)
        if is_text(column.type):
            return [self._text(column) for _ in range(count)]
        return [self._number(column) for _ in range(count)]

    def _text(self, column: Column) -> str:
        what = self._varint()
        if what >= 2:
            return column.texts[what - 2]
        text = self._take(self._varint()).decode()
        if what == 1 and not self._memory.remember(column, text):
            raise q.ProtocolError("a text is to be remembered for which there is no room")
        return text

    def _number(self, column: Column) -> int:
        """A whole number, or the bits of a float."""
        if column.mode == XOR:
            control = self._take(1)[0]
            zeros, count = control >> 4, control & 15
            middle = int.from_bytes(self._take(count), "little")
            column.n ^= middle << 8 * (column.width - zeros - count) if count else 0
            return column.n
        step = unzigzag(self._varint())
        if column.mode & 0xE0 == DELTA_OF_DELTA and column.has_value:
            column.d = signed(column.d + step)
            step = column.d
        column.n = signed(column.n + step)
        column.has_value = True
        exponent = column.mode & 0x1F
        if column.mode & 0xE0 == DECIMAL:
            return from_decimal(column.n, exponent, column.width)
        return signed(column.n * 10**exponent)

    @staticmethod
    def _array(kind: pa.DataType, values: list[Any]) -> pa.Array:
        if is_float(kind) or pa.types.is_float16(kind):
            unsigned = {16: pa.uint16(), 32: pa.uint32(), 64: pa.uint64()}[kind.bit_width]
            return pa.array(values, unsigned).view(kind)
        if pa.types.is_timestamp(kind):
            return pa.array(values, pa.int64()).cast(kind)
        if pa.types.is_uint64(kind):
            return pa.array([None if v is None else v % WORD for v in values], kind)
        return pa.array(values, kind)

    def _varint(self) -> int:
        got = q.decode_varint(self._data, self._at)
        if got is None:
            raise q.ProtocolError("a payload ends inside a varint")
        value, self._at = got
        return value

    def _take(self, count: int) -> bytes:
        if self._at + count > len(self._data):
            raise q.ProtocolError("a payload ends early")
        self._at += count
        return self._data[self._at - count : self._at]


def split(data: bytes) -> list[bytes]:
    """The payloads of a QUIC stream behind its ``OpenStream``, the schema message first."""
    payloads, at = [], 0
    while at < len(data):
        got = q.decode_varint(data, at)
        if got is None:
            raise q.ProtocolError("the QUIC stream ends inside a length")
        length, at = got
        if length == 0:
            break
        if at + length > len(data):
            raise q.ProtocolError("the QUIC stream ends inside a payload")
        payloads.append(data[at : at + length])
        at += length
    return payloads
