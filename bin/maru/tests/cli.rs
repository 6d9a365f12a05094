//! The command line, on the real binary: how a cloud starts, is asked, is saved and stops. Its nodes are simulated.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::Value;
use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tempfile::TempDir;

const MARU: &str = env!("CARGO_BIN_EXE_maru");

/// A running `maru up`; killed when dropped.
struct Up {
    process: Child,
    url: String,
    /// What it has logged since it answers.
    log: Arc<Mutex<String>>,
}

impl Up {
    /// Starts it on a free port and waits until it says that it answers.
    fn start(data: &Path, listen: &str, more: &[&str]) -> Self {
        let mut process = Command::new(MARU)
            .args(["up", "--data"])
            .arg(data)
            .args([
                "--listen",
                listen,
                "--bcrypt-cost",
                "4",
                "--simulate",
                "1",
                "--log-format",
                "json",
            ])
            .args(more)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut seen = String::new();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let url = loop {
            let Some(line) = lines.next() else {
                panic!("maru up ended: {seen}");
            };
            let line = line.unwrap();
            if let Ok(value) = serde_json::from_str::<Value>(&line)
                && let Some(url) = value
                    .pointer("/fields/url")
                    .or(value.get("url"))
                    .and_then(Value::as_str)
            {
                break url.to_owned();
            }
            seen.push_str(&line);
            seen.push('\n');
        };
        let log = Arc::new(Mutex::new(seen));
        let all = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut all = all.lock().unwrap();
                all.push_str(&line);
                all.push('\n');
            }
        });
        Self { process, url, log }
    }
    fn signal(&self, signal: &str) {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }
    fn wait(&mut self) -> std::process::ExitStatus {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "maru up does not end");
            std::thread::yield_now();
        }
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

fn maru(data: &Path, args: &[&str]) -> Output {
    Command::new(MARU).args(args).env("MARU_DATA", data).output().unwrap()
}

fn ok(data: &Path, args: &[&str]) -> String {
    let out = maru(data, args);
    assert!(
        out.status.success(),
        "maru {args:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout).unwrap()
}

fn refused(data: &Path, args: &[&str]) -> String {
    let out = maru(data, args);
    assert!(!out.status.success(), "maru {args:?} was not refused");
    String::from_utf8(out.stderr).unwrap()
}

fn data() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    (dir, data)
}

/// Asks for a token with what openrc says; the status and the body.
fn log_in(openrc: &str, curl: &[&str]) -> (String, Value) {
    let value = |name: &str| {
        let line = openrc
            .lines()
            .find(|l| l.starts_with(&format!("export {name}=")))
            .unwrap_or_else(|| panic!("no {name}"));
        line.split('\'').nth(1).unwrap().to_owned()
    };
    let body = serde_json::json!({"auth": {
        "identity": {"methods": ["password"], "password": {"user": {
            "name": value("OS_USERNAME"), "domain": {"name": value("OS_USER_DOMAIN_NAME")}, "password": value("OS_PASSWORD")}}},
        "scope": {"project": {"name": value("OS_PROJECT_NAME"), "domain": {"name": value("OS_PROJECT_DOMAIN_NAME")}}},
    }});
    let out = Command::new("curl")
        .args([
            "-sS",
            "--max-time",
            "20",
            "-w",
            "\n%{http_code}",
            "-H",
            "Content-Type: application/json",
            "-d",
        ])
        .arg(body.to_string())
        .args(curl)
        .arg(format!("{}/auth/tokens", value("OS_AUTH_URL")))
        .output()
        .unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let (body, status) = text.rsplit_once('\n').unwrap();
    (
        status.to_owned(),
        serde_json::from_str(body).unwrap_or_else(|_| String::from_utf8_lossy(&out.stderr).into()),
    )
}

