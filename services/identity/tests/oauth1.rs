//! OAuth 1.0a: consumers, request and access tokens, and what their tokens may do.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use bytes::Bytes;
use common::{Answer, Cloud, call, password};
use maru_identity::sign_for_tests;
use serde_json::{Value, json};

const BASE: &str = "http://cloud/v3";

async fn send(cloud: &Cloud, path: &str, header: &str, project: &str, body: Option<Value>) -> Answer {
    let mut request = http::Request::post(format!("/v3{path}"))
        .header("host", "cloud")
        .header("authorization", header)
        .header("requested-project-id", project);
    if body.is_some() {
        request = request.header("content-type", "application/json");
    }
    let bytes = body.map_or(Bytes::new(), |b| Bytes::from(b.to_string()));
    cloud.send(request.body(bytes).unwrap()).await
}

fn part(answer: &Answer, name: &str) -> String {
    let found = answer.text.split('&').find_map(|p| p.strip_prefix(name));
    found
        .unwrap_or_else(|| panic!("no {name} in {}", answer.text))
        .to_owned()
}

struct Asked {
    key: String,
    secret: String,
    project: String,
    token: (String, String),
    /// An administrator of the project, who also has `extra` there.
    user: String,
    user_token: String,
    extra: String,
}

async fn asked(cloud: &Cloud) -> Asked {
    let consumer = cloud
        .post(
            "/v3/OS-OAUTH1/consumers",
            json!({"consumer": {"description": "an app"}}),
        )
        .await
        .ok(201);
    let key = consumer.json["consumer"]["id"].as_str().unwrap().to_owned();
    let secret = consumer.json["consumer"]["secret"].as_str().unwrap().to_owned();
    let project = cloud
        .make("project", json!({"name": "p", "domain_id": "default"}))
        .await;
    let user = cloud
        .make(
            "user",
            json!({"name": "ann", "password": "ann-pass", "domain_id": "default"}),
        )
        .await;
    let extra = cloud.make("role", json!({"name": "extra"})).await;
    for role in [extra.clone(), cloud.role("admin").await] {
        cloud
            .put(&format!("/v3/projects/{project}/users/{user}/roles/{role}"))
            .await
            .ok(204);
    }
    let user_token = cloud
        .login("ann", "ann-pass", common::project(&project))
        .await
        .ok(201)
        .token();
    let header = sign_for_tests(
        "POST",
        &format!("{BASE}/OS-OAUTH1/request_token"),
        (&key, &secret),
        None,
        None,
    );
    let answer = send(cloud, "/OS-OAUTH1/request_token", &header, &project, None)
        .await
        .ok(201);
    assert_eq!(answer.headers["content-type"], "application/x-www-form-urlencoded");
    let token = (part(&answer, "oauth_token="), part(&answer, "oauth_token_secret="));
    // The same request again is another's.
    let again = send(cloud, "/OS-OAUTH1/request_token", &header, &project, None).await;
    assert_eq!(again.status, 401, "C2: a signed request is good once");
    Asked {
        key,
        secret,
        project,
        token,
        user,
        user_token,
        extra,
    }
}

impl Asked {
    async fn authorize(&self, cloud: &Cloud, roles: Value) -> Answer {
        let path = format!("/v3/OS-OAUTH1/authorize/{}", self.token.0);
        call(
            &cloud.gateway,
            "PUT",
            &path,
            &self.user_token,
            Some(json!({"roles": roles})),
        )
        .await
    }
    async fn access(&self, cloud: &Cloud, verifier: &str) -> Answer {
        let header = sign_for_tests(
            "POST",
            &format!("{BASE}/OS-OAUTH1/access_token"),
            (&self.key, &self.secret),
            Some((&self.token.0, &self.token.1)),
            Some(verifier),
        );
        send(cloud, "/OS-OAUTH1/access_token", &header, "", None).await
    }
}

fn body() -> Value {
    json!({"auth": {"identity": {"methods": ["oauth1"], "oauth1": {}}}})
}

