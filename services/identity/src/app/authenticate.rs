//! POST /v3/auth/tokens: who asks, and for what.
//!
//! Whatever is wrong with the user, the password or the scope, the answer is one and the same 401, after the same work.

use super::{
    App, Issue, Verified,
    factors::{enough, totp_step},
    oauth1::Signed,
    tokens::refused,
};
use maru_auth::Scope;
use maru_base::{DomainId, Error, ErrorKind, ProjectId, Result, UserId};
use maru_http::Request;
use maru_identity_model::{
    AccessToken, AccessTokenId, ApplicationCredential, ApplicationCredentialId, AssignmentTarget, Consumer, Delegation,
    Methods, Password, Secret, Trust, TrustId, User, domain, effective_roles, project,
};
use maru_store::{Object, Snapshot};
use serde_json::{Map, Value};
use std::sync::Arc;

/// A user or project as a request names it.
enum Named {
    Id(String),
    Name { name: String, domain: DomainName },
}

impl Named {
    /// What was asked for.
    fn text(&self) -> &str {
        match self {
            Self::Id(text) | Self::Name { name: text, .. } => text,
        }
    }
}

/// What a request to authenticate comes to.
pub(crate) enum Outcome {
    /// A token.
    Token(Secret, Arc<Verified>),
    /// What was proven is right and not enough: a receipt for it, and the answer's body.
    Receipt(Secret, Value),
}

impl Outcome {
    fn token((text, verified): (Secret, Arc<Verified>)) -> Self {
        Self::Token(text, verified)
    }
}

enum DomainName {
    Id(String),
    Name(String),
}

/// The scope as a request names it.
enum Wanted {
    Default,
    Unscoped,
    System,
    Domain(DomainName),
    Project(Named),
    Trust(TrustId),
}

/// An application credential as a request names it.
enum Given {
    Id(String),
    Name(String, Named),
}

struct Parsed {
    password: Option<(Named, Secret)>,
    token: Option<Secret>,
    application_credential: Option<(Given, Secret)>,
    totp: Option<(Named, Secret)>,
    oauth1: bool,
    scope: Wanted,
}

fn missing(field: &str) -> Error {
    Error::invalid(
        field,
        format!(
            "Expecting to find {field}. The server could not comply with the request since it is either malformed or otherwise incorrect."
        ),
    )
}

/// An object's member that must be an object. Messages never show a value: it may be a password.
fn object<'a>(map: &'a Map<String, Value>, name: &str, path: &str) -> Result<&'a Map<String, Value>> {
    match map.get(name) {
        Some(Value::Object(inner)) => Ok(inner),
        None | Some(Value::Null) => Err(missing(path)),
        Some(_) => Err(Error::invalid(
            path,
            format!("Invalid input for field '{path}': an object is wanted."),
        )),
    }
}

fn text(map: &Map<String, Value>, name: &str, path: &str) -> Result<Option<String>> {
    match map.get(name) {
        Some(Value::String(text)) => Ok(Some(text.clone())),
        None | Some(Value::Null) => Ok(None),
        Some(_) => Err(Error::invalid(
            path,
            format!("Invalid input for field '{path}': a string is wanted."),
        )),
    }
}

fn domain_name(map: &Map<String, Value>, path: &str) -> Result<DomainName> {
    let inner = object(map, "domain", path)?;
    if let Some(id) = text(inner, "id", path)? {
        return Ok(DomainName::Id(id));
    }
    text(inner, "name", path)?
        .map(DomainName::Name)
        .ok_or_else(|| missing(path))
}

fn named(map: &Map<String, Value>, path: &str) -> Result<Named> {
    if let Some(id) = text(map, "id", &format!("{path}.id"))? {
        return Ok(Named::Id(id));
    }
    let name = text(map, "name", &format!("{path}.name"))?.ok_or_else(|| missing(&format!("{path}.id")))?;
    Ok(Named::Name {
        name,
        domain: domain_name(map, &format!("{path}.domain"))?,
    })
}

