"""The commands that ask several services."""
import os


def walk(w):
    w.do("availability zone list", row=dict(zone_name="nova", zone_status="available"))
    w.do("configuration show", text=os.environ["OS_USERNAME"])
    w.do("extension list --network", row=dict(alias="router"))
    w.do("extension show router", has=dict(alias="router"))
    w.do("versions show", row=dict(service_type="identity", status="CURRENT"))
    other = w.quiet("project create walk-quota")["id"]
    w.do(f"quota set --cores 7 --volumes 6 --networks 5 {other}", by=f"quota show {other}", row=dict(resource="cores", limit=7))
    w.do(f"quota show {other}", row=dict(resource="volumes", limit=6))
    w.do(f"quota show {other}", row=dict(resource="networks", limit=5))
    w.do("quota list --compute", row=dict(cores=7, project_id=lambda p: bool(p)))
    w.do(f"quota delete {other}", by=f"quota show {other}", row=dict(resource="cores", limit=lambda n: n != 7))
    w.do("limits show --absolute", row=dict(name=lambda n: "core" in n.lower(), value=lambda n: int(n) > 0))
    w.quiet(f"role add --user {w.user} --project {other} admin")
    w.quiet(f"role add --user {w.user} --project {other} member")
    inside = dict(OS_PROJECT_NAME="walk-quota")
    w.quiet("network create cleaned", env=inside)
    w.quiet("volume create --size 1 cleaned", env=inside)
    w.quiet("security group create cleaned", env=inside)
    w.do("project cleanup --auto-approve --auth-project", env=inside, by="network list", by_env=inside, norow=dict(name="cleaned"), wait=30)
    w.do("cloud cache delete", by="versions show", row=dict(service_type="identity"))
    w.quiet(f"project delete {other}")