#[tokio::test]
async fn a_consumer_acts_for_a_user_with_the_roles_that_were_granted() {
    let cloud = Cloud::start().await;
    let a = asked(&cloud).await;
    // A consumer's secret is shown once.
    let shown = cloud.get(&format!("/v3/OS-OAUTH1/consumers/{}", a.key)).await.ok(200);
    assert!(shown.json["consumer"].get("secret").is_none());
    assert_eq!(
        cloud.get("/v3/OS-OAUTH1/consumers").await.ok(200).ids("consumers"),
        [a.key.as_str()]
    );
    assert_eq!(a.access(&cloud, "x").await.status, 401, "not authorized yet");
    let none = cloud.make("role", json!({"name": "none"})).await;
    assert_eq!(
        a.authorize(&cloud, json!([{"id": none}])).await.status,
        401,
        "a role that ann has not"
    );
    let yes = a.authorize(&cloud, json!([{"id": a.extra}])).await.ok(200);
    let verifier = yes.json["token"]["oauth_verifier"].as_str().unwrap().to_owned();
    assert_eq!(a.access(&cloud, "wrong").await.status, 401);
    let answer = a.access(&cloud, &verifier).await.ok(201);
    let access = (part(&answer, "oauth_token="), part(&answer, "oauth_token_secret="));
    assert!(
        [401, 404].contains(&a.access(&cloud, &verifier).await.status),
        "used up"
    );

    let url = format!("{BASE}/auth/tokens");
    let header = sign_for_tests("POST", &url, (&a.key, &a.secret), Some((&access.0, &access.1)), None);
    let token = send(&cloud, "/auth/tokens", &header, "", Some(body())).await.ok(201);
    let view = &token.json["token"];
    assert_eq!(view["methods"], json!(["oauth1"]));
    assert_eq!(view["user"]["id"], a.user.as_str());
    assert_eq!(view["project"]["id"], a.project.as_str());
    assert_eq!(
        view["OS-OAUTH1"],
        json!({"access_token_id": access.0, "consumer_id": a.key})
    );
    // C4: the roles that were granted, and no other that ann has.
    let names: Vec<&str> = view["roles"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["extra"]);
    let text = token.token();
    assert!(cloud.good(&text).await);
    assert_eq!(call(&cloud.gateway, "GET", "/v3/users", &text, None).await.status, 403);
    // C3: it makes no other ways to act.
    let rescope = json!({"auth": {"identity": {"methods": ["token"], "token": {"id": text}}}});
    assert_eq!(
        cloud.call("POST", "/v3/auth/tokens", "", Some(rescope)).await.status,
        403
    );
    let ec2 = format!("/v3/users/{}/credentials/OS-EC2", a.user);
    let tenant = json!({"tenant_id": a.project});
    assert_eq!(
        call(&cloud.gateway, "POST", &ec2, &text, Some(tenant)).await.status,
        403
    );
    // Replayed, aimed elsewhere, for a wider scope or beside another method it is refused.
    assert_eq!(
        send(&cloud, "/auth/tokens", &header, "", Some(body())).await.status,
        401
    );
    let other = sign_for_tests("GET", &url, (&a.key, &a.secret), Some((&access.0, &access.1)), None);
    assert_eq!(send(&cloud, "/auth/tokens", &other, "", Some(body())).await.status, 401);
    let fresh = || sign_for_tests("POST", &url, (&a.key, &a.secret), Some((&access.0, &access.1)), None);
    let mut wide = body();
    wide["auth"]["scope"] = json!({"system": {"all": true}});
    assert_eq!(send(&cloud, "/auth/tokens", &fresh(), "", Some(wide)).await.status, 401);
    let mut both = password("ann", "ann-pass", None);
    both["auth"]["identity"]["methods"] = json!(["password", "oauth1"]);
    assert_eq!(send(&cloud, "/auth/tokens", &fresh(), "", Some(both)).await.status, 401);

    // What was granted, as an administrator sees it.
    let path = format!("/v3/users/{}/OS-OAUTH1/access_tokens", a.user);
    let list = cloud.get(&path).await.ok(200);
    assert_eq!(list.ids("access_tokens"), [access.0.as_str()]);
    assert!(!list.text.contains(&access.1), "no secret");
    let roles = cloud.get(&format!("{path}/{}/roles", access.0)).await.ok(200);
    assert_eq!(roles.ids("roles"), [a.extra.as_str()]);
    cloud
        .get(&format!("{path}/{}/roles/{}", access.0, a.extra))
        .await
        .ok(200);
    assert_eq!(
        cloud.get(&format!("{path}/{}/roles/{none}", access.0)).await.status,
        404
    );
    let admin = &cloud.report.admin_user;
    let foreign = format!("/v3/users/{admin}/OS-OAUTH1/access_tokens/{}", access.0);
    assert_eq!(cloud.get(&foreign).await.status, 404, "of another user");
    assert_eq!(cloud.delete(&foreign).await.status, 404);
    // Without the role, the grant is nothing; and ended it ends its tokens.
    let grant = format!("/v3/projects/{}/users/{}/roles/{}", a.project, a.user, a.extra);
    cloud.delete(&grant).await.ok(204);
    assert!(!cloud.good(&text).await);
    cloud.put(&grant).await.ok(204);
    cloud.delete(&format!("{path}/{}", access.0)).await.ok(204);
    assert!(!cloud.good(&text).await);
    assert_eq!(
        send(&cloud, "/auth/tokens", &fresh(), "", Some(body())).await.status,
        401
    );
}

