//! Application credentials, EC2 keys and trusts: what they give, and that they never give more.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Answer, Cloud, project};
use serde_json::{Value, json};

/// A user with the roles member and reader on a project, logged in for it.
struct Someone {
    id: String,
    name: &'static str,
    project: String,
    token: String,
}

impl Someone {
    async fn make(cloud: &Cloud, name: &'static str) -> Self {
        let project_id = cloud.make("project", json!({"name": format!("{name}-p")})).await;
        let id = cloud.make("user", json!({"name": name, "password": "pw"})).await;
        let role = cloud.role("member").await;
        let path = format!("/v3/projects/{project_id}/users/{id}/roles/{role}");
        cloud.put(&path).await.ok(204);
        let token = cloud.login(name, "pw", project(&project_id)).await.ok(201).token();
        Self {
            id,
            name,
            project: project_id,
            token,
        }
    }
    fn path(&self, rest: &str) -> String {
        format!("/v3/users/{}/{rest}", self.id)
    }
    async fn credential(&self, cloud: &Cloud, mut body: Value) -> Answer {
        body["name"] = body.get("name").cloned().unwrap_or_else(|| json!("ac"));
        let body = json!({ "application_credential": body });
        cloud
            .call("POST", &self.path("application_credentials"), &self.token, Some(body))
            .await
    }
}

async fn by(cloud: &Cloud, made: &Answer) -> Answer {
    let made = &made.json["application_credential"];
    by_secret(cloud, &made["id"], &made["secret"]).await
}

async fn by_secret(cloud: &Cloud, id: &Value, secret: &Value) -> Answer {
    let auth = json!({"auth": {"identity": {"methods": ["application_credential"],
        "application_credential": {"id": id, "secret": secret}}}});
    cloud.call("POST", "/v3/auth/tokens", "", Some(auth)).await
}

fn trust(from: &Someone, to: &Someone, more: Value) -> Value {
    let mut trust = json!({"trustor_user_id": from.id, "trustee_user_id": to.id, "project_id": from.project,
        "impersonation": true, "roles": [{"name": "member"}]});
    for (k, v) in more.as_object().unwrap() {
        trust[k] = v.clone();
    }
    json!({ "trust": trust })
}

async fn by_trust(cloud: &Cloud, who: &Someone, id: &Value) -> Answer {
    cloud.login(who.name, "pw", json!({"OS-TRUST:trust": {"id": id}})).await
}

#[tokio::test]
async fn an_application_credential_gives_its_roles_and_ends_with_them() {
    let cloud = Cloud::start().await;
    let ann = Someone::make(&cloud, "ann").await;
    let made = ann
        .credential(&cloud, json!({"roles": [{"name": "reader"}]}))
        .await
        .ok(201);
    let id = made.json["application_credential"]["id"].as_str().unwrap().to_owned();
    let answer = by(&cloud, &made).await.ok(201);
    let token = &answer.json["token"];
    assert_eq!(token["methods"], json!(["application_credential"]));
    assert_eq!(token["project"]["id"], json!(ann.project));
    assert_eq!(token["roles"].as_array().unwrap().len(), 1, "{token}");
    assert_eq!(token["roles"][0]["name"], "reader");
    assert_eq!(token["application_credential"]["restricted"], true);
    // The secret is told once, a wrong one gives nothing, a name may be used once.
    let path = ann.path(&format!("application_credentials/{id}"));
    let shown = cloud.call("GET", &path, &ann.token, None).await.ok(200);
    assert!(!shown.text.contains("secret"), "{}", shown.text);
    by_secret(&cloud, &json!(id), &json!("wrong")).await.ok(401);
    ann.credential(&cloud, json!({})).await.ok(409);
    // More than one's own is not to be had.
    let more = json!({"name": "more", "roles": [{"name": "admin"}]});
    ann.credential(&cloud, more).await.ok(400);
    // A token of it does not give another token.
    let again = json!({"auth": {"identity": {"methods": ["token"], "token": {"id": answer.token()}}}});
    cloud.call("POST", "/v3/auth/tokens", "", Some(again)).await.ok(403);
    // The role is taken away: its tokens end, and it gives no other.
    let role = cloud.role("member").await;
    let grant = format!("/v3/projects/{}/users/{}/roles/{role}", ann.project, ann.id);
    cloud.delete(&grant).await.ok(204);
    assert!(!cloud.good(&answer.token()).await);
    by(&cloud, &made).await.ok(401);
    cloud.put(&grant).await.ok(204);
    by(&cloud, &made).await.ok(201);
    cloud.delete(&path).await.ok(204);
    by(&cloud, &made).await.ok(401);
}