/// Asks an API; head and body of the answer.
fn call(url: &str, method: &str, path: &str, token: &str, body: &Value) -> (String, Value) {
    let out = Command::new("curl")
        .args(["-sS", "-i", "--max-time", "20", "-X", method])
        .args([
            "-H",
            "Content-Type: application/json",
            "-H",
            &format!("X-Auth-Token: {token}"),
        ])
        .args(["-H", "OpenStack-API-Version: compute 2.90", "-d"])
        .arg(body.to_string())
        .arg(format!("{url}{path}"))
        .output()
        .unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    (head.to_owned(), serde_json::from_str::<Value>(body).unwrap_or_default())
}

/// The token of an answer.
fn token_of(head: &str) -> String {
    let line = head
        .lines()
        .find(|l| l.to_ascii_lowercase().starts_with("x-subject-token:"));
    let line = line.unwrap_or_else(|| panic!("no token: {head}"));
    line.split_once(':').unwrap().1.trim().to_owned()
}

/// What to log in with.
fn auth(user: &str, password: &str) -> Value {
    serde_json::json!({"auth": {
        "identity": {"methods": ["password"], "password": {"user": {"name": user, "domain": {"id": "default"}, "password": password}}},
        "scope": {"project": {"name": "admin", "domain": {"id": "default"}}}}})
}

/// Waits until something is there.
fn soon<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within 20 s: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_cloud_starts_is_asked_and_stops() {
    let (_dir, data) = data();
    assert!(refused(&data, &["status"]).contains("start one with `maru up"));
    assert!(refused(&data, &["openrc"]).contains("run `maru up"));
    let mut up = Up::start(&data, "127.0.0.1:0", &["--region", "North"]);
    assert!(up.url.starts_with("http://127.0.0.1:"));
    // The node connects a moment after the APIs answer.
    let status = soon("the node", || {
        Some(ok(&data, &["status"])).filter(|s| s.contains("accelerator: simulated"))
    });
    for part in [
        "version:",
        "store: ok, redb",
        "region: North (command line)",
        "log: info (default)",
        "accelerator: simulated",
        "nodes: 1, all well",
        "unknown: nothing",
    ] {
        assert!(status.contains(part), "{part} is not in the status:\n{status}");
    }
    let openrc = ok(&data, &["openrc"]);
    let (code, token) = log_in(&openrc, &[]);
    assert_eq!(code, "201", "{token}");
    assert_eq!(token["token"]["catalog"].as_array().unwrap().len(), 6);
    assert!(
        token["token"]["catalog"][0]["endpoints"][0]["url"]
            .as_str()
            .unwrap()
            .starts_with(&up.url)
    );
    assert!(ok(&data, &["clouds-yaml"]).contains("region_name: \"North\""));
    // One process for a data directory.
    let second = refused(&data, &["up", "--simulate", "1", "--listen", "127.0.0.1:0"]);
    assert!(second.contains("another maru runs"), "{second}");
    // What is shown of the store holds no secret.
    let dump = ok(&data, &["debug", "store"]);
    assert!(dump.lines().count() > 20);
    assert!(!dump.contains("$2b$"), "a password's hash is shown");
    for line in dump.lines().filter(|l| l.contains("token-keys")) {
        assert!(line.contains("(secret)"), "{line}");
    }
    ok(&data, &["debug", "check"]);
    up.signal("-TERM");
    assert!(up.wait().success());
    // The next start knows the same administrator; the password was not shown and not changed.
    let up = Up::start(&data, "127.0.0.1:0", &[]);
    let again = ok(&data, &["openrc"]);
    assert!(again.contains(&up.url));
    assert_eq!(log_in(&again, &[]).0, "201");
    ok(&data, &["down"]);
}

