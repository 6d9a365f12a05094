"""What there is in a cloud and on its machine, a line each: two listings are compared to show what a run left behind.

    left.py objects              every object that the administrator sees through the API (OS_AUTH_URL, OS_PASSWORD)
    left.py machine NS DATA      processes of the namespaces, links, namespaces, firewall chains, files of guests and volumes

Only Python's standard library.
"""
import json
import os
import subprocess
import sys
import urllib.request

# service type, path, key of the list
COLLECTIONS = [
    ("identity", "/v3/users", "users"), ("identity", "/v3/projects", "projects"), ("identity", "/v3/domains", "domains"),
    ("identity", "/v3/groups", "groups"), ("identity", "/v3/roles", "roles"), ("identity", "/v3/credentials", "credentials"),
    ("identity", "/v3/services", "services"), ("identity", "/v3/endpoints", "endpoints"), ("identity", "/v3/regions", "regions"),
    ("identity", "/v3/policies", "policies"), ("identity", "/v3/OS-TRUST/trusts", "trusts"),
    ("identity", "/v3/OS-OAUTH1/consumers", "consumers"), ("identity", "/v3/role_assignments", "role_assignments"),
    ("image", "/v2/images?limit=1000", "images"), ("image", "/v2/images?limit=1000&os_hidden=true", "images"),
    ("image", "/v2/metadefs/namespaces", "namespaces"),
    ("network", "/v2.0/networks", "networks"), ("network", "/v2.0/subnets", "subnets"), ("network", "/v2.0/ports", "ports"),
    ("network", "/v2.0/routers", "routers"), ("network", "/v2.0/floatingips", "floatingips"),
    ("network", "/v2.0/security-groups", "security_groups"), ("network", "/v2.0/subnetpools", "subnetpools"),
    ("network", "/v2.0/address-scopes", "address_scopes"), ("network", "/v2.0/rbac-policies", "rbac_policies"),
    ("network", "/v2.0/metering/metering-labels", "metering_labels"),
    ("compute", "/v2.1/servers?all_tenants=1&limit=1000", "servers"), ("compute", "/v2.1/flavors?is_public=None", "flavors"),
    ("compute", "/v2.1/os-aggregates", "aggregates"), ("compute", "/v2.1/os-server-groups?all_projects=1", "server_groups"),
    ("volume", "/v3/volumes?all_tenants=1", "volumes"), ("volume", "/v3/snapshots?all_tenants=1", "snapshots"),
    ("volume", "/v3/backups?all_tenants=1", "backups"), ("volume", "/v3/types", "volume_types"),
    ("volume", "/v3/qos-specs", "qos_specs"), ("volume", "/v3/group_types", "group_types"),
    ("volume", "/v3/groups?all_tenants=1", "groups"),
    ("placement", "/resource_providers", "resource_providers"),
]


def objects():
    base = os.environ["OS_AUTH_URL"].split("/identity")[0]
    auth = {"auth": {"identity": {"methods": ["password"], "password": {"user": {
        "name": "admin", "domain": {"id": "default"}, "password": os.environ["OS_PASSWORD"]}}},
        "scope": {"project": {"name": "admin", "domain": {"id": "default"}}}}}
    request = urllib.request.Request(base + "/identity/v3/auth/tokens", json.dumps(auth).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        token = answer.headers["X-Subject-Token"]
    headers = {"X-Auth-Token": token, "OpenStack-API-Version": "volume 3.60, compute 2.90, placement 1.36"}
    for service, path, key in COLLECTIONS:
        with urllib.request.urlopen(urllib.request.Request(f"{base}/{service}{path}", headers=headers)) as answer:
            for item in json.load(answer)[key]:
                named = item.get("id") or item.get("uuid") or item.get("namespace") or json.dumps(item, sort_keys=True)
                print(f"{service} {key} {named} {item.get('name') or ''}".rstrip())


def run(*command):
    return subprocess.run(command, capture_output=True, text=True).stdout.splitlines()


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


if sys.argv[1] == "objects":
    objects()
else:
    machine(*sys.argv[2:])
