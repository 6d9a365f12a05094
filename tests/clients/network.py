"""The commands of the network service."""


def walk(w):
    nets(w)
    ports(w)
    routers(w)
    security(w)
    address_groups(w)
    default_rules(w)
    pools(w)
    agents(w)
    sharing(w)
    segments(w)
    trunks(w)
    qos(w)
    flavors(w)
    forwarding(w)
    local_ips(w)
    helpers(w)
    topology(w)


def nets(w):
    w.do("network create --description one --mtu 1400 n1", by="network show n1", has=dict(name="n1", mtu=1400, description="one"))
    w.do("network list --name n1", row=dict(name="n1"))
    w.do("network set --name n2 --description two --tag red n1", by="network show n2", has=dict(description="two", tags={"red"}))
    w.do("network unset --tag red n2", by="network show n2", has=dict(tags=[]))
    w.do("network show n2", has=dict(name="n2", description="two"))
    w.do("subnet create --network n2 --subnet-range 10.31.0.0/24 --dns-nameserver 9.9.9.9 s1", by="subnet show s1",
         has=dict(cidr="10.31.0.0/24", dns_nameservers={"9.9.9.9"}))
    w.do("subnet list --network n2", row=dict(name="s1", subnet="10.31.0.0/24"))
    w.do("subnet show s1", has=dict(gateway_ip="10.31.0.1"))
    w.do("subnet set --name s2 --no-dhcp --dns-nameserver 1.1.1.1 --host-route destination=10.9.0.0/16,gateway=10.31.0.9 s1",
         by="subnet show s2", has=dict(enable_dhcp=False, dns_nameservers={"1.1.1.1"}, host_routes={"10.9.0.0/16"}))
    w.do("subnet unset --dns-nameserver 1.1.1.1 s2", by="subnet show s2", has=dict(dns_nameservers=["9.9.9.9"]))
    w.do("ip availability list", row=dict(network_name="n2", total_ips=253))
    w.do("ip availability show n2", has=dict(network_name="n2", used_ips=0))
    w.do("network create away", by="network list", row=dict(name="away"))
    w.do("subnet create --network away --subnet-range 10.32.0.0/24 away", by="subnet list", row=dict(name="away"))
    w.do("subnet delete away", gone="subnet show away")
    w.do("network delete away", gone="network show away")


def ports(w):
    w.do("port create --network n2 --fixed-ip subnet=s2,ip-address=10.31.0.50 --description p p1", by="port show p1",
         has=dict(description="p", fixed_ips={"10.31.0.50"}))
    w.do("port list --network n2", row=dict(name="p1"))
    w.do("port set --name p2 --allowed-address ip-address=10.31.0.77,mac-address=02:00:00:00:00:77 --tag blue p1", by="port show p2",
         has=dict(allowed_address_pairs={"10.31.0.77"}, tags={"blue"}))
    w.do("port show p2", has=dict(name="p2", fixed_ips={"10.31.0.50"}))
    w.do("port unset --allowed-address ip-address=10.31.0.77,mac-address=02:00:00:00:00:77 --tag blue p2", by="port show p2", has=dict(allowed_address_pairs=[], tags=[]))
    w.do("port create --network n2 p3", by="port list", row=dict(name="p3"))
    w.do("port delete p3", gone="port show p3")