#[tokio::test]
async fn who_is_no_consumer_learns_nothing() {
    let cloud = Cloud::start().await;
    let a = asked(&cloud).await;
    let url = format!("{BASE}/OS-OAUTH1/request_token");
    let mut texts = std::collections::BTreeSet::new();
    for (key, secret, project) in [
        (a.key.as_str(), "wrong", a.project.as_str()),
        (a.key.as_str(), "wrong", "no-such-project"),
        ("no-such-consumer", "wrong", a.project.as_str()),
        ("no-such-consumer", "nobody", a.project.as_str()),
    ] {
        let header = sign_for_tests("POST", &url, (key, secret), None, None);
        let answer = send(&cloud, "/OS-OAUTH1/request_token", &header, project, None)
            .await
            .ok(401);
        texts.insert(answer.message().to_owned());
    }
    assert_eq!(texts.len(), 1, "{texts:?}");
    for (header, says) in [
        ("", "Authorization"),
        ("Basic x", "Authorization"),
        ("OAuth a=\"b\"", "oauth_consumer_key"),
    ] {
        let answer = send(&cloud, "/OS-OAUTH1/request_token", header, &a.project, None)
            .await
            .ok(400);
        assert!(answer.message().contains(says), "{}", answer.text);
    }
    // Old and future requests.
    let good = sign_for_tests("POST", &url, (&a.key, &a.secret), None, None);
    let stale = good.replace("oauth_timestamp=\"", "oauth_timestamp=\"1");
    assert_eq!(
        send(&cloud, "/OS-OAUTH1/request_token", &stale, &a.project, None)
            .await
            .status,
        401
    );
    send(&cloud, "/OS-OAUTH1/request_token", &good, &a.project, None)
        .await
        .ok(201);
    // Another user cannot take over what one has authorized.
    a.authorize(&cloud, json!([{"id": a.extra}])).await.ok(200);
    let path = format!("/v3/OS-OAUTH1/authorize/{}", a.token.0);
    let steal = json!({"roles": [{"name": "admin"}]});
    assert!([401, 403].contains(&cloud.call("PUT", &path, &cloud.admin, Some(steal)).await.status));
    assert_eq!(a.authorize(&cloud, json!([])).await.status, 400);
    // A consumer takes all of its tokens with it, a project and a user theirs.
    cloud
        .delete(&format!("/v3/OS-OAUTH1/consumers/{}", a.key))
        .await
        .ok(204);
    assert_eq!(cloud.store.snapshot().count::<maru_identity_model::RequestToken>(), 0);
    let consumer = cloud
        .post("/v3/OS-OAUTH1/consumers", json!({"consumer": {}}))
        .await
        .ok(201);
    let id = consumer.json["consumer"]["id"].as_str().unwrap().to_owned();
    let path = format!("/v3/OS-OAUTH1/consumers/{id}");
    let renamed = cloud
        .patch(&path, json!({"consumer": {"description": "x"}}))
        .await
        .ok(200);
    assert_eq!(renamed.json["consumer"]["description"], "x");
    assert_eq!(
        cloud.patch(&path, json!({"consumer": {"secret": "mine"}})).await.status,
        400
    );
}
