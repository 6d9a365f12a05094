//! Every route of the real gateway: no token, a stranger, a role that may not, an audit record, a rule.
//!
//! A new route fails here until it has a sample object and a sample request in `tests/kit/src/scene.rs`. Whatever is an
//! exception stands in a list below with its reason; a list that names what is no longer so fails as well.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use bytes::Bytes;
use maru_auth::AuditRecord;
use maru_http::Access;
use maru_kit::{Answer, Body, Scene, collections};
use maru_store::record::Records;
use std::collections::BTreeSet;

/// Routes that anyone may call without a token, and nothing else.
const PUBLIC: &[&str] = &[
    "identity GET /",
    "identity GET /v3",
    // A console's token opens it; the files of noVNC are anybody's.
    "compute GET /console",
    "compute GET /console/novnc/{*file}",
    "identity POST /v3/auth/tokens",
    // It proves itself by the old password, which may be expired.
    "identity POST /v3/users/{id}/password",
    // They prove themselves by their signature.
    "identity POST /v3/OS-OAUTH1/request_token",
    "identity POST /v3/OS-OAUTH1/access_token",
    // Gone, as upstream says to anyone.
    "identity GET /v3/OS-SIMPLE-CERT/ca",
    "identity GET /v3/OS-SIMPLE-CERT/certificates",
    "identity GET /v3/auth/tokens/OS-PKI/revoked",
    "image GET /",
    "image GET /v2",
    "image GET /versions",
    "placement GET /",
    "network GET ",
    "network GET /v2.0",
    "compute GET /",
    "compute GET /v2",
    "compute GET /v2.1",
    "volume-versions GET /",
    "volume-versions GET /v3",
];

/// One route.
#[derive(Debug, Clone)]
struct Way {
    service: &'static str,
    prefix: &'static str,
    method: String,
    path: String,
    rule: Option<&'static str>,
}

impl Way {
    fn name(&self) -> String {
        format!("{} {} {}", self.service, self.method, self.path)
    }
    fn writes(&self) -> bool {
        !matches!(self.method.as_str(), "GET" | "HEAD")
    }
    fn named(&self, list: &[&str]) -> bool {
        list.contains(&self.name().as_str())
    }
}

fn ways(scene: &Scene) -> Vec<Way> {
    let cloud = scene.kit.cloud();
    let services = cloud.gateway().services();
    services
        .iter()
        .flat_map(|s| {
            s.routes.iter().map(|r| Way {
                service: s.name,
                prefix: s.prefixes[0],
                method: r.method.to_string(),
                path: r.path.clone(),
                rule: match r.access {
                    Access::Public => None,
                    Access::Rule(rule) => Some(rule),
                },
            })
        })
        .collect()
}

/// Sends the sample request of a route, and checks that it is audited if it must be.
async fn ask(scene: &Scene, way: &Way, token: &str, first: Option<&str>) -> Answer {
    let path = scene.fill(way.service, &way.method, &way.path, first).unwrap();
    let path = if path == "/" {
        way.prefix.to_owned()
    } else {
        format!("{}{path}", way.prefix)
    };
    let (kind, bytes) = match scene.body(way.service, &way.method, &way.path).unwrap() {
        Body::None => ("", Bytes::new()),
        Body::Json(v) => ("application/json", Bytes::from(v.to_string())),
        Body::Patch(v) => (
            "application/openstack-images-v2.1-json-patch",
            Bytes::from(v.to_string()),
        ),
        Body::Bytes(b) => ("application/octet-stream", Bytes::from(b)),
    };
    let mut headers = scene.headers(way.service, &way.path);
    for (name, value) in [("x-auth-token", token), ("content-type", kind)] {
        if !value.is_empty() {
            headers.push((name, value.to_owned()));
        }
    }
    let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
    let answer = scene.kit.send(&way.method, &path, &headers, bytes).await.unwrap();
    let path = path.split('?').next().unwrap_or_default();
    audited(scene, way, path, &answer).await;
    answer
}

