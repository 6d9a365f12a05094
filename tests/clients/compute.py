"""The commands of the compute service, with real guests."""
import glob
import os
import socket
import subprocess
import urllib.parse


def shows_a_screen(url):
    """Whether an address for noVNC leads to a WebSocket that speaks RFB (RFC 6143)."""
    url = urllib.parse.urlsplit(url)
    path = urllib.parse.parse_qs(url.query)["path"][0]
    with socket.create_connection((url.hostname, url.port), timeout=10) as stream:
        stream.sendall(f"GET /{path} HTTP/1.1\r\nHost: {url.netloc}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                       "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n"
                       "Sec-WebSocket-Protocol: binary\r\n\r\n".encode())
        seen = b""
        while b"RFB 003.008\n" not in seen:
            more = stream.recv(4096)
            if not more:
                return False
            seen += more
        return seen.startswith(b"HTTP/1.1 101")


def network(w, name):
    """A network with a subnet behind a router to the public one."""
    third = sum(name.encode()) % 200 + 20
    w.quiet(f"network create {name}")
    w.quiet(f"subnet create --network {name} --subnet-range 10.{third}.0.0/24 {name}")


def image(w, name):
    w.quiet(f"image create --disk-format qcow2 --container-format bare --file {w.guest} {name}")


def walk(w):
    network(w, "cnet")
    image(w, "cguest")
    keys(w)
    flavors(w)
    aggregates(w)
    hosts(w)
    servers(w)
    actions(w)
    networks(w)
    images(w)
    moves(w)
    shares(w)
    agents(w)
    ends(w)


def keys(w):
    path = os.path.join(w.work, "walk-key")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    w.do(f"keypair create --public-key {path}.pub ck", by="keypair show ck", has=dict(name="ck", type="ssh"))
    w.do("keypair list", row=dict(name="ck"))
    w.do("keypair show ck", has=dict(name="ck"))
    w.quiet(f"keypair create --public-key {path}.pub ck2")
    w.do("keypair delete ck2", gone="keypair show ck2")
    w.key = path


def flavors(w):
    w.do("flavor create --ram 128 --vcpus 1 --disk 1 --property a=b fl0", by="flavor show fl0", has=dict(ram=128, properties={"b"}))
    w.do("flavor set --description d --property c=d fl0", by="flavor show fl0", has=dict(properties={"c"}))
    w.do("flavor unset --property c --property a fl0", by="flavor show fl0", has=dict(properties=lambda p: "'c'" not in str(p)))
    w.do("flavor list", row=dict(name="fl0", ram=128))
    w.do("flavor show fl0", has=dict(vcpus=1))
    w.quiet("flavor create --ram 256 --vcpus 1 --disk 1 fl1")
    w.quiet("flavor create --ram 64 --vcpus 1 fl2")
    w.do("flavor delete fl2", gone="flavor show fl2")


def aggregates(w):
    rows = w.do("compute service list", row=dict(binary="nova-compute", state="up")).rows
    w.host = next((r["host"] for r in rows if r["binary"] == "nova-compute"), "<missing>")
    w.do("aggregate create --property a=b ag0", by="aggregate show ag0", has=dict(properties={"b"}))
    w.do("aggregate set --name ag1 --property c=d ag0", by="aggregate show ag1", has=dict(properties={"c"}))
    w.do("aggregate unset --property c ag1", by="aggregate show ag1", has=dict(properties=lambda p: "'c'" not in str(p)))
    w.do("aggregate list", row=dict(name="ag1"))
    w.do("aggregate show ag1", has=dict(name="ag1"))
    w.do(f"aggregate add host ag1 {w.host}", by="aggregate show ag1", has=dict(hosts={w.host}))
    # The node has the image's bytes before a guest asks for them.
    bytes_of = os.path.join(w.work, "ahead.img")
    with open(bytes_of, "wb") as file:
        file.write(os.urandom(1 << 20))
    w.quiet(f"image create --disk-format raw --container-format bare --file {bytes_of} ahead")
    digest = w.quiet("image show ahead")["properties"]["os_hash_value"]
    w.do("aggregate cache image ag1 ahead", by_sdk=lambda _: glob.glob(f"{w.work}/data/**/base/{digest}.raw", recursive=True), wait=30)
    w.quiet("image delete ahead")
    w.do(f"aggregate remove host ag1 {w.host}", by="aggregate show ag1", has=dict(hosts=[]))
    w.do("aggregate delete ag1", gone="aggregate show ag1")


