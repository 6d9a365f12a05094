//! NDP proxies: who may be answered for, and what they hold in place.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
use common::*;
use maru_network_model as m;
use maru_store::{Snapshot, Txn};
use serde_json::{Value, json};

const PROXIES: &str = "/v2.0/ndp_proxies";

/// An external and an inner network of one address scope, a router between them, and a port.
struct Site {
    cloud: Cloud,
    inner: String,
    subnet: String,
    router: String,
    port: String,
}

async fn pool(c: &Cloud, prefix: &str) -> String {
    let scope = json!({"name": "s", "ip_version": 6, "shared": true});
    let scope = id(&c.make(ADMIN, "/v2.0/address-scopes", "address_scope", scope).await);
    let pool =
        json!({"name": "p", "prefixes": [prefix], "default_prefixlen": 64, "address_scope_id": scope, "shared": true});
    id(&c.make(ADMIN, "/v2.0/subnetpools", "subnetpool", pool).await)
}

async fn pooled(c: &Cloud, token: &str, network: &str, pool: &str) -> String {
    let body = json!({"network_id": network, "subnetpool_id": pool, "ip_version": 6});
    id(&c.make(token, "/v2.0/subnets", "subnet", body).await)
}

async fn site() -> Site {
    let c = cloud();
    c.node("n1").await;
    let pool = pool(&c, "fd00:77::/48").await;
    let external = json!({"name": "six", "router:external": true});
    let external = id(&c.make(ADMIN, "/v2.0/networks", "network", external).await);
    pooled(&c, ADMIN, &external, &pool).await;
    let inner = c.network(A).await;
    let subnet = pooled(&c, A, &inner, &pool).await;
    let router = json!({"external_gateway_info": {"network_id": external}, "enable_ndp_proxy": true});
    let router = c.make(A, "/v2.0/routers", "router", router).await;
    assert_eq!(router["enable_ndp_proxy"], true);
    let router = id(&router);
    let path = format!("/v2.0/routers/{router}/add_router_interface");
    c.want(200, A, "PUT", &path, json!({"subnet_id": subnet})).await;
    let port = id(&c.port(A, &inner).await);
    Site {
        cloud: c,
        inner,
        subnet,
        router,
        port,
    }
}

impl Site {
    fn body(&self) -> Value {
        json!({"ndp_proxy": {"router_id": self.router, "port_id": self.port}})
    }
    async fn proxy(&self) -> Value {
        let made = self.cloud.want(201, A, "POST", PROXIES, self.body()).await;
        made["ndp_proxy"].clone()
    }
    /// What the router's node is told.
    fn told(&self) -> Option<usize> {
        let s = self.cloud.store.snapshot();
        let router = s.get::<m::Router>(&self.router.as_str().into()).unwrap();
        m::ndp_proxy::addresses_of(&s, &router).map(|all| all.len())
    }
    fn path(&self) -> String {
        format!("/v2.0/routers/{}", self.router)
    }
}

#[tokio::test]
async fn a_proxy_is_made_shown_changed_and_holds_what_it_needs() {
    let site = site().await;
    let c = &site.cloud;
    assert_eq!(site.told(), Some(0));
    let made = site.proxy().await;
    let port = c.get(A, &format!("/v2.0/ports/{}", site.port)).await["port"].clone();
    assert_eq!(made["ip_address"], port["fixed_ips"][0]["ip_address"]);
    assert_eq!(site.told(), Some(1));
    let one = format!("{PROXIES}/{}", id(&made));
    let change = json!({"ndp_proxy": {"name": "n", "description": "d"}});
    let changed = c.want(200, A, "PUT", &one, change).await["ndp_proxy"].clone();
    assert_eq!((&changed["name"], &changed["description"]), (&json!("n"), &json!("d")));
    let fixed = json!({"ndp_proxy": {"ip_address": "fd00:77::9"}});
    c.refused(400, A, "PUT", &one, fixed).await;
    assert_eq!(
        c.get(A, &format!("{PROXIES}?router_id={}", site.router)).await["ndp_proxies"][0]["id"],
        made["id"]
    );
    assert_eq!(c.refused(409, A, "POST", PROXIES, site.body()).await, "NDPProxyExists");
    c.want(404, B, "GET", &one, Value::Null).await;
    assert_eq!(c.get(B, PROXIES).await["ndp_proxies"], json!([]));

    let remove = format!("{}/remove_router_interface", site.path());
    assert_eq!(
        c.refused(409, A, "PUT", &remove, json!({"subnet_id": site.subnet}))
            .await,
        "RouterInterfaceInUseByNDPProxy"
    );
    let none = json!({"router": {"external_gateway_info": {}}});
    assert_eq!(
        c.refused(409, A, "PUT", &site.path(), none.clone()).await,
        "RouterGatewayInUseByNDPProxy"
    );
    // Off: nobody is answered for, and nothing more is made.
    let off = json!({"router": {"enable_ndp_proxy": false}});
    c.want(200, A, "PUT", &site.path(), off).await;
    assert_eq!(site.told(), None);
    let other = json!({"ndp_proxy": {"router_id": site.router, "port_id": id(&c.port(A, &site.inner).await)}});
    assert_eq!(
        c.refused(409, A, "POST", PROXIES, other).await,
        "RouterNDPProxyNotEnable"
    );
    c.delete(A, &one).await;
    let router = c.want(200, A, "PUT", &site.path(), none).await["router"].clone();
    assert_eq!(router["enable_ndp_proxy"], false);
    let on = json!({"router": {"enable_ndp_proxy": true}});
    assert_eq!(
        c.refused(409, A, "PUT", &site.path(), on).await,
        "RouterGatewayNotValid"
    );
    c.want(200, A, "PUT", &remove, json!({"subnet_id": site.subnet})).await;
    c.delete(A, &site.path()).await;
    c.audit();
}