def routers(w):
    w.do("router create --description r r0", by="router show r0", has=dict(description="r", status="ACTIVE"))
    w.do("router set --name r1 --disable r0", by="router show r1", has=dict(admin_state_up=False))
    w.quiet("router set --enable r1")
    w.do("router list", row=dict(name="r1"))
    w.do("router show r1", has=dict(name="r1", admin_state_up=True))
    w.do("router add subnet r1 s2", by="port list --router r1", row=dict(fixed_ip_addresses={"10.31.0.1"}))
    w.do("router add route --route destination=10.40.0.0/24,gateway=10.31.0.50 r1", by="router show r1", has=dict(routes={"10.40.0.0/24"}))
    w.do("router remove route --route destination=10.40.0.0/24,gateway=10.31.0.50 r1", by="router show r1", has=dict(routes=[]))
    w.do("router add gateway r1 public", by="router show r1", has=dict(external_gateway_info={"network_id"}))
    public = w.quiet("network show public")["id"]
    w.do("router remove gateway r1 public", by="router show r1", has=dict(external_gateway_info=lambda info: public not in str(info)))
    w.quiet("router set --external-gateway public r1")
    w.do("router unset --external-gateway r1", by="router show r1", has=dict(external_gateway_info=lambda info: public not in str(info)))
    w.quiet("network create n4")
    w.quiet("subnet create --network n4 --subnet-range 10.34.0.0/24 s4")
    w.quiet("port create --network n4 --fixed-ip subnet=s4,ip-address=10.34.0.1 rp")
    w.do("router add port r1 rp", by="port show rp", has=dict(device_owner="network:router_interface"))
    w.do("router remove port r1 rp", gone="port show rp")
    w.do("router remove subnet r1 s2", by="port list --router r1", norow=dict(fixed_ip_addresses={"10.31.0.1"}))
    w.quiet("router create r5")
    w.do("router delete r5", gone="router show r5")
    w.quiet("router add subnet r1 s2")
    w.quiet("router set --external-gateway public r1")
    ip = w.do("floating ip create --description f public", by="floating ip list", row=dict(fixed_ip_address=None))["floating_ip_address"]
    w.do("floating ip list", row=dict(floating_ip_address=ip))
    w.do(f"floating ip show {ip}", has=dict(description="f", floating_ip_address=ip))
    w.do(f"floating ip set --port p2 {ip}", by=f"floating ip show {ip}", has=dict(fixed_ip_address="10.31.0.50"))
    w.do(f"floating ip unset --port {ip}", by=f"floating ip show {ip}", has=dict(fixed_ip_address=None))
    w.do(f"floating ip delete {ip}", gone=f"floating ip show {ip}")


def security(w):
    w.do("security group create --description g g1", by="security group show g1", has=dict(description="g", stateful=True))
    w.do("security group list", row=dict(name="g1"))
    w.do("security group set --name g2 --tag t g1", by="security group show g2", has=dict(name="g2", tags={"t"}))
    w.do("security group unset --tag t g2", by="security group show g2", has=dict(tags=[]))
    w.do("security group show g2", has=dict(rules={"egress"}))
    rule = w.do("security group rule create --protocol tcp --dst-port 80:81 --remote-ip 10.0.0.0/8 g2", by="security group rule list g2",
                row=dict(ip_protocol="tcp", port_range="80:81", ip_range="10.0.0.0/8"))["id"]
    w.do("security group rule list g2", row=dict(id=rule))
    w.do(f"security group rule show {rule}", has=dict(port_range_min=80, port_range_max=81, protocol="tcp"))
    w.do(f"security group rule delete {rule}", by="security group rule list g2", norow=dict(id=rule))
    w.do("security group delete g2", gone="security group show g2")
    item = w.do("security group default statefulness create --stateless", by="security group default statefulness list",
                row=dict(stateful=False))["id"]
    w.do("security group default statefulness list", row=dict(id=item))
    w.do(f"security group default statefulness show {item}", has=dict(stateful=False))
    w.quiet("security group create g3")
    # What the setting is for: a group made now is stateless.
    w.do(f"security group default statefulness set --stateful {item}", by=f"security group default statefulness show {item}",
         has=dict(stateful=True))
    w.do(f"security group default statefulness delete {item}", by="security group default statefulness list", norow=dict(id=item))
    w.quiet("security group delete g3")


def address_groups(w):
    w.do("address group create --address 10.1.0.0/16 --description d ag0", by="address group show ag0",
         has=dict(description="d", addresses={"10.1.0.0/16"}))
    w.do("address group list", row=dict(name="ag0"))
    w.do("address group set --name ag1 --address 10.2.0.0/16 ag0", by="address group show ag1", has=dict(addresses={"10.1.0.0/16", "10.2.0.0/16"}))
    w.do("address group show ag1", has=dict(name="ag1"))
    w.do("address group unset --address 10.1.0.0/16 ag1", by="address group show ag1", has=dict(addresses=["10.2.0.0/16"]))
    w.do("address group delete ag1", gone="address group show ag1")