def hosts(w):
    w.do("compute service list", row=dict(host=w.host))
    w.do(f"compute service set --disable --disable-reason walked {w.host} nova-compute", by="compute service list --long",
         row=dict(host=w.host, status="disabled", disabled_reason="walked"))
    w.quiet(f"compute service set --enable {w.host} nova-compute")
    w.do("hypervisor list", row=dict(state="up"))
    name = w.quiet("hypervisor list").find()["hypervisor_hostname"]
    w.do(f"hypervisor show {name}", has=dict(state="up", hypervisor_hostname=name))
    w.do("hypervisor stats show", has=dict(count=1))
    old = dict(OS_COMPUTE_API_VERSION="2.1")
    w.do("host list", env=old, row=dict(host_name=w.host))
    w.do(f"host show {w.host}", env=old, row=dict(host=w.host))
    w.do(f"host set --disable {w.host}", env=old, by="compute service list", row=dict(host=w.host, status="disabled"))
    w.quiet(f"host set --enable {w.host}", env=old)


def servers(w):
    w.do("server group create --policy anti-affinity sg0", by="server group show sg0", has=dict(policy="anti-affinity"))
    w.do("server group list", row=dict(name="sg0"))
    w.do("server group show sg0", has=dict(name="sg0"))
    w.do("server create --image cguest --flavor fl0 --network cnet --key-name ck --property a=b --wait s0", by="server show s0",
         has=dict(status="ACTIVE", properties={"b"}, key_name="ck"))
    w.do("server list", row=dict(name="s0", status="ACTIVE"))
    new = dict(OS_COMPUTE_API_VERSION="2.90")
    w.do("server set --name s1 --property c=d --description e --tag t s0", env=new, by="server show s1", by_env=new,
         has=dict(properties={"c"}, description="e", tags={"t"}))
    w.do("server unset --property c --tag t s1", env=new, by="server show s1", by_env=new,
         has=dict(properties=lambda p: "'c'" not in str(p), tags=[]))
    w.do("server show s1", has=dict(name="s1"))
    w.do("server event list s1", row=dict(action="create"))
    request = w.quiet("server event list s1").find(action="create")["request_id"]
    w.do(f"server event show s1 {request}", has=dict(action="create", request_id=request))
    w.quiet("server group create --policy affinity sg1")
    w.do("server group delete sg1", gone="server group show sg1")
    w.do("usage show", has=dict(servers=lambda n: len(n) >= 1 if isinstance(n, list) else int(n) >= 1))
    # The client asks with `detailed=True`, which Compute does not take for its `1`: the servers stay empty, the hours do not.
    w.do("usage list", row=dict(project=w.project, cpu_hours=lambda n: float(n) > 0))
    w.do("console log show s1", text="Linux", wait=90)
    # The screen answers behind the address, with the version of its protocol.
    connection = w.do("console url show --novnc s1", has=dict(url=shows_a_screen), wait=10)
    token = str(connection["url"]).split("token%3D")[-1].split("token=")[-1]
    w.do(f"console connection show {token}", env=dict(OS_COMPUTE_API_VERSION="2.99"), has=dict(instance_uuid=lambda v: bool(v)))


def actions(w):
    state = lambda line, to, wait=60: w.do(line, by="server show s1", has=dict(status=to), wait=wait)
    state("server pause s1", "PAUSED")
    state("server unpause s1", "ACTIVE")
    state("server suspend s1", "SUSPENDED")
    state("server resume s1", "ACTIVE")
    state("server stop s1", "SHUTOFF", 120)
    state("server start s1", "ACTIVE")
    new = dict(OS_COMPUTE_API_VERSION="2.90")
    w.do("server lock --reason walked s1", env=new, by="server show s1", by_env=new, has=dict(locked=True, locked_reason="walked"))
    w.do("server unlock s1", env=new, by="server show s1", by_env=new, has=dict(locked=False))
    w.do("server reboot --hard --wait s1", by="server event list s1", row=dict(action="reboot"))
    w.do("server rescue s1", by="server show s1", has=dict(status="RESCUE"), wait=90)
    w.do("server unrescue s1", by="server show s1", has=dict(status="ACTIVE"), wait=90)
    w.do("server rebuild --image cguest --wait s1", by="server event list s1", row=dict(action="rebuild"))
    w.until("server show s1", 60, has=dict(status="ACTIVE"))
    w.do("server shelve --wait s1", by="server show s1", has=dict(status=lambda s: str(s).startswith("SHELVED")), wait=90)
    w.do("server unshelve --wait s1", by="server event list s1", row=dict(action="unshelve"), wait=90)
    w.do("server dump create s1", by="server event list s1", row=dict(action="trigger_crash_dump"), wait=10)
    w.quiet("server reboot --hard --wait s1")


