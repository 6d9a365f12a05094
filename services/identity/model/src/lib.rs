//! What the identity service stores, and the pure rules over it that other services may use.
//!
//! - [`Project`]: projects and domains in one kind (a domain is a project that acts as one, as in Keystone), [`project`],
//!   [`domain`], [`domain_of`].
//! - [`User`], [`Password`], [`Logins`], [`Group`], [`Membership`], [`Credential`].
//! - [`Role`], [`Implication`], [`Assignment`] and who has which role where: [`effective_roles`].
//! - [`ApplicationCredential`], [`AccessRule`], [`Trust`]: ways to act with some of a user's rights.
//! - [`Region`], [`Service`], [`Endpoint`]: the catalogue; [`EndpointGroup`], [`ProjectEndpoint`],
//!   [`ProjectEndpointGroup`]: who sees what of it.
//! - [`IdentityProvider`], [`Protocol`], [`Mapping`], [`ServiceProvider`]: federation.
//! - [`Consumer`], [`RequestToken`], [`AccessToken`]: OAuth 1.0a.
//! - [`RegisteredLimit`], [`Limit`]: unified limits. [`DomainConfig`], [`StoredPolicy`], [`PolicyUse`]: kept for who asks.
//! - [`Payload`], [`KeyRing`], [`Revocation`], [`RevokedToken`]: what a token is, and what ends it.
//!
//! Every transaction on these kinds also writes the key `epoch/identity` (see [`touch`]); its revision tells in one
//! look-up whether anything that a token depends on may have changed. A cascade guards it (see [`freeze`]): whoever
//! creates a child guards that its parent lives, whoever deletes a parent guards that nothing was created meanwhile.

mod application_credentials;
mod assignments;
mod catalog;
mod credentials;
mod domain_config;
mod endpoint_filter;
mod federation;
mod groups;
mod limits;
mod mapping;
mod oauth1;
mod policies;
mod projects;
mod roles;
mod tokens;
mod trusts;
mod users;

pub use application_credentials::{AccessRule, AccessRuleId, ApplicationCredential, ApplicationCredentialId};
pub use assignments::{
    Actor, Assignment, AssignmentId, AssignmentTarget, Effective, ancestors, effective_assignments, effective_roles,
    expand_implied,
};
pub use catalog::{Endpoint, EndpointId, Interface, Region, RegionId, Service, ServiceId};
pub use credentials::{Credential, CredentialId};
pub use domain_config::{DOMAIN_OPTIONS, DomainConfig, DomainConfigId, is_group, is_option, is_sensitive};
pub use endpoint_filter::{
    AssociationId, EndpointFilter, EndpointGroup, EndpointGroupId, ProjectEndpoint, ProjectEndpointGroup,
    associated_endpoints, endpoints_in,
};
pub use federation::{
    IdentityProvider, IdentityProviderId, Mapping, MappingId, Protocol, ProtocolId, ServiceProvider, ServiceProviderId,
};
pub use groups::{Group, GroupId, Membership, MembershipId};
pub use limits::{Limit, LimitId, RegisteredLimit, RegisteredLimitId};
pub use mapping::{MAPPING_VERSIONS, check_mapping};
pub use maru_base::Secret;
pub use oauth1::{AccessToken, AccessTokenId, Consumer, ConsumerId, Granted, RequestToken, RequestTokenId};
pub use policies::{PolicyId, PolicyUse, PolicyUseId, StoredPolicy};
pub use projects::{DEFAULT_DOMAIN, Project, domain, domain_of, project, subtree};
pub use roles::{Implication, ImplicationId, Role, RoleId};
pub use tokens::{
    AuditId, Delegation, KeyRing, KeyRingId, Methods, Payload, PayloadError, Receipt, Revocation, RevocationId,
    RevokedToken, TokenScope, decode_receipt, decode_token,
};
pub use trusts::{Trust, TrustId};
pub use users::{EarlierPassword, Logins, Password, User};

use maru_store::{Guard, Key, Registry, Revision, Snapshot, Txn};

/// Name of the epoch that every identity transaction writes.
const EPOCH: &str = "identity";

/// Registers all kinds of this service.
pub fn register(r: &mut Registry) {
    r.register::<Project>()
        .register::<User>()
        .register::<Password>()
        .register::<Logins>()
        .register::<Group>()
        .register::<Membership>()
        .register::<Role>()
        .register::<Implication>()
        .register::<Assignment>()
        .register::<Region>()
        .register::<Service>()
        .register::<Endpoint>()
        .register::<Credential>()
        .register::<ApplicationCredential>()
        .register::<AccessRule>()
        .register::<Trust>()
        .register::<StoredPolicy>()
        .register::<PolicyUse>()
        .register::<DomainConfig>()
        .register::<EndpointGroup>()
        .register::<ProjectEndpoint>()
        .register::<ProjectEndpointGroup>()
        .register::<Consumer>()
        .register::<RequestToken>()
        .register::<AccessToken>()
        .register::<RegisteredLimit>()
        .register::<Limit>()
        .register::<IdentityProvider>()
        .register::<Protocol>()
        .register::<Mapping>()
        .register::<ServiceProvider>()
        .register::<KeyRing>()
        .register::<Revocation>()
        .register::<RevokedToken>();
}

/// The key whose revision is that of the last identity transaction.
#[must_use]
pub fn epoch_key() -> Key {
    Key::of(&["epoch", EPOCH])
}

/// The revision of the last identity transaction that this snapshot shows; 0 for none.
#[must_use]
pub fn epoch(snapshot: &Snapshot, key: &Key) -> Revision {
    snapshot.raw(key).map_or(0, |(revision, _)| revision)
}

/// Marks a transaction as one that changed identity. Every transaction on this service's kinds does this.
pub fn touch(txn: &mut Txn) {
    txn.bump_epoch(EPOCH);
}

/// Guards that no identity transaction has committed since this snapshot; for cascades.
pub fn freeze(snapshot: &Snapshot, txn: &mut Txn) {
    let key = epoch_key();
    match snapshot.raw(&key) {
        Some((revision, _)) => txn.guard(Guard::At(key, revision)),
        None => txn.guard(Guard::Absent(key)),
    };
    touch(txn);
}
