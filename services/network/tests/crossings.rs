//! Two requests planned on one snapshot that must not both happen: whichever commits second conflicts.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
use common::*;
use maru_network_model::router_plan::{GatewayRequest, InterfaceRequest, RouterChange};
use maru_network_model::{self as m, router_plan};
use maru_store::{Snapshot, Txn};
use serde_json::json;

/// What a request plans on a snapshot.
type Plan = Box<dyn Fn(&Snapshot, &mut Txn)>;

struct World {
    cloud: Cloud,
    public: String,
    net: String,
    sub: String,
    slaac: String,
    port: String,
    router: String,
    bare_router: String,
    fip: String,
    group: String,
}

async fn world() -> World {
    let c = cloud();
    c.node("n1").await;
    let public = c.external().await;
    let net = c.network(A).await;
    let sub = c.subnet(A, &net, "10.0.0.0/24").await;
    let slaac = json!({"network_id": net, "cidr": "2001:db8::/64", "ip_version": 6, "ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"});
    let slaac = id(&c.make(A, "/v2.0/subnets", "subnet", slaac).await);
    let port = id(&c.port(A, &net).await);
    let gateway = json!({"name": "r", "external_gateway_info": {"network_id": public}});
    let router = id(&c.make(A, "/v2.0/routers", "router", gateway).await);
    let bare_router = id(&c.make(A, "/v2.0/routers", "router", json!({})).await);
    let add = format!("/v2.0/routers/{router}/add_router_interface");
    c.want(200, A, "PUT", &add, json!({ "subnet_id": sub })).await;
    let fip = id(&c
        .make(
            A,
            "/v2.0/floatingips",
            "floatingip",
            json!({"floating_network_id": public}),
        )
        .await);
    let group = id(&c
        .make(A, "/v2.0/security-groups", "security_group", json!({"name": "g"}))
        .await);
    World {
        cloud: c,
        public,
        net,
        sub,
        slaac,
        port,
        router,
        bare_router,
        fip,
        group,
    }
}

/// Runs both orders: each plan alone commits, the second of a pair conflicts.
async fn never_both(what: &str, make: impl Fn(&World) -> (Plan, Plan)) {
    for swapped in [false, true] {
        let w = world().await;
        let (a, b) = make(&w);
        let (first, second) = if swapped { (b, a) } else { (a, b) };
        let snapshot = w.cloud.store.snapshot();
        let mut one = Txn::new();
        first(&snapshot, &mut one);
        let mut two = Txn::new();
        second(&snapshot, &mut two);
        w.cloud
            .store
            .commit(one)
            .await
            .unwrap_or_else(|e| panic!("{what} (swapped {swapped}), first: {e:?}"));
        let e = w
            .cloud
            .store
            .commit(two)
            .await
            .expect_err(&format!("{what} (swapped {swapped}): both happened"));
        assert!(e.is_conflict(), "{what}: {e:?}");
        w.cloud.audit();
    }
}

fn create_port(net: &str, sub: &str, change: impl Fn(&mut m::PortRequest) + 'static) -> Plan {
    let (net, sub) = (net.to_owned(), sub.to_owned());
    Box::new(move |s, txn| {
        let mut r = m::PortRequest::new(net.as_str().into(), "aaa".into());
        r.fixed_ips = Some(vec![m::FixedIpRequest::in_subnet(sub.as_str().into())]);
        change(&mut r);
        m::plan_create_port(s, txn, r).unwrap();
    })
}
fn delete_subnet(sub: &str) -> Plan {
    let sub = sub.to_owned();
    Box::new(move |s, txn| m::plan_delete_subnet(s, txn, &s.get::<m::Subnet>(&sub.as_str().into()).unwrap()).unwrap())
}
fn delete_port(port: &str) -> Plan {
    let port = port.to_owned();
    Box::new(move |s, txn| m::plan_delete_port(s, txn, &s.get::<m::Port>(&port.as_str().into()).unwrap()).unwrap())
}
fn associate(w: &World) -> Plan {
    let (fip, port) = (w.fip.clone(), m::PortId::from(&w.port));
    Box::new(move |s, txn| {
        let read = s.get::<m::FloatingIp>(&fip.as_str().into()).unwrap();
        m::plan_associate(s, txn, &read, Some(&port), None, |_| {}).unwrap();
    })
}
fn interface(router: &str, sub: &str, add: bool) -> Plan {
    let (router, sub) = (router.to_owned(), sub.to_owned());
    Box::new(move |s, txn| {
        let read = s.get::<m::Router>(&router.as_str().into()).unwrap();
        let request = InterfaceRequest {
            subnet_id: Some(sub.as_str().into()),
            port_id: None,
        };
        if add {
            router_plan::plan_add_interface(s, txn, &read, &request).unwrap();
        } else {
            router_plan::plan_remove_interface(s, txn, &read, &request).unwrap();
        }
    })
}
fn set_gateway(router: &str, network: Option<&str>) -> Plan {
    let (router, network) = (router.to_owned(), network.map(str::to_owned));
    Box::new(move |s, txn| {
        let read = s.get::<m::Router>(&router.as_str().into()).unwrap();
        let gateway = network.as_ref().map(|n| GatewayRequest {
            network_id: n.into(),
            enable_snat: None,
            external_fixed_ips: None,
        });
        let change = RouterChange {
            gateway: Some(gateway),
            ..RouterChange::default()
        };
        router_plan::plan_update_router(s, txn, &read, change).unwrap();
    })
}
fn create_subnet(net: &str, cidr: &'static str) -> Plan {
    let net = net.to_owned();
    Box::new(move |s, txn| {
        let r = m::SubnetRequest::new("aaa".into(), net.as_str().into(), cidr.parse().unwrap());
        m::plan_create_subnets(s, txn, vec![r]).unwrap();
    })
}
fn delete_group(group: &str) -> Plan {
    let group = group.to_owned();
    Box::new(move |s, txn| {
        let read = s.get::<m::SecurityGroup>(&group.as_str().into()).unwrap();
        m::plan_delete_group(s, txn, &read, false).unwrap();
    })
}

