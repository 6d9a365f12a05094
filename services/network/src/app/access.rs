//! Who may see and do what: loaded objects as policy targets. What the caller may not see is 404, what they see and may
//! not do is 403.

use maru_auth::Target;
use maru_base::{ErrorKind, ProjectId, Result};
use maru_http::Request;
use maru_network_model::{
    AddressGroup, AddressGroupId, AddressScope, AddressScopeId, FloatingIp, FloatingIpId, Meta, NdpProxy, NdpProxyId,
    Network, NetworkId, Port, PortId, QosPolicy, QosPolicyId, Router, RouterId, SecurityGroup, SecurityGroupId,
    SecurityGroupRule, SecurityGroupRuleId, Subnet, SubnetId, SubnetPool, SubnetPoolId, Trunk, TrunkId, errors,
};
use maru_store::{Object, Snapshot};

fn flag(yes: bool) -> &'static str {
    if yes { "True" } else { "False" }
}

fn network_target(n: &Network, shared: bool) -> Target {
    Target::project(&n.project_id)
        .with("shared", flag(shared))
        .with("router:external", flag(n.external))
        .with("network:project_id", &n.project_id)
        .with("network:tenant_id", &n.project_id)
}
/// A network as a target.
pub(crate) fn of_network(n: &Network) -> Target {
    network_target(n, n.shared)
}
/// A network as its reader's target: what is shared with the caller's project is shared.
pub(crate) fn seen_network(request: &Request, n: &Network) -> Target {
    network_target(n, shared_to(request, n))
}
/// Whether a network is shared with the caller.
pub(crate) fn shared_to(request: &Request, n: &Network) -> bool {
    n.shared_to(request.caller().ok().and_then(|c| c.project_id()))
}
/// Something on a network as a target; `shared` says whether that is.
fn target_on(
    snapshot: &Snapshot,
    project: &ProjectId,
    network: &NetworkId,
    shared: impl FnOnce(&Network) -> bool,
) -> Target {
    let target = Target::project(project);
    match snapshot.get::<Network>(network) {
        Some(n) => target
            .with("network:project_id", &n.value.project_id)
            .with("network:tenant_id", &n.value.project_id)
            .with("network:shared", flag(shared(&n.value))),
        None => target,
    }
}
/// Something on a network as its reader's target.
pub(crate) fn seen_on(request: &Request, snapshot: &Snapshot, project: &ProjectId, network: &NetworkId) -> Target {
    target_on(snapshot, project, network, |n| shared_to(request, n))
}
/// Something on a network as a target.
pub(crate) fn on_network(snapshot: &Snapshot, project: &ProjectId, network: &NetworkId) -> Target {
    target_on(snapshot, project, network, |n| n.shared)
}
/// A subnet as a target.
pub(crate) fn of_subnet(snapshot: &Snapshot, s: &Subnet) -> Target {
    on_network(snapshot, &s.project_id, &s.network_id)
}
/// A port as a target.
pub(crate) fn of_port(snapshot: &Snapshot, p: &Port) -> Target {
    on_network(snapshot, &p.project_id, &p.network_id)
}

/// A project that no one has: who may read it sees everything.
pub(crate) fn sees_all(request: &Request, rule: &str) -> bool {
    let nobody = Target::project("\u{0}")
        .with("network:project_id", "\u{0}")
        .with("shared", "False")
        .with("router:external", "False");
    request.may(rule, &nobody)
}

