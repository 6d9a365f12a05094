//! The first state of a cloud: domain, projects, administrator, roles, keys, catalogue. Run at every start; writes only
//! what is missing.

use super::{keys, passwords::Hasher};
use maru_base::{DomainId, Error, ProjectId, Result, UserId};
use maru_identity_model::{
    Actor, Assignment, AssignmentTarget, DEFAULT_DOMAIN, Implication, KeyRing, Password, Project, Role, RoleId, Secret,
    User, touch,
};
use maru_store::{Snapshot, Store, Txn};
use serde_json::{Map, Value};

/// What the first state is to be.
#[derive(Debug, Clone)]
pub struct Bootstrap {
    /// The administrator's password; used when there is no administrator yet, or with `reset_password`.
    pub admin_password: Secret,
    /// Gives an administrator that exists this password, too.
    pub reset_password: bool,
    /// Name of the region: `RegionOne`.
    pub region: String,
    /// Address of the identity API in the catalogue: `http://127.0.0.1:5000/identity`.
    pub public_url: String,
    /// bcrypt's cost.
    pub bcrypt_cost: u32,
}

/// What there is after a bootstrap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootstrapReport {
    /// The administrator.
    pub admin_user: UserId,
    /// The administrator's project.
    pub admin_project: ProjectId,
    /// The project of services.
    pub service_project: ProjectId,
    /// What was missing and has been made, in words.
    pub created: Vec<String>,
}

/// The standard roles; each implies the next of the chain that follows.
const ROLES: [&str; 5] = ["admin", "manager", "member", "reader", "service"];
const CHAIN: [(&str, &str); 3] = [("admin", "manager"), ("manager", "member"), ("member", "reader")];

/// Makes the default domain, the projects `admin` and `service`, the user `admin` (administrator of its project and of
/// the system), the standard roles, the token keys and the identity service's own place in the catalogue.
///
/// # Errors
/// When the store does not commit.
pub async fn bootstrap(store: &Store, config: &Bootstrap) -> Result<BootstrapReport> {
    let domain_id = DomainId::from(DEFAULT_DOMAIN);
    let exists = store.snapshot().owner("user", &domain_id, "admin").is_some();
    let password = if exists && !config.reset_password {
        None
    } else {
        Some(
            Hasher::new(config.bcrypt_cost, 1)
                .hash(config.admin_password.clone())
                .await?,
        )
    };
    let report = store
        .plan(|snapshot| {
            let mut first = First {
                snapshot,
                txn: Txn::new(),
                created: Vec::new(),
            };
            let report = first.plan(&domain_id, password.as_ref())?;
            let mut txn = first.txn;
            if !txn.is_empty() {
                touch(&mut txn);
            }
            Ok((txn, report))
        })
        .await?;
    super::set_catalogue(store, &config.region, &[("identity", "keystone", &config.public_url)]).await?;
    Ok(report)
}

struct First<'a> {
    snapshot: &'a Snapshot,
    txn: Txn,
    created: Vec<String>,
}

impl First<'_> {
    fn plan(&mut self, domain_id: &DomainId, password: Option<&Password>) -> Result<BootstrapReport> {
        let root = ProjectId::from(domain_id.as_str());
        if self.snapshot.get::<Project>(&root).is_none() {
            self.txn.create(&root, &blank("Default", "The default domain", None));
            self.txn.claim("domain", "", "Default", &root);
            self.created.push("domain Default".to_owned());
        }
        let admin_project = self.project(domain_id, "admin", "The administrator's project");
        let service_project = self.project(domain_id, "service", "The project of services");
        let roles: Vec<RoleId> = ROLES.iter().map(|name| self.role(name)).collect();
        let role = |name: &str| {
            ROLES
                .iter()
                .position(|r| *r == name)
                .and_then(|at| roles.get(at))
                .cloned()
        };
        for (prior, implied) in CHAIN {
            if let (Some(prior), Some(implied)) = (role(prior), role(implied)) {
                let i = Implication { prior, implied };
                if self.snapshot.get::<Implication>(&i.id()).is_none() {
                    self.txn.create(&i.id(), &i);
                }
            }
        }
        let admin_user = self.admin(domain_id, password)?;
        if let Some(role_id) = role("admin") {
            for target in [
                AssignmentTarget::Project(admin_project.clone()),
                AssignmentTarget::System,
            ] {
                let a = Assignment {
                    actor: Actor::User(admin_user.clone()),
                    target,
                    role_id: role_id.clone(),
                    inherited: false,
                };
                if self.snapshot.get::<Assignment>(&a.id()).is_none() {
                    self.txn.create(&a.id(), &a);
                }
            }
        }
        if self.snapshot.get::<KeyRing>(&KeyRing::the()).is_none() {
            self.txn.create(&KeyRing::the(), &keys::fresh_ring());
            self.created.push("token keys".to_owned());
        }
        Ok(BootstrapReport {
            admin_user,
            admin_project,
            service_project,
            created: std::mem::take(&mut self.created),
        })
    }

    fn project(&mut self, domain_id: &DomainId, name: &str, description: &str) -> ProjectId {
        if let Some(id) = self.snapshot.owner("project", domain_id, name) {
            return ProjectId::from(id);
        }
        let id = ProjectId::new_hex();
        self.txn.create(&id, &blank(name, description, Some(domain_id)));
        self.txn.claim("project", domain_id, name, &id);
        self.created.push(format!("project {name}"));
        id
    }

    fn role(&mut self, name: &str) -> RoleId {
        if let Some(id) = self.snapshot.owner("role", "", name) {
            return RoleId::from(id);
        }
        let id = RoleId::new_hex();
        let mut options = Map::new();
        if name != "service" {
            options.insert("immutable".to_owned(), Value::Bool(true));
        }
        let value = Role {
            name: name.to_owned(),
            domain_id: None,
            description: None,
            options,
            extra: Map::new(),
        };
        self.txn.create(&id, &value);
        self.txn.claim("role", "", name, &id);
        self.created.push(format!("role {name}"));
        id
    }

    fn admin(&mut self, domain_id: &DomainId, password: Option<&Password>) -> Result<UserId> {
        let known = self.snapshot.owner("user", domain_id, "admin").map(UserId::from);
        let id = match known {
            Some(id) => id,
            None => {
                let id = UserId::new_hex();
                let value = User {
                    name: "admin".to_owned(),
                    domain_id: domain_id.clone(),
                    enabled: true,
                    default_project_id: None,
                    options: Map::new(),
                    extra: Map::new(),
                };
                self.txn.create(&id, &value);
                self.txn.claim("user", domain_id, "admin", &id);
                self.created.push("user admin".to_owned());
                if password.is_none() {
                    return Err(Error::conflict("The user 'admin' was deleted meanwhile; start again."));
                }
                id
            }
        };
        if let Some(password) = password {
            self.txn.put(&id, password);
        }
        Ok(id)
    }
}

fn blank(name: &str, description: &str, domain_id: Option<&DomainId>) -> Project {
    Project {
        name: name.to_owned(),
        domain_id: domain_id.cloned(),
        parent_id: domain_id.map(|d| ProjectId::from(d.as_str())),
        description: description.to_owned(),
        enabled: true,
        is_domain: domain_id.is_none(),
        tags: Vec::new(),
        options: Map::new(),
        extra: Map::new(),
    }
}
