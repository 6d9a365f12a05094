# What the scripts here share: a cloud in a namespace of its own, a tenant with a network, a guest that answers SSH, and the
# proof that nothing is left. Sourced, with `script` naming the one that runs.
#   NAME, WORK            instance and directory (DEMO_NAME, DEMO_DIR)
#   MARU, GUEST           other binary, other guest image
cd "$(dirname "${BASH_SOURCE[0]}")/.."
top=$PWD

MARU=${MARU:-$top/target/release/maru}
OPENSTACK=$top/target/venv/bin/openstack
GUEST=${GUEST:-$top/target/guest/guest.qcow2}
KEEP=${KEEP:-}
# Seven characters: a second node's instance has a digit more, and eight are the most.
NAME=${DEMO_NAME:-maru${script:0:3}}
WORK=${DEMO_DIR:-/var/tmp/$NAME}
# Not with the instance's name in front: `maru down --guests` removes namespaces named so.
NS=host-$NAME

begun=$(date +%s)
say() { printf '[%4ds] %s\n' "$(($(date +%s) - begun))" "$*"; }
die() { printf '[%4ds] %s: FAILED: %s\n' "$(($(date +%s) - begun))" "$script" "$*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || die "root is needed (namespaces, taps); run: sudo make demo"
[ -x "$MARU" ] || die "$MARU is not built; run: make demo"
[ -r "$GUEST" ] || die "the guest image $GUEST is not built; run: guest/build"

inside() { nsenter --net="/run/netns/$NS" -- "$@"; }
osc() { inside "$OPENSTACK" "$@"; }

# Waits until a command succeeds: wait_for SECONDS WHAT COMMAND...
wait_for() {
  local limit=$1 what=$2 end
  shift 2
  end=$(($(date +%s) + limit))
  until "$@"; do
    [ "$(date +%s)" -lt "$end" ] || die "$what: not within $limit s"
    sleep 0.2
  done
}

pid=
ssh_pid=
stop_all() {
  if [ -n "$ssh_pid" ]; then kill "$ssh_pid" 2>/dev/null || true; fi
  if [ -e "$WORK/data" ] && [ -e "/run/netns/$NS" ]; then
    inside "$MARU" down --guests --data "$WORK/data" --instance "$NAME" >>"$WORK/maru.log" 2>&1 || true
  fi
  if [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null; then kill -9 "$pid" 2>/dev/null || true; fi
  ip netns del "$NS" 2>/dev/null || true
}
cleanup() {
  local status=$?
  if [ "$status" != 0 ] && [ -z "${judged:-}" ]; then
    printf '\n--- end of the log of maru (%s)\n' "$WORK/maru.log" >&2
    tail -n 40 "$WORK/maru.log" >&2 || true
  fi
  if [ -n "$KEEP" ] && [ "$status" = 0 ]; then return; fi
  stop_all
  if [ "$status" = 0 ] || [ -n "${judged:-}" ]; then rm -rf "$WORK"; fi
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# --- what an earlier run that was killed may have left
if [ -e "/run/netns/$NS" ] || [ -e "$WORK" ]; then stop_all; rm -rf "$WORK"; fi
mkdir -p "$WORK"
ip netns add "$NS"
inside ip link set lo up

# start_maru [OPTION...]
start_maru() {
  # exec, so that $! is maru itself and not a shell around it.
  (exec nsenter --net="/run/netns/$NS" -- "$MARU" up --data "$WORK/data" --instance "$NAME" --node demo \
    --listen 127.0.0.1:5000 "$@" >>"$WORK/maru.log" 2>&1) &
  pid=$!
  wait_for 30 "the API answers" inside curl -fs -o /dev/null http://127.0.0.1:5000/identity/v3
  wait_for 30 "the node is connected" node_connected
}
node_connected() { "$MARU" status --data "$WORK/data" 2>/dev/null | grep 'accelerator:' >/dev/null; }

as_admin() { eval "$("$MARU" openrc --data "$WORK/data")"; }

# A project and a user `demo` who is logged in from now on, a key, a network behind a router, a group that lets SSH in, the image.
make_tenant() {
  as_admin
  say "making a project, a user, a key pair"
  osc project create demo -f value -c id >"$WORK/project"
  osc user create demo --project demo --password demo-secret -f value -c id >/dev/null
  osc role add --project demo --user demo member
  export OS_USERNAME=demo OS_PASSWORD=demo-secret OS_PROJECT_NAME=demo
  ssh-keygen -q -t ed25519 -N '' -f "$WORK/key"
  osc keypair create --public-key "$WORK/key.pub" demo >/dev/null

  say "network, subnet, router, security group"
  osc network create net -f value -c id >/dev/null
  osc subnet create --network net --subnet-range 10.20.0.0/24 --dns-nameserver 9.9.9.9 subnet -f value -c id >/dev/null
  osc router create router -f value -c id >/dev/null
  osc router add subnet router subnet
  osc router set --external-gateway public router
  osc security group create ssh -f value -c id >/dev/null
  osc security group rule create --protocol tcp --dst-port 22 ssh -f value -c id >/dev/null
  osc security group rule create --protocol icmp ssh -f value -c id >/dev/null

  say "uploading the image ($(du -Lh "$GUEST" | cut -f1))"
  osc image create --disk-format qcow2 --container-format bare --file "$GUEST" guest -f value -c status >/dev/null
  [ "$(osc image show guest -f value -c status)" = active ] || die "the image is not active"
}

# create_server NAME [OPTION...]: prints its id.
create_server() {
  local name=$1
  shift
  osc server create --image guest --flavor m1.nano --network net --security-group ssh --key-name demo "$@" "$name" -f value -c id
}

new_token() { token=$(osc token issue -f value -c id); }

# Asked over plain HTTP, so that waiting does not start a Python process ten times a second.
server_status() {
  inside curl -fs -H "X-Auth-Token: $token" "http://127.0.0.1:5000/compute/v2.1/servers/$1" |
    python3 -c 'import json,sys; s=json.load(sys.stdin)["server"]; print(s["status"]); print(s.get("fault",{}).get("message",""),file=sys.stderr)' 2>"$WORK/fault"
}
# is_status SERVER STATUS
is_status() {
  local s
  s=$(server_status "$1") || return 1
  [ "$s" != ERROR ] || die "the server is in ERROR: $(cat "$WORK/fault")"
  [ "$s" = "$2" ]
}

# ssh_from NAMESPACE ADDRESS [COMMAND]
ssh_from() {
  local from=$1 address=$2
  shift 2
  nsenter --net="/run/netns/$from" -- ssh -i "$WORK/key" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
    -o ConnectTimeout=5 -o ServerAliveInterval=5 -o LogLevel=ERROR -o IdentitiesOnly=yes "cirros@$address" "$@"
}
ssh_answers() { ssh_from "$1" "$2" true 2>/dev/null; }

# count_from NAMESPACE ADDRESS: an SSH session that counts into $WORK/counter.
count_from() {
  ssh_from "$1" "$2" 'i=0; while :; do i=$((i+1)); echo $i; sleep 0.5; done' >"$WORK/counter" 2>/dev/null &
  ssh_pid=$!
  wait_for 60 "the session counts" counted 2
}
count() { tail -n 1 "$WORK/counter" 2>/dev/null || echo 0; }
counted() { [ "$(count)" -ge "$1" ] 2>/dev/null; }
end_count() {
  kill "$ssh_pid" 2>/dev/null || true
  ssh_pid=
}

boot_id() { ssh_from "$1" "$2" cat /proc/sys/kernel/random/boot_id 2>/dev/null; }
# rebooted NAMESPACE ADDRESS BOOT-ID
rebooted() {
  local now
  now=$(boot_id "$1" "$2") && [ -n "$now" ] && [ "$now" != "$3" ]
}

qemu_pid() { pgrep -f -- "guest=.*$1|-uuid $1"; }
no_qemu() { ! qemu_pid "$1" >/dev/null; }

# Deletes what make_tenant made.
delete_tenant() {
  osc router unset --external-gateway router
  osc router remove subnet router subnet
  osc router delete router
  osc network delete net
  osc security group delete ssh
  osc image delete guest
  osc keypair delete demo
}

# Ends the cloud and proves that nothing of it is left on the machine.
end_cloud() {
  inside "$MARU" down --guests --data "$WORK/data" --instance "$NAME"
  wait "$pid" 2>/dev/null || true
  pid=
  local left
  left=$(leftovers)
  [ -z "$left" ] || die "left behind: $left"
  ip netns del "$NS"
  say "nothing left: no process, namespace, link, nft table or file of a guest"
}
leftovers() {
  ip netns list | awk '{print $1}' | grep -E "^$NAME[2-9]?(-|$)" || true
  inside ip -o link show | awk -F': ' '{print $2}' | grep -v '^lo' || true
  inside nft list tables 2>/dev/null || true
  pgrep -fa "$WORK" || true
  find "$WORK/data" \( -path '*servers/*' -o -path '*disks/*' -o -path '*/volumes/*' -o -path '*/exports/*' -o -path '*/keys/*' -o -name slice.json \) -type f 2>/dev/null || true
}