#[tokio::test]
async fn c5_no_presigned_request_becomes_a_token_without_a_service() {
    let cloud = Cloud::start().await;
    for path in ["/v3/ec2tokens", "/v3/s3tokens"] {
        cloud
            .call("POST", path, "", Some(json!({"credentials": {}})))
            .await
            .ok(404);
    }
}

#[tokio::test]
async fn c3_c6_delegated_rights_make_no_credentials() {
    let cloud = Cloud::start().await;
    let (ann, bob) = (Someone::make(&cloud, "ann").await, Someone::make(&cloud, "bob").await);
    let restricted = ann
        .credential(&cloud, json!({"roles": [{"name": "reader"}]}))
        .await
        .ok(201);
    let restricted = by(&cloud, &restricted).await.ok(201).token();
    let body = trust(&ann, &bob, json!({"roles": [{"name": "reader"}]}));
    let t = cloud
        .call("POST", "/v3/OS-TRUST/trusts", &ann.token, Some(body))
        .await
        .ok(201);
    let trusted = by_trust(&cloud, &bob, &t.json["trust"]["id"]).await.ok(201).token();
    let keys = ann.path("credentials/OS-EC2");
    let ec2 = json!({"tenant_id": ann.project});
    let blob = json!({"access": "a", "secret": "s"}).to_string();
    let raw = json!({"credential": {"type": "ec2", "blob": blob, "project_id": ann.project}});
    let again = json!({"application_credential": {"name": "again"}});
    for token in [&restricted, &trusted] {
        cloud.call("POST", &keys, token, Some(ec2.clone())).await.ok(403);
        cloud
            .call("POST", "/v3/credentials", token, Some(raw.clone()))
            .await
            .ok(403);
        let path = ann.path("application_credentials");
        cloud.call("POST", &path, token, Some(again.clone())).await.ok(403);
        let body = trust(&ann, &bob, json!({"roles": [{"name": "reader"}]}));
        cloud
            .call("POST", "/v3/OS-TRUST/trusts", token, Some(body))
            .await
            .ok(403);
    }
    // An unrestricted one may, and what it makes gives no role that it has not.
    let free = json!({"name": "free", "roles": [{"name": "reader"}], "unrestricted": true});
    let free = ann.credential(&cloud, free).await.ok(201);
    let free = by(&cloud, &free).await.ok(201).token();
    let path = ann.path("application_credentials");
    let more = json!({"application_credential": {"name": "more", "roles": [{"name": "member"}]}});
    cloud.call("POST", &path, &free, Some(more)).await.ok(400);
    let child = cloud.call("POST", &path, &free, Some(again)).await.ok(201);
    let roles = &child.json["application_credential"]["roles"];
    assert_eq!(
        (roles.as_array().unwrap().len(), &roles[0]["name"]),
        (1, &json!("reader"))
    );
    let body = trust(&ann, &bob, json!({}));
    cloud
        .call("POST", "/v3/OS-TRUST/trusts", &free, Some(body))
        .await
        .ok(403);
}