def default_rules(w):
    rule = w.do("default security group rule create --protocol tcp --dst-port 2222 --ingress --for-custom-sg", by="default security group rule list",
                row=dict(ip_protocol="tcp", port_range="2222:2222"))["id"]
    w.do("default security group rule list", row=dict(id=rule))
    w.do(f"default security group rule show {rule}", has=dict(protocol="tcp", port_range_min=2222))
    w.do("security group create walked", by="security group rule list walked", row=dict(ip_protocol="tcp", port_range="2222:2222"))
    w.do(f"default security group rule delete {rule}", by="default security group rule list", norow=dict(id=rule))
    w.quiet("security group delete walked")


def pools(w):
    w.do("address scope create --ip-version 4 as0", by="address scope show as0", has=dict(ip_version=4, shared=False))
    w.do("address scope set --name as1 as0", by="address scope show as1", has=dict(name="as1"))
    w.do("address scope list", row=dict(name="as1", ip_version=4))
    w.do("address scope show as1", has=dict(name="as1"))
    w.do("subnet pool create --pool-prefix 10.60.0.0/16 --default-prefix-length 26 --address-scope as1 sp0", by="subnet pool show sp0",
         has=dict(prefixes={"10.60.0.0/16"}, default_prefixlen=26))
    w.do("subnet pool set --name sp1 --pool-prefix 10.61.0.0/16 --tag t sp0", by="subnet pool show sp1",
         has=dict(prefixes=lambda p: "10.60" in str(p) and ("10.61" in str(p) or "10.60.0.0/15" in str(p)), tags={"t"}))
    w.do("subnet pool unset --tag t sp1", by="subnet pool show sp1", has=dict(tags=[]))
    w.do("subnet pool list", row=dict(name="sp1"))
    w.do("subnet pool show sp1", has=dict(name="sp1", min_prefixlen=8))
    w.quiet("network create n6")
    w.quiet("subnet create --network n6 --subnet-range 10.62.0.0/24 s6")
    w.quiet("subnet create --network n6 --subnet-range 10.63.0.0/24 s7")
    w.do("network onboard subnet n6 sp1", by="subnet show s6", has=dict(subnetpool_id=lambda v: v not in (None, "None", "")))
    w.quiet("network create n8")
    w.quiet("subnet create --network n8 --subnet-range 10.72.0.0/24 s8")
    w.quiet("subnet pool create --pool-prefix 10.71.0.0/16 sp8")
    w.do("subnet pool add network n8 sp8", by="subnet show s8", has=dict(subnetpool_id=lambda v: v not in (None, "None", "")))
    for net in ("n6", "n8"):
        w.quiet(f"network delete {net}")
    w.quiet("subnet pool delete sp8")
    w.do("subnet pool delete sp1", gone="subnet pool show sp1")
    w.do("address scope delete as1", gone="address scope show as1")


def agents(w):
    rows = w.do("network agent list", row=dict(alive=True)).rows
    dhcp = next((r["id"] for r in rows if "DHCP" in str(r["agent_type"])), "<missing>")
    l3 = next((r["id"] for r in rows if "L3" in str(r["agent_type"])), "<missing>")
    w.do(f"network agent show {l3}", has=dict(agent_type={"L3"}))
    w.do(f"network agent set --description walked {l3}", by=f"network agent show {l3}", has=dict(description="walked"))
    w.quiet(f"network agent set --description '' {l3}")
    w.quiet("router create ra")
    w.quiet("router set --external-gateway public ra")
    w.quiet(f"network agent remove router --l3 {l3} ra")
    w.do(f"network agent add router --l3 {l3} ra", by=f"router list --agent {l3}", row=dict(name="ra"), wait=20)
    w.do(f"network agent remove router --l3 {l3} ra", by=f"router list --agent {l3}", norow=dict(name="ra"), wait=20)
    w.quiet("router unset --external-gateway ra")
    w.quiet("router delete ra")
    w.quiet("network create na")
    w.quiet("subnet create --network na --subnet-range 10.36.0.0/24 sa")
    w.until(f"network list --agent {dhcp}", 20, row=dict(name="na"))
    w.do(f"network agent remove network --dhcp {dhcp} na", by=f"network list --agent {dhcp}", norow=dict(name="na"), wait=20)
    w.do(f"network agent add network --dhcp {dhcp} na", by=f"network list --agent {dhcp}", row=dict(name="na"), wait=20)
    w.quiet("network delete na")
    w.do(f"network agent router set --ha-chassis-priority 3 {l3} r1", by=f"network agent list --router r1 --long", row=dict(id=l3))
    w.do("network service provider list", row=dict(service_type="L3_ROUTER_NAT"))
    # An agent that is there comes back with its next report, so the one to delete has to be a dead one.
    w.do(f"network agent delete {w.dead_agent}", gone=f"network agent show {w.dead_agent}")


