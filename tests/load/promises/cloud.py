"""A process of `maru up`, and what is asked of it."""
import atexit, http.client, json, os, re, socket, subprocess, sys, time

from figure import TOP

MARU = os.environ.get('MARU', TOP + '/target/release/maru')
HZ = os.sysconf('SC_CLK_TCK')


class Maru:
    """A process of `maru up`, in this network namespace or (`inside`) in another one."""

    def __init__(self, data, port, more, inside=()):
        self.data, self.port, self.more, self.inside = data, port, list(more), list(inside)
        self.process, self.token = None, ''
        atexit.register(self.kill)

    def start(self):
        """Starts it; the seconds until the first answer."""
        log = open(self.data + '.log', 'ab')
        begun = time.perf_counter()
        self.process = subprocess.Popen(self.inside + [MARU, 'up', '--data', self.data, '--listen', f'127.0.0.1:{self.port}'] + self.more,
                                        stdout=log, stderr=log)
        while True:
            try:
                if self.ask('GET', '/identity/v3')[0] == 200:
                    return time.perf_counter() - begun
            except OSError:
                pass
            if self.process.poll() is not None or time.perf_counter() - begun > 60:
                sys.exit(f'maru up does not answer; see {self.data}.log:\n' + open(self.data + '.log').read()[-2000:])
            time.sleep(0.001)

    def kill(self):
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def connect(self):
        return http.client.HTTPConnection('127.0.0.1', self.port, timeout=120)

    def ask(self, method, path, body=None, connection=None, media='application/json'):
        c = connection or self.connect()
        data = body if isinstance(body, bytes) or body is None else json.dumps(body)
        c.request(method, path, data, {'X-Auth-Token': self.token, 'Content-Type': media, 'OpenStack-API-Version': 'compute 2.90'})
        answer = c.getresponse()
        bytes_ = answer.read()
        self.headers = answer.headers
        if connection is None:
            c.close()
        return answer.status, bytes_

    def want(self, method, path, body=None, media='application/json'):
        status, text = self.ask(method, path, body, media=media)
        if status >= 300:
            sys.exit(f'{method} {path}: {status} {text[:600]!r}')
        return json.loads(text) if text else None

    def credentials(self):
        """What the administrator authenticates with."""
        password = json.load(open(self.data + '/admin.json'))['password']
        return {'auth': {
            'identity': {'methods': ['password'], 'password': {'user': {'name': 'admin', 'domain': {'id': 'default'}, 'password': password}}},
            'scope': {'project': {'name': 'admin', 'domain': {'id': 'default'}}}}}

    def log_in(self):
        self.want('POST', '/identity/v3/auth/tokens', self.credentials())
        self.token = self.headers['X-Subject-Token']
        self.project = self.want('GET', '/identity/v3/projects?name=admin')['projects'][0]['id']

    def cpu(self):
        fields = open(f'/proc/{self.process.pid}/stat').read().rsplit(')', 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / HZ

    def settle(self):
        """Waits until it has nothing left to do: at most a tick of processor in a quarter of a second."""
        for _ in range(80):
            before = self.cpu()
            time.sleep(0.25)
            if self.cpu() - before < 0.015:
                return
        print('  maru does not come to rest within 20 s', flush=True)

    def memory(self):
        """Resident MB."""
        return int(re.search(r'VmRSS:\s+(\d+)', open(f'/proc/{self.process.pid}/status').read()).group(1)) / 1024 * 1.048576

    def unlimited(self):
        self.want('PUT', f'/compute/v2.1/os-quota-sets/{self.project}', {'quota_set': {'instances': -1, 'cores': -1, 'ram': -1}})
        self.want('PUT', f'/network/v2.0/quotas/{self.project}', {'quota': {'port': -1, 'network': -1, 'subnet': -1}})


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def simulated(work, nodes=1):
    return Maru(work + '/data', free_port(), ['--simulate', str(nodes)])


def wait(until, limit=120, what='a state'):
    end = time.monotonic() + limit
    while not until():
        if time.monotonic() > end:
            sys.exit(f'{what() if callable(what) else what}: not within {limit} s')
        time.sleep(0.02)
