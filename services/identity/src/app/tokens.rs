//! Tokens: issued, verified, cached.
//!
//! A verified token is cached under the SHA-256 of its text together with the revision of the last identity transaction
//! (`epoch/identity`). While that revision stands, nothing that the token depends on can have changed, and a look-up is
//! all that a request costs. When it moves on, the token is judged anew from its payload:
//!
//! ```text
//! text ─ cached at this epoch? ── yes ──────────────────────────────► caller, body
//!          │ no: open the seal (or take the cached payload)
//!          ▼
//!   incarnation ─ expiry ─ deleted? ─ revocations above its revision? ─ user, domains, project enabled? ─ roles?
//! ```

use super::{App, catalog};
use crate::api::views::{DomainRef, ProjectRef, RoleRef, TokenBody, TokenView, UserRef};
use bytes::Bytes;
use maru_auth::{Caller, Scope, TokenVerifier};
use maru_base::{DomainId, Error, Result, UserId};
use maru_identity_model::{
    AccessRule, AccessToken, ApplicationCredential, AssignmentTarget, Delegation, Methods, Password, Payload, Project,
    Revocation, RevocationId, RevokedToken, Role, RoleId, Secret, ServiceProvider, Trust, User, domain,
    effective_roles, epoch, expand_implied, project,
};
use maru_store::{Object, Snapshot};
use sha2::Digest;
use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

/// How long a process that is behind a token's revision waits to catch up.
const CATCH_UP: Duration = Duration::from_secs(1);
/// How long after its end a service may still validate a token (`allow_expired`), in microseconds.
const EXPIRED_WINDOW: i64 = 48 * 3_600 * 1_000_000;

/// The one text for whatever is wrong with a caller's identity.
pub(crate) fn refused() -> Error {
    Error::unauthorized("The request you have made requires authentication.")
}

/// A token that was found good.
pub(crate) struct Verified {
    pub(crate) payload: Payload,
    pub(crate) caller: Arc<Caller>,
    pub(crate) user: Object<User>,
    user_domain: Object<Project>,
    pub(crate) project: Option<(Object<Project>, Object<Project>)>,
    domain: Option<Object<Project>>,
    roles: Vec<Object<Role>>,
    pub(crate) delegated: Option<Delegated>,
    /// The snapshot it was judged by, for rendering.
    snapshot_epoch: u64,
    body: OnceLock<Bytes>,
    bare: OnceLock<Bytes>,
}

/// What a delegated token is good by.
pub(crate) enum Delegated {
    /// An application credential, and the only requests that it allows.
    ApplicationCredential(Object<ApplicationCredential>, Option<Vec<Object<AccessRule>>>),
    /// A trust.
    Trust(Object<Trust>),
    /// An OAuth1 access token.
    AccessToken(Object<AccessToken>),
}

impl Delegated {
    fn expires_at(&self) -> Option<i64> {
        match self {
            Self::ApplicationCredential(c, _) => c.value.expires_at,
            Self::Trust(t) => t.value.expires_at,
            Self::AccessToken(t) => Some(t.value.expires_at),
        }
    }
    fn view(&self) -> (&'static str, serde_json::Value) {
        match self {
            Self::ApplicationCredential(c, rules) => {
                let mut view =
                    serde_json::json!({"id": c.id, "name": c.value.name, "restricted": !c.value.unrestricted});
                if let Some(rules) = rules {
                    view["access_rules"] = rules
                        .iter()
                        .map(|r| serde_json::json!({"id": r.id, "service": r.service, "path": r.path, "method": r.method}))
                        .collect();
                }
                ("application_credential", view)
            }
            Self::AccessToken(t) => (
                "OS-OAUTH1",
                serde_json::json!({"access_token_id": t.id, "consumer_id": t.consumer_id}),
            ),
            Self::Trust(t) => (
                "OS-TRUST:trust",
                serde_json::json!({"id": t.id, "impersonation": t.impersonation,
                    "trustor_user": {"id": t.trustor_user_id}, "trustee_user": {"id": t.trustee_user_id}}),
            ),
        }
    }
}

