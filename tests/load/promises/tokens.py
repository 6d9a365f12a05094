"""Validation of tokens."""
import json, re, statistics, subprocess, sys

from cloud import simulated
from figure import QUICK, report, spread


def bench_tokens(work):
    """Validations of a token over real connections, per second of a core of the server."""
    maru = simulated(work)
    maru.start()
    maru.log_in()
    c = maru.connect()
    c.request('GET', '/identity/v3/auth/tokens', headers={'X-Auth-Token': maru.token, 'X-Subject-Token': maru.token})
    catalog = json.load(c.getresponse())['token']['catalog']
    assert len(catalog) >= 5, catalog
    rates = []
    # The first round warms up.
    for n in range(3 if QUICK else 6):
        c = maru.cpu()
        out = subprocess.run(['wrk', '-t', '1', '-c', '32', '-d', '2s' if QUICK else '6s', '-H', f'X-Auth-Token: {maru.token}',
                              '-H', f'X-Subject-Token: {maru.token}', f'http://127.0.0.1:{maru.port}/identity/v3/auth/tokens'],
                             capture_output=True, text=True, check=True).stdout
        used = maru.cpu() - c
        if 'Non-2xx' in out:
            sys.exit(out)
        count = int(re.search(r'(\d+) requests in', out).group(1))
        if n:
            rates.append(count / used)
    report('GET /v3/auth/tokens with catalogue, per second of server core', statistics.median(rates), '1/s', 10_000, at_most=False, of=spread(rates))
    maru.kill()