def sharing(w):
    project = w.quiet("project create walk-other")["id"]
    policy = w.do(f"network rbac create --type network --action access_as_shared --target-project {project} n2", by="network rbac list --long",
                  row=dict(object_type="network", action="access_as_shared"))["id"]
    w.do("network rbac list", row=dict(id=policy))
    w.do(f"network rbac show {policy}", has=dict(target_project_id=project))
    another = w.quiet("project create walk-another")["id"]
    w.do(f"network rbac set --target-project {another} {policy}", by=f"network rbac show {policy}", has=dict(target_project_id=another))
    w.do(f"network rbac delete {policy}", by="network rbac list", norow=dict(id=policy))
    w.quiet(f"project delete {project} {another}")
    w.do("network meter create --description m m1", by="network meter show m1", has=dict(description="m"))
    w.do("network meter list", row=dict(name="m1"))
    w.do("network meter show m1", has=dict(name="m1"))
    rule = w.do("network meter rule create --ingress --remote-ip-prefix 10.5.0.0/16 m1", by="network meter rule list",
                row=dict(remote_ip_prefix="10.5.0.0/16"))["id"]
    w.do("network meter rule list", row=dict(id=rule))
    w.do(f"network meter rule show {rule}", has=dict(direction="ingress", remote_ip_prefix="10.5.0.0/16"))
    w.do(f"network meter rule delete {rule}", by="network meter rule list", norow=dict(id=rule))
    w.do("network meter delete m1", gone="network meter show m1")


def segments(w):
    w.quiet("network create ns")
    w.do("network segment create --network ns --network-type vxlan --segment 777 --description d sg0", by="network segment list --long",
         row=dict(name="sg0", segment=777))
    w.do("network segment set --name sg1 sg0", by="network segment show sg1", has=dict(name="sg1"))
    w.do("network segment list --network ns", row=dict(name="sg1", network_type="vxlan"))
    w.do("network segment show sg1", has=dict(segmentation_id=777))
    w.do("network segment delete sg1", gone="network segment show sg1")
    w.quiet("network delete ns")
    w.do("network segment range create --shared --network-type vxlan --minimum 70000 --maximum 70009 nr0", by="network segment range show nr0",
         has=dict(minimum=70000, maximum=70009, shared=True))
    w.do("network segment range set --name nr1 --maximum 70019 nr0", by="network segment range show nr1", has=dict(maximum=70019))
    w.do("network segment range list", row=dict(name="nr1", minimum_id=70000))
    w.do("network segment range show nr1", has=dict(network_type="vxlan"))
    w.do("network segment range delete nr1", gone="network segment range show nr1")


