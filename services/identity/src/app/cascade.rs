//! Deletions and what goes with them, each in one transaction that also guards that nothing was added meanwhile.

use maru_base::{Error, ProjectId, Result};
use maru_identity_model::{
    AccessRule, AccessToken, Actor, ApplicationCredential, Assignment, AssignmentTarget, Consumer, Credential,
    DomainConfig, Endpoint, EndpointGroup, Group, IdentityProvider, Implication, Limit, Logins, Membership, Password,
    PolicyUse, Project, ProjectEndpoint, ProjectEndpointGroup, Protocol, Region, RegisteredLimit, RequestToken,
    Revocation, Role, Service, StoredPolicy, Trust, User, freeze, subtree,
};
use maru_store::{Key, Kind, Object, Op, Snapshot, Txn, object_key};
use std::collections::HashSet;

/// A transaction under construction in which an object may be met twice.
pub(crate) struct Cascade<'a> {
    snapshot: &'a Snapshot,
    txn: &'a mut Txn,
    gone: HashSet<Key>,
}

impl<'a> Cascade<'a> {
    /// Begins; from here on no other identity transaction may commit before this one.
    pub(crate) fn new(snapshot: &'a Snapshot, txn: &'a mut Txn) -> Self {
        freeze(snapshot, txn);
        Self {
            snapshot,
            txn,
            gone: HashSet::new(),
        }
    }
    fn delete<K: Kind>(&mut self, object: &Object<K>) {
        let key = object.key();
        if self.gone.insert(key.clone()) {
            self.txn.op(Op::Delete(key));
        }
    }
    fn assignments(&mut self, index: &str, value: &str) {
        for a in self.snapshot.find::<Assignment>(index, value) {
            self.delete(&a);
        }
    }

    /// Application credentials.
    pub(crate) fn application_credentials(&mut self, index: &str, value: &str) {
        for c in self.snapshot.find::<ApplicationCredential>(index, value) {
            self.application_credential(&c);
        }
    }
    /// One application credential.
    pub(crate) fn application_credential(&mut self, c: &Object<ApplicationCredential>) {
        if !self.gone.contains(&c.key()) {
            self.txn.release("application-credential", &c.user_id, &c.name);
            self.delete(c);
        }
    }
    /// Trusts, and those that were handed on from them.
    pub(crate) fn trusts(&mut self, index: &str, value: &str) {
        let mut all: Vec<_> = self.snapshot.find::<Trust>(index, value).collect();
        while let Some(t) = all.pop() {
            all.extend(self.snapshot.find::<Trust>("parent", &t.id));
            self.delete(&t);
        }
    }
    /// One trust, and those that were handed on from it.
    pub(crate) fn trust(&mut self, trust: &Object<Trust>) {
        self.trusts("parent", &trust.id);
        self.delete(trust);
    }