def networks(w):
    network(w, "cnet2")
    first = w.quiet("network show cnet2")["id"]
    w.do("server add network s1 cnet2", by="port list --server s1 --network cnet2", row=dict(status=lambda s: bool(s)), wait=10)
    w.do("server remove network s1 cnet2", by="server show s1", has=dict(addresses=lambda a: "cnet2" not in str(a)), wait=30)
    w.do("server add fixed ip --fixed-ip-address 10.{}.0.77 s1 cnet2".format(sum(b"cnet2") % 200 + 20), by="server show s1",
         has=dict(addresses={".0.77"}), wait=30)
    # Upstream took the action out in 2.44, and the client does not ask for less by itself.
    w.do("server remove fixed ip s1 10.{}.0.77".format(sum(b"cnet2") % 200 + 20), env=dict(OS_COMPUTE_API_VERSION="2.43"), by="server show s1",
         has=dict(addresses=lambda a: ".0.77" not in str(a)), wait=30)
    w.quiet("server remove network s1 cnet2")
    w.until("port list --network cnet2 --server s1", 20, norow=dict(status=lambda s: True))
    port = w.quiet("port create --network cnet2 cport")["id"]
    w.do("server add port s1 cport", by="port list --server s1", row=dict(id=port), wait=20)
    w.do("server remove port s1 cport", by="port list --server s1", norow=dict(id=port), wait=30)
    w.quiet("port delete cport")
    w.quiet("security group create csec")
    w.quiet("security group rule create --protocol tcp --dst-port 22 csec")
    w.do("server add security group s1 csec", by="server show s1", has=dict(security_groups={"csec"}))
    w.quiet("router create crouter")
    w.quiet("router add subnet crouter cnet")
    w.quiet("router set --external-gateway public crouter")
    ip = w.quiet("floating ip create public")["floating_ip_address"]
    w.do(f"server add floating ip s1 {ip}", by="server show s1", has=dict(addresses={ip}), wait=30)
    w.until("console log show s1", 90, text="login")
    w.do(f"server ssh --address-type cnet s1 -- -i {w.key} -l cirros -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null "
         f"-o HostName={ip} -o ConnectTimeout=5 echo walked-in", process=True, text="walked-in", wait=0)
    w.do(f"server remove floating ip s1 {ip}", by="server show s1", has=dict(addresses=lambda a: ip not in str(a)), wait=30)
    w.quiet(f"floating ip delete {ip}")
    w.do("server remove security group s1 csec", by="server show s1", has=dict(security_groups=lambda g: "csec" not in str(g)))
    for _ in range(5):
        # While the walk of block storage has the back end disabled there is no room for a volume.
        w.quiet("volume create --size 1 cvol")
        if w.until("volume show cvol", 10, has=dict(status="available")):
            break
        w.quiet("volume delete cvol")
    volume = w.quiet("volume show cvol")["id"]
    w.do("server add volume s1 cvol", by="volume show cvol", has=dict(status="in-use"), wait=60)
    w.do("server volume list s1", row=dict(volume_id=volume))
    new = dict(OS_COMPUTE_API_VERSION="2.90")
    w.do("server volume set --delete-on-termination s1 cvol", env=new, by="server volume list s1", by_env=new,
         row=dict(volume_id=volume, **{"delete_on_termination?": True}))
    w.do("server volume update --preserve-on-termination s1 cvol", env=new, by="server volume list s1", by_env=new,
         row=dict(volume_id=volume, **{"delete_on_termination?": False}))
    w.do("server remove volume s1 cvol", by="volume show cvol", has=dict(status="available"), wait=60)
    w.quiet("volume delete cvol")
    assert first


