"""The tables of docs/performance.md, between their markers."""
from __future__ import annotations

import statistics
from pathlib import Path

from .common import Failed, Result
from .data import DataSet

TABLES = ["peers-ingest", "peers-queries", "peers-messages"]
QUERY_TITLES = {
    "last_point": "last point of each truck",
    "hourly_by_fleet": "1-hour averages by fleet",
    "threshold": "threshold filter",
    "full_scan": "full-scan group-by",
}


def _median(values: list) -> float | None:
    return statistics.median(values) if values else None


def _cell(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |",
             "| " + " | ".join(["---"] + ["---:"] * (len(head) - 1)) + " |"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def _ratio(ours: float | None, theirs: float | None) -> str:
    return "–" if not ours or not theirs else f"{ours / theirs:.2f}"


def ingest(results: list[Result], data: DataSet) -> str:
    """Loading, memory and size."""
    millions = data.points / 1e6
    stores = [result for result in results if result.points_per_s]
    ours = next((result for result in stores if result.peer == "quiver"), None)
    rows = []
    for result in stores:
        rate, cpu = _median(result.points_per_s), _median(result.cpu_s)
        client = _median(result.client_cpu_s)
        rows.append([
            f"{result.peer} {result.version}", result.acknowledged,
            _cell(rate / 1e6), f"{min(result.points_per_s) / 1e6:.2f}–"
            f"{max(result.points_per_s) / 1e6:.2f}",
            _cell(cpu / millions, 3), _cell(client / millions if client else None, 3),
            _cell(_median(result.peak_bytes) / 2**20, 0), _cell(result.bytes_per_point),
            _ratio(_median(ours.points_per_s) if ours else None, rate),
            _ratio(cpu, _median(ours.cpu_s) if ours else None)])
    return _table(["peer", "acknowledged", "million points/s", "least–most",
                   "CPU s per million points", "client's CPU", "peak MiB", "bytes/point",
                   "quiver's points/s, times its", "its CPU, times quiver's"], rows)


def notes(results: list[Result]) -> str:
    """What only one peer has."""
    return "\n".join(f"- {result.peer}: {name}: {value:.2f}"
                     for result in results for name, value in result.notes.items())


def queries(results: list[Result]) -> str:
    """Medians in milliseconds."""
    asked = [result for result in results if result.queries]
    rows = [[title] + [_cell(result.queries.get(name)) for result in asked]
            for name, title in QUERY_TITLES.items()]
    return _table(["query, ms"] + [result.peer for result in asked], rows)


def messages(results: list[Result], count: int) -> str:
    """Brokers, and Quiver as one; processor time is that of `count` messages."""
    rows = [[f"{result.peer} {result.version}", result.acknowledged,
             _cell(_median(result.messages_per_s), 0),
             _cell(_median(result.cpu_s) / count * 1e6),
             _cell(_median(result.peak_bytes) / 2**20, 0), _cell(result.bytes_per_message, 0)]
            for result in results if result.messages_per_s]
    return _table(["broker", "acknowledged", "messages/s (256 B)", "CPU s per million",
                   "peak MiB", "bytes/message"], rows)


def disagreements(results: list[Result]) -> list[str]:
    """Queries that peers answer differently: then the times say nothing."""
    found = []
    for name in QUERY_TITLES:
        answers = {result.peer: result.answers[name] for result in results
                   if name in result.answers}
        if len(set(answers.values())) > 1:
            found.append(f"{name}: {answers}")
    return found


def _around(text: str, name: str, page: Path) -> tuple[str, str]:
    """What stands before and behind a table's place."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise Failed(f"{page} has no {begin} … {end}")
    return before + begin, end + after


def check(page: Path) -> None:
    """Fails if the page has not a place for each table: better before hours of measuring."""
    if not page.is_file():
        raise Failed(f"{page} does not exist")
    for name in TABLES:
        _around(page.read_text(encoding="utf-8"), name, page)


def fill(page: Path, tables: dict[str, str]) -> None:
    """Puts each table between `<!-- name -->` and `<!-- /name -->`."""
    text = page.read_text(encoding="utf-8")
    for name in TABLES:
        before, after = _around(text, name, page)
        text = f"{before}\n{tables[name]}\n{after}"
    page.write_text(text, encoding="utf-8")
