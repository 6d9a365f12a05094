"""The commands of the block storage service."""
import os

import compute


def walk(w):
    volumes(w)
    snapshots(w)
    types(w)
    qos(w)
    backups(w)
    transfers(w)
    attachments(w)
    groups(w)
    consistency_groups(w)
    services(w)


def ready(w, what, name, status="available"):
    w.until(f"{what} show {name}", 60, has=dict(status=status))


def volumes(w):
    w.do("volume create --size 1 --description d --property a=b v0", by="volume show v0", has=dict(size=1, description="d",
         status="available", properties={"b"}), wait=60)
    w.do("volume set --name v1 --property c=d --size 2 v0", by="volume show v1", has=dict(size=2, properties={"c"}, status="available"), wait=30)
    w.do("volume unset --property c v1", by="volume show v1", has=dict(properties=lambda p: "'c'" not in str(p)))
    w.do("volume list", row=dict(name="v1", size=2))
    w.do("volume show v1", has=dict(name="v1", size=2))
    w.do("volume summary", has=dict(total_count=lambda n: int(n) >= 1))
    w.quiet("volume create --size 1 gone")
    ready(w, "volume", "gone")
    w.do("volume delete gone", gone="volume show gone", wait=30)


def snapshots(w):
    w.do("volume snapshot create --volume v1 --description d --property a=b sn0", by="volume snapshot show sn0",
         has=dict(status="available", description="d", properties={"b"}), wait=60)
    w.do("volume snapshot set --name sn1 --property c=d sn0", by="volume snapshot show sn1", has=dict(properties={"c"}))
    w.do("volume snapshot unset --property c sn1", by="volume snapshot show sn1", has=dict(properties=lambda p: "'c'" not in str(p)))
    w.do("volume snapshot list", row=dict(name="sn1"))
    w.do("volume snapshot show sn1", has=dict(name="sn1", size=2))
    w.do("volume revert sn1", by="volume show v1", has=dict(status="available"), wait=60)
    w.do("volume snapshot delete sn1", gone="volume snapshot show sn1", wait=30)


def types(w):
    w.do("volume type create --description d --property a=b t0", by="volume type show t0", has=dict(description="d", properties={"b"}))
    w.do("volume type set --name t1 --property c=d t0", by="volume type show t1", has=dict(properties={"c"}))
    w.do("volume type unset --property c t1", by="volume type show t1", has=dict(properties=lambda p: "'c'" not in str(p)))
    w.do("volume type list", row=dict(name="t1"))
    w.do("volume type show t1", has=dict(name="t1"))
    w.quiet("volume type create t2")
    w.do("volume type delete t2", gone="volume type show t2")


def qos(w):
    w.do("volume qos create --consumer front-end --property read_iops_sec=100 q0", by="volume qos show q0", has=dict(consumer="front-end",
         properties={"100"}))
    w.do("volume qos set --property write_iops_sec=50 q0", by="volume qos show q0", has=dict(properties={"write_iops_sec"}))
    w.do("volume qos unset --property write_iops_sec q0", by="volume qos show q0", has=dict(properties=lambda p: "write" not in str(p)))
    w.do("volume qos list", row=dict(name="q0"))
    w.do("volume qos show q0", has=dict(name="q0"))
    w.do("volume qos associate q0 t1", by="volume qos show q0", has=dict(associations={"t1"}))
    w.do("volume qos disassociate --volume-type t1 q0", by="volume qos show q0", has=dict(associations=lambda a: "t1" not in str(a)))
    w.do("volume qos delete q0", gone="volume qos show q0", wait=10)


