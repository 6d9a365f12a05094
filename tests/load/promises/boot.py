"""The way of a real server from POST to a QEMU that listens."""
import ctypes, fcntl, glob, json, os, re, shutil, signal, socket, statistics, struct, subprocess, sys, tempfile, time, zlib

from cloud import MARU, Maru, wait
from figure import QUICK, TOP, report, spread


def enter(namespace):
    """Moves this thread into a network namespace (Python has setns from 3.12 on only)."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, 0x40000000) != 0:
        sys.exit(f'setns: {os.strerror(ctypes.get_errno())}')


def bench_boot(work):
    """POST /servers to QMP ready, less a bare exec of the same command line. Real guests, in a namespace of its own."""
    guest = TOP + '/target/guest/guest.qcow2'
    if os.geteuid() != 0 or not os.path.exists(guest):
        sys.exit('boot: root and the guest image are needed (guest/build)')
    space, instance = 'host-marubenc', 'marubenc'
    subprocess.run(['ip', 'netns', 'del', space], capture_output=True)
    subprocess.run(['ip', 'netns', 'add', space], check=True)
    own = os.open('/proc/self/ns/net', os.O_RDONLY)
    try:
        with open(f'/run/netns/{space}') as there:
            enter(there.fileno())
        subprocess.run(['ip', 'link', 'set', 'lo', 'up'], check=True)
        maru = Maru(work + '/data', 5000, ['--instance', instance])
        maru.start()
        try:
            boots(maru, guest)
        finally:
            subprocess.run([MARU, 'down', '--guests', '--data', maru.data, '--instance', instance], capture_output=True)
            maru.kill()
    finally:
        enter(own)
        subprocess.run(['ip', 'netns', 'del', space])


def boots(maru, guest):
    maru.log_in()
    with open(guest, 'rb') as f:
        image = maru.want('POST', '/image/v2/images', {'name': 'i', 'disk_format': 'qcow2', 'container_format': 'bare'})['id']
        maru.want('PUT', f'/image/v2/images/{image}/file', f.read(), 'application/octet-stream')
    network = maru.want('POST', '/network/v2.0/networks', {'network': {'name': 'n'}})['network']['id']
    maru.want('POST', '/network/v2.0/subnets', {'subnet': {'network_id': network, 'ip_version': 4, 'cidr': '10.0.0.0/24'}})
    flavor = next(f['id'] for f in maru.want('GET', '/compute/v2.1/flavors/detail')['flavors'] if f['ram'] <= 512 and f['disk'] >= 1)
    ours, bare, more, steps = [], [], [], {}
    # The first one fetches the image, makes the network's bridge and warms the page cache.
    for n in range(1 + (3 if QUICK else 9)):
        # What is left to do for the guest before shall not count.
        maru.settle()
        begun = time.time()
        id = maru.want('POST', '/compute/v2.1/servers', {'server': {'name': 's', 'flavorRef': flavor, 'imageRef': image, 'networks': [{'uuid': network}]}})['server']['id']
        show = lambda: maru.want('GET', f'/compute/v2.1/servers/{id}')['server']
        wait(lambda: show()['status'] != 'BUILD')
        if show()['status'] != 'ACTIVE':
            sys.exit(f'boot: {show()}')
        story = told(maru, id, 'qmp')
        ready = story['qmp']
        if ready < begun:
            sys.exit(f'boot: server {id} was ready {begun - ready:.3f} s before it was asked for')
        line, home, paths, pid = command(id)
        # Its disks are wanted and their locks are not: deletion would take both, and a guest that has not booted hears no button.
        os.kill(pid, signal.SIGKILL)
        wait(lambda: show()['status'] == 'SHUTOFF')
        seconds = bare_exec(line, home, paths)
        maru.want('DELETE', f'/compute/v2.1/servers/{id}')
        wait(lambda: maru.ask('GET', f'/compute/v2.1/servers/{id}')[0] == 404)
        if n:
            for event, end in story.items():
                steps.setdefault(event, []).append((end - begun) * 1e3)
            ours.append(ready - begun)
            bare.append(seconds)
            more.append((ready - begun - seconds) * 1e3)
    print(f'  POST to QMP ready {statistics.median(ours) * 1e3:.0f} ms; bare exec {statistics.median(bare) * 1e3:.0f} ms')
    ends = sorted((statistics.median(all_), event) for event, all_ in steps.items())
    print('  ends after POST: ' + ', '.join(f'{event} {ms:.0f}' for ms, event in ends) + ' ms')
    report('POST /servers to QMP ready, more than a bare exec', statistics.median(more), 'ms', 150, of=spread(more))
    report('resident memory of a real node after the first guests', maru.memory(), 'MB', 100, noisy=False)


def stories(folder):
    """Every event that is on record, out of the segments: frames of length, CRC-32 and payload, which is the time, the subject and JSON."""
    for path in glob.glob(folder + '/**', recursive=True):
        if not os.path.isfile(path):
            continue
        bytes_, at = open(path, 'rb').read(), 0
        while at + 8 <= len(bytes_):
            length, checksum = struct.unpack_from('<II', bytes_, at)
            payload = bytes_[at + 8:at + 8 + length]
            if len(payload) < 10 or zlib.crc32(payload) != checksum:
                break
            at += 8 + length
            subject = struct.unpack_from('<H', payload, 8)[0]
            yield payload[10:10 + subject].decode(), json.loads(payload[10 + subject:])


def told(maru, id, event):
    """When each event of a server's story ended, seconds since the epoch; waits for `event`."""
    found = {}

    def look():
        found.update((r['event'], r['finish_us'] / 1e6) for s, r in stories(maru.data + '/records') if s == id and r.get('finish_us') and 'event' in r)
        return event in found
    wait(look, 20, f'{event} on the record of server {id}')
    return found