    /// OAuth1 access tokens.
    pub(crate) fn access_tokens(&mut self, index: &str, value: &str) {
        for t in self.snapshot.find::<AccessToken>(index, value) {
            self.delete(&t);
        }
    }
    /// OAuth1 request tokens.
    pub(crate) fn request_tokens(&mut self, index: &str, value: &str) {
        for t in self.snapshot.find::<RequestToken>(index, value) {
            self.delete(&t);
        }
    }
    /// A consumer, with its tokens.
    pub(crate) fn consumer(&mut self, consumer: &Object<Consumer>) {
        self.access_tokens("consumer", &consumer.id);
        self.request_tokens("consumer", &consumer.id);
        self.delete(consumer);
    }
    fn policy_uses(&mut self, index: &str, value: &str) {
        for u in self.snapshot.find::<PolicyUse>(index, value) {
            self.delete(&u);
        }
    }
    /// An identity provider, with its protocols.
    pub(crate) fn identity_provider(&mut self, provider: &Object<IdentityProvider>) {
        for p in self.snapshot.find::<Protocol>("idp", &provider.id) {
            self.delete(&p);
        }
        for remote in &provider.remote_ids {
            self.txn.release("identity-provider-remote", "", remote);
        }
        self.delete(provider);
    }
    /// A policy, with what it was for.
    pub(crate) fn policy(&mut self, policy: &Object<StoredPolicy>) {
        self.policy_uses("policy", &policy.id);
        self.delete(policy);
    }
    /// An endpoint, with what is associated with it.
    pub(crate) fn endpoint(&mut self, endpoint: &Object<Endpoint>) {
        for a in self.snapshot.find::<ProjectEndpoint>("endpoint", &endpoint.id) {
            self.delete(&a);
        }
        self.policy_uses("endpoint", &endpoint.id);
        self.delete(endpoint);
    }
    /// A service, with its endpoints and limits.
    pub(crate) fn service(&mut self, service: &Object<Service>) {
        for e in self.snapshot.find::<Endpoint>("service", &service.id) {
            self.endpoint(&e);
        }
        self.policy_uses("service", &service.id);
        for r in self.snapshot.find::<RegisteredLimit>("service", &service.id) {
            self.limits("registered", &r.id);
            self.txn.release(
                "registered-limit",
                &RegisteredLimit::scope(&r.service_id, r.region_id.as_ref()),
                &r.resource_name,
            );
            self.delete(&r);
        }
        self.delete(service);
    }
    /// A region that nothing lies in.
    pub(crate) fn region(&mut self, region: &Object<Region>) {
        self.policy_uses("region", &region.id);
        self.delete(region);
    }
    fn limits(&mut self, index: &str, value: &str) {
        for l in self.snapshot.find::<Limit>(index, value) {
            if !self.gone.contains(&l.key()) {
                self.txn.release("limit", &l.registered, &l.whose());
                self.delete(&l);
            }
        }
    }
    /// A group of endpoints, with the projects that see it.
    pub(crate) fn endpoint_group(&mut self, group: &Object<EndpointGroup>) {
        for a in self.snapshot.find::<ProjectEndpointGroup>("group", &group.id) {
            self.delete(&a);
        }
        self.delete(group);
    }