#[tokio::test]
async fn a_proxy_goes_with_its_port_and_with_the_address() {
    let site = site().await;
    let c = &site.cloud;
    site.proxy().await;
    let path = format!("/v2.0/ports/{}", site.port);
    let body =
        json!({"port": {"fixed_ips": [{"subnet_id": site.subnet, "ip_address": address(c, &site.subnet).await}]}});
    c.want(200, ADMIN, "PUT", &path, body).await;
    assert_eq!(site.told(), Some(0));
    site.proxy().await;
    c.delete(A, &path).await;
    assert_eq!(site.told(), Some(0));
    c.audit();
}

/// An address of a subnet that random ones do not meet.
async fn address(c: &Cloud, subnet: &str) -> String {
    let shown = c.get(A, &format!("/v2.0/subnets/{subnet}")).await;
    let cidr = shown["subnet"]["cidr"].as_str().unwrap().to_owned();
    cidr.replace("::/64", "::77")
}

#[tokio::test]
async fn what_cannot_be_answered_for_is_refused() {
    let site = site().await;
    let c = &site.cloud;
    let four = c.network(A).await;
    c.subnet(A, &four, "10.0.0.0/24").await;
    let four = id(&c.port(A, &four).await);
    let far = c.network(A).await;
    let pool = pool(c, "fd00:88::/48").await;
    let far_subnet = pooled(c, A, &far, &pool).await;
    let far = id(&c.port(A, &far).await);
    // Another project's port on the caller's own network: seen, and not the caller's to open.
    let share = json!({"network": {"shared": true}});
    c.want(200, ADMIN, "PUT", &format!("/v2.0/networks/{}", site.inner), share)
        .await;
    let foreign = id(&c.port(B, &site.inner).await);
    let of = |port: &str| json!({"ndp_proxy": {"router_id": site.router, "port_id": port}});
    let at = |ip: &str| json!({"ndp_proxy": {"router_id": site.router, "port_id": site.port, "ip_address": ip}});
    for (status, body, code) in [
        (400, of(&four), "BadRequest"),
        (409, of(&far), "PortUnreachableRouter"),
        (404, of(&foreign), "PortNotFound"),
        (400, at("fd00:77::dead"), "InvalidAddress"),
        (400, at("10.0.0.1"), "HTTPBadRequest"),
        (400, json!({"ndp_proxy": {"router_id": site.router}}), "HTTPBadRequest"),
    ] {
        assert_eq!(
            c.refused(status, A, "POST", PROXIES, body.clone()).await,
            code,
            "{body}"
        );
    }
    c.want(404, B, "POST", PROXIES, site.body()).await;
    // Behind the router, and of another scope.
    let path = format!("{}/add_router_interface", site.path());
    c.want(200, A, "PUT", &path, json!({"subnet_id": far_subnet})).await;
    assert_eq!(
        c.refused(409, A, "POST", PROXIES, of(&far)).await,
        "AddressScopeConflict"
    );
    // A router whose external network is of no scope.
    let plain = c.external().await;
    let router = json!({"router": {"external_gateway_info": {"network_id": plain}, "enable_ndp_proxy": true}});
    assert_eq!(
        c.refused(409, A, "POST", "/v2.0/routers", router).await,
        "RouterGatewayNotValid"
    );
    c.audit();
}

/// Of a new proxy and what would take away what it stands on, one conflicts.
#[tokio::test]
async fn a_proxy_and_what_takes_its_ground_away_never_both_happen() {
    for case in 0..4 {
        for swapped in [false, true] {
            let site = site().await;
            let c = &site.cloud;
            let s = c.store.snapshot();
            let router = s.get::<m::Router>(&site.router.as_str().into()).unwrap();
            let port = s.get::<m::Port>(&site.port.as_str().into()).unwrap();
            let make = |s: &Snapshot, txn: &mut Txn| {
                let new = m::NdpProxy {
                    project_id: "aaa".into(),
                    name: String::new(),
                    router_id: router.id.clone(),
                    port_id: port.id.clone(),
                    ip_address: std::net::Ipv6Addr::UNSPECIFIED,
                    meta: m::Meta::new(""),
                };
                m::ndp_proxy::plan_create_proxy(s, txn, &router, &port, None, new).unwrap();
            };
            let take = |s: &Snapshot, txn: &mut Txn| match case {
                0 => m::plan_delete_port(s, txn, &port).unwrap(),
                1 => {
                    let request = m::router_plan::InterfaceRequest {
                        port_id: None,
                        subnet_id: Some(site.subnet.as_str().into()),
                    };
                    m::router_plan::plan_remove_interface(s, txn, &router, &request).unwrap();
                }
                2 => {
                    let change = m::router_plan::RouterChange {
                        gateway: Some(None),
                        ..Default::default()
                    };
                    m::router_plan::plan_update_router(s, txn, &router, change).unwrap();
                }
                _ => make(s, txn),
            };
            let (mut one, mut two) = (Txn::new(), Txn::new());
            make(&s, &mut one);
            take(&s, &mut two);
            let (first, second) = if swapped { (two, one) } else { (one, two) };
            c.store.commit(first).await.unwrap();
            let crossed = c.store.commit(second).await.expect_err("both happened");
            assert!(crossed.is_conflict(), "case {case}: {crossed:?}");
            c.audit();
        }
    }
}