def backups(w):
    w.do("volume backup create --name b0 --description d v1", by="volume backup show b0", has=dict(status="available", description="d"), wait=90)
    w.do("volume backup list", row=dict(name="b0"))
    w.do("volume backup show b0", has=dict(name="b0", size=2))
    w.do("volume backup set --name b1 --property x=y b0", by="volume backup show b1", has=dict(name="b1"),
         env=dict(OS_VOLUME_API_VERSION="3.71"), by_env=dict(OS_VOLUME_API_VERSION="3.71"))
    w.do("volume backup unset --property x b1", by="volume backup show b1", has=dict(name="b1"),
         env=dict(OS_VOLUME_API_VERSION="3.71"), by_env=dict(OS_VOLUME_API_VERSION="3.71"))
    w.quiet("volume create --size 2 back")
    ready(w, "volume", "back")
    w.do("volume backup restore --force b1 back", by="volume show back", has=dict(status="available", size=2), wait=90)
    ready(w, "volume backup", "b1")
    record = w.do("volume backup record export b1", has=dict(backup_service=lambda v: bool(v), backup_url=lambda v: bool(v)))
    w.do("volume backup delete b1", gone="volume backup show b1", wait=60)
    item = w.do(["volume", "backup", "record", "import", record["backup_service"], record["backup_url"]], by="volume backup list",
                row=dict(status="available"), wait=30)["id"]
    w.quiet(f"volume backup delete {item}")
    w.quiet("volume delete back")


def transfers(w):
    w.quiet("volume create --size 1 moving")
    ready(w, "volume", "moving")
    made = w.do("volume transfer request create --name tr0 moving", by="volume show moving", has=dict(status="awaiting-transfer"))
    w.do("volume transfer request list", row=dict(name="tr0"))
    w.do("volume transfer request show tr0", has=dict(name="tr0"))
    project = w.quiet("project create walk-taker")["id"]
    w.quiet(f"role add --user {w.user} --project {project} member")
    w.quiet(f"role add --user {w.user} --project {project} admin")
    taker = dict(OS_PROJECT_NAME="walk-taker")
    w.do(f"volume transfer request accept --auth-key {made['auth_key']} {made['id']}", env=taker, by="volume list", row=dict(name="moving"))
    w.quiet("volume delete moving", env=taker)
    w.quiet("volume create --size 1 staying")
    ready(w, "volume", "staying")
    # By its id: the client looks up no names here.
    offer = w.quiet("volume transfer request create --name tr1 staying")["id"]
    w.do(f"volume transfer request delete {offer}", by="volume show staying", has=dict(status="available"))
    w.quiet("volume delete staying")
    w.until("volume list --all-projects", 20, norow=dict(name="moving"))
    w.quiet(f"project delete {project}")


def attachments(w):
    new = dict(OS_VOLUME_API_VERSION="3.54")
    compute.network(w, "vnet")
    compute.image(w, "vguest")
    w.quiet("server create --image vguest --flavor m1.nano --network vnet --wait vserver")
    item = w.do("volume attachment create --no-connect v1 --server vserver", env=new, by="volume attachment list --status reserved", by_env=new,
                row=dict(volume_id=lambda v: bool(v)))["id"]
    w.do("volume attachment list", env=new, row=dict(id=item))
    w.do(f"volume attachment show {item}", env=new, has=dict(id=item))
    w.do(f"volume attachment set --host walked --ip 127.0.0.1 --initiator iqn.walked {item}", env=new, by=f"volume attachment show {item}", by_env=new,
         has=dict(status="attaching"))
    w.do(f"volume attachment complete {item}", env=new, by=f"volume attachment show {item}", by_env=new, has=dict(status="attached"))
    w.do(f"volume attachment delete {item}", env=new, by="volume show v1", has=dict(status="available"), wait=20)
    w.quiet("server delete --wait vserver")


