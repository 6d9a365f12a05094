//! Who has which role where, and what follows from it: groups, inheritance down the project tree, implied roles.

use crate::{GroupId, Implication, Membership, Project, Role, RoleId, project, subtree};
use maru_base::{DomainId, ProjectId, UserId, typed_id};
use maru_store::{Index, Kind, Object, Snapshot, Space};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

typed_id!(
    /// Id of an assignment: its parts, joined.
    AssignmentId
);

/// Who has the role.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Actor {
    /// A user.
    User(UserId),
    /// Every member of a group.
    Group(GroupId),
}

/// Where the role holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AssignmentTarget {
    /// A project.
    Project(ProjectId),
    /// A domain.
    Domain(DomainId),
    /// The whole system.
    System,
}

impl AssignmentTarget {
    /// The value of the index `target`.
    #[must_use]
    pub fn key(&self) -> String {
        match self {
            Self::Project(id) => format!("project:{id}"),
            Self::Domain(id) => format!("domain:{id}"),
            Self::System => "system".to_owned(),
        }
    }
}

impl Actor {
    /// The value of the index `actor`.
    #[must_use]
    pub fn key(&self) -> String {
        match self {
            Self::User(id) => format!("user:{id}"),
            Self::Group(id) => format!("group:{id}"),
        }
    }
}

/// A role assigned to an actor on a target.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Assignment {
    /// Who.
    pub actor: Actor,
    /// Where.
    pub target: AssignmentTarget,
    /// Which role.
    pub role_id: RoleId,
    /// Holds on every project below the target, and not on the target itself.
    #[serde(default)]
    pub inherited: bool,
}

impl Assignment {
    /// The id under which it is kept.
    #[must_use]
    pub fn id(&self) -> AssignmentId {
        let inherited = if self.inherited { ":inherited" } else { "" };
        AssignmentId::from(format!(
            "{}:{}:{}{inherited}",
            self.actor.key(),
            self.target.key(),
            self.role_id
        ))
    }
}

impl Kind for Assignment {
    type Id = AssignmentId;
    const NAME: &'static str = "assignment";
    const SPACE: Space = Space::Identity;
    fn indexes() -> Vec<Index<Self>> {
        vec![
            Index {
                name: "actor",
                values: |a| vec![a.actor.key()],
            },
            Index {
                name: "target",
                values: |a| vec![a.target.key()],
            },
            Index {
                name: "role",
                values: |a| vec![a.role_id.to_string()],
            },
        ]
    }
}

/// What a project lies under, nearest first, its domain last.
#[must_use]
pub fn ancestors(snapshot: &Snapshot, id: &ProjectId) -> Vec<Object<Project>> {
    let mut all = Vec::new();
    let mut next = project(snapshot, id).and_then(|p| p.parent_id.clone());
    while let Some(p) = next.and_then(|id| project(snapshot, &id)) {
        next = p.parent_id.clone();
        all.push(p);
        if all.len() > 64 {
            break;
        }
    }
    all
}

/// Adds, to the roles, all that they imply.
pub fn expand_implied(snapshot: &Snapshot, roles: &mut Vec<RoleId>) {
    let mut at = 0;
    while at < roles.len() {
        let prior = roles[at].clone();
        for implication in snapshot.find::<Implication>("prior", &prior) {
            if !roles.contains(&implication.implied) {
                roles.push(implication.implied.clone());
            }
        }
        at += 1;
    }
}

