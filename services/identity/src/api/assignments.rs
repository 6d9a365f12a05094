//! GET /v3/role_assignments.

use super::{lists, not_found, users::only_domain};
use crate::App;
use maru_auth::Target;
use maru_base::{DomainId, Error, ProjectId, Result, UserId};
use maru_http::{Reply, Request};
use maru_identity_model::{
    Actor, Assignment, AssignmentTarget, Effective, Group, GroupId, Membership, Role, RoleId, User, ancestors, domain,
    effective_assignments, project, subtree,
};
use maru_store::{Object, Snapshot};
use serde_json::{Map, Value, json};
use std::{collections::HashSet, sync::Arc};

/// What is asked for.
#[derive(Default)]
struct Wanted {
    user: Option<UserId>,
    group: Option<GroupId>,
    role: Option<RoleId>,
    project: Option<ProjectId>,
    domain: Option<DomainId>,
    system: bool,
    inherited: Option<bool>,
    effective: bool,
    names: bool,
    tree: bool,
}

/// A query flag is on unless it is `0` or a word for no.
fn on(request: &Request, name: &str) -> bool {
    request
        .query
        .get(name)
        .is_some_and(|v| !matches!(v.to_ascii_lowercase().as_str(), "0" | "false" | "no" | "off"))
}

fn wanted(request: &Request) -> Result<Wanted> {
    let get = |name: &str| request.query.get(name).filter(|v| !v.is_empty());
    let w = Wanted {
        user: get("user.id").map(UserId::from),
        group: get("group.id").map(GroupId::from),
        role: get("role.id").map(RoleId::from),
        project: get("scope.project.id").map(ProjectId::from),
        domain: get("scope.domain.id").map(DomainId::from),
        system: get("scope.system").is_some(),
        inherited: get("scope.OS-INHERIT:inherited_to").map(|v| v == "projects"),
        effective: on(request, "effective"),
        names: on(request, "include_names"),
        tree: on(request, "include_subtree"),
    };
    let both = |a: bool, b: bool, text: &str| if a && b { Err(Error::bad_request(text)) } else { Ok(()) };
    both(
        w.domain.is_some(),
        w.project.is_some(),
        "Specify a domain or project, not both.",
    )?;
    both(w.domain.is_some(), w.system, "Specify system or domain, not both.")?;
    both(w.project.is_some(), w.system, "Specify system or project, not both.")?;
    both(
        w.user.is_some(),
        w.group.is_some(),
        "Specify a user or group, not both.",
    )?;
    both(
        w.effective,
        w.group.is_some(),
        "Combining effective and group filter will always result in an empty list.",
    )?;
    both(
        w.effective && w.inherited == Some(true),
        w.domain.is_some(),
        "Combining effective, domain and inherited filters will always result in an empty list.",
    )?;
    Ok(w)
}

pub(super) async fn list(app: Arc<App>, request: Request) -> Result<Reply> {
    let w = wanted(&request)?;
    let snapshot = app.snapshot();
    let mine = only_domain(&request, "identity:list_role_assignments")?;
    if w.tree {
        let Some(p) = &w.project else {
            return Err(Error::invalid(
                "scope.project.id",
                "scope.project.id must be specified if include_subtree is also specified",
            ));
        };
        let mut t = Target::none().with("target.project.id", p);
        if let Some(d) = project(&snapshot, p).and_then(|p| p.domain_id.clone()) {
            t = t.with("target.domain_id", &d);
        }
        request.authorize_rule("identity:list_role_assignments_for_tree", &t)?;
    } else {
        let t = match &mine {
            Some(d) => Target::none().with("target.domain_id", d),
            None => Target::none(),
        };
        request.authorize(&t)?;
    }
    if let Some(p) = &w.project {
        project(&snapshot, p).ok_or_else(|| not_found("project", p))?;
    }
    let items: Vec<Value> = find(&snapshot, &w)
        .iter()
        .filter(|e| {
            mine.as_ref()
                .is_none_or(|d| in_domain(&snapshot, &e.assignment.target, d))
        })
        .map(|e| format_one(&snapshot, &request.base, e, w.names))
        .collect();
    lists::whole(&request, "role_assignments", &items)
}