def groups(w):
    new = dict(OS_VOLUME_API_VERSION="3.71")
    opts = dict(env=new, by_env=new)
    kind = w.do("volume group type create --description d gt0", by="volume group type show gt0", has=dict(description="d"), **opts)["id"]
    # By its id: the client looks it up again when it has its new name.
    w.do(f"volume group type set --name gt1 --description e {kind}", by="volume group type show gt1", has=dict(description="e"), **opts)
    w.do("volume group type list", row=dict(name="gt1"), **opts)
    w.do("volume group type show gt1", has=dict(name="gt1"), **opts)
    w.quiet("volume type unset --property a t1")
    w.do("volume group create --volume-group-type gt1 --volume-type t1 --name gr0", by="volume group show gr0",
         has=dict(status="available"), wait=30, **opts)
    w.do("volume group set --name gr1 --description d gr0", by="volume group show gr1", has=dict(description="d"), **opts)
    w.do("volume group list", row=dict(name="gr1"), **opts)
    w.do("volume group show gr1", has=dict(name="gr1"), **opts)
    w.quiet("volume create --size 1 --type t1 member")
    ready(w, "volume", "member")
    member = w.quiet("volume show member")["id"]
    w.do("volume group add volume gr1 member", by="volume group show --volumes gr1", has=dict(volumes={member}), wait=20, **opts)
    w.do("volume group snapshot create --name gs0 gr1", by="volume group snapshot show gs0", has=dict(status="available"), wait=60, **opts)
    w.do("volume group snapshot list", row=dict(name="gs0"), **opts)
    w.do("volume group snapshot show gs0", has=dict(name="gs0"), **opts)
    w.do("volume group snapshot delete gs0", gone="volume group snapshot show gs0", wait=30, **opts)
    w.do("volume group remove volume gr1 member", by="volume group show --volumes gr1", has=dict(volumes=lambda v: member not in str(v)), wait=20,
         **opts)
    w.do("volume group failover gr1", by="volume group show gr1", has=dict(replication_status=lambda s: "fail" in str(s)), **opts)
    w.do("volume group delete --force gr1", gone="volume group show gr1", wait=30, **opts)
    w.do("volume group type delete gt1", gone="volume group type show gt1", **opts)
    w.quiet("volume delete member")


def consistency_groups(w):
    member = w.quiet("volume create --size 1 --type __DEFAULT__ cmember")["id"]
    ready(w, "volume", "cmember")
    inside = lambda group: lambda sdk: sdk.block_storage.get(f"/volumes/{member}", microversion="3.13").json()["volume"]["group_id"] == group
    made = w.do("consistency group create --volume-type __DEFAULT__ --description d c0", by="consistency group show c0",
                has=dict(description="d", status="available"), wait=10)["id"]
    w.do("consistency group list", row=dict(name="c0"))
    w.do("consistency group set --name c1 c0", by="consistency group show c1", has=dict(name="c1"))
    w.do("consistency group show c1", has=dict(name="c1", volume_types=lambda t: len(t) == 1))
    w.do("consistency group add volume c1 cmember", by_sdk=inside(made))
    w.do("consistency group snapshot create --consistency-group c1 cs0", by="consistency group snapshot show cs0",
         has=dict(name="cs0", status="available"), wait=30)
    # openstacksdk takes what the client leaves open for a filter of its own: only both options together let anything through.
    w.do("consistency group snapshot list --status available --consistency-group c1", row=dict(name="cs0"))
    w.do("consistency group snapshot show cs0", has=dict(name="cs0", consistencygroup_id=made))
    w.do("consistency group snapshot delete cs0", gone="consistency group snapshot show cs0", wait=30)
    w.do("consistency group remove volume c1 cmember", by_sdk=inside(None))
    w.do("consistency group delete c1", gone="consistency group show c1", wait=10)
    w.quiet("volume delete cmember")


