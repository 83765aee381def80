"""Reads a JUnit report as the tools that show such reports do."""

import sys
import xml.etree.ElementTree as ElementTree

root = ElementTree.parse(sys.argv[1]).getroot()
cases = list(root.iter("testcase"))
failures = [case for case in cases if case.find("failure") is not None]
names = ", ".join(case.get("name") for case in cases)
print(f"{len(cases)} tests, {len(failures)} failures: {names}")