#[test]
fn any_other_address_is_served_over_tls() {
    let (_dir, data) = data();
    let up = Up::start(&data, "0.0.0.0:0", &["--node", "localhost"]);
    assert!(up.url.starts_with("https://localhost:"), "{}", up.url);
    let openrc = ok(&data, &["openrc"]);
    let ca = data.join("tls/ca.pem");
    assert!(openrc.contains(&format!("OS_CACERT='{}'", ca.display())));
    let (code, token) = log_in(&openrc, &["--cacert", ca.to_str().unwrap()]);
    assert_eq!(code, "201", "{token}");
    // Without the CA nobody believes it, and without TLS nobody is heard.
    assert_eq!(log_in(&openrc, &[]).0, "000");
    assert_eq!(log_in(&openrc.replace("https://", "http://"), &[]).0, "000");
    let key = std::fs::metadata(data.join("tls/ca.key")).unwrap();
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&key.permissions()) & 0o777,
        0o600
    );
    drop(up);
    // The same name keeps its certificate; another name gets another, by the same CA.
    let read = || {
        (
            std::fs::read(&ca).unwrap(),
            std::fs::read(data.join("tls/api.pem")).unwrap(),
        )
    };
    let before = read();
    drop(Up::start(&data, "0.0.0.0:0", &["--node", "localhost"]));
    assert!(before == read());
    drop(Up::start(&data, "0.0.0.0:0", &["--node", "elsewhere"]));
    let after = read();
    assert!(before.0 == after.0 && before.1 != after.1);
}

#[test]
fn what_cannot_be_is_refused_with_what_would_help() {
    let (dir, data) = data();
    for (args, said) in [
        (
            &["up", "--simulate", "1", "--external-cidr", "10.0.0.0/30"][..],
            "give a /28 or larger",
        ),
        (
            &["up", "--simulate", "1", "--external-gateway", "9.9.9.9"],
            "is not in --external-cidr",
        ),
        (
            &["up", "--simulate", "1", "--policy", "/nowhere.yaml"],
            "cannot read the policy file /nowhere.yaml",
        ),
        (&["up", "--simulate", "1", "--tls-cert", "/x"], "--tls-key"),
        (&["up", "--simulate", "many"], "--simulate"),
        (&["up", "--bcrypt-cost", "3"], "4..=31"),
        (&["up", "--lockout-failure-attempts", "0"], "1..=1000"),
        (&["up", "--password-regex-description", "x"], "--password-regex"),
        (&["up", "--simulate", "1", "--password-regex", "("], "--password-regex"),
        (
            &[
                "up",
                "--simulate",
                "1",
                "--password-expires-days",
                "2",
                "--minimum-password-age",
                "2",
            ],
            "must be less than --password-expires-days",
        ),
        (&["restore", "/nowhere"], "/nowhere"),
    ] {
        let mut args = args.to_vec();
        if args[0] == "up" {
            args.extend(["--listen", "127.0.0.1:0"]);
        }
        let error = refused(&data, &args);
        assert!(error.contains(said), "maru {args:?} says: {error}");
        assert!(!error.contains("panicked"), "{error}");
    }
    // An override that does not parse names its rule; the cloud does not start with a policy that nobody wrote.
    let policy = dir.path().join("policy.yaml");
    std::fs::write(&policy, "\"os_compute_api:servers:index\": \"role:(\"\n").unwrap();
    let error = refused(
        &data,
        &[
            "up",
            "--simulate",
            "1",
            "--listen",
            "127.0.0.1:0",
            "--policy",
            policy.to_str().unwrap(),
        ],
    );
    assert!(error.contains("os_compute_api:servers:index"), "{error}");
}