    /// A user, with its password, memberships, assignments and credentials. Its tokens end with it.
    pub(crate) fn user(&mut self, user: &Object<User>) {
        for m in self.snapshot.find::<Membership>("user", &user.id) {
            self.delete(&m);
        }
        self.assignments("actor", &format!("user:{}", user.id));
        for c in self.snapshot.find::<Credential>("user", &user.id) {
            self.delete(&c);
        }
        self.application_credentials("user", &user.id);
        for r in self.snapshot.find::<AccessRule>("user", &user.id) {
            self.delete(&r);
        }
        self.trusts("trustor", &user.id);
        self.trusts("trustee", &user.id);
        self.access_tokens("user", &user.id);
        if let Some(p) = self.snapshot.get::<Password>(&user.id) {
            self.delete(&p);
        }
        // Written without a word to this transaction's guards: removed whether it is seen or not.
        self.txn.op(Op::Delete(object_key::<Logins>(&user.id)));
        if let Some(r) = self.snapshot.get::<Revocation>(&Revocation::user(&user.id)) {
            self.delete(&r);
        }
        self.txn.release("user", &user.domain_id, &user.name);
        self.delete(user);
    }
    /// A group, with its memberships and assignments.
    pub(crate) fn group(&mut self, group: &Object<Group>) {
        for m in self.snapshot.find::<Membership>("group", &group.id) {
            self.delete(&m);
        }
        self.assignments("actor", &format!("group:{}", group.id));
        self.txn.release("group", &group.domain_id, &group.name);
        self.delete(group);
    }
    /// A role, with its assignments and implications.
    pub(crate) fn role(&mut self, role: &Object<Role>) {
        self.assignments("role", &role.id);
        for index in ["prior", "implied"] {
            for i in self.snapshot.find::<Implication>(index, &role.id) {
                self.delete(&i);
            }
        }
        self.txn
            .release("role", role.domain_id.as_ref().map_or("", |d| d.as_str()), &role.name);
        self.delete(role);
    }
    /// A project without projects below it, with its assignments and credentials; users lose it as their default.
    ///
    /// # Errors
    /// 403 when it is not a leaf.
    pub(crate) fn project(&mut self, project: &Object<Project>) -> Result<()> {
        if self
            .snapshot
            .find::<Project>("parent", &project.id)
            .any(|p| !self.gone.contains(&p.key()))
        {
            return Err(Error::forbidden(format!(
                "Cannot delete the project {} since it is not a leaf in the hierarchy. Delete the projects below it first.",
                project.id
            )));
        }
        self.assignments("target", &AssignmentTarget::Project(project.id.clone()).key());
        for c in self.snapshot.find::<Credential>("project", &project.id) {
            self.delete(&c);
        }
        self.application_credentials("project", &project.id);
        self.trusts("project", &project.id);
        self.access_tokens("project", &project.id);
        self.request_tokens("project", &project.id);
        for a in self.snapshot.find::<ProjectEndpoint>("project", &project.id) {
            self.delete(&a);
        }
        for a in self.snapshot.find::<ProjectEndpointGroup>("project", &project.id) {
            self.delete(&a);
        }
        self.limits("project", &project.id);
        for user in self.snapshot.find::<User>("default_project", &project.id) {
            if !self.gone.contains(&user.key()) {
                let mut value = (*user.value).clone();
                value.default_project_id = None;
                self.gone.insert(user.key());
                self.txn.put(&user.id, &value);
            }
        }
        if let Some(r) = self.snapshot.get::<Revocation>(&Revocation::project(&project.id)) {
            self.delete(&r);
        }
        if let Some(domain) = &project.domain_id {
            self.txn.release("project", domain, &project.name);
        }
        self.delete(project);
        Ok(())
    }
    /// A disabled domain, with all its users, groups, roles and projects.
    ///
    /// # Errors
    /// 403 when it is enabled.
    pub(crate) fn domain(&mut self, domain: &Object<Project>) -> Result<()> {
        if domain.enabled {
            return Err(Error::forbidden(
                "Cannot delete a domain that is enabled, please disable it first.",
            ));
        }
        for user in self.snapshot.find::<User>("domain", &domain.id) {
            self.user(&user);
        }
        for group in self.snapshot.find::<Group>("domain", &domain.id) {
            self.group(&group);
        }
        for role in self.snapshot.find::<Role>("domain", &domain.id) {
            self.role(&role);
        }
        // Leaves first.
        for project in subtree(self.snapshot, &domain.id).iter().rev() {
            self.project(project)?;
        }
        self.assignments("target", &format!("domain:{}", domain.id));
        if let Some(r) = self.snapshot.get::<Revocation>(&Revocation::domain(&domain.id)) {
            self.delete(&r);
        }
        self.limits("domain", &domain.id);
        for provider in self.snapshot.find::<IdentityProvider>("domain", &domain.id) {
            self.identity_provider(&provider);
        }
        let own = DomainConfig::of(&maru_base::DomainId::from(domain.id.as_str()));
        if let Some(config) = self.snapshot.get::<DomainConfig>(&own) {
            self.delete(&config);
        }
        self.project(domain)?;
        self.txn.release("domain", "", &domain.name);
        Ok(())
    }
}

/// Ends all tokens of a project (or, of a domain, of all that is in it) that were issued before this transaction.
pub(crate) fn revoke_project(txn: &mut Txn, id: &ProjectId, is_domain: bool) {
    let marker = Revocation {
        reason: "disabled".to_owned(),
        at: super::compliance::now(),
    };
    txn.put(
        &if is_domain {
            Revocation::domain(id)
        } else {
            Revocation::project(id)
        },
        &marker,
    );
}

/// Ends all tokens of a user that were issued before this transaction.
pub(crate) fn revoke_user(txn: &mut Txn, id: &str, reason: &str) {
    txn.put(
        &Revocation::user(id),
        &Revocation {
            reason: reason.to_owned(),
            at: super::compliance::now(),
        },
    );
}

/// The actor of an assignment, for messages.
pub(crate) fn actor_text(actor: &Actor) -> String {
    match actor {
        Actor::User(id) => format!("user {id}"),
        Actor::Group(id) => format!("group {id}"),
    }
}