fn in_domain(snapshot: &Snapshot, target: &AssignmentTarget, d: &DomainId) -> bool {
    match target {
        AssignmentTarget::Project(id) => project(snapshot, id).is_some_and(|p| p.domain_id.as_ref() == Some(d)),
        AssignmentTarget::Domain(id) => id == d,
        AssignmentTarget::System => false,
    }
}

/// The targets that pass.
fn targets(snapshot: &Snapshot, w: &Wanted) -> Option<HashSet<AssignmentTarget>> {
    if let Some(p) = &w.project {
        let mut all = HashSet::from([AssignmentTarget::Project(p.clone())]);
        if w.tree {
            all.extend(
                subtree(snapshot, p)
                    .into_iter()
                    .map(|p| AssignmentTarget::Project(p.id)),
            );
        }
        return Some(all);
    }
    if let Some(d) = &w.domain {
        return Some(HashSet::from([AssignmentTarget::Domain(d.clone())]));
    }
    w.system.then(|| HashSet::from([AssignmentTarget::System]))
}

fn find(snapshot: &Snapshot, w: &Wanted) -> Vec<Effective> {
    let pass_targets = targets(snapshot, w);
    let candidates = candidates(snapshot, w, pass_targets.as_ref());
    let direct = |a: &Object<Assignment>| Effective {
        assignment: (*a.value).clone(),
        group: None,
        from: None,
        prior: None,
    };
    let mut all: Vec<Effective> = if w.effective {
        effective_assignments(snapshot, candidates)
    } else {
        candidates.iter().map(direct).collect()
    };
    all.retain(|e| {
        let a = &e.assignment;
        let inherited = a.inherited || e.from.is_some();
        pass_targets.as_ref().is_none_or(|t| t.contains(&a.target))
            && w.role.as_ref().is_none_or(|r| *r == a.role_id)
            && w.user.as_ref().is_none_or(|u| a.actor == Actor::User(u.clone()))
            && w.group.as_ref().is_none_or(|g| a.actor == Actor::Group(g.clone()))
            && w.inherited.is_none_or(|i| i == inherited)
    });
    all
}

/// The assignments from which what is asked for can arise, by the index that serves best.
fn candidates(snapshot: &Snapshot, w: &Wanted, pass: Option<&HashSet<AssignmentTarget>>) -> Vec<Object<Assignment>> {
    if let Some(g) = &w.group {
        return snapshot
            .find::<Assignment>("actor", &Actor::Group(g.clone()).key())
            .collect();
    }
    if let Some(u) = &w.user {
        let mut all: Vec<_> = snapshot
            .find::<Assignment>("actor", &Actor::User(u.clone()).key())
            .collect();
        if w.effective {
            for m in snapshot.find::<Membership>("user", u) {
                all.extend(snapshot.find::<Assignment>("actor", &Actor::Group(m.group_id.clone()).key()));
            }
        }
        return all;
    }
    if let Some(pass) = pass {
        let mut wanted: HashSet<AssignmentTarget> = pass.clone();
        if w.effective {
            for target in pass {
                if let AssignmentTarget::Project(id) = target {
                    wanted.extend(ancestors(snapshot, id).into_iter().map(|p| {
                        if p.is_domain {
                            AssignmentTarget::Domain(DomainId::from(p.id.as_str()))
                        } else {
                            AssignmentTarget::Project(p.id)
                        }
                    }));
                }
            }
        }
        return wanted
            .iter()
            .flat_map(|t| snapshot.find::<Assignment>("target", &t.key()).collect::<Vec<_>>())
            .collect();
    }
    if let Some(r) = w.role.as_ref().filter(|_| !w.effective) {
        return snapshot.find::<Assignment>("role", r).collect();
    }
    snapshot.list::<Assignment>().collect()
}