macro_rules! visible {
    ($name:ident, $kind:ty, $id:ty, $rule:literal, $missing:expr, $target:expr) => {
        /// The object, if the caller may see it; 404 otherwise.
        pub(crate) fn $name(request: &Request, snapshot: &Snapshot, id: &str) -> Result<Object<$kind>> {
            let target: fn(&Request, &Snapshot, &$kind) -> Target = $target;
            snapshot
                .get::<$kind>(&<$id>::from(id))
                .filter(|o| request.may($rule, &target(request, snapshot, &o.value)))
                .ok_or_else(|| ($missing)(id))
        }
    };
}
visible!(
    network,
    Network,
    NetworkId,
    "get_network",
    errors::network_not_found,
    |q, _, n| seen_network(q, n)
);
visible!(
    subnet,
    Subnet,
    SubnetId,
    "get_subnet",
    errors::subnet_not_found,
    |q, s, x| seen_on(q, s, &x.project_id, &x.network_id)
);
visible!(port, Port, PortId, "get_port", errors::port_not_found, |q, s, x| {
    seen_on(q, s, &x.project_id, &x.network_id)
});
visible!(
    router,
    Router,
    RouterId,
    "get_router",
    errors::router_not_found,
    |_, _, r| Target::project(&r.project_id)
);
visible!(
    floating_ip,
    FloatingIp,
    FloatingIpId,
    "get_floatingip",
    errors::floating_ip_not_found,
    |_, _, f| Target::project(&f.project_id)
);
visible!(
    qos_policy,
    QosPolicy,
    QosPolicyId,
    "get_policy",
    maru_network_model::qos::policy_not_found,
    |_, _, p| of_policy(p)
);
/// A QoS policy as a target.
pub(crate) fn of_policy(p: &QosPolicy) -> Target {
    Target::project(&p.project_id).with("shared", flag(p.shared))
}
visible!(
    ndp_proxy,
    NdpProxy,
    NdpProxyId,
    "get_ndp_proxy",
    maru_network_model::ndp_proxy::proxy_not_found,
    |_, _, p| Target::project(&p.project_id)
);
visible!(
    trunk,
    Trunk,
    TrunkId,
    "get_trunk",
    maru_network_model::trunk::trunk_not_found,
    |_, _, t| Target::project(&t.project_id)
);
visible!(
    group,
    SecurityGroup,
    SecurityGroupId,
    "get_security_group",
    errors::group_not_found,
    |_, _, g| Target::project(&g.project_id)
);
visible!(
    rule,
    SecurityGroupRule,
    SecurityGroupRuleId,
    "get_security_group_rule",
    errors::rule_not_found,
    |_, _, r| { Target::project(&r.project_id) }
);

/// A subnet pool as a target.
pub(crate) fn of_pool(p: &SubnetPool) -> Target {
    Target::project(&p.project_id).with("shared", flag(p.shared))
}
/// An address scope as a target.
pub(crate) fn of_scope(s: &AddressScope) -> Target {
    Target::project(&s.project_id).with("shared", flag(s.shared))
}
visible!(
    subnet_pool,
    SubnetPool,
    SubnetPoolId,
    "get_subnetpool",
    |id| errors::not_found("SubnetPoolNotFound", "Subnet pool", id),
    |_, _, p| of_pool(p)
);
visible!(
    address_group,
    AddressGroup,
    AddressGroupId,
    "get_address_group",
    maru_network_model::address_group::address_group_not_found,
    |_, _, g| Target::project(&g.project_id)
);
visible!(
    address_scope,
    AddressScope,
    AddressScopeId,
    "get_address_scope",
    |id| errors::not_found("AddressScopeNotFound", "Address scope", id),
    |_, _, s| of_scope(s)
);

/// Checks `If-Match: revision_number=N`.
pub(crate) fn check_revision(request: &Request, meta: &Meta) -> Result<()> {
    let Some(text) = request.header("if-match") else {
        return Ok(());
    };
    let wanted = text
        .trim()
        .strip_prefix("revision_number=")
        .and_then(|n| n.parse::<u64>().ok());
    let Some(wanted) = wanted else {
        return Err(errors::refuse(
            ErrorKind::BadRequest,
            "HTTPBadRequest",
            format!("Invalid value for If-Match: '{text}'; write revision_number=N."),
        ));
    };
    if wanted == meta.revision_number {
        return Ok(());
    }
    Err(errors::refuse(
        ErrorKind::PreconditionFailed,
        "RevisionNumberConstraintFailed",
        format!(
            "Constrained to {wanted}, but current revision is {}; read it again.",
            meta.revision_number
        ),
    ))
}

/// The project that a new object shall belong to.
///
/// # Errors
/// 400 for another project than the caller's own without privilege, or when there is none.
pub(crate) fn project_for(request: &Request, wanted: Option<String>) -> Result<ProjectId> {
    let caller = request.caller()?;
    let own = caller.project_id();
    match (wanted, own) {
        (Some(w), Some(own)) if *own == w.as_str() => Ok(own.clone()),
        (Some(w), _) if caller.is_admin() || caller.has_role("service") => Ok(ProjectId::from(w)),
        (Some(_), _) => Err(errors::refuse(
            ErrorKind::BadRequest,
            "HTTPBadRequest",
            "Specifying 'project_id' or 'tenant_id' other than the authenticated project in request requires admin privileges.",
        )),
        (None, Some(own)) => Ok(own.clone()),
        (None, None) => Err(errors::refuse(
            ErrorKind::BadRequest,
            "HTTPBadRequest",
            "The token is scoped to no project: name a project_id, or authenticate with a project scope.",
        )),
    }
}
