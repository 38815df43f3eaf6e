#!/usr/bin/env python3
"""The demo over 5,000 patients names exactly the patients that the simulator's reference names.

usage: demo.py PROGRAM EXPECTED.json OUT
"""

import json
import subprocess
import sys


def main():
    program, expected, out = sys.argv[1:]
    with open(expected, encoding="utf-8") as file:
        expected = json.load(file)
    arguments = ["demo", "--patients", "5000", "--seed", "2026", "--night", "2026-11-22", "--format", "json", "--out", out]
    ended = subprocess.run([program, *arguments], stdout=subprocess.PIPE, text=True)
    # 40 of 5,000 are missing, which the job tolerates: partial.
    if ended.returncode != 3:
        print(f"the demo ended with {ended.returncode}, not 3", file=sys.stderr)
        return 1
    summary = json.loads(ended.stdout.splitlines()[-1])
    with open(f"{out}/2026-11-22/vitals.json", encoding="utf-8") as file:
        report = json.load(file)
    pairs = [
        ("patients", report["patients"], expected["patients"]),
        ("reached", report["reached"], expected["outcome"]["ok"]),
        ("no data", report["no_data"], expected["no_data"]),
        ("failed", [entry["key"] for entry in report["failed"]], sorted(expected["failed"])),
        ("anomalous", [entry["key"] for entry in report["anomalies"]], sorted(expected["anomalous"])),
        ("failed in the summary", sum(summary["failed"].values()), len(expected["failed"])),
    ]
    wrong = [(what, got, wanted) for what, got, wanted in pairs if got != wanted]
    for what, got, wanted in wrong:
        print(f"{what}: {got}, expected {wanted}", file=sys.stderr)
    if not wrong:
        print(f"{report['reached']} reached, {len(expected['failed'])} failed, {len(expected['anomalous'])} anomalous: as expected")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