#[test]
fn a_unit_restarts_the_control_plane_alone() {
    let (dir, data) = data();
    let units = dir.path().to_str().unwrap();
    ok(&data, &["install", "--unit-dir", units, "--", "--region", "South Pole"]);
    let unit = std::fs::read_to_string(dir.path().join("maru.service")).unwrap();
    for line in ["KillMode=process", "Delegate=yes", "Restart=always"] {
        assert!(unit.lines().any(|l| l == line), "{line} is not in\n{unit}");
    }
    let start = unit.lines().find(|l| l.starts_with("ExecStart=")).unwrap();
    assert!(start.ends_with("\"--region\" \"South Pole\""), "{start}");
    assert!(refused(&data, &["install", "--unit-dir", units, "--", "--nonsense"]).contains("--nonsense"));
    assert!(refused(&data, &["install", "--unit-dir", units, "--", "--region", "50%"]).contains("without quotes"));
    assert!(refused(&data, &["install", "--unit-dir", "/nowhere"]).contains("cannot write /nowhere/maru.service"));
}

#[test]
fn a_backup_is_put_in_place_of_the_store() {
    let (dir, data) = data();
    let file = dir.path().join("backup");
    let file = file.to_str().unwrap();
    let up = Up::start(&data, "127.0.0.1:0", &[]);
    assert!(ok(&data, &["backup", file]).contains("keys:"));
    assert!(refused(&data, &["backup", file]).contains("exists"));
    assert!(refused(&data, &["restore", file]).contains("another maru runs"));
    let before = ok(&data, &["debug", "store", "project/"]);
    drop(up);
    // Half a backup is none.
    let whole = std::fs::read(file).unwrap();
    let half = dir.path().join("half");
    std::fs::write(&half, &whole[..whole.len() / 2]).unwrap();
    let error = refused(&data, &["restore", half.to_str().unwrap()]);
    assert!(!error.contains("panicked") && error.contains("half"), "{error}");
    ok(&data, &["restore", file]);
    let _up = Up::start(&data, "127.0.0.1:0", &[]);
    let ids = |dump: &str| {
        let mut ids: Vec<String> = dump
            .lines()
            .map(|l| {
                serde_json::from_str::<Value>(l).unwrap()["key"]
                    .as_str()
                    .unwrap()
                    .to_owned()
            })
            .collect();
        ids.sort();
        ids
    };
    assert_eq!(ids(&before), ids(&ok(&data, &["debug", "store", "project/"])));
    assert_eq!(log_in(&ok(&data, &["openrc"]), &[]).0, "201");
}

