"""Validation of tokens."""
import re, statistics, subprocess, sys

from cloud import simulated
from figure import QUICK, report, spread


def bench_tokens(work):
    """Validations of a token over real connections, per second of a core of the server."""
    maru = simulated(work)
    maru.start()
    maru.log_in()
    rates = []
    for _ in range(2 if QUICK else 5):
        c = maru.cpu()
        out = subprocess.run(['wrk', '-t', '1', '-c', '32', '-d', '3s' if QUICK else '6s', '-H', f'X-Auth-Token: {maru.token}',
                              '-H', f'X-Subject-Token: {maru.token}', f'http://127.0.0.1:{maru.port}/identity/v3/auth/tokens'],
                             capture_output=True, text=True, check=True).stdout
        used = maru.cpu() - c
        if 'Non-2xx' in out:
            sys.exit(out)
        count = int(re.search(r'(\d+) requests in', out).group(1))
        rates.append(count / used)
    maru.ask('GET', '/identity/v3/auth/tokens')
    report('GET /v3/auth/tokens with catalogue, per second of server core', statistics.median(rates), '1/s', 10_000, at_most=False, of=spread(rates))
    maru.kill()