#[tokio::test]
async fn c1_nobody_sees_the_keys_of_another() {
    let cloud = Cloud::start().await;
    let (ann, bob) = (Someone::make(&cloud, "ann").await, Someone::make(&cloud, "bob").await);
    let keys = ann.path("credentials/OS-EC2");
    let body = json!({"tenant_id": ann.project});
    let made = cloud.call("POST", &keys, &ann.token, Some(body.clone())).await.ok(201);
    let access = made.json["credential"]["access"].as_str().unwrap().to_owned();
    let key = format!("{keys}/{access}");
    let shown = cloud.call("GET", &key, &ann.token, None).await.ok(200);
    assert_eq!(shown.json, made.json);
    for (method, path) in [("GET", &keys), ("GET", &key), ("DELETE", &key)] {
        cloud.call(method, path, &bob.token, None).await.ok(403);
    }
    cloud.call("POST", &keys, &bob.token, Some(body)).await.ok(403);
    // Not below one's own name either, nor for a project of another.
    let own = bob.path(&format!("credentials/OS-EC2/{access}"));
    cloud.call("GET", &own, &bob.token, None).await.ok(404);
    let foreign = json!({"tenant_id": ann.project});
    let path = bob.path("credentials/OS-EC2");
    cloud.call("POST", &path, &bob.token, Some(foreign)).await.ok(403);
    let one = ann.credential(&cloud, json!({})).await.ok(201);
    let id = one.json["application_credential"]["id"].as_str().unwrap();
    for path in [ann.path("application_credentials"), ann.path("access_rules")] {
        cloud.call("GET", &path, &bob.token, None).await.ok(403);
    }
    let own = bob.path(&format!("application_credentials/{id}"));
    cloud.call("DELETE", &own, &bob.token, None).await.ok(404);
    // Not even an administrator makes one in another's name.
    let body = json!({"application_credential": {"name": "x"}});
    cloud.post(&ann.path("application_credentials"), body).await.ok(403);
    cloud.call("DELETE", &key, &ann.token, None).await.ok(204);
    cloud.call("GET", &key, &ann.token, None).await.ok(404);
}

#[tokio::test]
async fn access_rules_hold_at_the_gateway() {
    let cloud = Cloud::start().await;
    let ann = Someone::make(&cloud, "ann").await;
    let rules = json!([{"service": "identity", "method": "GET", "path": "/v3/users/*"}]);
    let made = ann.credential(&cloud, json!({"access_rules": rules})).await.ok(201);
    let token = by(&cloud, &made).await.ok(201).token();
    let own = format!("/v3/users/{}", ann.id);
    cloud.call("GET", &own, &token, None).await.ok(200);
    for (method, path) in [
        ("GET", format!("{own}/projects")),
        ("GET", format!("{own}/")),
        ("HEAD", own.clone()),
        ("GET", "/v3/auth/projects".to_owned()),
        ("PATCH", own.clone()),
    ] {
        let status = cloud.call(method, &path, &token, None).await.status;
        assert!(matches!(status, 401 | 404), "{method} {path}: {status}");
    }
    // A rule that a credential uses stays; the same rule is kept once.
    let rule = made.json["application_credential"]["access_rules"][0]["id"]
        .as_str()
        .unwrap();
    let path = ann.path(&format!("access_rules/{rule}"));
    cloud.call("DELETE", &path, &ann.token, None).await.ok(403);
    let second = ann
        .credential(&cloud, json!({"name": "b", "access_rules": rules}))
        .await
        .ok(201);
    assert_eq!(second.json["application_credential"]["access_rules"][0]["id"], rule);
    for made in [&made, &second] {
        let id = made.json["application_credential"]["id"].as_str().unwrap();
        let path = ann.path(&format!("application_credentials/{id}"));
        cloud.call("DELETE", &path, &ann.token, None).await.ok(204);
    }
    cloud.call("DELETE", &path, &ann.token, None).await.ok(204);
    for bad in [
        json!([{"service": "identity", "method": "FETCH", "path": "/v3"}]),
        json!([{"service": "identity", "method": "GET", "path": "v3"}]),
        json!([{"service": "identity", "method": "GET"}]),
        json!([{"id": 7}]),
        json!({}),
    ] {
        ann.credential(&cloud, json!({"name": "c", "access_rules": bad}))
            .await
            .ok(400);
    }
}