fn parse(body: &Value) -> Result<Parsed> {
    let root = body.as_object().ok_or_else(|| missing("auth"))?;
    let auth = object(root, "auth", "auth")?;
    let identity = object(auth, "identity", "identity")?;
    let Some(Value::Array(methods)) = identity.get("methods") else {
        return Err(missing("identity.methods"));
    };
    if methods.is_empty() || methods.len() > 8 {
        return Err(Error::invalid(
            "identity.methods",
            "Invalid input for field 'methods': name one method at least.",
        ));
    }
    let mut parsed = Parsed {
        password: None,
        token: None,
        application_credential: None,
        totp: None,
        oauth1: false,
        scope: Wanted::Default,
    };
    for method in methods {
        match method.as_str() {
            Some("password") => {
                let section = object(identity, "password", "identity.password")?;
                let user = object(section, "user", "identity.password.user")?;
                let path = "identity.password.user";
                let password = text(user, "password", "identity.password.user.password")?
                    .ok_or_else(|| missing("identity.password.user.password"))?;
                parsed.password = Some((named(user, path)?, Secret::new(password)));
            }
            Some("token") => {
                let section = object(identity, "token", "identity.token")?;
                let id = text(section, "id", "identity.token.id")?.ok_or_else(|| missing("identity.token.id"))?;
                parsed.token = Some(Secret::new(id));
            }
            Some("application_credential") => {
                let path = "identity.application_credential";
                let section = object(identity, "application_credential", path)?;
                let secret = text(section, "secret", &format!("{path}.secret"))?
                    .ok_or_else(|| missing(&format!("{path}.secret")))?;
                let given = match text(section, "id", &format!("{path}.id"))? {
                    Some(id) => Given::Id(id),
                    None => {
                        let name = text(section, "name", &format!("{path}.name"))?
                            .ok_or_else(|| missing(&format!("{path}.id")))?;
                        let user = object(section, "user", &format!("{path}.user"))?;
                        Given::Name(name, named(user, &format!("{path}.user"))?)
                    }
                };
                parsed.application_credential = Some((given, Secret::new(secret)));
            }
            Some("totp") => {
                let path = "identity.totp.user";
                let section = object(identity, "totp", "identity.totp")?;
                let user = object(section, "user", path)?;
                let code = text(user, "passcode", &format!("{path}.passcode"))?
                    .ok_or_else(|| missing(&format!("{path}.passcode")))?;
                parsed.totp = Some((named(user, path)?, Secret::new(code)));
            }
            // All that it says is in the request's signature.
            Some("oauth1") => parsed.oauth1 = true,
            Some(_) => {
                return Err(Error::unauthorized(
                    "Attempted to authenticate with an unsupported method; password, token, totp, application_credential and oauth1 are supported.",
                ));
            }
            None => {
                return Err(Error::invalid(
                    "identity.methods",
                    "Invalid input for field 'methods': a list of strings is wanted.",
                ));
            }
        }
    }
    parsed.scope = match auth.get("scope") {
        None | Some(Value::Null) => Wanted::Default,
        Some(Value::String(text)) if text == "unscoped" => Wanted::Unscoped,
        Some(Value::Object(scope)) => wanted(scope)?,
        Some(_) => {
            return Err(Error::invalid(
                "scope",
                "Invalid input for field 'scope': an object or \"unscoped\" is wanted.",
            ));
        }
    };
    Ok(parsed)
}

fn wanted(scope: &Map<String, Value>) -> Result<Wanted> {
    let kinds = ["project", "domain", "system", "unscoped", "OS-TRUST:trust"];
    let given: Vec<&str> = kinds.into_iter().filter(|k| scope.contains_key(*k)).collect();
    match given.as_slice() {
        ["project"] => Ok(Wanted::Project(named(
            object(scope, "project", "scope.project")?,
            "scope.project",
        )?)),
        ["domain"] => Ok(Wanted::Domain(domain_name(scope, "scope.domain")?)),
        ["system"] => match object(scope, "system", "scope.system")?.get("all") {
            Some(Value::Bool(true)) => Ok(Wanted::System),
            _ => Err(Error::invalid(
                "scope.system",
                "Invalid input for field 'system': {\"all\": true} is wanted.",
            )),
        },
        ["unscoped"] => Ok(Wanted::Unscoped),
        ["OS-TRUST:trust"] => {
            let path = "scope.OS-TRUST:trust";
            let id = text(object(scope, "OS-TRUST:trust", path)?, "id", &format!("{path}.id"))?
                .ok_or_else(|| missing(&format!("{path}.id")))?;
            Ok(Wanted::Trust(TrustId::from(id)))
        }
        [] => Err(Error::invalid(
            "scope",
            "Invalid input for field 'scope': name a project, a domain or the system.",
        )),
        _ => Err(Error::invalid(
            "scope",
            format!(
                "Invalid input for field 'scope': one scope at a time, not {}.",
                given.join(" and ")
            ),
        )),
    }
}