/// Every change and every refusal has left a record: who, what, to what, with what outcome, under which request id.
async fn audited(scene: &Scene, way: &Way, path: &str, answer: &Answer) {
    let refused = matches!(answer.status, 401 | 403);
    if !way.writes() && !refused {
        return;
    }
    let newest = scene.kit.records().tail("audit", 1).await.unwrap().pop();
    let record: AuditRecord = serde_json::from_value(newest.expect("an audit record")).unwrap();
    let name = way.name();
    assert_eq!(
        record.request_id,
        answer.header("x-openstack-request-id"),
        "{name}: not audited"
    );
    assert_eq!(record.status, answer.status, "{name}");
    assert_eq!(record.service, way.service, "{name}");
    assert_eq!(record.method, way.method, "{name}");
    assert_eq!(record.path, path, "{name}");
    assert_eq!(record.action, way.rule.unwrap_or("public"), "{name}");
    let known = answer.status != 401 && (way.rule.is_some() || record.user_id.is_some());
    assert_eq!(record.user_id.is_some(), known, "{name}: {record:?}");
}

/// Collects what is wrong with routes, so that one run shows all.
#[derive(Default)]
struct Wrong(Vec<String>);
impl Wrong {
    fn unless(&mut self, right: bool, what: impl FnOnce() -> String) {
        if !right {
            self.0.push(what());
        }
    }
    #[track_caller]
    fn none(self) {
        assert!(
            self.0.is_empty(),
            "{} routes are wrong:\n  {}",
            self.0.len(),
            self.0.join("\n  ")
        );
    }
}

fn short(answer: &Answer) -> String {
    let text: String = answer.text().chars().take(200).collect();
    format!("{} {text}", answer.status)
}

#[tokio::test(start_paused = true)]
async fn every_route_has_a_sample_and_every_sample_is_a_good_request() {
    /// Answers that are neither success nor a conflict with another sample, by upstream's design.
    const OTHERWISE: &[(&str, u16)] = &[
        // Unsigned: a signature is good once.
        ("identity POST /v3/OS-OAUTH1/request_token", 400),
        ("identity POST /v3/OS-OAUTH1/access_token", 400),
        // The sample limit stands on it.
        ("identity DELETE /v3/registered_limits/{id}", 403),
        ("identity GET /v3/OS-SIMPLE-CERT/ca", 410),
        ("identity GET /v3/OS-SIMPLE-CERT/certificates", 410),
        ("identity GET /v3/auth/tokens/OS-PKI/revoked", 410),
        // What is demanded of passwords is the cloud's, and read at the default domain only.
        ("identity GET /v3/domains/{id}/config/security_compliance", 403),
        ("identity GET /v3/domains/{id}/config/security_compliance/{option}", 403),
        // The sample's type has one already; upstream says so with 400.
        ("volume POST /types/{id}/encryption", 400),
        // The sample's key is wrong: the right one would give the volume to whoever walks here.
        ("volume POST /os-volume-transfer/{id}/accept", 400),
        ("volume POST /volume-transfers/{id}/accept", 400),
        // The sample is no record: one would have to be exported first.
        ("volume POST /backups/import_record", 400),
        // The address of before 3.8: the sample was taken back through the other one already.
        ("volume POST /os-volume-manage", 400),
        ("volume POST /os-snapshot-manage", 400),
        // The sample has volumes and a snapshot.
        ("volume POST /consistencygroups/{id}/delete", 400),
        // The volume services of this cloud are not clustered.
        ("volume GET /clusters/{id}", 404),
        ("volume PUT /clusters/{id}", 404),
        // An image keeps its data in the last store that has it.
        ("image DELETE /v2/stores/{store}/{image}", 403),
        // A console is opened by its own token, and noVNC's package need not be here.
        ("compute GET /console", 404),
        ("compute GET /console/novnc/{*file}", 404),
        ("compute GET /v2.1/os-console-auth-tokens/{token}", 404),
        // A machine is not the hypervisor's to switch.
        ("compute GET /v2.1/os-hosts/{host}/startup", 501),
        ("compute GET /v2.1/os-hosts/{host}/shutdown", 501),
        ("compute GET /v2.1/os-hosts/{host}/reboot", 501),
        // Servers are not moved while they run yet.
        ("compute GET /v2.1/servers/{id}/migrations/{migration}", 404),
        // No task is made here: one would ask an address outside.
        ("image GET /v2/tasks/{task}", 404),
    ];
    let scene = Scene::start().await;
    let all = ways(&scene);
    let mut wrong = Wrong::default();
    for way in &all {
        if let Err(missing) = scene.fill(way.service, &way.method, &way.path, None) {
            wrong
                .0
                .push(format!("{}: {missing}; add one to tests/kit/src/scene.rs", way.name()));
        } else if scene.body(way.service, &way.method, &way.path).is_none() {
            wrong.0.push(format!(
                "{}: no sample request; add one to tests/kit/src/scene.rs",
                way.name()
            ));
        }
    }
    wrong.none();
    let mut wrong = Wrong::default();
    let mut fine = async |scene: &Scene, way: &Way| {
        let who = scene.rightful(way.service, &way.method, &way.path);
        let answer = ask(scene, way, &who.token, None).await;
        let expected = OTHERWISE.iter().find(|(n, _)| *n == way.name()).map(|(_, s)| *s);
        let good = match expected {
            Some(status) => answer.status == status,
            None => (200..400).contains(&answer.status) || answer.status == 409,
        };
        wrong.unless(good, || format!("{}: {}", way.name(), short(&answer)));
    };
    for way in all.iter().filter(|w| w.method != "DELETE") {
        fine(&scene, way).await;
    }
    for way in all.iter().filter(|w| w.method == "DELETE") {
        let scene = Scene::start().await;
        fine(&scene, way).await;
    }
    wrong.none();
    println!("routes: {}, each with a good sample request", all.len());
}

