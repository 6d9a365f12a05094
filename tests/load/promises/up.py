"""How soon a cloud answers, and what it weighs when it does nothing."""
import os, statistics, time

from cloud import simulated
from figure import QUICK, note, report, spread


def bench_up(work):
    """`maru up` to the first answer: an empty store, and after kill -9 with 100,000 objects."""
    times = []
    for n in range(3 if QUICK else 9):
        maru = simulated(f'{work}/{n}')
        os.makedirs(f'{work}/{n}')
        times.append(maru.start())
        if n == 0:
            maru.settle()
            report('resident memory, idle (simulated node)', maru.memory(), 'MB', 100, noisy=False)
        maru.kill()
    report('maru up to first answer, empty store', statistics.median(times), 's', 1, of=spread(times))

    os.makedirs(work + '/full')
    maru = simulated(work + '/full')
    maru.start()
    maru.log_in()
    maru.unlimited()
    total = 5_000 if QUICK else 100_000
    network = maru.want('POST', '/network/v2.0/networks', {'network': {'name': 'full'}})['network']['id']
    for n in range(4):
        maru.want('POST', '/network/v2.0/subnets', {'subnet': {'network_id': network, 'ip_version': 4, 'cidr': f'10.{n}.0.0/16', 'enable_dhcp': False}})
    made = 0
    begun = time.perf_counter()
    while made < total:
        n = min(250, total - made)
        maru.want('POST', '/network/v2.0/ports', {'ports': [{'network_id': network, 'name': f'port{made + i}'} for i in range(n)]})
        made += n
    note('ports made in bulk calls', made / (time.perf_counter() - begun), '1/s')
    times = []
    for _ in range(3 if QUICK else 5):
        maru.kill()
        times.append(maru.start())
    report(f'maru up to first answer after kill -9, {made} ports', statistics.median(times), 's', 2, of=spread(times))
    note(f'resident memory, {made} ports', maru.memory(), 'MB')
    maru.kill()