def trunks(w):
    for port in ("tp", "ts1", "ts2"):
        w.quiet(f"port create --network n2 {port}")
    sub = w.quiet("port show ts1")["id"]
    second = w.quiet("port show ts2")["id"]
    w.do("network trunk create --parent-port tp --subport port=ts1,segmentation-type=vlan,segmentation-id=101 t0", by="network trunk show t0",
         has=dict(sub_ports={sub}, name="t0"))
    w.do("network trunk list", row=dict(name="t0"))
    w.do("network trunk set --name t1 --description d t0", by="network trunk show t1", has=dict(description="d"))
    w.do("network trunk show t1", has=dict(name="t1"))
    w.do("network subport list --trunk t1", row=dict(port=sub, segmentation_id=101))
    w.do("network trunk subport add --segmentation-type vlan --segmentation-id 102 t1 ts2", by="network trunk subport list t1",
         row=dict(port=second, segmentation_id=102))
    w.do("network trunk subport list t1", row=dict(port=sub))
    w.do("network trunk subport remove t1 ts2", by="network trunk subport list t1", norow=dict(port=second))
    w.do("network trunk unset --subport ts1 t1", by="network trunk subport list t1", norow=dict(port=sub))
    w.do("network trunk delete t1", gone="network trunk show t1")
    w.quiet("port delete tp ts1 ts2")


def qos(w):
    w.do("network qos policy create --description d q0", by="network qos policy show q0", has=dict(description="d", shared=False))
    w.do("network qos policy list", row=dict(name="q0"))
    w.do("network qos policy set --name q1 --share q0", by="network qos policy show q1", has=dict(shared=True))
    w.do("network qos policy show q1", has=dict(name="q1"))
    rule = w.do("network qos rule create --type bandwidth-limit --max-kbps 3000 --egress q1", by="network qos rule list q1",
                row=dict(type="bandwidth_limit", max_kbps=3000))["id"]
    w.do("network qos rule list q1", row=dict(id=rule))
    w.do(f"network qos rule set --max-kbps 4000 q1 {rule}", by=f"network qos rule show q1 {rule}", has=dict(max_kbps=4000))
    w.do(f"network qos rule show q1 {rule}", has=dict(direction="egress"))
    w.do(f"network qos rule delete q1 {rule}", by="network qos rule list q1", norow=dict(id=rule))
    w.do("network qos rule type list", row=dict(type="bandwidth_limit"))
    w.do("network qos rule type show bandwidth_limit", has=dict(rule_type_name="bandwidth_limit"))
    w.do("network qos policy delete q1", gone="network qos policy show q1")


def flavors(w):
    w.do("network flavor create --service-type L3_ROUTER_NAT --description d f0", by="network flavor show f0", has=dict(description="d"))
    w.do("network flavor list", row=dict(name="f0"))
    w.do("network flavor set --name f1 --disable f0", by="network flavor show f1", has=dict(enabled=False))
    w.do("network flavor show f1", has=dict(service_type="L3_ROUTER_NAT"))
    profile = w.do("network flavor profile create --description d --metainfo '{}'", by="network flavor profile list", row=dict(description="d"))["id"]
    w.do("network flavor profile list", row=dict(id=profile))
    w.do(f"network flavor profile set --description e {profile}", by=f"network flavor profile show {profile}", has=dict(description="e"))
    w.do(f"network flavor profile show {profile}", has=dict(id=profile))
    w.do(f"network flavor add profile f1 {profile}", by="network flavor show f1", has=dict(service_profile_ids={profile}))
    w.do(f"network flavor remove profile f1 {profile}", by="network flavor show f1", has=dict(service_profile_ids=[]))
    w.do(f"network flavor profile delete {profile}", gone=f"network flavor profile show {profile}")
    w.do("network flavor delete f1", gone="network flavor show f1")


def forwarding(w):
    ip = w.quiet("floating ip create public")["floating_ip_address"]
    port = w.quiet("port show p2")["id"]
    item = w.do(f"floating ip port forwarding create --internal-ip-address 10.31.0.50 --port {port} --internal-protocol-port 80 "
                f"--external-protocol-port 8080 --protocol tcp {ip}", by=f"floating ip port forwarding list {ip}",
                row=dict(internal_port=80, external_port=8080))["id"]
    w.do(f"floating ip port forwarding list {ip}", row=dict(id=item))
    w.do(f"floating ip port forwarding set --external-protocol-port 8081 {ip} {item}", by=f"floating ip port forwarding show {ip} {item}",
         has=dict(external_port=8081))
    w.do(f"floating ip port forwarding show {ip} {item}", has=dict(internal_port=80, protocol="tcp"))
    w.do(f"floating ip port forwarding delete {ip} {item}", by=f"floating ip port forwarding list {ip}", norow=dict(id=item))
    w.quiet(f"floating ip delete {ip}")


