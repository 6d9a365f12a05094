//! One request's whole way in the log of the real binary: its id is on the access line, on each step of the flow that it
//! began, and in what the node reports of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

const DEADLINE: Duration = Duration::from_secs(60);
/// The steps of a server's creation, in order.
const STEPS: [&str; 4] = ["schedule", "network", "spawn", "running"];

/// A running `maru up` with a simulated node; killed when dropped.
struct Up {
    process: Child,
    address: String,
    log: Arc<Mutex<Vec<Value>>>,
}

impl Up {
    fn start(data: &Path) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_maru"))
            .args(["up", "--listen", "127.0.0.1:0", "--bcrypt-cost", "4", "--simulate", "1"])
            .args(["--log-format", "json", "--data"])
            .arg(data)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let address = loop {
            let line = lines.next().expect("maru up ended").unwrap();
            if let Ok(value) = serde_json::from_str::<Value>(&line)
                && let Some(url) = value.pointer("/fields/url").and_then(Value::as_str)
            {
                break url.trim_start_matches("http://").to_owned();
            }
        };
        let log: Arc<Mutex<Vec<Value>>> = Arc::default();
        let kept = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Ok(value) = serde_json::from_str(&line) {
                    kept.lock().unwrap().push(value);
                }
            }
        });
        Self { process, address, log }
    }

    /// Status, request id, token (of a login) and body of an answer.
    fn ask(&self, method: &str, target: &str, token: &str, kind: &str, body: &str) -> (u16, String, String, Value) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        write!(
            stream,
            "{method} {target} HTTP/1.1\r\nHost: t\r\nConnection: close\r\nX-Auth-Token: {token}\r\n\
             OpenStack-API-Version: compute 2.90\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut all = String::new();
        stream.read_to_string(&mut all).unwrap();
        let (head, body) = all.split_once("\r\n\r\n").unwrap();
        let header = |name: &str| {
            let line = head
                .lines()
                .find(|l| l.to_lowercase().starts_with(&format!("{name}: ")));
            line.map(|l| l[name.len() + 2..].to_owned()).unwrap_or_default()
        };
        (
            head[9..12].parse().unwrap(),
            header("x-openstack-request-id"),
            header("x-subject-token"),
            serde_json::from_str(body).unwrap_or(Value::Null),
        )
    }

    fn json(&self, method: &str, target: &str, token: &str, body: &Value) -> (String, Value) {
        let text = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let (status, id, _, answer) = self.ask(method, target, token, "application/json", &text);
        assert!(status < 300, "{method} {target}: {status} {answer}");
        (id, answer)
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

#[test]
fn a_request_is_followed_by_its_id_from_the_first_line_to_the_last_step() {
    let data = tempfile::tempdir().unwrap();
    let up = Up::start(data.path());
    let openrc = Command::new(env!("CARGO_BIN_EXE_maru"))
        .args(["openrc", "--data"])
        .arg(data.path())
        .output()
        .unwrap();
    let openrc = String::from_utf8(openrc.stdout).unwrap();
    let password = openrc
        .lines()
        .find_map(|l| l.split_once("OS_PASSWORD="))
        .map(|(_, p)| p.trim_matches(['\'', '"']).to_owned())
        .unwrap();
    let login = json!({"auth": {"identity": {"methods": ["password"], "password": {"user": {
        "name": "admin", "domain": {"id": "default"}, "password": password}}},
        "scope": {"project": {"name": "admin", "domain": {"id": "default"}}}}});
    let (status, _, token, _) = up.ask(
        "POST",
        "/identity/v3/auth/tokens",
        "",
        "application/json",
        &login.to_string(),
    );
    assert_eq!(status, 201);
    let flavor = json!({"flavor": {"name": "t", "ram": 64, "vcpus": 1, "disk": 1}});
    let (_, flavor) = up.json("POST", "/compute/v2.1/flavors", &token, &flavor);
    let image = json!({"name": "i", "disk_format": "raw", "container_format": "bare"});
    let (_, image) = up.json("POST", "/image/v2/images", &token, &image);
    let image = image["id"].as_str().unwrap();
    let bytes = "x".repeat(4_096);
    let file = format!("/image/v2/images/{image}/file");
    let (status, ..) = up.ask("PUT", &file, &token, "application/octet-stream", &bytes);
    assert_eq!(status, 204);
    let server =
        json!({"server": {"name": "s", "flavorRef": flavor["flavor"]["id"], "imageRef": image, "networks": "none"}});
    let (request, server) = up.json("POST", "/compute/v2.1/servers", &token, &server);
    assert!(request.starts_with("req-"), "{request}");
    let server = format!("/compute/v2.1/servers/{}", server["server"]["id"].as_str().unwrap());

    let begun = Instant::now();
    loop {
        let (_, now) = up.json("GET", &server, &token, &Value::Null);
        match now["server"]["status"].as_str().unwrap() {
            "ACTIVE" => break,
            "BUILD" => assert!(begun.elapsed() < DEADLINE, "{now}"),
            other => panic!("{other}: {now}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    // The story that users see is filed under the request.
    let (_, story) = up.json(
        "GET",
        &format!("{server}/os-instance-actions/{request}"),
        &token,
        &Value::Null,
    );
    assert_eq!(story["instanceAction"]["action"], "create", "{story}");
    assert!(
        !story["instanceAction"]["events"].as_array().unwrap().is_empty(),
        "{story}"
    );

    // The log is read by a thread: its last lines may be a moment behind.
    loop {
        let log = up.log.lock().unwrap();
        let access = log
            .iter()
            .position(|l| l["fields"]["message"] == "access" && l["fields"]["request_id"] == request.as_str());
        let steps: Vec<&str> = log
            .iter()
            .filter(|l| l["fields"]["message"] == "step ended" && l["span"]["request_id"] == request.as_str())
            .filter_map(|l| l["span"]["step"].as_str())
            .collect();
        if access.is_some() && steps.len() >= STEPS.len() {
            assert_eq!(steps, STEPS);
            break;
        }
        assert!(begun.elapsed() < DEADLINE, "access line: {access:?}, steps: {steps:?}");
        drop(log);
        std::thread::sleep(Duration::from_millis(10));
    }

    // What the node did stands in the server's record, under the same id and with its times.
    let id = server.rsplit('/').next().unwrap();
    let begun = Instant::now();
    loop {
        let story = Command::new(env!("CARGO_BIN_EXE_maru"))
            .args(["debug", "story", id, "--data"])
            .arg(data.path())
            .output()
            .unwrap();
        let story = String::from_utf8(story.stdout).unwrap();
        let events: Vec<Value> = story.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert!(events.iter().all(|e| e["request_id"] == request.as_str()), "{story}");
        let of_node: Vec<&str> = events
            .iter()
            .filter(|e| e["node"].is_string() && e["start_us"].as_i64() <= e["finish_us"].as_i64())
            .filter_map(|e| e["event"].as_str())
            .collect();
        let of_control = events.iter().filter(|e| e["time"].is_string()).count();
        if of_node == ["disk", "spawn", "qmp", "running"] && of_control > 0 {
            break;
        }
        assert!(begun.elapsed() < DEADLINE, "{story}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