#[tokio::test]
async fn ports_and_what_they_stand_on() {
    never_both("port, deletion of its subnet", |w| {
        // The subnet must be free to go: a fresh one has the DHCP port alone.
        (
            create_port(&w.net, &w.slaac, |r| r.host = "n1".into()),
            delete_subnet(&w.slaac),
        )
    })
    .await;
    never_both("port, deletion of its group", |w| {
        let g = m::SecurityGroupId::from(&w.group);
        (
            create_port(&w.net, &w.sub, move |r| r.security_groups = Some(vec![g.clone()])),
            delete_group(&w.group),
        )
    })
    .await;
    never_both("two ports with one MAC", |w| {
        let p = || create_port(&w.net, &w.sub, |r| r.mac = Some("fa:16:3e:00:00:07".into()));
        (p(), p())
    })
    .await;
    never_both("two ports with one address", |w| {
        let p = || {
            create_port(&w.net, &w.sub, |r| {
                r.fixed_ips = Some(vec![m::FixedIpRequest {
                    subnet_id: None,
                    ip_address: Some("10.0.0.99".parse().unwrap()),
                }]);
            })
        };
        (p(), p())
    })
    .await;
    never_both("deletion of a port, twice", |w| {
        (delete_port(&w.port), delete_port(&w.port))
    })
    .await;
}

#[tokio::test]
async fn networks_and_what_is_on_them() {
    for (swapped, port) in [(false, false), (false, true), (true, false), (true, true)] {
        // A network of its own, so that it is free to go.
        let c = cloud();
        let net = c.network(A).await;
        c.subnet(A, &net, "10.0.0.0/24").await;
        let id = m::NetworkId::from(&net);
        let delete: Plan =
            Box::new(move |s, txn| m::plan_delete_network(s, txn, &s.get::<m::Network>(&id).unwrap()).unwrap());
        let id = m::NetworkId::from(&net);
        let create: Plan = if port {
            Box::new(move |s, txn| {
                let mut r = m::PortRequest::new(id.clone(), "aaa".into());
                r.fixed_ips = Some(Vec::new());
                m::plan_create_port(s, txn, r).unwrap();
            })
        } else {
            create_subnet(&net, "10.7.0.0/24")
        };
        let (first, second) = if swapped { (delete, create) } else { (create, delete) };
        let s = c.store.snapshot();
        let (mut one, mut two) = (Txn::new(), Txn::new());
        first(&s, &mut one);
        second(&s, &mut two);
        c.store.commit(one).await.unwrap();
        let e = c.store.commit(two).await.expect_err("both happened");
        assert!(e.is_conflict(), "{e:?}");
        c.audit();
    }
    never_both("two overlapping subnets", |w| {
        (
            create_subnet(&w.net, "10.8.0.0/24"),
            create_subnet(&w.net, "10.8.0.0/16"),
        )
    })
    .await;
    never_both("two bindings of one port", |w| {
        let port = w.port.clone();
        let bind: Plan = Box::new(move |s, txn| {
            let read = s.get::<m::Port>(&port.as_str().into()).unwrap();
            m::plan_bind_port(s, txn, &read, "n2", "server", "", "nova").unwrap();
        });
        let again: Plan = {
            let port = w.port.clone();
            Box::new(move |s, txn| {
                let read = s.get::<m::Port>(&port.as_str().into()).unwrap();
                m::plan_bind_port(s, txn, &read, "n3", "other", "", "nova").unwrap();
            })
        };
        (bind, again)
    })
    .await;
}