/// Class H1: at the most talkative level, no log line, audit record or story holds a password, a token, a private key or user data.
#[test]
fn no_secret_is_logged_or_recorded() {
    let (_dir, data) = data();
    let up = Up::start(&data, "127.0.0.1:0", &["--log", "trace"]);
    let admin: Value = serde_json::from_str(&std::fs::read_to_string(data.join("admin.json")).unwrap()).unwrap();
    let admin_password = admin["password"].as_str().unwrap().to_owned();
    let mut secrets = vec![admin_password.clone()];
    let call = |method: &str, path: &str, token: &str, body: Value| call(&up.url, method, path, token, &body);
    let (head, _) = call("POST", "/identity/v3/auth/tokens", "", auth("admin", &admin_password));
    let token = token_of(&head);
    secrets.push(token.clone());
    // A refused password may be one letter off.
    let (head, _) = call(
        "POST",
        "/identity/v3/auth/tokens",
        "",
        auth("admin", "Almost-The-Password-1"),
    );
    assert!(head.contains("401"), "{head}");
    secrets.push("Almost-The-Password-1".into());
    let (head, user) = call(
        "POST",
        "/identity/v3/users",
        &token,
        serde_json::json!({"user": {"name": "u", "password": "Sec-ret-Of-U-2"}}),
    );
    assert!(head.contains("201"), "{head}");
    let path = format!("/identity/v3/users/{}", user["user"]["id"].as_str().unwrap());
    let change = serde_json::json!({"user": {"password": "Sec-ret-Of-U-3"}});
    assert!(call("PATCH", &path, &token, change).0.contains("200"));
    // Not JSON, with a secret in it: the error may not quote it.
    call("PATCH", &path, &token, Value::from("Sec-ret-Of-U-4"));
    secrets.extend(["Sec-ret-Of-U-2", "Sec-ret-Of-U-3", "Sec-ret-Of-U-4"].map(String::from));
    let (_, flavors) = call("GET", "/compute/v2.1/flavors", &token, Value::Null);
    let flavor = flavors["flavors"][0]["id"].clone();
    let image = call(
        "POST",
        "/image/v2/images",
        &token,
        serde_json::json!({"name": "i", "disk_format": "raw", "container_format": "bare"}),
    )
    .1;
    let file = format!("{}/image/v2/images/{}/file", up.url, image["id"].as_str().unwrap());
    let sent = Command::new("curl")
        .args(["-sSf", "-X", "PUT", "-H", "Content-Type: application/octet-stream"])
        .args([
            "-H",
            &format!("X-Auth-Token: {token}"),
            "--data-binary",
            &"x".repeat(4096),
            &file,
        ])
        .output()
        .unwrap();
    assert!(sent.status.success(), "{sent:?}");
    let server = serde_json::json!({"server": {"name": "s", "flavorRef": flavor, "imageRef": image["id"], "networks": "none",
        "adminPass": "Sec-ret-Admin-5", "user_data": "U2VjLXJldC1EYXRhLTY="}});
    let (head, _) = call("POST", "/compute/v2.1/servers", &token, server);
    assert!(head.contains(" 202"), "{head}");
    secrets.extend(["Sec-ret-Admin-5", "U2VjLXJldC1EYXRhLTY=", "Sec-ret-Data-6"].map(String::from));
    let (head, _) = call("DELETE", "/identity/v3/auth/tokens", &token, Value::Null);
    assert!(head.contains("40") || head.contains("20"), "{head}");
    let dump = ok(&data, &["debug", "store"]);
    // All that was asked is logged by now: the access line of a request is written before its answer ends.
    let log = up.log.lock().unwrap().clone();
    assert!(
        log.contains("/identity/v3/users") && log.lines().count() > 8,
        "the log is there:\n{log}"
    );
    let mut places = vec![("the log".to_owned(), log)];
    places.push(("debug store".to_owned(), dump));
    let mut folders = vec![data.join("records")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                places.push((
                    path.display().to_string(),
                    String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned(),
                ));
            }
        }
    }
    assert!(places.len() > 2, "there are audit records");
    for (place, text) in &places {
        for secret in &secrets {
            assert!(!text.contains(secret.as_str()), "{place} holds {secret}");
        }
    }
}

/// The commands that the status gives for a thing, as they are printed.
fn way<'a>(status: &'a str, thing: &str, way: &str) -> &'a str {
    let mut lines = status.lines().skip_while(|l| !l.contains(thing)).skip(1);
    let line = lines.find(|l| l.trim_start().starts_with(way));
    let line = line.unwrap_or_else(|| panic!("{thing}: no '{way}' in\n{status}"));
    line.split_once(": ").unwrap().1
}

/// Gives a command that was printed to a shell, without MARU_DATA: it must say all that it needs.
fn shell(command: &str) -> Output {
    let folder = Path::new(MARU).parent().unwrap();
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    Command::new("sh")
        .args(["-c", command])
        .env("PATH", path)
        .env_remove("MARU_DATA")
        .output()
        .unwrap()
}

