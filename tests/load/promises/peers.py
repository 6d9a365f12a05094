"""The same work as on OpenStack: its figures (peers.tsv) beside ours."""
import json, os, statistics, subprocess, sys, time

from cloud import simulated
from figure import QUICK, TOP, note, report, spread

LOAD = TOP + '/tests/load'
# In this order: servers are listed when there are a thousand.
SCRIPTS = ['b_keystone', 'b_glance', 'b_placement', 'b_neutron', 'b_cinder', 'b_nova', 'b_nova_list']


def peers():
    """The lines of peers.tsv by test and clients."""
    found = {}
    for line in open(LOAD + '/peers.tsv'):
        if not line.startswith('#'):
            test, clients, median, rate, cpu, part = line.rstrip('\n').split('\t')
            found[test, int(clients)] = [float(x) if x else None for x in (median, rate, cpu, part)]
    return found


def run(work, script, maru):
    """One script against the cloud; what it recorded by test and clients."""
    out = f'{work}/{script}.jsonl'
    pids = work + '/pids'
    os.makedirs(pids, exist_ok=True)
    open(pids + '/maru.pid', 'w').write(str(maru.process.pid))
    password = json.load(open(maru.data + '/admin.json'))['password']
    env = dict(os.environ, OS_AUTH_URL=f'http://127.0.0.1:{maru.port}/identity/v3', OS_USERNAME='admin', OS_PASSWORD=password,
               OS_PROJECT_NAME='admin', OS_USER_DOMAIN_NAME='Default', OS_PROJECT_DOMAIN_NAME='Default', BENCH_PIDDIR=pids, BENCH_OUT=out,
               BENCH_DUR='1' if QUICK else '3', BENCH_RUNS='1', BENCH_QUIET='2', BENCH_POLL='0.02', NOVA_TARGET='1000',
               GLANCE_MB='64' if QUICK else '1024', PYTHONDONTWRITEBYTECODE='1')
    done = subprocess.run([sys.executable, f'{LOAD}/{script}.py'], cwd=LOAD, env=env, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f'{script}: {done.stdout[-1500:]}{done.stderr[-1500:]}')
    lines = [json.loads(line) for line in open(out)]
    for line in lines:
        if line.get('bad'):
            sys.exit(f'{script}: {line["bad"]} requests of {line["name"]} failed:\n{done.stdout[-1500:]}')
    return {(line['name'], line.get('conc', 1)): line for line in lines}


def beyond_the_hash(maru):
    """What authentication by password costs besides the hash, in turns: a processor's speed changes by more than that in minutes."""
    hashing = ['cargo', 'run', '-q', '--locked', '--release', '-p', 'maru-identity', '--example', 'hash']
    # The process's own clock (CPUCLOCK_SCHED), in nanoseconds.
    clock = (~maru.process.pid << 3) | 2
    body = maru.credentials()
    rounds = []
    for _ in range(3 if QUICK else 9):
        hashed = subprocess.run(hashing, cwd=TOP, capture_output=True, text=True)
        if hashed.returncode:
            sys.exit(hashed.stderr[-2000:])
        alone = json.loads(hashed.stdout)['value']
        logins = []
        for _ in range(5):
            begun = time.clock_gettime(clock)
            maru.want('POST', '/identity/v3/auth/tokens', body)
            logins.append((time.clock_gettime(clock) - begun) * 1e3)
        rounds.append((statistics.median(logins) - alone, alone))
    beyond = [b for b, _ in rounds]
    alone = statistics.median(a for _, a in rounds)
    report('POST /v3/auth/tokens with a password: CPU beyond the hash', max(statistics.median(beyond), 0), 'ms', 5,
           of=f'{spread(beyond)}; the hash takes {alone:.0f} ms')


def times(value):
    return '' if value is None else f'{value:.1f}x' if value < 10 else f'{value:.0f}x'


def bench_peers(work):
    """The scripts that measured OpenStack 2026.2, run against Maru; x is how many times better."""
    maru = simulated(work, 20)
    maru.start()
    maru.log_in()
    maru.settle()
    idle = maru.memory()
    maru.unlimited()
    maru.want('PUT', f'/volume/v3/{maru.project}/os-quota-sets/{maru.project}', {'quota_set': {'volumes': -1, 'gigabytes': -1}})
    ours = {}
    for script in SCRIPTS:
        ours.update(run(work, script, maru))
    print(f'  {"test":<48}{"clients":>8}{"ms":>9}{"per s":>9}{"CPU ms":>9}   OpenStack: {"ms":>7}{"per s":>7}{"CPU ms":>8}    better: ms, per s, CPU')
    shown = lambda x: '' if x is None else f'{x:.3g}' if x < 1000 else f'{x:.0f}'
    checks = []
    for (test, clients), (median, rate, cpu, part) in peers().items():
        line = ours.get((test, clients))
        if line is None:
            sys.exit(f'{test} with {clients} clients was not measured')
        p50, rps, spent = line.get('p50_ms'), line.get('rps'), line.get('cpu_ms_per_req')
        better = [median / p50 if median and p50 else None, rps / rate if rate and rps else None, cpu / max(spent, 0.001) if cpu and spent is not None else None]
        print(f'  {test:<48}{clients:>8}{shown(p50):>9}{shown(rps):>9}{shown(spent):>9}{shown(median):>19}{shown(rate):>7}{shown(cpu):>8}'
              f'    {", ".join(times(b) for b in better if b is not None)}', flush=True)
        note(f'{test} with {clients} clients, CPU', spent or 0.0, 'ms')
        if part and spent is not None:
            checks.append((f'{test}: CPU as a part of OpenStack\'s', spent / cpu, part, False))
        checks += [(f'{test} with {clients} clients: {what} as a part of OpenStack\'s', 1 / b, 1, True)
                   for what, b in zip(('median time', 'time per request', 'CPU'), better) if b]
    for name, value, promise, noisy in checks:
        if promise < 1 or value > promise:
            report(name, value, '', promise, noisy=noisy)
    report('requests slower or dearer than OpenStack\'s', sum(1 for c in checks if c[1] > 1), '', 0)
    report('resident memory, idle, as a part of OpenStack\'s 3,287 MiB', idle / 1.048576 / 3287, '', 1, noisy=False)
    beyond_the_hash(maru)
    for way, least in (('upload', 161), ('download', 1815)):
        name = next(n for n, _ in ours if n.startswith(f'glance.{way}_'))
        line = ours[name, 1]
        print(f'  {name}: {line["MBps"]:.0f} MB/s, {line["cpu_s"]:.2f} s CPU of the server; OpenStack up to {least} MB/s')
        note(f'{name}', line['MBps'], 'MB/s')
    maru.kill()
