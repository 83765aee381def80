"""Runs scenarios of the wire protocol against a Quiver server: a client written from its page.

    python scenarios.py hello --server 127.0.0.1:4433 --ca ca.pem --cert device.pem --key device.key
    python scenarios.py all …

Prints one line of JSON for each scenario: its name, ``ok``, the promises of docs/protocol.md that
were not kept, how many were, and what was observed where the page promises nothing. Exits with 0 if
every scenario that ran is ok, else with 1. `list` names the scenarios.

Rows are sent to one stream (``--stream``), marked with a text that is drawn for each run, so a
server may be used again and again. With ``--sql`` (a command that takes a query as its last
argument and prints CSV) the scenarios also check what is stored.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
import traceback
from pathlib import Path

import attacks  # noqa: F401 - registers its scenarios
import handshake  # noqa: F401
import refusals  # noqa: F401
import sending  # noqa: F401
from harness import SCENARIOS, Context, Failed, Skipped


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenario", nargs="+", help="names of scenarios, `all`, or `list`")
    parser.add_argument("--server", default="127.0.0.1:4433", help="HOST:PORT (UDP)")
    parser.add_argument("--server-name", help="name in the server's certificate, if not HOST")
    parser.add_argument("--ca", help="authority of the server's certificate (PEM)")
    parser.add_argument("--cert", help="certificate of an enrolled device, gateway or operator")
    parser.add_argument("--key", help="its key")
    parser.add_argument("--device", default="device_1", help="for which a gateway sends")
    parser.add_argument("--stream", default="conformance", help="stream to send to")
    parser.add_argument("--sql", help="command that runs a query and prints CSV")
    parser.add_argument("--ca-key", help="key of --ca, to make certificates that are refused")
    parser.add_argument("--foreign-cert", help="certificate of an authority not trusted")
    parser.add_argument("--foreign-key", help="its key")
    parser.add_argument("--expired-cert", help="expired certificate (made if --ca-key is given)")
    parser.add_argument("--expired-key", help="its key")
    parser.add_argument("--revoked-cert", help="certificate that the server has revoked")
    parser.add_argument("--revoked-key", help="its key")
    parser.add_argument(
        "--patience", type=float, default=1.0, help="seconds to wait for what must not come"
    )
    parser.add_argument("--timeout", type=float, default=90.0, help="seconds for one scenario")
    arguments = parser.parse_args()
    if arguments.scenario != ["list"]:
        for needed in ("ca", "cert", "key"):
            if getattr(arguments, needed) is None:
                parser.error(f"--{needed} is missing")
    if arguments.server_name is None:
        arguments.server_name = arguments.server.rpartition(":")[0].strip("[]")
    return arguments


async def _run(name: str, arguments: argparse.Namespace, directory: Path) -> dict[str, object]:
    context = Context(arguments, directory)
    result: dict[str, object] = {"scenario": name}
    start = time.monotonic()
    try:
        async with asyncio.timeout(arguments.timeout):
            await SCENARIOS[name](context)
    except Skipped as reason:
        result["skipped"] = str(reason)
    except Failed:
        pass
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)
        here = [f"{Path(f.filename).name}:{f.lineno}" for f in where if "aioquic" not in f.filename]
        context.failed.append(f"{type(error).__name__}: {error} (at {' < '.join(reversed(here))})")
    result["ok"] = not context.failed
    result["failed"] = context.failed
    result["checks"] = len(context.passed) + len(context.failed)
    result["observed"] = context.observed
    result["seconds"] = round(time.monotonic() - start, 2)
    return result


def main() -> int:
    arguments = _arguments()
    if arguments.scenario == ["list"]:
        for name, run in SCENARIOS.items():
            print(f"{name:26} {(run.__doc__ or '').splitlines()[0]}")
        return 0
    names = list(SCENARIOS) if arguments.scenario == ["all"] else arguments.scenario
    unknown = [name for name in names if name not in SCENARIOS]
    if unknown:
        print(f"no such scenario: {', '.join(unknown)}; `list` names them", file=sys.stderr)
        return 64
    ok = True
    with tempfile.TemporaryDirectory() as directory:
        for name in names:
            result = asyncio.run(_run(name, arguments, Path(directory)))
            print(json.dumps(result), flush=True)
            ok = ok and bool(result["ok"])
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
