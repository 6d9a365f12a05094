"""Reads what a tempest run left: results.py OUT LIST.

OUT has results.subunit. Writes OUT/results.tsv (test, outcome, seconds, reason) and OUT/failures/<test>.txt, prints the
reasons of skips and failures, and as its last line `N passed, N failed, N skipped`. Exits 1 when a test failed or did
not run.
"""

import collections
import os
import re
import sys

import subunit
import testtools

out, wanted = sys.argv[1], [line.strip() for line in open(sys.argv[2], encoding="utf-8")]
results = {}


def text(details, name):
    return details[name].as_text() if name in details else ""


def took(test):
    begin, end = test["timestamps"]
    return (end - begin).total_seconds() if begin and end else 0.0


def one(test):
    details = test["details"]
    trace = "".join(text(details, name) for name in details if name.startswith("traceback"))
    reason = text(details, "reason").strip()
    if test["status"] in ("fail", "xfail", "inprogress") and not reason:
        lines = [line for line in trace.strip().splitlines() if line.strip()]
        # The last line that names an exception says most.
        named = [line for line in lines if re.match(r"[\w.]+(Exception|Error|Failure|Mismatch\w*|[a-z]+\.[A-Z]\w+)?:", line)]
        reason = (named or lines or ["no reason recorded"])[-1].strip()
    results[test["id"]] = (test["status"], took(test), reason, trace, text(details, "pythonlogging:''"))


with open(os.path.join(out, "results.subunit"), "rb") as stream:
    case = subunit.ByteStreamToStreamResult(stream, non_subunit_name="stdout")
    result = testtools.StreamToDict(one)
    result.startTestRun()
    case.run(result)
    result.stopTestRun()

# A class whose set-up fails or skips stands for its tests under a name of its own.
classes = {}
for name, value in results.items():
    if found := re.match(r"(setUpClass|tearDownClass) \((.*)\)", name):
        classes.setdefault((found[1], found[2]), value)

os.makedirs(os.path.join(out, "failures"), exist_ok=True)
rows, counts, reasons = [], collections.Counter(), collections.defaultdict(collections.Counter)
for name in wanted:
    value = results.get(name) or results.get(name.split("[")[0])
    if value is None:
        of_class = name.split("[")[0].rsplit(".", 1)[0]
        value = classes.get(("setUpClass", of_class), ("missing", 0.0, "tempest did not run it", "", ""))
    status = {"success": "passed", "skip": "skipped"}.get(value[0], "failed")
    counts[status] += 1
    reason = " ".join(value[2].split())[:300]
    if status != "passed":
        reasons[status][reason] += 1
    rows.append((name, status, f"{value[1]:.1f}", reason))
    if status == "failed":
        file = re.sub(r"[^\w.]+", "_", name.split("[")[0])
        with open(os.path.join(out, "failures", file + ".txt"), "w", encoding="utf-8") as log:
            log.write(f"{name}\n\n{value[3]}\n{value[4]}\n")
for (kind, name), value in classes.items():
    if kind == "tearDownClass" and value[0] == "fail":
        counts["failed"] += 1
        reasons["failed"]["tearDownClass: " + " ".join(value[2].split())[:300]] += 1
        rows.append((f"tearDownClass ({name})", "failed", "0.0", " ".join(value[2].split())[:300]))

with open(os.path.join(out, "results.tsv"), "w", encoding="utf-8") as table:
    for row in sorted(rows):
        table.write("\t".join(row) + "\n")
for status in ("skipped", "failed"):
    for reason, count in reasons[status].most_common():
        print(f"{status} {count:4d}  {reason}")
print(f"results: {out}/results.tsv")
print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
sys.exit(1 if counts["failed"] else 0)