def images(w):
    w.do("server image create --name ci --wait s1", by="image show ci", has=dict(status="active", size=lambda n: int(n or 0) > 0), wait=120)
    w.do("server backup create --name cb --type daily --rotate 1 --wait s1", by="image show cb", has=dict(status="active"), wait=120)
    w.quiet("image delete ci")
    w.quiet("image delete cb")


def moves(w):
    w.do("server resize --flavor fl1 --wait s1", by="server show s1", has=dict(status="VERIFY_RESIZE"), wait=60)
    w.do("server migration list", row=dict(type="resize"))
    w.do("server resize revert s1", by="server show s1", has=dict(status="ACTIVE", flavor={"fl0"}), wait=60)
    w.quiet("server resize --flavor fl1 --wait s1")
    w.do("server resize confirm s1", by="server show s1", has=dict(status="ACTIVE", flavor={"fl1"}), wait=60)
    w.quiet("server resize --flavor fl0 --wait s1")
    w.do("server migration revert s1", by="server show s1", has=dict(status="ACTIVE", flavor={"fl1"}), wait=60)
    w.quiet("server resize --flavor fl0 --wait s1")
    w.do("server migration confirm s1", by="server show s1", has=dict(status="ACTIVE", flavor={"fl0"}), wait=60)
    w.quiet("server resize --flavor fl1 --wait s1")
    w.do("server migrate revert s1", by="server show s1", has=dict(status="ACTIVE", flavor={"fl0"}), wait=60)
    w.quiet("server resize --flavor fl1 --wait s1")
    w.do("server migrate confirm s1", by="server show s1", has=dict(status="ACTIVE", flavor={"fl1"}), wait=60)
    w.do("server migrate --wait s1", by="server migration list --server s1", row=dict(type="migration"))
    new = dict(OS_COMPUTE_API_VERSION="2.90")
    item = w.quiet("server migration list --type live-migration", env=new).find()["id"]
    w.do(f"server migration show s1 {item}", env=new, has=dict(id=item))
    w.do(f"server migration abort s1 {item}", env=new, by="server migration list", by_env=new, row=dict(id=item, status="cancelled"))
    w.do(f"server migration force complete s1 {item}", env=new, by="server migration list", by_env=new, row=dict(id=item, status="completed"))
    w.do("server evacuate --wait s1", by="server event list s1", row=dict(action="evacuate"))


def shares(w):
    new = dict(OS_COMPUTE_API_VERSION="2.97")
    w.do("server add share s1 walked", env=new, by="server share list s1", by_env=new, row=dict(share_id="walked"))
    w.do("server share list s1", env=new, row=dict(share_id="walked"))
    w.do("server share show s1 walked", env=new, has=dict(share_id="walked"))
    w.do("server remove share s1 walked", env=new, by="server share list s1", by_env=new, norow=dict(share_id="walked"))


def agents(w):
    item = w.do("compute agent create linux x86_64 1 http://a.example/a 0123456789abcdef0123456789abcdef kvm", by="compute agent list",
                row=dict(os="linux"))["agent_id"]
    w.do("compute agent list", row=dict(agent_id=item))
    w.do(f"compute agent set --agent-version 2 {item}", by="compute agent list", row=dict(version=2))
    w.do(f"compute agent delete {item}", by="compute agent list", norow=dict(agent_id=item))


def ends(w):
    w.do("server delete --wait s1", gone="server show s1", wait=30)
    # `server restore` is for a server that was deleted softly.
    w.do("server restore s1", by="server show s1", has=dict(status="ACTIVE"))
    # A service whose host reports comes back; the one to delete has to be of a host that is gone.
    w.do(f"compute service delete {w.dead_agent}", by="compute service list", norow=dict(id=w.dead_agent))
    for line in ("router unset --external-gateway crouter", "router remove subnet crouter cnet", "router delete crouter", "network delete cnet cnet2",
                 "security group delete csec", "keypair delete ck", "flavor delete fl0 fl1", "server group delete sg0", "image delete cguest"):
        w.quiet(line)