#[tokio::test(start_paused = true)]
async fn without_a_token_there_is_nothing_but_the_public_routes() {
    let scene = Scene::start().await;
    let mut wrong = Wrong::default();
    let mut public = BTreeSet::new();
    for way in ways(&scene) {
        if way.rule.is_none() {
            wrong.unless(way.named(PUBLIC), || {
                format!("{}: is public and not in the list", way.name())
            });
            public.insert(way.name());
            continue;
        }
        for token in ["", "gAAAAABno-such-token", "\u{7f}"] {
            if token == "\u{7f}" {
                continue;
            }
            let answer = ask(&scene, &way, token, None).await;
            wrong.unless(answer.status == 401, || {
                format!("{} with '{token}': {}", way.name(), short(&answer))
            });
            wrong.unless(answer.header("www-authenticate").contains("/identity"), || {
                format!("{}: 401 does not say where to authenticate", way.name())
            });
        }
    }
    for name in PUBLIC {
        wrong.unless(public.contains(*name), || {
            format!("{name}: in the list of public routes and is none")
        });
    }
    wrong.none();
}

/// Collections whose objects belong to nobody: a stranger's answer is anyone's.
const COMMON: &[&str] = &[
    "network/default-security-group-rules",
    "network/flavors",
    "compute/extensions",
    "compute/os-quota-class-sets",
    "image/schemas",
    "image/metadefs",
    "image/stores",
    "network/extensions",
    "identity/regions",
    "identity/registered_limits",
];