fn find_domain(snapshot: &Snapshot, name: &DomainName) -> Option<DomainId> {
    match name {
        DomainName::Id(id) => domain(snapshot, &DomainId::from(id)).map(|d| DomainId::from(d.id.as_str())),
        DomainName::Name(name) => snapshot.owner("domain", "", name).map(DomainId::from),
    }
}

fn find_user(snapshot: &Snapshot, user: &Named) -> Option<Object<User>> {
    let id = match user {
        Named::Id(id) => UserId::from(id),
        Named::Name { name, domain } => UserId::from(snapshot.owner("user", &find_domain(snapshot, domain)?, name)?),
    };
    snapshot.get::<User>(&id)
}

fn find_project(snapshot: &Snapshot, named: &Named) -> Option<ProjectId> {
    match named {
        Named::Id(id) => project(snapshot, &ProjectId::from(id)).map(|p| p.id),
        Named::Name { name, domain } => snapshot
            .owner("project", &find_domain(snapshot, domain)?, name)
            .map(ProjectId::from),
    }
}

impl App {
    /// Authenticates by a request `POST /v3/auth/tokens` with this body, and issues a token.
    ///
    /// # Errors
    /// 400 for a malformed body, 401 for everything else that is wrong.
    pub(crate) async fn authenticate(&self, body: &Value, request: &Request) -> Result<Outcome> {
        let mut parsed = parse(body)?;
        if parsed.oauth1 {
            let alone = parsed.password.is_none()
                && parsed.token.is_none()
                && parsed.totp.is_none()
                && parsed.application_credential.is_none();
            if !alone || !matches!(parsed.scope, Wanted::Default) {
                return Err(Error::unauthorized(
                    "OAuth1 authenticates alone, and for the project of the access token: name no other method, and no scope.",
                ));
            }
            return self.by_access_token(&Signed::of(request)?);
        }
        if let Some((given, secret)) = parsed.application_credential {
            if parsed.password.is_some() || parsed.token.is_some() || parsed.totp.is_some() {
                return Err(Error::unauthorized(
                    "An application credential authenticates alone; name no other method beside it.",
                ));
            }
            if !matches!(parsed.scope, Wanted::Default) {
                return Err(Error::unauthorized(
                    "Application credentials cannot request a scope: theirs is the project that they were made for.",
                ));
            }
            return self.by_application_credential(&given, secret).await;
        }
        let mut methods = Methods::default();
        let mut of: Option<UserId> = None;
        let mut from = None;
        if let Some(text) = request.header("openstack-auth-receipt") {
            let receipt = self.receipt(text)?;
            methods = methods.and(receipt.methods);
            of = Some(receipt.user_id);
        }
        let by_token = parsed.token.is_some();
        if let Some(token) = parsed.token {
            // The token is what is not found, as upstream has it; what is wrong with it is not told.
            let old = self.verify(token.reveal()).await.map_err(|e| match e.kind() {
                ErrorKind::Unauthorized => {
                    Error::not_found("Could not find token: it has expired, was revoked or never was one.")
                }
                _ => e,
            })?;
            // Delegated rights are not a way to others (attack class C3).
            if old.delegated.is_some() {
                return Err(Error::forbidden(
                    "A token that was got by a trust, by OAuth1 or by an application credential gives no other token; authenticate anew.",
                ));
            }
            if of.as_ref().is_some_and(|u| *u != old.payload.user_id) {
                return Err(refused());
            }
            of = Some(old.payload.user_id.clone());
            methods = methods.and(old.payload.methods).and(Methods::TOKEN);
            let first = old.payload.audit_ids.last().copied().unwrap_or_default();
            from = Some((first, old.payload.expires_at));
        }
        if parsed.password.is_some() || parsed.totp.is_some() {
            let user = self
                .known(parsed.password.take(), parsed.totp.take(), &mut methods)
                .await?;
            if of.as_ref().is_some_and(|u| *u != user.id) {
                return Err(refused());
            }
            of = Some(user.id);
        } else if !by_token {
            return Err(refused());
        }
        let user = of.and_then(|id| self.snapshot().get::<User>(&id)).ok_or_else(refused)?;
        if !enough(&user, methods) {
            return self.ask_for_more(&user, methods);
        }
        if let Wanted::Trust(id) = &parsed.scope {
            return self.by_trust(id, &user.id, methods, from).await;
        }
        let scope = self.scope(&user.id, &parsed.scope)?;
        self.issue(Issue {
            user_id: user.id.clone(),
            scope,
            methods,
            from,
            delegation: None,
        })
        .map(Outcome::token)
    }