/// The roles that a user has on a target, groups, inheritance and implied roles included. Domain roles are left out:
/// they show only as what they imply.
#[must_use]
pub fn effective_roles(snapshot: &Snapshot, user: &UserId, target: &AssignmentTarget) -> Vec<Object<Role>> {
    let mut actors = vec![Actor::User(user.clone())];
    actors.extend(
        snapshot
            .find::<Membership>("user", user)
            .map(|m| Actor::Group(m.group_id.clone())),
    );
    let above: Vec<AssignmentTarget> = match target {
        AssignmentTarget::Project(id) => ancestors(snapshot, id).iter().map(as_target).collect(),
        _ => Vec::new(),
    };
    let mut roles: Vec<RoleId> = Vec::new();
    for actor in actors {
        for a in snapshot.find::<Assignment>("actor", &actor.key()) {
            let holds = if a.inherited {
                above.contains(&a.target)
            } else {
                a.target == *target
            };
            if holds && !roles.contains(&a.role_id) {
                roles.push(a.role_id.clone());
            }
        }
    }
    expand_implied(snapshot, &mut roles);
    let mut found: Vec<_> = roles
        .iter()
        .filter_map(|r| snapshot.get::<Role>(r))
        .filter(|r| r.domain_id.is_none())
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn as_target(p: &Object<Project>) -> AssignmentTarget {
    if p.is_domain {
        AssignmentTarget::Domain(DomainId::from(p.id.as_str()))
    } else {
        AssignmentTarget::Project(p.id.clone())
    }
}

/// An assignment as it takes effect, and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Effective {
    /// What holds: always a user and a target itself.
    pub assignment: Assignment,
    /// The group through which.
    pub group: Option<GroupId>,
    /// The project or domain from which it is inherited.
    pub from: Option<AssignmentTarget>,
    /// The role that implies it.
    pub prior: Option<RoleId>,
}

/// What assignments amount to: groups by their members, inherited ones by the projects below, implied roles added, domain
/// roles left out.
#[must_use]
pub fn effective_assignments(snapshot: &Snapshot, assignments: Vec<Object<Assignment>>) -> Vec<Effective> {
    let mut out = Vec::new();
    let mut seen = HashSet::new();
    for a in assignments {
        let users: Vec<(UserId, Option<GroupId>)> = match &a.actor {
            Actor::User(user) => vec![(user.clone(), None)],
            Actor::Group(group) => snapshot
                .find::<Membership>("group", group)
                .map(|m| (m.user_id.clone(), Some(group.clone())))
                .collect(),
        };
        let targets: Vec<(AssignmentTarget, Option<AssignmentTarget>)> = match (&a.target, a.inherited) {
            (target, false) => vec![(target.clone(), None)],
            (AssignmentTarget::System, true) => Vec::new(),
            (AssignmentTarget::Project(id), true) => below(snapshot, id, &a.target),
            (AssignmentTarget::Domain(id), true) => below(snapshot, &ProjectId::from(id.as_str()), &a.target),
        };
        for (user, group) in &users {
            for (target, from) in &targets {
                let mut push = |role: &RoleId, prior: Option<RoleId>| {
                    // A domain's role shows only as what it implies.
                    if snapshot.get::<Role>(role).is_some_and(|r| r.domain_id.is_some()) {
                        return;
                    }
                    let assignment = Assignment {
                        actor: Actor::User(user.clone()),
                        target: target.clone(),
                        role_id: role.clone(),
                        inherited: false,
                    };
                    let e = Effective {
                        assignment,
                        group: group.clone(),
                        from: from.clone(),
                        prior,
                    };
                    if seen.insert(e.clone()) {
                        out.push(e);
                    }
                };
                push(&a.role_id, None);
                let mut roles = vec![a.role_id.clone()];
                let mut at = 0;
                while at < roles.len() {
                    let prior = roles[at].clone();
                    for i in snapshot.find::<Implication>("prior", &prior) {
                        if !roles.contains(&i.implied) {
                            roles.push(i.implied.clone());
                            push(&i.implied, Some(prior.clone()));
                        }
                    }
                    at += 1;
                }
            }
        }
    }
    out
}

fn below(
    snapshot: &Snapshot,
    id: &ProjectId,
    from: &AssignmentTarget,
) -> Vec<(AssignmentTarget, Option<AssignmentTarget>)> {
    subtree(snapshot, id)
        .into_iter()
        .map(|p| (AssignmentTarget::Project(p.id), Some(from.clone())))
        .collect()
}
