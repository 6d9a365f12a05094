"""A thousand servers: what they weigh and what it costs to list them."""
import json, statistics, time

from cloud import simulated, wait
from figure import QUICK, note, report, spread


def bench_servers(work):
    """1,000 servers on simulated nodes: memory, and the cost of listing them."""
    maru = simulated(work, 20)
    maru.start()
    maru.log_in()
    maru.unlimited()
    flavor = maru.want('GET', '/compute/v2.1/flavors')['flavors'][0]['id']
    image = maru.want('POST', '/image/v2/images', {'name': 'i', 'disk_format': 'raw', 'container_format': 'bare'})['id']
    maru.want('PUT', f'/image/v2/images/{image}/file', b'x' * 4096, 'application/octet-stream')
    network = maru.want('POST', '/network/v2.0/networks', {'network': {'name': 'n'}})['network']['id']
    maru.want('POST', '/network/v2.0/subnets', {'subnet': {'network_id': network, 'ip_version': 4, 'cidr': '10.0.0.0/16'}})
    begun = time.perf_counter()
    for n in range(10):
        maru.want('POST', '/compute/v2.1/servers', {'server': {'name': f's{n}', 'flavorRef': flavor, 'imageRef': image, 'min_count': 100,
                                                                'max_count': 100, 'networks': [{'uuid': network}], 'metadata': {'a': 'b', 'c': 'd'}}})
    active = lambda: len(maru.want('GET', '/compute/v2.1/servers?status=ACTIVE&limit=1000')['servers'])
    wait(lambda: active() == 1000, what=lambda: f'{active()} of 1,000 servers are ACTIVE')
    note('servers with a port to ACTIVE on simulated nodes', 1000 / (time.perf_counter() - begun), '1/s')
    maru.settle()
    report('resident memory, 1,000 servers on 20 simulated nodes', maru.memory(), 'MB', 200, noisy=False)
    connection = maru.connect()
    ask = lambda: maru.ask('GET', '/compute/v2.1/servers/detail?limit=1000', connection=connection)
    rounds, per = (3, 10) if QUICK else (7, 30)
    cpu, wall, size = [], [], 0
    for _ in range(rounds):
        ask()
        c, w = maru.cpu(), time.perf_counter()
        for _ in range(per):
            status, body = ask()
            size = len(body)
        cpu.append((maru.cpu() - c) / per * 1e3)
        wall.append((time.perf_counter() - w) / per * 1e3)
    assert status == 200 and len(json.loads(body)['servers']) == 1000
    report('GET /servers/detail of 1,000 servers, CPU', statistics.median(cpu), 'ms', 20, of=f'{spread(cpu)}; {size / 1e6:.2f} MB; {statistics.median(wall):.1f} ms wall')
    maru.kill()