#[test]
fn what_a_restore_forgot_is_adopted_or_discarded() {
    let (dir, data) = data();
    // A path that a shell would take apart.
    let data = data.with_file_name("my cloud's data");
    let file = dir.path().join("backup");
    let mut up = Up::start(&data, "127.0.0.1:0", &[]);
    let admin: Value = serde_json::from_str(&std::fs::read_to_string(data.join("admin.json")).unwrap()).unwrap();
    let password = admin["password"].as_str().unwrap().to_owned();
    let sign_in = |url: &str| token_of(&call(url, "POST", "/identity/v3/auth/tokens", "", &auth("admin", &password)).0);
    let token = sign_in(&up.url);
    ok(&data, &["backup", file.to_str().unwrap()]);
    // Two servers that the backup does not know, of an image that it does not know.
    let body = serde_json::json!({"name": "i", "disk_format": "raw", "container_format": "bare"});
    let image = call(&up.url, "POST", "/image/v2/images", &token, &body).1["id"].clone();
    let sent = Command::new("curl")
        .args(["-sSf", "-X", "PUT", "-H", "Content-Type: application/octet-stream"])
        .args([
            "-H",
            &format!("X-Auth-Token: {token}"),
            "--data-binary",
            &"x".repeat(4096),
        ])
        .arg(format!("{}/image/v2/images/{}/file", up.url, image.as_str().unwrap()))
        .output()
        .unwrap();
    assert!(sent.status.success(), "{sent:?}");
    let flavor = call(&up.url, "GET", "/compute/v2.1/flavors", &token, &Value::Null).1["flavors"][0]["id"].clone();
    let shown = |url: &str, token: &str, id: &str| {
        let (head, body) = call(url, "GET", &format!("/compute/v2.1/servers/{id}"), token, &Value::Null);
        (
            head.lines().next().unwrap().to_owned(),
            body["server"]["status"].clone(),
        )
    };
    let make = |name: &str| {
        let body =
            serde_json::json!({"server": {"name": name, "flavorRef": flavor, "imageRef": image, "networks": "none"}});
        let (head, made) = call(&up.url, "POST", "/compute/v2.1/servers", &token, &body);
        let id = made["server"]["id"]
            .as_str()
            .unwrap_or_else(|| panic!("{head}"))
            .to_owned();
        soon("the server is ACTIVE", || {
            (shown(&up.url, &token, &id).1 == "ACTIVE").then_some(())
        });
        id
    };
    let (kept, dropped) = (make("kept"), make("dropped"));
    up.signal("-TERM");
    assert!(up.wait().success());

    ok(&data, &["restore", file.to_str().unwrap()]);
    let mut up = Up::start(&data, "127.0.0.1:0", &[]);
    let token = sign_in(&up.url);
    assert!(shown(&up.url, &token, &kept).0.contains("404"));
    let status = soon("the guests are listed", || {
        Some(ok(&data, &["status"])).filter(|s| s.contains(&kept) && s.contains(&dropped))
    });
    assert!(
        status.contains("unknown: 2 things on the nodes that the store does not know"),
        "{status}"
    );
    // What the status says is done to the letter.
    let quoted = format!("'{}'", data.display().to_string().replace('\'', r"'\''"));
    let adopt = way(&status, &kept, "to take it back");
    assert_eq!(adopt, format!("maru adopt server {kept} --data {quoted}"));
    let out = shell(adopt);
    let said = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    for line in [
        format!("adopted: server {kept}"),
        "name: kept".to_owned(),
        "status: ACTIVE".to_owned(),
    ] {
        assert!(said.lines().any(|l| l == line), "{line} is not in\n{said}");
    }
    assert_eq!(shown(&up.url, &token, &kept).1, "ACTIVE");
    let out = shell(way(&status, &dropped, "to remove it for good"));
    let said = String::from_utf8(out.stdout).unwrap();
    assert!(
        out.status.success() && said.contains(&format!("discarded: server {dropped}")),
        "{said}"
    );
    assert!(shown(&up.url, &token, &dropped).0.contains("404"));
    assert!(ok(&data, &["status"]).contains("unknown: nothing"));
    // Again: what is known, what is gone, what is no kind of thing.
    for verb in ["adopt", "discard"] {
        let error = refused(&data, &[verb, "server", &kept]);
        assert!(
            error.contains(&format!("server {kept} (kept) is known to the cloud")),
            "{error}"
        );
        let error = refused(&data, &[verb, "server", &dropped]);
        assert!(error.contains("no node reports an unknown server"), "{error}");
        let error = refused(&data, &[verb, "flavor", "x"]);
        assert!(
            error.contains("server, disk, volume, volume-snapshot, network, router"),
            "{error}"
        );
    }
    up.signal("-TERM");
    assert!(up.wait().success());
    for verb in ["adopt", "discard"] {
        assert!(refused(&data, &[verb, "server", &kept]).contains("no cloud runs on"));
    }
    // The next process knows the server, and its node has the guest.
    assert!(data.join("simulated.json").exists());
    let mut up = Up::start(&data, "127.0.0.1:0", &[]);
    let token = sign_in(&up.url);
    soon("the node", || {
        ok(&data, &["status"]).contains("nodes: 1, all well").then_some(())
    });
    assert_eq!(shown(&up.url, &token, &kept).1, "ACTIVE");
    assert!(ok(&data, &["status"]).contains("unknown: nothing"));
    // Whoever stops them, the guests go.
    up.signal("-TERM");
    assert!(up.wait().success());
    ok(&data, &["down", "--guests", "--instance", "clitest"]);
    assert!(!data.join("simulated.json").exists());
    let _up = Up::start(&data, "127.0.0.1:0", &[]);
    ok(&data, &["down", "--guests"]);
    assert!(!data.join("simulated.json").exists());
}