impl Verified {
    /// Refuses a token that may not make new ways to act for its user (attack classes C3, C6).
    ///
    /// # Errors
    /// 403 for a trust's token and a restricted application credential's.
    pub(crate) fn may_delegate(&self, what: &str) -> Result<()> {
        match &self.delegated {
            Some(Delegated::ApplicationCredential(c, _)) if !c.value.unrestricted => Err(Error::forbidden(format!(
                "Using method 'application_credential' is not allowed for managing {what}: the application credential is \
                 restricted. Authenticate with a password, or make it with unrestricted=true."
            ))),
            Some(Delegated::AccessToken(_)) => Err(Error::forbidden(format!(
                "A token that was got by OAuth1 is not allowed for managing {what}; authenticate with a password."
            ))),
            Some(Delegated::Trust(_)) => Err(Error::forbidden(format!(
                "A token that was got by a trust is not allowed for managing {what}; authenticate with a password."
            ))),
            _ => Ok(()),
        }
    }
    /// Whether the token itself gives a role.
    pub(crate) fn has_role(&self, id: &maru_identity_model::RoleId) -> bool {
        self.roles.iter().any(|r| r.id == *id)
    }
    /// Whether the token is good for this request.
    fn admits(&self, service: &str, method: &str, path: &str) -> bool {
        match &self.delegated {
            Some(Delegated::ApplicationCredential(_, Some(rules))) => {
                rules.iter().any(|r| r.value.admits(service, method, path))
            }
            _ => true,
        }
    }
    /// The token's JSON form, with the catalogue or without; rendered once.
    pub(crate) fn body(&self, snapshot: &Snapshot, with_catalog: bool) -> Result<Bytes> {
        let cell = if with_catalog { &self.body } else { &self.bare };
        if let Some(bytes) = cell.get() {
            return Ok(bytes.clone());
        }
        let bytes = self.render(snapshot, with_catalog)?;
        Ok(cell.get_or_init(|| bytes).clone())
    }

    fn render(&self, snapshot: &Snapshot, with_catalog: bool) -> Result<Bytes> {
        let p = &self.payload;
        let scoped = p.scope != Scope::Unscoped;
        let domain_ref = |d: &'_ Object<Project>| DomainRef {
            id: d.id.to_string(),
            name: d.name.clone(),
        };
        let view = TokenView {
            methods: p.methods.names(),
            user: UserRef {
                domain: domain_ref(&self.user_domain),
                id: self.user.id.to_string(),
                name: self.user.name.clone(),
                password_expires_at: snapshot
                    .get::<Password>(&self.user.id)
                    .and_then(|p| p.expires_at)
                    .map(micros),
            },
            audit_ids: p.audit_texts(),
            expires_at: micros(p.expires_at),
            issued_at: micros(p.issued_at),
            project: self.project.as_ref().map(|(project, domain)| ProjectRef {
                domain: domain_ref(domain),
                id: project.id.to_string(),
                name: project.name.clone(),
            }),
            is_domain: self.project.as_ref().map(|(project, _)| project.is_domain),
            domain: self.domain.as_ref().map(domain_ref),
            system: (p.scope == Scope::System).then(|| serde_json::json!({"all": true})),
            roles: scoped.then(|| {
                self.roles
                    .iter()
                    .map(|r| RoleRef {
                        id: r.id.to_string(),
                        name: r.name.clone(),
                    })
                    .collect()
            }),
            delegated: self.delegated.iter().map(Delegated::view).collect(),
            catalog: (scoped && with_catalog)
                .then(|| catalog::render(snapshot, self.caller.project_id(), &self.user.id)),
            service_providers: if scoped {
                service_providers(snapshot)
            } else {
                Vec::new()
            },
        };
        let bytes = serde_json::to_vec(&TokenBody { token: view })
            .map_err(|e| Error::internal("The answer could not be encoded.", e))?;
        Ok(bytes.into())
    }
}

/// The enabled service providers, as a token names them.
fn service_providers(snapshot: &Snapshot) -> Vec<serde_json::Value> {
    snapshot
        .list::<ServiceProvider>()
        .filter(|p| p.enabled)
        .map(|p| serde_json::json!({"id": p.id, "auth_url": p.auth_url, "sp_url": p.sp_url}))
        .collect()
}

pub(crate) fn micros(t: i64) -> String {
    maru_base::time::micros_z(jiff::Timestamp::from_microsecond(t).unwrap_or(jiff::Timestamp::UNIX_EPOCH))
}

/// Whether expired tokens count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expired {
    Refused,
    Allowed,
}

