"""The commands of the image service."""
import os


def walk(w):
    guest = w.guest
    w.do(f"image create --disk-format qcow2 --container-format bare --property k=v --tag t --file {guest} i0", by="image show i0",
         has=dict(status="active", size=os.path.getsize(guest), tags={"t"}))
    w.do("image set --name i1 --property os_distro=walked --min-disk 1 i0", by="image show i1", has=dict(min_disk=1, properties={"walked"}))
    w.do("image unset --tag t --property k i1", by="image show i1", has=dict(tags=[], properties=lambda p: "'k'" not in str(p)))
    w.do("image list", row=dict(name="i1", status="active"))
    w.do("image show i1", has=dict(name="i1", disk_format="qcow2"))
    saved = os.path.join(w.work, "saved")
    w.do(f"image save --file {saved} i1", by="image show i1",
         has=dict(size=lambda size: os.path.getsize(saved) == int(size) and open(saved, "rb").read(4) == b"QFI\xfb"))
    other = w.quiet("project create walk-images")["id"]
    w.quiet("image set --shared i1")
    w.do(f"image add project i1 {other}", by="image member list i1", row=dict(member_id=other, status="pending"))
    w.do("image member list i1", row=dict(member_id=other))
    w.do(f"image member get i1 {other}", has=dict(member_id=other, status="pending"))
    w.do(f"image remove project i1 {other}", by="image member list i1", norow=dict(member_id=other))
    w.quiet(f"project delete {other}")
    w.do("image import info", has={"import-methods": {"glance-direct"}})
    w.do("image stores list", row=dict(id=lambda v: bool(v)))
    store = w.quiet("image stores list").find()["id"]
    w.quiet("image create --disk-format qcow2 --container-format bare i2")
    w.do(f"image stage --file {guest} i2", by="image show i2", has=dict(status="uploading"))
    w.do("image import --method glance-direct i2", by="image show i2", has=dict(status="active", size=os.path.getsize(guest)), wait=60)
    task = w.do("image task list", row=dict(type="api_image_import")).find(type="api_image_import")["id"]
    w.do(f"image task show {task}", has=dict(type="api_image_import", status="success"))
    w.do("cached image queue i2", by="cached image list", row=dict(state=lambda v: v in ("queued", "cached")))
    w.do("cached image list", row=dict(state=lambda v: v in ("queued", "cached")))
    second = w.quiet("image show i2")["id"]
    w.do(f"cached image delete {second}", by="cached image list", norow=dict(id=second))
    w.quiet("cached image queue i2")
    w.do("cached image clear", by="cached image list", norow=dict(id=second))
    assert store
    w.do("image delete i2", gone="image show i2")
    w.quiet("image delete i1")
    metadefs(w)


def metadefs(w):
    w.do("image metadef namespace create --display-name shown --description d WALK", by="image metadef namespace show WALK",
         has=dict(namespace="WALK", display_name="shown"))
    w.do("image metadef namespace list", row=dict(namespace="WALK"))
    w.do("image metadef namespace set --description other --tag t1 --tag t2 --public WALK", by="image metadef namespace show WALK",
         has=dict(description="other", visibility="public", tags={"t1", "t2"}))
    w.do("image metadef namespace show WALK", has=dict(namespace="WALK"))
    w.do("image metadef namespace unset --tag t1 WALK", by="image metadef namespace show WALK",
         has=dict(tags=lambda t: "t2" in str(t) and "t1" not in str(t)))
    w.do("image metadef object create --namespace WALK obj", by="image metadef object show WALK obj", has=dict(name="obj"))
    w.do("image metadef object list WALK", row=dict(name="obj"))
    w.do("image metadef object show WALK obj", has=dict(namespace_name="WALK"))
    w.do("image metadef object update --name obj2 WALK obj", by="image metadef object list WALK", row=dict(name="obj2"))
    w.with_object_property("WALK", "with", "prop")
    w.do("image metadef object property show WALK with prop", has=dict(name="prop", type="string"))
    w.do("image metadef object delete WALK obj2", by="image metadef object list WALK", norow=dict(name="obj2"))
    w.do(["image", "metadef", "property", "create", "--name", "p0", "--title", "P", "--type", "string", "--schema", "{}", "WALK"],
         by="image metadef property show WALK p0", has=dict(title="P", type="string"))
    w.do("image metadef property list WALK", row=dict(name="p0"))
    w.do("image metadef property show WALK p0", has=dict(name="p0"))
    w.do(["image", "metadef", "property", "set", "--title", "Q", "--type", "integer", "--schema", "{}", "WALK", "p0"],
         by="image metadef property show WALK p0", has=dict(title="Q", type="integer"))
    w.do("image metadef property delete WALK p0", by="image metadef property list WALK", norow=dict(name="p0"))
    w.do("image metadef resource type association create --properties-target image WALK OS::Nova::Server",
         by="image metadef resource type association list WALK", row=dict(name="OS::Nova::Server"))
    w.do("image metadef resource type association list WALK", row=dict(name="OS::Nova::Server"))
    w.do("image metadef resource type list", row=dict(name="OS::Nova::Server"))
    w.do("image metadef resource type association delete WALK OS::Nova::Server", by="image metadef resource type association list WALK",
         norow=dict(name="OS::Nova::Server"))
    w.do("image metadef namespace delete WALK", gone="image metadef namespace show WALK")