def command(id):
    """Command line, working folder, handed-over descriptors and process id of a server's QEMU."""
    for path in glob.glob('/proc/[0-9]*/cmdline'):
        try:
            words = open(path, 'rb').read().split(b'\0')[:-1]
        except OSError:
            continue
        if words and b'qemu-system' in words[0] and any(id.encode() in w for w in words):
            folder = os.path.dirname(path)
            numbers = {int(n) for w in words for n in re.findall(rb'fd["\']?[=:]["\']?(\d+)', w)}
            handed = {n: os.readlink(f'{folder}/fd/{n}') for n in numbers}
            return words, os.readlink(folder + '/cwd'), handed, int(os.path.basename(folder))
    sys.exit(f'boot: no QEMU runs for server {id}')


def bare_exec(words, home, handed):
    """Seconds from exec to QMP's greeting: the same words, a socket and a tap of our own behind the same numbers."""
    folder = tempfile.mkdtemp()
    path = folder + '/qmp'
    files = {}
    for number, what in handed.items():
        if what.startswith('socket:'):
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(path)
            listener.listen(1)
            files[number] = listener
        elif 'tun' in what:
            tap = open('/dev/net/tun', 'r+b', buffering=0)
            fcntl.ioctl(tap, 0x400454CA, struct.pack('16sH14x', b'benchtap', 0x0002 | 0x1000 | 0x4000))
            files[number] = tap
        else:
            files[number] = open(what, 'r+b', buffering=0)
    # Out of the way of the numbers that they shall have.
    high = {number: fcntl.fcntl(f.fileno(), fcntl.F_DUPFD, 500) for number, f in files.items()}

    def place():
        for number, fd in high.items():
            os.dup2(fd, number, inheritable=True)
    begun = time.perf_counter()
    process = subprocess.Popen(words, cwd=home, preexec_fn=place, close_fds=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE)
    client = socket.socket(socket.AF_UNIX)
    client.connect(path)
    client.settimeout(20)
    greeting = client.recv(4096)
    seconds = time.perf_counter() - begun
    process.kill()
    errors = process.stderr.read()
    process.wait()
    if b'QMP' not in greeting:
        sys.exit(f'boot: a bare exec gives no QMP: {errors.decode()}')
    client.close()
    for fd in high.values():
        os.close(fd)
    for f in files.values():
        f.close()
    shutil.rmtree(folder)
    return seconds