fn domain_value(snapshot: &Snapshot, id: &DomainId) -> Value {
    json!({"id": id, "name": domain(snapshot, id).map(|d| d.name.clone())})
}

fn format_one(snapshot: &Snapshot, base: &str, e: &Effective, names: bool) -> Value {
    let a = &e.assignment;
    let mut links = Map::new();
    let mut out = Map::new();
    let mut scope = Map::new();
    let mut link = match e.from.as_ref().unwrap_or(&a.target) {
        AssignmentTarget::Project(id) => format!("/projects/{id}"),
        AssignmentTarget::Domain(id) => format!("/domains/{id}"),
        AssignmentTarget::System => "/system".to_owned(),
    };
    match &a.target {
        AssignmentTarget::Project(id) => {
            let p = project(snapshot, id).filter(|_| names);
            let value = match &p {
                Some(p) => {
                    let own = DomainId::from(id.as_str());
                    let d = p.domain_id.as_ref().unwrap_or(&own);
                    json!({"id": id, "name": p.name, "domain": domain_value(snapshot, d)})
                }
                None => json!({"id": id}),
            };
            scope.insert("project".to_owned(), value);
        }
        AssignmentTarget::Domain(id) => {
            let value = if names {
                domain_value(snapshot, id)
            } else {
                json!({"id": id})
            };
            scope.insert("domain".to_owned(), value);
        }
        AssignmentTarget::System => {
            scope.insert("system".to_owned(), json!({"all": true}));
        }
    }
    match &a.actor {
        Actor::User(id) => {
            let value = match snapshot.get::<User>(id).filter(|_| names) {
                Some(u) => json!({"id": id, "name": u.name, "domain": domain_value(snapshot, &u.domain_id)}),
                None => json!({"id": id}),
            };
            out.insert("user".to_owned(), value);
            match &e.group {
                Some(g) => {
                    links.insert(
                        "membership".to_owned(),
                        format!("{base}/v3/groups/{g}/users/{id}").into(),
                    );
                    link.push_str(&format!("/groups/{g}"));
                }
                None => link.push_str(&format!("/users/{id}")),
            }
        }
        Actor::Group(id) => {
            let value = match snapshot.get::<Group>(id).filter(|_| names) {
                Some(g) => json!({"id": id, "name": g.name, "domain": domain_value(snapshot, &g.domain_id)}),
                None => json!({"id": id}),
            };
            out.insert("group".to_owned(), value);
            link.push_str(&format!("/groups/{id}"));
        }
    }
    let role = match snapshot.get::<Role>(&a.role_id).filter(|_| names) {
        Some(r) => match &r.domain_id {
            Some(d) => json!({"id": a.role_id, "name": r.name, "domain": domain_value(snapshot, d)}),
            None => json!({"id": a.role_id, "name": r.name}),
        },
        None => json!({"id": a.role_id}),
    };
    out.insert("role".to_owned(), role);
    link.push_str(&format!("/roles/{}", e.prior.as_ref().unwrap_or(&a.role_id)));
    if let Some(prior) = &e.prior {
        links.insert(
            "prior_role".to_owned(),
            format!("{base}/v3/prior_role/{prior}/implies/{}", a.role_id).into(),
        );
    }
    let link = if a.inherited || e.from.is_some() {
        scope.insert("OS-INHERIT:inherited_to".to_owned(), "projects".into());
        format!("{base}/v3/OS-INHERIT{link}/inherited_to_projects")
    } else {
        format!("{base}/v3{link}")
    };
    links.insert("assignment".to_owned(), link.into());
    out.insert("scope".to_owned(), Value::Object(scope));
    out.insert("links".to_owned(), Value::Object(links));
    Value::Object(out)
}