/// A pipe that nobody reads.
fn unread() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    Stdio::from(writer)
}

#[test]
fn a_reader_that_goes_away_is_no_error_and_a_full_disk_is() {
    let (dir, data) = data();
    let mut up = Up::start(&data, "127.0.0.1:0", &[]);
    let backup = dir.path().join("backup");
    let backup = backup.to_str().unwrap();
    let all: [&[&str]; 9] = [
        &["status"],
        &["status", "--all"],
        &["openrc"],
        &["clouds-yaml"],
        &["debug", "store"],
        &["debug", "check"],
        &["backup", backup],
        &["install", "--unit-dir", dir.path().to_str().unwrap()],
        &["--help"],
    ];
    let run = |args: &[&str], stdout: Stdio| {
        let mut command = Command::new(MARU);
        command
            .args(args)
            .env("MARU_DATA", &data)
            .stdout(stdout)
            .stderr(Stdio::piped());
        command.spawn().unwrap().wait_with_output().unwrap()
    };
    for args in all {
        let out = run(args, unread());
        let error = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success() && error.is_empty(), "maru {args:?}: {error}");
    }
    for args in &all[..6] {
        let out = run(args, std::fs::File::create("/dev/full").unwrap().into());
        let error = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success(), "maru {args:?}");
        assert!(
            error.starts_with("maru: the output cannot be written: "),
            "maru {args:?}: {error}"
        );
    }
    up.signal("-TERM");
    assert!(up.wait().success());
    // Restore prints after its work is done; and errors find nobody to read them.
    let out = run(&["restore", backup], unread());
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let mut command = Command::new(MARU);
    command
        .arg("status")
        .env("MARU_DATA", &data)
        .stdout(unread())
        .stderr(unread());
    assert_eq!(command.status().unwrap().code(), Some(1), "an error, no panic");
}

#[test]
fn a_cloud_whose_log_nobody_reads_goes_on() {
    let (_dir, data) = data();
    let mut up = Command::new(MARU)
        .args([
            "up",
            "--listen",
            "127.0.0.1:0",
            "--simulate",
            "1",
            "--bcrypt-cost",
            "4",
            "--log",
            "debug",
        ])
        .env("MARU_DATA", &data)
        .stderr(unread())
        .spawn()
        .unwrap();
    let status = soon("the node", || {
        let out = maru(&data, &["status"]);
        let text = String::from_utf8(out.stdout).unwrap();
        text.contains("nodes: 1, all well").then_some(text)
    });
    assert!(status.starts_with("version: "), "{status}");
    ok(&data, &["debug", "check"]);
    ok(&data, &["down"]);
    assert!(up.wait().unwrap().success());
}