/// Judges a payload by the present state.
fn judge(snapshot: &Snapshot, epoch: u64, payload: Payload, expired: Expired) -> Result<Verified> {
    let now = maru_base::time::now().as_microsecond();
    let window = if expired == Expired::Allowed { EXPIRED_WINDOW } else { 0 };
    if payload.expires_at.saturating_add(window) <= now
        || payload.incarnation != snapshot.incarnation()
        || snapshot.get::<RevokedToken>(&payload.audit_id()).is_some()
    {
        return Err(refused());
    }
    let revoked = |id: RevocationId| {
        snapshot
            .get::<Revocation>(&id)
            .is_some_and(|r| r.revision > payload.revision)
    };
    let enabled_domain = |id: &DomainId| match domain(snapshot, id) {
        Some(d) if d.enabled && !revoked(Revocation::domain(id)) => Ok(d),
        _ => Err(refused()),
    };
    let user = snapshot
        .get::<User>(&payload.user_id)
        .filter(|u| u.enabled)
        .ok_or_else(refused)?;
    if revoked(Revocation::user(&user.id)) {
        return Err(refused());
    }
    let user_domain = enabled_domain(&user.domain_id)?;
    let delegated = match &payload.delegation {
        None => None,
        Some(by) => Some(delegated(snapshot, by, &payload)?),
    };
    let mut giver = user.id.clone();
    if let Some(Delegated::Trust(t)) = &delegated {
        // Both ends must be able to act, whichever of them the token shows.
        for id in [&t.trustor_user_id, &t.trustee_user_id] {
            let one = snapshot.get::<User>(id).filter(|u| u.enabled).ok_or_else(refused)?;
            enabled_domain(&one.domain_id)?;
            if revoked(Revocation::user(id)) {
                return Err(refused());
            }
        }
        giver = t.trustor_user_id.clone();
    }
    if delegated
        .as_ref()
        .and_then(Delegated::expires_at)
        .is_some_and(|end| end.saturating_add(window) <= now)
    {
        return Err(refused());
    }
    let mut project_of = None;
    let mut domain_of = None;
    let target = match &payload.scope {
        Scope::Unscoped => None,
        Scope::System => Some(AssignmentTarget::System),
        Scope::Domain(id) => {
            domain_of = Some(enabled_domain(id)?);
            Some(AssignmentTarget::Domain(id.clone()))
        }
        Scope::Project(id) => {
            let p = project(snapshot, id).filter(|p| p.enabled).ok_or_else(refused)?;
            if revoked(Revocation::project(id)) {
                return Err(refused());
            }
            let own = DomainId::from(id.as_str());
            let d = enabled_domain(p.domain_id.as_ref().unwrap_or(&own))?;
            project_of = Some((p, d));
            Some(AssignmentTarget::Project(id.clone()))
        }
    };
    let mut roles = match &target {
        Some(target) => effective_roles(snapshot, &giver, target),
        None => Vec::new(),
    };
    // A trust or an access token is whole or not at all, as upstream.
    let whole = |given: &[RoleId], has: &[Object<Role>]| given.iter().all(|id| has.iter().any(|r| r.id == *id));
    let given = match &delegated {
        None => None,
        Some(Delegated::ApplicationCredential(c, _)) => Some(c.roles.clone()),
        Some(Delegated::Trust(Object { value, .. })) => Some(value.roles.clone()).filter(|given| whole(given, &roles)),
        Some(Delegated::AccessToken(Object { value, .. })) => {
            Some(value.roles.clone()).filter(|given| whole(given, &roles))
        }
    };
    if delegated.is_some() && given.is_none() {
        return Err(refused());
    }
    if let Some(mut given) = given {
        expand_implied(snapshot, &mut given);
        roles.retain(|r| given.contains(&r.id));
    }
    if target.is_some() && roles.is_empty() {
        return Err(refused());
    }
    let mut names: Vec<String> = roles.iter().map(|r| r.name.to_lowercase()).collect();
    names.sort_unstable();
    names.dedup();
    let caller = Arc::new(Caller {
        user_id: user.id.clone(),
        user_name: user.name.clone(),
        user_domain_id: user.domain_id.clone(),
        scope: payload.scope.clone(),
        project_domain_id: project_of.as_ref().map(|(_, d)| DomainId::from(d.id.as_str())),
        project_name: project_of.as_ref().map(|(p, _)| p.name.clone()),
        roles: names,
        methods: payload.methods.names(),
        audit_ids: payload.audit_texts(),
        expires_at: jiff::Timestamp::from_microsecond(payload.expires_at).unwrap_or(jiff::Timestamp::UNIX_EPOCH),
    });
    Ok(Verified {
        payload,
        caller,
        user,
        user_domain,
        project: project_of,
        domain: domain_of,
        roles,
        delegated,
        snapshot_epoch: epoch,
        body: OnceLock::new(),
        bare: OnceLock::new(),
    })
}