    /// The user who knows this password, this passcode, or both. One verdict on both: whoever has one of them is not told so.
    async fn known(
        &self,
        password: Option<(Named, Secret)>,
        totp: Option<(Named, Secret)>,
        methods: &mut Methods,
    ) -> Result<Object<User>> {
        let snapshot = self.snapshot();
        let mut asked = String::new();
        let mut users: Vec<Option<Object<User>>> = Vec::new();
        let mut good = true;
        let mut step = None;
        let by_password = password.is_some();
        if let Some((named, password)) = password {
            let user = find_user(&snapshot, &named);
            good = self.right_password(&snapshot, user.as_ref(), password).await?;
            asked = named.text().to_owned();
            users.push(user);
            *methods = methods.and(Methods::PASSWORD);
        }
        if let Some((named, code)) = totp {
            let user = find_user(&snapshot, &named);
            step = totp_step(&snapshot, user.as_ref(), &code);
            good = good && step.is_some();
            if users.is_empty() {
                asked = named.text().to_owned();
            }
            users.push(user);
            *methods = methods.and(Methods::TOTP);
        }
        let mut all = users.into_iter();
        let user = all.next().flatten();
        let same = all.all(|other| other.map(|o| o.id) == user.as_ref().map(|u| u.id.clone()));
        let clears = user.as_ref().is_some_and(|u| enough(u, *methods));
        if !self.verdict(&asked, user.as_ref(), good && same, clears).await? {
            return Err(refused());
        }
        let user = user.ok_or_else(refused)?;
        if !self.enabled(&self.snapshot(), &user.id, &user) {
            return Err(refused());
        }
        if let Some(step) = step {
            self.use_up(&user.id, step).await?;
        }
        if by_password {
            self.fresh_password(&user)?;
        }
        Ok(user)
    }

    /// A token by an application credential. What is wrong with it is not told, and takes the same work.
    async fn by_application_credential(&self, given: &Given, secret: Secret) -> Result<Outcome> {
        let snapshot = self.snapshot();
        let id = match given {
            Given::Id(id) => Some(ApplicationCredentialId::from(id)),
            Given::Name(name, user) => find_user(&snapshot, user).and_then(|u| {
                snapshot
                    .owner("application-credential", &u.id, name)
                    .map(ApplicationCredentialId::from)
            }),
        };
        let found = id.and_then(|id| snapshot.get::<ApplicationCredential>(&id));
        let too_long = secret.reveal().len() > super::passwords::MAX_PASSWORD;
        let stored = found.as_ref().filter(|_| !too_long).map(|c| c.secret.clone());
        let secret = if too_long { Secret::new("") } else { secret };
        let good = self.passwords.check(secret, stored).await?;
        let Some(c) = found.filter(|_| good) else {
            return Err(refused());
        };
        self.alone(&c.user_id, Methods::APPLICATION_CREDENTIAL)?;
        self.issue(Issue {
            user_id: c.user_id.clone(),
            scope: Scope::Project(c.project_id.clone()),
            methods: Methods::APPLICATION_CREDENTIAL,
            from: None,
            delegation: Some(Delegation::ApplicationCredential(c.id)),
        })
        .map(Outcome::token)
    }

    /// A token by an OAuth1 access token: the request is signed with it.
    fn by_access_token(&self, signed: &Signed) -> Result<Outcome> {
        let snapshot = self.snapshot();
        let consumer_id = signed.consumer()?;
        let id = AccessTokenId::from(signed.get("oauth_token")?);
        let consumer = snapshot.get::<Consumer>(&consumer_id);
        let token = snapshot
            .get::<AccessToken>(&id)
            .filter(|t| t.consumer_id == consumer_id);
        let secret = consumer.as_ref().filter(|_| token.is_some()).map(|c| &c.secret);
        self.nonces.check(signed, secret, token.as_ref().map(|t| &t.secret))?;
        let Some(token) = token else { return Err(refused()) };
        self.alone(&token.user_id, Methods::OAUTH1)?;
        self.issue(Issue {
            user_id: token.user_id.clone(),
            scope: Scope::Project(token.project_id.clone()),
            methods: Methods::OAUTH1,
            from: None,
            delegation: Some(Delegation::AccessToken(id)),
        })
        .map(Outcome::token)
    }

    /// Refuses a method that authenticates alone where a user's rules want others, as upstream.
    fn alone(&self, user: &UserId, method: Methods) -> Result<()> {
        match self.snapshot().get::<User>(user) {
            Some(user) if enough(&user, method) => Ok(()),
            _ => Err(refused()),
        }
    }

