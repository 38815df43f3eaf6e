#!/usr/bin/env python3
"""Licences, banned crates and sources of everything that is built, by `cargo metadata` and the lists of deny.toml.

It stands in for `cargo deny check licenses bans sources`, which takes longer to build than everything else here. Advisories are
not checked: their database is no part of a package registry. Run `cargo deny check advisories` where there is a network.
"""

import collections
import json
import re
import subprocess
import sys
import tomllib

REGISTRY = "registry+https://github.com/rust-lang/crates.io-index"


def metadata(target):
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--all-features", "--filter-platform", target]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def host():
    version = subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True).stdout
    return re.search(r"^host: (.+)$", version, re.MULTILINE)[1]


def allows(expression, allowed):
    """Whether an SPDX expression can be fulfilled by allowed licences only."""
    words = re.findall(r"[()]|[^\s()]+", expression.replace("/", " OR "))

    def either(at):
        good, at = both(at)
        while at < len(words) and words[at] == "OR":
            right, at = both(at + 1)
            good = good or right
        return good, at

    def both(at):
        good, at = one(at)
        while at < len(words) and words[at] == "AND":
            right, at = one(at + 1)
            good = good and right
        return good, at

    def one(at):
        if words[at] == "(":
            good, at = either(at + 1)
            return good, at + 1
        name, at = words[at], at + 1
        if at < len(words) and words[at] == "WITH":
            name, at = f"{name} WITH {words[at + 1]}", at + 2
        return name in allowed, at

    good, at = either(0)
    return good and at == len(words)


def main():
    with open("deny.toml", "rb") as file:
        rules = tomllib.load(file)
    allowed = set(rules["licenses"]["allow"])
    banned = {entry["crate"] for entry in rules["bans"]["deny"]}
    wrong, versions = [], collections.defaultdict(set)
    graph = metadata(host())
    used = {node["id"] for node in graph["resolve"]["nodes"]}
    packages = [package for package in graph["packages"] if package["id"] in used and package["source"]]
    features = {node["id"]: set(node["features"]) for node in graph["resolve"]["nodes"]}
    for package in packages:
        name = f"{package['name']} {package['version']}"
        versions[package["name"]].add(package["version"])
        licence = package["license"]
        if not licence or not allows(licence, allowed):
            wrong.append(f"{name}: licence {licence!r} is not among those of deny.toml")
        if package["name"] in banned:
            wrong.append(f"{name}: banned by deny.toml")
        if package["source"] != REGISTRY:
            wrong.append(f"{name}: comes from {package['source']}")
        for rule in rules["bans"].get("features", []):
            more = features[package["id"]] - set(rule["allow"])
            if rule["crate"] == package["name"] and more:
                wrong.append(f"{name}: built with the features {', '.join(sorted(more))}")
    twice = sorted(name for name, found in versions.items() if len(found) > 1)
    print(f"{len(packages)} crates, all from crates.io; in two versions: {', '.join(twice) or 'none'}")
    print("advisories: not checked, their database is not reachable by package registries alone")
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
