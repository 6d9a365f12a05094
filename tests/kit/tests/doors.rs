//! Ways around the door, on every route: identity headers (attack class C7), other spellings of the path (C, by encoding, case
//! and slashes), other methods.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use bytes::Bytes;
use maru_http::Access;
use maru_kit::Scene;

/// Every guarded route with a sample in it: service, method, path.
fn guarded(scene: &Scene) -> Vec<(&'static str, String, String)> {
    let cloud = scene.kit.cloud();
    let mut all = Vec::new();
    for service in cloud.gateway().services() {
        for route in service.routes.iter().filter(|r| matches!(r.access, Access::Rule(_))) {
            let path = scene
                .fill(service.name, route.method.as_str(), &route.path, None)
                .unwrap();
            all.push((
                service.name,
                route.method.to_string(),
                format!("{}{path}", service.prefixes[0]),
            ));
        }
    }
    all
}

/// What a proxy in front of an OpenStack service tells it of the caller; from outside it means nothing.
const CLAIMS: &[(&str, &str)] = &[
    ("x-identity-status", "Confirmed"),
    ("x-user-id", "admin"),
    ("x-user-name", "admin"),
    ("x-user-domain-id", "default"),
    ("x-project-id", "admin"),
    ("x-tenant-id", "admin"),
    ("x-roles", "admin,service"),
    ("x-role", "admin"),
    ("x-is-admin-project", "True"),
    ("x-service-identity-status", "Confirmed"),
    ("x-service-roles", "service,admin"),
    ("x-forwarded-user", "admin"),
    ("x-remote-user", "admin"),
    ("authorization", "Basic YWRtaW46YWRtaW4tc2VjcmV0"),
];

#[tokio::test(start_paused = true)]
async fn headers_that_claim_an_identity_are_nothing() {
    let scene = Scene::start().await;
    let mut admins = 0;
    for (service, method, path) in guarded(&scene) {
        let answer = scene.kit.send(&method, &path, CLAIMS, Bytes::new()).await.unwrap();
        assert_eq!(answer.status, 401, "{service}: {}", answer.asked);
        // Beside a real token they add nothing to it.
        let token = [("x-auth-token", scene.blue.nobody.token.as_str())];
        let plain = scene.kit.send(&method, &path, &token, Bytes::new()).await.unwrap();
        if plain.status == 403 {
            let both: Vec<(&str, &str)> = CLAIMS.iter().copied().chain(token).collect();
            let claimed = scene.kit.send(&method, &path, &both, Bytes::new()).await.unwrap();
            assert_eq!(claimed.status, 403, "{service}: {}", claimed.asked);
            admins += 1;
        }
    }
    assert!(admins > 200, "only {admins} routes refused anything");
}

#[tokio::test(start_paused = true)]
async fn another_spelling_of_a_path_opens_nothing() {
    let scene = Scene::start().await;
    let before = scene.kit.committed();
    let mut asked = 0;
    for (service, method, path) in guarded(&scene) {
        let path = path.split('?').next().unwrap().to_owned();
        let first = path.rfind('/').unwrap();
        let letter = path[first + 1..].chars().next().unwrap_or('x');
        for spelling in [
            format!("{path}/"),
            format!("{path}//"),
            format!("/{path}"),
            format!("{path}/."),
            format!("{path}/../{}", &path[first + 1..]),
            format!("{path};x=1"),
            format!("{path}.json"),
            format!("{path}%00"),
            format!("{path}%2f"),
            format!(
                "{}/%{:02x}{}",
                &path[..first],
                letter as u32,
                path[first + 1..].chars().skip(1).collect::<String>()
            ),
            path.to_uppercase(),
            path.replacen('/', "/%2e/", 1),
            format!("http://elsewhere{path}"),
            format!("{path}?x-auth-token={}", scene.blue.member.token),
        ] {
            let answer = scene.kit.send(&method, &spelling, &[], Bytes::new()).await.unwrap();
            // A spelling of another route may be a public document (`/`), which shows nothing of anyone's.
            assert!(
                matches!(answer.status, 400 | 401 | 404 | 405),
                "{service}: {}: {}",
                answer.asked,
                answer.status
            );
            asked += 1;
        }
    }
    assert_eq!(before, scene.kit.committed(), "something was stored");
    println!("spellings of paths: {asked}");
}

#[tokio::test(start_paused = true)]
async fn another_method_opens_nothing() {
    let scene = Scene::start().await;
    let before = scene.kit.committed();
    let all = guarded(&scene);
    for (service, _, path) in &all {
        for method in [
            "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND",
        ] {
            let headers = [("x-http-method-override", "GET"), ("x-method-override", "GET")];
            let answer = scene.kit.send(method, path, &headers, Bytes::new()).await.unwrap();
            assert!(
                matches!(answer.status, 400 | 401 | 404 | 405),
                "{service}: {}: {} {}",
                answer.asked,
                answer.status,
                answer.text()
            );
        }
    }
    assert_eq!(before, scene.kit.committed(), "something was stored");
    // A stranger's HEAD tells what its GET tells.
    for (service, method, path) in all.iter().filter(|(_, m, _)| m == "GET") {
        let token = [("x-auth-token", scene.red.member.token.as_str())];
        let get = scene.kit.send(method, path, &token, Bytes::new()).await.unwrap();
        let head = scene.kit.send("HEAD", path, &token, Bytes::new()).await.unwrap();
        assert_eq!(get.status, head.status, "{service}: {}", head.asked);
        assert!(head.body.is_empty(), "{service}: {} has a body", head.asked);
    }
}