    /// A token by a trust, for its trustee; counts the use.
    async fn by_trust(
        &self,
        id: &TrustId,
        user_id: &UserId,
        methods: Methods,
        from: Option<([u8; 16], i64)>,
    ) -> Result<Outcome> {
        let good = |snapshot: &Snapshot| {
            snapshot
                .get::<Trust>(id)
                .filter(|t| t.trustee_user_id == *user_id)
                .ok_or_else(|| Error::forbidden("The trust is not there, or you are not its trustee."))
        };
        let trust = good(&self.snapshot())?;
        let issue = || Issue {
            user_id: if trust.impersonation {
                trust.trustor_user_id.clone()
            } else {
                user_id.clone()
            },
            scope: Scope::Project(trust.project_id.clone()),
            methods,
            from,
            delegation: Some(Delegation::Trust(id.clone())),
        };
        // Judged before the use is counted, so that a trust that gives nothing loses nothing.
        let issued = self.issue(issue()).map(Outcome::token)?;
        if trust.remaining_uses.is_none() {
            return Ok(issued);
        }
        self.plan(|snapshot, txn| {
            let read = good(snapshot)?;
            let mut value = (*read.value).clone();
            match value.remaining_uses {
                Some(0) => return Err(Error::forbidden(format!("No remaining uses for trust {id}."))),
                Some(n) => value.remaining_uses = Some(n - 1),
                None => {}
            }
            txn.update(&read, &value);
            Ok(())
        })
        .await?;
        Ok(issued)
    }

    /// Whether this is the password of this user, by id. It may have expired.
    pub(crate) async fn check_password_of(&self, id: &str, password: Secret) -> Result<Object<User>> {
        let snapshot = self.snapshot();
        let user = snapshot.get::<User>(&UserId::from(id));
        let good = self.right_password(&snapshot, user.as_ref(), password).await?;
        let clears = user.as_ref().is_some_and(|u| enough(u, Methods::PASSWORD));
        match user {
            user if !self.verdict(id, user.as_ref(), good, clears).await? => Err(refused()),
            Some(user) if self.enabled(&self.snapshot(), &user.id, &user) => Ok(user),
            _ => Err(refused()),
        }
    }

    /// Whether this is the password of a user; takes the same time without one.
    async fn right_password(&self, snapshot: &Snapshot, user: Option<&Object<User>>, password: Secret) -> Result<bool> {
        let stored = user
            .and_then(|u| snapshot.get::<Password>(&u.id))
            .map(|p| (*p.value).clone());
        let too_long = password.reveal().len() > super::passwords::MAX_PASSWORD;
        let stored = if too_long { None } else { stored };
        let password = if too_long { Secret::new("") } else { password };
        self.passwords.check(password, stored).await
    }

    /// Refuses a password that must be changed first. Only who knows it is told.
    fn fresh_password(&self, user: &Object<User>) -> Result<()> {
        match self.snapshot().get::<Password>(&user.id) {
            Some(p) if Self::expired(user, &p) => Err(Error::unauthorized(format!(
                "The password is expired and needs to be changed for user: {}. Change it with POST /v3/users/{}/password.",
                user.id, user.id
            ))),
            _ => Ok(()),
        }
    }

    fn scope(&self, user_id: &UserId, wanted: &Wanted) -> Result<Scope> {
        let snapshot = self.snapshot();
        Ok(match wanted {
            Wanted::Trust(_) => return Err(refused()),
            Wanted::Unscoped => Scope::Unscoped,
            Wanted::System => Scope::System,
            Wanted::Domain(name) => Scope::Domain(find_domain(&snapshot, name).ok_or_else(refused)?),
            Wanted::Project(named) => Scope::Project(find_project(&snapshot, named).ok_or_else(refused)?),
            // The user's default project, as long as it can be had; else unscoped.
            Wanted::Default => snapshot
                .get::<User>(user_id)
                .and_then(|u| u.default_project_id.clone())
                .filter(|id| usable(&snapshot, user_id, id))
                .map_or(Scope::Unscoped, Scope::Project),
        })
    }
}

/// Whether a token for this project would be good.
pub(crate) fn usable(snapshot: &Snapshot, user: &UserId, id: &ProjectId) -> bool {
    let Some(p) = project(snapshot, id).filter(|p| p.enabled) else {
        return false;
    };
    let home = p
        .domain_id
        .as_ref()
        .is_none_or(|d| domain(snapshot, d).is_some_and(|d| d.enabled));
    home && !effective_roles(snapshot, user, &AssignmentTarget::Project(id.clone())).is_empty()
}