def services(w):
    new = dict(OS_VOLUME_API_VERSION="3.71")
    rows = w.do("volume service list", row=dict(binary="cinder-volume", state="up")).rows
    host = next((r["host"] for r in rows if r["binary"] == "cinder-volume"), "<missing>")
    w.do(f"volume service set --disable --disable-reason walked {host} cinder-volume", by="volume service list --long",
         row=dict(host=host, status="disabled", disabled_reason="walked"))
    w.quiet(f"volume service set --enable {host} cinder-volume")
    pool = w.do("volume backend pool list", row=dict(name=lambda n: "#" in str(n))).find()["name"]
    w.do(f"volume backend capability show {host}", text="[", by_sdk=lambda sdk: sdk.block_storage.get_capabilities(host).storage_protocol)
    # A host that is set so is frozen, which only the service's own record tells.
    frozen = lambda sdk: [s.is_frozen for s in sdk.block_storage.services(host=host)]
    w.do(f"volume host set --disable {host}", by_sdk=lambda sdk: True in frozen(sdk))
    w.quiet(f"volume host set --enable {host}")
    w.do(f"volume host failover --volume-backend other {host}", by="volume service list", row=dict(host=host))
    w.do("block storage resource filter list", row=dict(resource="volume"), env=new)
    w.do("block storage resource filter show volume", has=dict(resource="volume"), env=new)
    w.do(f"block storage log level list --host {host} --service cinder-volume", row=dict(host=host), env=new)
    w.do(f"block storage log level set --host {host} --service cinder-volume debug", env=new, by=f"block storage log level list --host {host} --service cinder-volume", by_env=new,
         row=dict(level="DEBUG"))
    w.quiet(f"block storage log level set --host {host} --service cinder-volume info", env=new)
    w.do("block storage cluster list", env=new, row=dict(name=lambda n: bool(n)))
    cluster = w.quiet("block storage cluster list", env=new).find()["name"]
    w.do(f"block storage cluster show {cluster}", env=new, has=dict(name=cluster))
    w.do(f"block storage cluster set --disable {cluster}", env=new, by=f"block storage cluster show {cluster}", by_env=new, has=dict(status="disabled"))
    w.do("block storage cleanup", env=new, row=dict(host=host))
    manageable(w, pool)
    w.do(f"volume migrate --host {pool} v1", by="volume show v1", has=dict(migration_status=lambda s: "success" in str(s)), wait=60)
    # No node is as large: the failure leaves a message.
    w.quiet(f"quota set --gigabytes -1 {w.project}")
    w.quiet("volume create --image vguest --size 65536 huge")
    item = w.do("volume message list", env=new, row=dict(resource_type="VOLUME"), wait=20).find()["id"]
    w.do(f"volume message show {item}", env=new, has=dict(id=item))
    w.do(f"volume message delete {item}", env=new, by="volume message list", by_env=new,
         norow=dict(id=item))
    for line in ("volume delete v1 huge", "image delete vguest", "network delete vnet", "volume type delete t1"):
        w.quiet(line)
    assert os


def manageable(w, pool):
    """What is on the back end and not known: left there by giving up a volume's and a snapshot's record."""
    new = dict(OS_VOLUME_API_VERSION="3.71")
    left = w.quiet("volume create --size 1 left")["id"]
    ready(w, "volume", "left")
    w.quiet("volume delete --remote left")
    w.do(f"block storage volume manageable list {pool}", env=new, wait=20,
         row=dict(reference={left}, size=1, safe_to_manage=True))
    w.quiet("volume create --size 1 holder")
    ready(w, "volume", "holder")
    snap = w.quiet("volume snapshot create --volume holder left")["id"]
    ready(w, "volume snapshot", "left")
    w.quiet("volume snapshot delete --remote left")
    w.do(f"block storage snapshot manageable list {pool}", env=new, wait=20,
         row=dict(reference={snap}, size=1, safe_to_manage=True, source_reference=lambda s: "volume-" in str(s)))
    # Known again, and so removed for good.
    w.quiet(f"volume create --host {pool} --remote-source source-name=volume-{left} back", env=new)
    ready(w, "volume", "back")
    w.quiet(f"volume snapshot create --volume holder --remote-source source-name=_snapshot-{snap} back", env=new)
    ready(w, "volume snapshot", "back")
    w.quiet("volume snapshot delete back")
    w.until("volume snapshot list", 30, norow=dict(name="back"))
    w.quiet("volume delete back holder")