#[tokio::test]
async fn a_trunk_and_what_its_parent_does() {
    let port = |w: &World, id: &str| {
        let (id, net) = (m::PortId::from(id), w.net.clone());
        let create: Plan = Box::new(move |s, txn| {
            let mut r = m::PortRequest::new(net.as_str().into(), "aaa".into());
            r.name = id.to_string();
            m::plan_create_port(s, txn, r).unwrap();
        });
        create
    };
    let named = |s: &Snapshot, name: &str| s.list::<m::Port>().find(|p| p.name == name).unwrap();
    let trunk = |parent: m::PortId, subs: &[(m::PortId, u16)]| m::Trunk {
        project_id: "aaa".into(),
        name: String::new(),
        port_id: parent,
        sub_ports: subs
            .iter()
            .map(|(port_id, segmentation_id)| m::SubPort {
                port_id: port_id.clone(),
                segmentation_id: *segmentation_id,
            })
            .collect(),
        admin_state_up: true,
        meta: m::Meta::new(""),
    };
    for case in 0..5 {
        for swapped in [false, true] {
            let w = world().await;
            let commit = |plan: Plan| {
                let store = w.cloud.store.clone();
                async move {
                    let mut txn = Txn::new();
                    plan(&store.snapshot(), &mut txn);
                    store.commit(txn).await
                }
            };
            for name in ["parent", "sub", "more"] {
                commit(port(&w, name)).await.unwrap();
            }
            let create = move |subs: &'static [(&'static str, u16)]| -> Plan {
                Box::new(move |s, txn| {
                    let subs: Vec<_> = subs.iter().map(|(n, v)| (named(s, n).id, *v)).collect();
                    m::trunk::plan_create_trunk(s, txn, &trunk(named(s, "parent").id, &subs)).unwrap();
                })
            };
            let add = |name: &'static str| -> Plan {
                Box::new(move |s, txn| {
                    let read = s.list::<m::Trunk>().next().unwrap();
                    let sub = m::SubPort {
                        port_id: named(s, name).id,
                        segmentation_id: 9,
                    };
                    m::trunk::plan_add(s, txn, &read, &[sub]).unwrap();
                })
            };
            let bind: Plan = Box::new(move |s, txn| {
                m::plan_bind_port(s, txn, &named(s, "parent"), "n2", "server", "", "nova").unwrap();
            });
            let drop_sub: Plan = Box::new(move |s, txn| m::plan_delete_port(s, txn, &named(s, "more")).unwrap());
            if case != 0 {
                commit(create(&[("sub", 5)])).await.unwrap();
            }
            let (first, second): (Plan, Plan) = match case {
                0 => (create(&[("sub", 5)]), bind),
                1 => (add("more"), bind),
                2 => (add("more"), drop_sub),
                3 => (add("more"), add("more")),
                _ => (
                    Box::new(|s, txn| {
                        let read = s.list::<m::Trunk>().next().unwrap();
                        m::trunk::plan_delete_trunk(s, txn, &read).unwrap();
                    }),
                    bind,
                ),
            };
            let (first, second) = if swapped { (second, first) } else { (first, second) };
            let s = w.cloud.store.snapshot();
            let (mut one, mut two) = (Txn::new(), Txn::new());
            first(&s, &mut one);
            second(&s, &mut two);
            w.cloud.store.commit(one).await.unwrap();
            let crossed = w.cloud.store.commit(two).await.expect_err("both happened");
            assert!(crossed.is_conflict(), "case {case}: {crossed:?}");
            w.cloud.audit();
        }
    }
}