#[tokio::test]
async fn a_trust_gives_its_roles_as_long_as_the_trustor_has_them() {
    let cloud = Cloud::start().await;
    let (ann, bob) = (Someone::make(&cloud, "ann").await, Someone::make(&cloud, "bob").await);
    let eve = Someone::make(&cloud, "eve").await;
    let trusts = "/v3/OS-TRUST/trusts";
    let make = async |token: &str, body: Value| cloud.call("POST", trusts, token, Some(body)).await;
    let shown_as = json!({"impersonation": false, "remaining_uses": 2, "roles": [{"name": "reader"}]});
    let plain = make(&ann.token, trust(&ann, &bob, shown_as)).await.ok(201).json["trust"]["id"].clone();
    let token = by_trust(&cloud, &bob, &plain).await.ok(201);
    assert_eq!(token.json["token"]["user"]["id"], json!(bob.id));
    assert_eq!(token.json["token"]["project"]["id"], json!(ann.project));
    assert_eq!(token.json["token"]["roles"].as_array().unwrap().len(), 1);
    assert_eq!(
        token.json["token"]["OS-TRUST:trust"]["trustor_user"]["id"],
        json!(ann.id)
    );
    by_trust(&cloud, &eve, &plain).await.ok(403);
    by_trust(&cloud, &ann, &plain).await.ok(403);
    by_trust(&cloud, &bob, &plain).await.ok(201);
    by_trust(&cloud, &bob, &plain).await.ok(403);
    // Others neither see nor end it; nobody gives what is another's.
    let path = format!("{trusts}/{}", plain.as_str().unwrap());
    cloud.call("GET", &path, &eve.token, None).await.ok(404);
    cloud.call("GET", &path, &bob.token, None).await.ok(200);
    cloud.call("DELETE", &path, &bob.token, None).await.ok(403);
    make(&bob.token, trust(&ann, &bob, json!({}))).await.ok(403);
    make(&cloud.admin, trust(&ann, &bob, json!({}))).await.ok(403);
    make(&ann.token, trust(&ann, &bob, json!({"roles": [{"name": "admin"}]})))
        .await
        .ok(403);
    make(&ann.token, trust(&ann, &bob, json!({"project_id": bob.project})))
        .await
        .ok(403);
    make(&ann.token, trust(&ann, &bob, json!({"expires_at": "bad.123Z"})))
        .await
        .ok(400);
    make(
        &ann.token,
        trust(&ann, &bob, json!({"expires_at": "2001-01-01T00:00:00Z"})),
    )
    .await
    .ok(400);
    // The trustor loses the role: the tokens end.
    let second = make(&ann.token, trust(&ann, &bob, json!({}))).await.ok(201).json["trust"]["id"].clone();
    let token = by_trust(&cloud, &bob, &second).await.ok(201);
    assert_eq!(token.json["token"]["user"]["id"], json!(ann.id));
    assert!(cloud.good(&token.token()).await);
    let role = cloud.role("member").await;
    let grant = format!("/v3/projects/{}/users/{}/roles/{role}", ann.project, ann.id);
    cloud.delete(&grant).await.ok(204);
    assert!(!cloud.good(&token.token()).await);
    by_trust(&cloud, &bob, &second).await.ok(401);
    cloud.put(&grant).await.ok(204);
    // The trustee is disabled, though the token shows the trustor.
    let token = by_trust(&cloud, &bob, &second).await.ok(201).token();
    let body = json!({"user": {"enabled": false}});
    cloud
        .call("PATCH", &format!("/v3/users/{}", bob.id), &cloud.admin, Some(body))
        .await
        .ok(200);
    assert!(!cloud.good(&token).await);
}

#[tokio::test]
async fn a_trust_is_handed_on_only_smaller_and_ends_with_its_parent() {
    let cloud = Cloud::start().await;
    let (ann, bob) = (Someone::make(&cloud, "ann").await, Someone::make(&cloud, "bob").await);
    let eve = Someone::make(&cloud, "eve").await;
    let trusts = "/v3/OS-TRUST/trusts";
    let make = async |token: &str, body: Value| cloud.call("POST", trusts, token, Some(body)).await;
    let first = trust(&ann, &bob, json!({"allow_redelegation": true, "redelegation_count": 1}));
    let first = make(&ann.token, first).await.ok(201).json["trust"]["id"].clone();
    let by_first = by_trust(&cloud, &bob, &first).await.ok(201).token();
    let deeper = trust(&ann, &eve, json!({"allow_redelegation": true, "redelegation_count": 1}));
    make(&by_first, deeper).await.ok(403);
    let second = make(&by_first, trust(&ann, &eve, json!({}))).await.ok(201);
    assert_eq!(second.json["trust"]["redelegated_trust_id"], first);
    let second = second.json["trust"]["id"].clone();
    let by_second = by_trust(&cloud, &eve, &second).await.ok(201).token();
    make(&by_second, trust(&ann, &bob, json!({}))).await.ok(403);
    let too_deep = trust(&ann, &bob, json!({"allow_redelegation": true, "redelegation_count": 4}));
    make(&ann.token, too_deep).await.ok(403);
    let path = format!("{trusts}/{}", first.as_str().unwrap());
    cloud.call("DELETE", &path, &ann.token, None).await.ok(204);
    assert!(!cloud.good(&by_second).await);
    by_trust(&cloud, &eve, &second).await.ok(403);
}