#[tokio::test(start_paused = true)]
async fn a_stranger_learns_nothing_and_changes_nothing() {
    /// Routes that tell a stranger something, with upstream's reason.
    const TOLD: &[(&str, &str)] = &[
        (
            "network GET /v2.0/qos/rule-types/{id}",
            "what kinds of rules the cloud carries out, the same for every project",
        ),
        (
            "compute GET /v2.1/os-quota-sets/{project}/defaults",
            "the defaults are the cloud's, the same for every project; upstream's rule lets anyone",
        ),
        (
            "volume POST /os-volume-transfer/{id}/accept",
            "an offer is another project's by its nature: who has the key takes it, a wrong key is 400",
        ),
        (
            "volume POST /volume-transfers/{id}/accept",
            "an offer is another project's by its nature: who has the key takes it, a wrong key is 400",
        ),
    ];
    let scene = Scene::start().await;
    let mut wrong = Wrong::default();
    let mut walked = 0;
    let before = scene.kit.keys().await;
    for way in ways(&scene) {
        let Some(first) = collections(&way.path).first().copied() else {
            continue;
        };
        let of = format!("{}/{first}", way.service);
        if way.rule.is_none() || COMMON.contains(&of.as_str()) || TOLD.iter().any(|(n, _)| *n == way.name()) {
            continue;
        }
        let there = scene.value(way.service, first).unwrap().to_owned();
        let nowhere = match way.service {
            _ if first == "os-aggregates" => "4711".to_owned(),
            "identity" => "0123456789abcdef0123456789abcdef".to_owned(),
            _ => "01234567-89ab-4def-8123-456789abcdef".to_owned(),
        };
        let token = &scene.red.member.token;
        let foreign = ask(&scene, &way, token, None).await;
        let absent = ask(&scene, &way, token, Some(&nowhere)).await;
        walked += 1;
        wrong.unless(matches!(foreign.status, 403 | 404), || {
            format!("{}: {}", way.name(), short(&foreign))
        });
        // What is hidden must look like what is not there, in every word.
        let same = |a: &Answer, id: &str| {
            a.text()
                .replace(id, "<id>")
                .replace(a.header("x-openstack-request-id"), "<request>")
        };
        wrong.unless(
            foreign.status == absent.status && same(&foreign, &there) == same(&absent, &nowhere),
            || {
                format!(
                    "{}: {} is told from what is not there: {}",
                    way.name(),
                    short(&foreign),
                    short(&absent)
                )
            },
        );
    }
    wrong.none();
    assert_eq!(before, scene.kit.keys().await, "a stranger changed the store");
    println!("routes with objects, walked by a stranger: {walked}");
}

#[tokio::test(start_paused = true)]
async fn a_role_that_may_not_is_refused() {
    /// Anyone with a token may, whatever the role.
    const ANYONE: &[(&str, &str)] = &[
        ("identity:get_auth_catalog", "a token's own"),
        ("identity:get_auth_projects", "a user's own"),
        ("identity:get_auth_domains", "a user's own"),
        ("identity:get_auth_system", "a user's own"),
        (
            "identity:validate_token",
            "a token may look at itself; others are refused in the stranger's test",
        ),
        ("identity:list_regions", "upstream: anyone"),
        ("identity:get_region", "upstream: anyone"),
        ("identity:list_credentials", "gives a user's own only"),
        ("identity:list_registered_limits", "upstream: anyone"),
        ("identity:get_registered_limit", "upstream: anyone"),
        ("identity:get_limit_model", "upstream: anyone"),
        ("identity:list_limits", "gives the project's own only"),
        ("get_schema", "upstream: anyone"),
        ("image GET /v2/metadefs/namespaces", "gives what is public only"),
        ("image GET /v2/metadefs/resource_types", "gives what is public only"),
        ("network GET /v2.0/networks", "gives what is shared or external only"),
        ("network GET /v2.0/subnets", "gives what is shared or external only"),
        ("network GET /v2.0/subnetpools", "gives what is shared only"),
        ("network GET /v2.0/address-scopes", "gives what is shared only"),
        ("network GET /v2.0/qos/policies", "gives what is shared only"),
        ("os_compute_api:extensions", "upstream: anyone"),
        ("os_compute_api:os-flavors:index", "upstream: anyone"),
        ("os_compute_api:os-keypairs:index", "a user's own"),
        ("os_compute_api:os-keypairs:create", "a user's own"),
        (
            "os_compute_api:os-keypairs:delete",
            "a user's own; another's is not found",
        ),
        ("os_compute_api:os-availability-zone:list", "upstream: anyone"),
        ("os_compute_api:limits", "upstream: anyone"),
        ("os_compute_api:os-quota-sets:defaults", "upstream: anyone"),
        ("volume:availability_zone_list", "upstream: anyone"),
        ("volume:extensions", "upstream: anyone"),
        ("volume:resource_filters", "upstream: anyone"),
    ];
    /// A reader may write here.
    const READERS: &[(&str, &str)] = &[
        ("os_compute_api:os-keypairs:create", "a user's own"),
        ("os_compute_api:os-keypairs:delete", "a user's own"),
    ];
    let scene = Scene::start().await;
    let mut wrong = Wrong::default();
    let before = scene.kit.keys().await;
    let checks: std::collections::BTreeMap<&str, &str> = maru::cloud::POLICIES
        .iter()
        .flat_map(|rules| rules.iter().map(|r| (r.name, r.check)))
        .collect();
    for way in ways(&scene) {
        let Some(rule) = way.rule else { continue };
        if !ANYONE.iter().any(|(n, _)| *n == way.name() || *n == rule) {
            let answer = ask(&scene, &way, &scene.blue.nobody.token, None).await;
            wrong.unless(matches!(answer.status, 403 | 404), || {
                format!("{} ({rule}) for nobody: {}", way.name(), short(&answer))
            });
        }
        if way.writes() && !READERS.iter().any(|(n, _)| *n == way.name() || *n == rule) {
            let answer = ask(&scene, &way, &scene.blue.reader.token, None).await;
            wrong.unless(matches!(answer.status, 403 | 404), || {
                format!("{} ({rule}) for a reader: {}", way.name(), short(&answer))
            });
        }
        // A rule that speaks of no role but the administrator's refuses members, too.
        if matches!(
            checks.get(rule),
            Some(&("role:admin" | "rule:admin_required" | "rule:context_is_admin" | "rule:admin_only"))
        ) {
            let answer = ask(&scene, &way, &scene.blue.member.token, None).await;
            wrong.unless(matches!(answer.status, 403 | 404), || {
                format!("{} ({rule}) for a member: {}", way.name(), short(&answer))
            });
        }
    }
    wrong.none();
    assert_eq!(before, scene.kit.keys().await, "a refused role changed the store");
}

