"""What there is in a cloud and on its machine, a line each: two listings are compared to show what a run left behind.

    maru debug store | left.py store    every key of the store, but for what is kept on purpose
    left.py machine NS DATA             processes of the namespaces, links, namespaces, firewall chains, files of guests and volumes

Only Python's standard library.
"""
import json
import os
import subprocess
import sys

# What a cloud keeps on purpose when the thing itself is gone.
KEPT = (
    "counter/", "epoch/",  # numbers: they go to zero, or only up
    "uniq/image/retired/",  # no id of an image is given twice
    "revoked-token/",  # until the token's own end
    "server_action/",  # what was done to a server is told for an hour after it is gone
)


def store():
    """Every key of the store: `maru debug store` on standard input."""
    for line in sys.stdin:
        item = json.loads(line)
        if not item["key"].startswith(KEPT):
            value = item.get("value")
            name = value.get("name") if isinstance(value, dict) else None
            print("store", item["key"], name or "")


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def machine(namespace, data):
    instance = os.path.basename(os.path.dirname(os.path.abspath(data)))
    spaces = sorted(line.split()[0] for line in run("ip", "netns", "list") if line.split()[0] == namespace or line.startswith(instance + "-"))
    for space in spaces:
        print("namespace", space)
        for link in run("ip", "-n", space, "-o", "link"):
            print("link", space, link.split(": ")[1].split("@")[0])
        for chain in run("nsenter", f"--net=/run/netns/{space}", "--", "nft", "list", "chains"):
            if chain.strip().startswith("chain"):
                print("chain", space, chain.strip().rstrip(" {"))
        for pid in run("ip", "netns", "pids", space):
            try:
                words = open(f"/proc/{pid}/cmdline", "rb").read().split(b"\0")
            except OSError:
                continue
            print("process", space, os.path.basename(words[0].decode(errors="replace")), *(w.decode(errors="replace") for w in words[1:3]))
    for folder, _, files in os.walk(data):
        parts = folder[len(data):].split("/")
        if {"servers", "disks", "volumes", "snapshots", "exports", "keys", "blobs", "staging", "backups"} & set(parts):
            for name in files:
                print("file", os.path.join(folder, name)[len(data) + 1:])


if sys.argv[1] == "store":
    store()
else:
    machine(*sys.argv[2:])