#[tokio::test]
async fn a_removal_report_that_crosses_a_binding_is_planned_again() {
    let w = world().await;
    let c = &w.cloud;
    // A port was on n5 and is unbound, so the mark of n5 stays until n5 reports.
    let bind = |host: &'static str| {
        let port = w.port.clone();
        move |s: &Snapshot, txn: &mut Txn| {
            let read = s.get::<m::Port>(&port.as_str().into()).unwrap();
            m::plan_bind_port(s, txn, &read, host, "server", "", "nova").unwrap();
        }
    };
    let commit = |plan: Plan| {
        let store = c.store.clone();
        async move {
            let mut txn = Txn::new();
            plan(&store.snapshot(), &mut txn);
            store.commit(txn).await.unwrap();
        }
    };
    commit(Box::new(bind("n5"))).await;
    let port = w.port.clone();
    commit(Box::new(move |s, txn| {
        m::plan_unbind_port(s, txn, &s.get::<m::Port>(&port.as_str().into()).unwrap()).unwrap();
    }))
    .await;
    let s = c.store.snapshot();
    let net = m::NetworkId::from(&w.net);
    let mut report = Txn::new();
    m::plan_removed(&s, &mut report, "n5", &m::Removed::Network(net.clone())).unwrap();
    commit(Box::new(bind("n5"))).await;
    assert!(c.store.commit(report).await.unwrap_err().is_conflict());
    let mut report = Txn::new();
    m::plan_removed(
        &c.store.snapshot(),
        &mut report,
        "n5",
        &m::Removed::Network(net.clone()),
    )
    .unwrap();
    assert!(report.is_empty(), "the network is wanted there again");
    assert!(m::network_hosts(&c.store.snapshot(), &net).contains(&"n5".to_owned()));
}

#[tokio::test]
async fn routers_and_floating_ips() {
    never_both("association, removal of the interface", |w| {
        (associate(w), interface(&w.router, &w.sub, false))
    })
    .await;
    never_both("association, the gateway goes", |w| {
        (associate(w), set_gateway(&w.router, None))
    })
    .await;
    never_both("association, the port goes", |w| (associate(w), delete_port(&w.port))).await;
    never_both("two associations of one port", |w| {
        let port = m::PortId::from(&w.port);
        let public = w.public.clone();
        let new: Plan = Box::new(move |s, txn| {
            let r = m::FloatingIpRequest {
                project_id: "aaa".into(),
                network: public.as_str().into(),
                subnet: None,
                address: None,
                port: Some(port.clone()),
                fixed_ip: None,
                description: String::new(),
                dns_name: String::new(),
                dns_domain: String::new(),
                tags: Vec::new(),
            };
            m::plan_create_floating_ip(s, txn, r).unwrap();
        });
        (associate(w), new)
    })
    .await;
    never_both("interface, deletion of the router", |w| {
        let router = w.bare_router.clone();
        let delete: Plan = Box::new(move |s, txn| {
            router_plan::plan_delete_router(s, txn, &s.get::<m::Router>(&router.as_str().into()).unwrap()).unwrap();
        });
        let add: Plan = {
            let (router, net) = (w.bare_router.clone(), w.net.clone());
            Box::new(move |s, txn| {
                let port = s
                    .find::<m::Port>("network", &net)
                    .find(|p| p.value.device_id.is_empty())
                    .unwrap();
                let request = InterfaceRequest {
                    port_id: Some(port.id.clone()),
                    subnet_id: None,
                };
                router_plan::plan_add_interface(
                    s,
                    txn,
                    &s.get::<m::Router>(&router.as_str().into()).unwrap(),
                    &request,
                )
                .unwrap();
            })
        };
        (add, delete)
    })
    .await;
    never_both("two gateways", |w| {
        (
            set_gateway(&w.bare_router, Some(&w.public)),
            set_gateway(&w.bare_router, Some(&w.public)),
        )
    })
    .await;
}

#[tokio::test]
async fn rules_and_groups() {
    never_both("rule, deletion of the group it names", |w| {
        let group = w.group.clone();
        let rule: Plan = Box::new(move |s, txn| {
            let own = m::default_group(s, &"aaa".into()).unwrap();
            let mut r = m::RuleRequest::new("aaa".into(), own, m::Direction::Ingress, "IPv4");
            r.remote_group_id = Some(group.as_str().into());
            m::plan_create_rule(s, txn, r).unwrap();
        });
        (rule, delete_group(&w.group))
    })
    .await;
    never_both("the same rule twice", |w| {
        let rule = || -> Plan {
            let group = w.group.clone();
            Box::new(move |s, txn| {
                let mut r = m::RuleRequest::new("aaa".into(), group.as_str().into(), m::Direction::Ingress, "IPv4");
                r.protocol = Some("tcp".into());
                m::plan_create_rule(s, txn, r).unwrap();
            })
        };
        (rule(), rule())
    })
    .await;
    never_both("two default groups", |_| {
        let make = || -> Plan {
            Box::new(|s, txn| {
                m::ensure_default_group(s, txn, &"new".into()).unwrap();
            })
        };
        (make(), make())
    })
    .await;
}