/// The source of all services but their policy tables.
fn sources() -> String {
    fn walk(dir: &std::path::Path, out: &mut String) {
        for entry in std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()) {
            let name = entry.file_name().unwrap().to_string_lossy().into_owned();
            if entry.is_dir() && name != "tests" {
                walk(&entry, out);
            } else if name.ends_with(".rs") && name != "policy.rs" {
                out.push_str(&std::fs::read_to_string(&entry).unwrap());
            }
        }
    }
    let mut out = String::new();
    walk(
        &std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../services"),
        &mut out,
    );
    out
}

#[tokio::test(start_paused = true)]
async fn every_rule_is_used_and_every_route_has_one() {
    /// Rules that are neither a route's, nor asked for by name in a handler, nor part of another rule; with the reason.
    const COMPOSED: &[(&str, &str)] = &[
        ("admin_or_owner", "for overrides, which upstream writes with it"),
        (
            "os_compute_api:os-remote-consoles",
            "of an action that answers 501 until it is served",
        ),
    ];
    /// Names of rules that a handler puts together from a verb and an attribute: `{create|update}_port:<attribute>`.
    const JOINED: &[&str] = &["create_port:", "update_port:", "create_router:", "update_router:"];
    let scene = Scene::start().await;
    let rules: Vec<_> = maru::cloud::POLICIES.iter().flat_map(|rules| rules.iter()).collect();
    let declared: BTreeSet<&str> = rules.iter().map(|r| r.name).collect();
    let used: BTreeSet<&str> = ways(&scene).iter().filter_map(|w| w.rule).collect();
    let sources = sources();
    let mut wrong = Wrong::default();
    for rule in &used {
        wrong.unless(declared.contains(rule), || format!("{rule} is used and not declared"));
    }
    for rule in declared.difference(&used) {
        let tail = JOINED.iter().find_map(|head| rule.strip_prefix(head));
        let joined = |tail: &str| sources.contains(&format!("\"{tail}\"")) || sources.contains(&format!(":{tail}\""));
        let asked = sources.contains(&format!("\"{rule}\"")) || tail.is_some_and(joined);
        let part = rules.iter().any(|r| {
            r.check
                .split([' ', '(', ')'])
                .any(|w| w.strip_prefix("rule:") == Some(*rule))
        });
        let listed = COMPOSED.iter().any(|(name, _)| name == rule);
        wrong.unless(asked || part || listed, || {
            format!("{rule} is declared, and neither a route nor a handler asks for it")
        });
        wrong.unless(!(listed && (asked || part)), || format!("{rule}: listed without need"));
    }
    wrong.none();
}
