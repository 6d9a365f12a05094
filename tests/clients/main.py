"""Walks every command of the stock client: main.py WORK GUEST OUT REASONS. tests/clients/walk starts it inside the cloud's namespace.

OUT gets results.tsv (command, outcome, reason); REASONS is docs/compat/clients.md, whose table says which commands fail and why.
"""
import importlib
import json
import multiprocessing
import os
import re
import sys
import time
import traceback

from walker import SERVICES, Walk, commands

# Each in a process and a project of its own; the longest first.
GROUPS = ["compute", "network", "volume", "identity", "image", "common"]
WANTED = 90


def one(job):
    """One group: {command: reason or None}, what the group itself stumbled over."""
    group, work, guest = job
    begun = time.monotonic()
    os.environ["HOME"] = work
    # As at a terminal: some commands read their input when it is not one.
    sys.stdin = os.fdopen(os.openpty()[1])
    w = Walk(work)
    w.guest = guest
    stumbled = None
    try:
        scene(w, group)
        module = importlib.import_module(f"{group}")
        module.walk(w)
    except ModuleNotFoundError as lacking:
        stumbled = f"no cases: {lacking}"
    except Exception:
        stumbled = traceback.format_exc()
    return group, w.results, stumbled, time.monotonic() - begun, w.took


def scene(w, group):
    """A project of the group's own, where its user is an administrator too."""
    import openstack

    name = f"walk-{group}"
    admin = openstack.connect()
    project = admin.identity.create_project(name=name, domain_id="default")
    user = admin.identity.create_user(name=name, password="walk-secret", domain_id="default", default_project_id=project.id)
    for role in ("admin", "member"):
        admin.identity.assign_project_role_to_user(project, user, admin.identity.find_role(role))
    os.environ.update(OS_USERNAME=name, OS_PASSWORD="walk-secret", OS_PROJECT_NAME=name)
    w.project, w.user = project.id, user.id
    w.connect = openstack.connect

    def with_object_property(namespace, name, prop):
        # The client has no option that gives an object its properties.
        sdk = openstack.connect()
        sdk.image.create_metadef_object(namespace, name=name, properties={prop: {"title": prop, "type": "string"}})

    w.with_object_property = with_object_property
    w.dead_agent = "<missing>"


def told(path):
    """The commands of the table in docs/compat/clients.md."""
    rows = re.findall(r"^\| `([^`]+)` \| *(.*?) *\|$", open(path).read(), re.M)
    return dict(rows)


def main():
    work, guest, out, reasons = sys.argv[1:5]
    only = os.environ.get("ONLY")
    groups = [g for g in GROUPS if not only or g in only.split(",")]
    known = commands()
    results = {}
    with multiprocessing.Pool(int(os.environ.get("WALKERS", "4")), maxtasksperchild=1) as pool:
        for group, found, stumbled, seconds, took in pool.imap_unordered(one, [(g, work, guest) for g in groups], chunksize=1):
            print(f"{group}: {len(found)} commands walked in {seconds:.0f} s", flush=True)
            if stumbled:
                print(f"{group}: stopped early: {stumbled}", flush=True)
            if os.environ.get("WALK_TIMES"):
                for name, spent in sorted(took.items(), key=lambda item: -item[1])[:12]:
                    print(f"  {spent:6.1f} s  {name}")
            for name, reason in found.items():
                if name not in results or reason:
                    results[name] = reason
    listed = told(reasons)
    chosen = [name for name in known if not only or known[name][0] in only.split(",")]
    wrong = []
    with open(os.path.join(out, "results.tsv"), "w") as table:
        for name in sorted(chosen):
            reason = results.get(name, "no case")
            table.write(f"{name}\t{'ok' if reason is None else 'failed'}\t{reason or ''}\n")
            if reason is not None and name not in listed:
                wrong.append(f"{name}: {reason}")
            if reason is None and name in listed:
                wrong.append(f"{name}: works, and is in the list of those that do not")
    wrong += [f"{name}: is listed, and the client has no such command" for name in listed if name not in known]
    for line in wrong:
        print(f"  {line}")
    good = [name for name in chosen if name in results and results[name] is None]
    for service in SERVICES:
        of = [name for name in chosen if known[name][0] == service]
        if of:
            print(f"{service}: {sum(name in good for name in of)} of {len(of)}")
    share = 100 * len(good) / max(1, len(chosen))
    print(f"walk: {len(good)} of {len(chosen)} commands, {share:.1f} %")
    sys.exit(1 if wrong or share < WANTED else 0)


if __name__ == "__main__":
    main()