/// What a payload says that it was delegated by, if that still is and fits the payload.
fn delegated(snapshot: &Snapshot, by: &Delegation, payload: &Payload) -> Result<Delegated> {
    match by {
        Delegation::ApplicationCredential(id) => {
            let c = snapshot.get::<ApplicationCredential>(id).ok_or_else(refused)?;
            if c.user_id != payload.user_id || payload.scope != Scope::Project(c.project_id.clone()) {
                return Err(refused());
            }
            // A rule that is gone admits nothing.
            let rules = c
                .access_rules
                .as_ref()
                .map(|ids| ids.iter().filter_map(|id| snapshot.get::<AccessRule>(id)).collect());
            Ok(Delegated::ApplicationCredential(c, rules))
        }
        Delegation::Trust(id) => {
            let t = snapshot.get::<Trust>(id).ok_or_else(refused)?;
            let shown = if t.impersonation {
                &t.trustor_user_id
            } else {
                &t.trustee_user_id
            };
            if *shown != payload.user_id || payload.scope != Scope::Project(t.project_id.clone()) {
                return Err(refused());
            }
            Ok(Delegated::Trust(t))
        }
        Delegation::AccessToken(id) => {
            let t = snapshot.get::<AccessToken>(id).ok_or_else(refused)?;
            if t.user_id != payload.user_id || payload.scope != Scope::Project(t.project_id.clone()) {
                return Err(refused());
            }
            Ok(Delegated::AccessToken(t))
        }
    }
}

/// Shards, so that cores do not wait for one another.
const SHARDS: usize = 16;
/// Tokens in the young half of one shard; when it is full it becomes the old half. 8,192 tokens in all.
const HALF: usize = 256;

type Digest32 = [u8; 32];

#[derive(Default)]
struct Shard {
    young: HashMap<Digest32, Arc<Verified>>,
    old: HashMap<Digest32, Arc<Verified>>,
}

/// Verified tokens by the SHA-256 of their text, bounded.
pub(crate) struct Cache {
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::new(),
        }
    }
}

impl Cache {
    fn shard(&self, key: &Digest32) -> std::sync::MutexGuard<'_, Shard> {
        let at = usize::try_from(self.hasher.hash_one(key) % SHARDS as u64).unwrap_or(0);
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn get(&self, key: &Digest32) -> Option<Arc<Verified>> {
        let mut shard = self.shard(key);
        if let Some(hit) = shard.young.get(key) {
            return Some(Arc::clone(hit));
        }
        let hit = shard.old.remove(key)?;
        keep(&mut shard, *key, Arc::clone(&hit));
        Some(hit)
    }
    fn put(&self, key: Digest32, value: Arc<Verified>) {
        keep(&mut self.shard(&key), key, value);
    }
}

fn keep(shard: &mut Shard, key: Digest32, value: Arc<Verified>) {
    if shard.young.len() >= HALF {
        shard.old = std::mem::take(&mut shard.young);
    }
    shard.young.insert(key, value);
}

/// What a new token is for.
pub(crate) struct Issue {
    pub(crate) user_id: UserId,
    pub(crate) scope: Scope,
    pub(crate) methods: Methods,
    /// The chain's first audit id and the end that the new token may not pass, when it is got by a token.
    pub(crate) from: Option<([u8; 16], i64)>,
    /// By what it is delegated, if it is.
    pub(crate) delegation: Option<Delegation>,
}

impl App {
    /// Verifies a token by its text.
    ///
    /// # Errors
    /// 401 when it is not good, 503 when this process cannot catch up with it.
    pub(crate) async fn verify(&self, token: &str) -> Result<Arc<Verified>> {
        self.verify_with(token, Expired::Refused).await
    }
    /// Verifies a token that may have expired within the last two days.
    pub(crate) async fn verify_expired(&self, token: &str) -> Result<Arc<Verified>> {
        self.verify_with(token, Expired::Allowed).await
    }

    async fn verify_with(&self, token: &str, expired: Expired) -> Result<Arc<Verified>> {
        let key: Digest32 = sha2::Sha256::digest(token.as_bytes()).into();
        let mut snapshot = self.snapshot();
        let mut epoch_now = epoch(&snapshot, &self.epoch_key);
        let cached = self.cache.get(&key);
        let payload = match cached {
            Some(v) if v.snapshot_epoch == epoch_now => {
                if v.payload.expires_at > maru_base::time::now().as_microsecond() {
                    return Ok(v);
                }
                v.payload.clone()
            }
            Some(v) => v.payload.clone(),
            None => self.keys.open(&snapshot, token).ok_or_else(refused)?,
        };
        if payload.revision > snapshot.revision() && payload.incarnation == snapshot.incarnation() {
            // Issued by another process whose state is newer than what this one has seen.
            if tokio::time::timeout(CATCH_UP, self.store.wait(payload.revision))
                .await
                .is_err()
            {
                return Err(Error::unavailable(
                    "This node has not caught up with the token's state yet; try again.",
                ));
            }
            snapshot = self.snapshot();
            epoch_now = epoch(&snapshot, &self.epoch_key);
        }
        let verified = Arc::new(judge(&snapshot, epoch_now, payload, expired)?);
        if expired == Expired::Refused {
            self.cache.put(key, Arc::clone(&verified));
        }
        Ok(verified)
    }