def local_ips(w):
    item = w.do("local ip create --name l0 --network n2", by="local ip list", row=dict(name="l0"))["id"]
    w.do("local ip list", row=dict(name="l0"))
    w.do("local ip set --name l1 --description d l0", by="local ip show l1", has=dict(description="d"))
    w.do("local ip show l1", has=dict(id=item))
    port = w.quiet("port show p2")["id"]
    w.do(f"local ip association create l1 {port}", by="local ip association list l1", row=dict(fixed_port_id=port))
    w.do("local ip association list l1", row=dict(fixed_port_id=port))
    w.do(f"local ip association delete l1 {port}", by="local ip association list l1", norow=dict(fixed_port_id=port))
    w.do("local ip delete l1", gone="local ip show l1")


def helpers(w):
    item = w.do("network l3 conntrack helper create --helper tftp --protocol udp --port 69 r1", by="network l3 conntrack helper list r1",
                row=dict(helper="tftp", port=69))["id"]
    w.do("network l3 conntrack helper list r1", row=dict(id=item))
    w.do(f"network l3 conntrack helper set --port 70 r1 {item}", by=f"network l3 conntrack helper show r1 {item}", has=dict(port=70))
    w.do(f"network l3 conntrack helper show r1 {item}", has=dict(helper="tftp", protocol="udp"))
    w.do(f"network l3 conntrack helper delete r1 {item}", by="network l3 conntrack helper list r1", norow=dict(id=item))
    # An address that the router hands through as it is wants IPv6 and an external network with an address scope.
    w.quiet("address scope create --ip-version 6 --share nas")
    w.quiet("subnet pool create --pool-prefix fd00:77::/48 --default-prefix-length 64 --address-scope nas npool")
    w.quiet("network create --external next")
    w.quiet("subnet create --network next --ip-version 6 --subnet-pool npool nexts")
    w.quiet("network create nin")
    w.quiet("subnet create --network nin --ip-version 6 --subnet-pool npool nins")
    # The client gives the gateway in a second call where a router may have several, and asks for the proxy in the first.
    w.quiet("router create --external-gateway next nr")
    w.quiet("router set --enable-ndp-proxy nr")
    w.quiet("router add subnet nr nins")
    w.quiet("port create --network nin nport")
    w.do("router ndp proxy create --name nd0 --port nport nr", by="router ndp proxy show nd0", has=dict(name="nd0"))
    w.do("router ndp proxy list", row=dict(name="nd0"))
    w.do("router ndp proxy set --name nd1 nd0", by="router ndp proxy show nd1", has=dict(name="nd1"))
    w.do("router ndp proxy show nd1", has=dict(name="nd1"))
    w.do("router ndp proxy delete nd1", gone="router ndp proxy show nd1")
    w.quiet("router remove subnet nr nins")
    for what in ("router delete nr", "port delete nport", "network delete nin", "network delete next", "subnet pool delete npool",
                 "address scope delete nas"):
        w.quiet(what)


def topology(w):
    project = w.quiet("token issue")["project_id"]
    w.quiet("subnet pool create --pool-prefix 10.90.0.0/16 --default-prefix-length 26 --default --share auto4")
    w.quiet("network set --default public")
    item = w.do("network auto allocated topology create --or-show", by="network list --internal", row=dict(name="auto_allocated_network"))["id"]
    w.do("network auto allocated topology delete", gone=f"network show {item}")
    w.quiet("network set --no-default public")
    w.quiet("subnet pool delete auto4")
    w.quiet("router unset --external-gateway r1")
    w.quiet("router remove subnet r1 s2")
    w.quiet("router delete r1")
    w.quiet("port delete p2")
    w.quiet("network delete n2 n4")
    assert project