    /// Issues a token. The caller has been authenticated; here the scope is judged.
    ///
    /// # Errors
    /// 401 when the user, its domain or the scope is disabled, or the user has no role there.
    pub(crate) fn issue(&self, issue: Issue) -> Result<(Secret, Arc<Verified>)> {
        let snapshot = self.snapshot();
        let epoch_now = epoch(&snapshot, &self.epoch_key);
        let now = maru_base::time::now().as_microsecond();
        let life = self.settings.token_seconds.saturating_mul(1_000_000);
        // Tokens end on a whole second, as Keystone's do.
        let end = (now.saturating_add(life)) / 1_000_000 * 1_000_000;
        let mut audit = [0_u8; 16];
        maru_base::random::fill(&mut audit);
        let mut audit_ids = vec![audit];
        audit_ids.extend(issue.from.map(|(first, _)| first));
        let payload = Payload {
            incarnation: snapshot.incarnation(),
            revision: snapshot.revision(),
            issued_at: now,
            expires_at: issue.from.map_or(end, |(_, most)| end.min(most)),
            methods: issue.methods,
            user_id: issue.user_id,
            scope: issue.scope,
            audit_ids,
            delegation: issue.delegation,
        };
        let mut verified = judge(&snapshot, epoch_now, payload, Expired::Refused)?;
        if let Some(end) = verified.delegated.as_ref().and_then(Delegated::expires_at)
            && end < verified.payload.expires_at
        {
            // No token outlives what gave it.
            let mut payload = verified.payload.clone();
            payload.expires_at = end;
            verified = judge(&snapshot, epoch_now, payload, Expired::Refused)?;
        }
        let verified = Arc::new(verified);
        let token = self.keys.seal(&snapshot, &verified.payload)?;
        let key: Digest32 = sha2::Sha256::digest(token.reveal().as_bytes()).into();
        self.cache.put(key, Arc::clone(&verified));
        Ok((token, verified))
    }

    /// Ends one token; also forgets deleted tokens that have expired anyway.
    pub(crate) async fn end_token(&self, verified: &Verified) -> Result<()> {
        let id = verified.payload.audit_id();
        let expires_at = verified.payload.expires_at / 1_000_000 + 1;
        self.plan(|snapshot, txn| {
            if snapshot.get::<RevokedToken>(&id).is_none() {
                let at = maru_base::time::now().as_microsecond();
                txn.put(&id, &RevokedToken { expires_at, at });
            }
            let now = maru_base::time::now().as_second();
            for old in snapshot
                .list::<RevokedToken>()
                .filter(|t| t.expires_at < now && t.id != id)
                .take(100)
            {
                txn.delete(&old);
            }
            Ok(())
        })
        .await
    }
}

struct Verifier(Arc<App>);

#[async_trait::async_trait]
impl TokenVerifier for Verifier {
    async fn verify(&self, token: &str) -> Result<Arc<Caller>> {
        // Whoever does not say what for gets no token that is good for some requests only.
        self.verify_for(token, "", "", "").await
    }
    async fn verify_for(&self, token: &str, service: &str, method: &str, path: &str) -> Result<Arc<Caller>> {
        let verified = self.0.verify(token).await?;
        if !verified.admits(service, method, path) {
            return Err(Error::unauthorized(format!(
                "The application credential's access rules do not allow {method} {path} of the service {service}."
            )));
        }
        Ok(Arc::clone(&verified.caller))
    }
}

/// The seam through which all services verify tokens.
#[must_use]
pub fn verifier(app: Arc<App>) -> Arc<dyn TokenVerifier> {
    Arc::new(Verifier(app))
}

/// A token without a password, for tests of other services. Needs a bootstrapped store and a role in the scope.
///
/// # Errors
/// As when authenticating.
pub fn issue_for_tests(app: &App, user: &UserId, scope: Scope) -> Result<String> {
    let issue = Issue {
        user_id: user.clone(),
        scope,
        methods: Methods::PASSWORD,
        from: None,
        delegation: None,
    };
    app.issue(issue).map(|(token, _)| token.reveal().to_owned())
}
