//! `/metrics` of the real binary: with a token on the APIs' address, without one on its own, and what is in it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const DEADLINE: Duration = Duration::from_secs(60);

/// A running `maru up` with a simulated node; killed when dropped.
struct Up {
    process: Child,
    api: String,
    metrics: String,
}

impl Up {
    fn start(data: &Path) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_maru"))
            .args([
                "up",
                "--listen",
                "127.0.0.1:0",
                "--metrics",
                "127.0.0.1:0",
                "--bcrypt-cost",
                "4",
            ])
            .args(["--simulate", "2", "--log-format", "json", "--data"])
            .arg(data)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let mut field = |name: &str| loop {
            let line = lines.next().expect("maru up ended").unwrap();
            if let Ok(value) = serde_json::from_str::<Value>(&line)
                && let Some(found) = value.pointer(&format!("/fields/{name}")).and_then(Value::as_str)
            {
                return found.to_owned();
            }
        };
        let metrics = field("metrics");
        let api = field("url").trim_start_matches("http://").to_owned();
        // Nobody may block on a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, api, metrics }
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// Status, head and body of an answer.
fn ask(address: &str, method: &str, target: &str, headers: &str, body: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(
        stream,
        "{method} {target} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).unwrap();
    let (head, body) = all.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), head.to_owned(), body.to_owned())
}

fn token(up: &Up, password: &str, scope: Value) -> String {
    let body = json!({"auth": {"identity": {"methods": ["password"], "password": {"user": {
        "name": "admin", "domain": {"id": "default"}, "password": password}}}, "scope": scope}});
    let json = "Content-Type: application/json\r\n";
    let (status, head, body) = ask(&up.api, "POST", "/identity/v3/auth/tokens", json, &body.to_string());
    assert_eq!(status, 201, "{body}");
    let line = head
        .lines()
        .find(|l| l.to_lowercase().starts_with("x-subject-token: "))
        .unwrap();
    line[17..].to_owned()
}

/// The value of one line.
fn value(text: &str, name: &str) -> f64 {
    let line = text.lines().find(|l| l.starts_with(name));
    let line = line.unwrap_or_else(|| panic!("no {name} in:\n{text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn metrics_need_a_token_or_their_own_address_and_show_the_process() {
    let data = tempfile::tempdir().unwrap();
    let up = Up::start(data.path());
    let clouds = Command::new(env!("CARGO_BIN_EXE_maru"))
        .args(["openrc", "--data"])
        .arg(data.path())
        .output()
        .unwrap();
    let openrc = String::from_utf8(clouds.stdout).unwrap();
    let password = openrc
        .lines()
        .find_map(|l| l.split_once("OS_PASSWORD="))
        .map(|(_, p)| p.trim_matches(['\'', '"']).to_owned())
        .unwrap();

    assert_eq!(ask(&up.api, "GET", "/metrics", "", "").0, 401);
    assert_eq!(ask(&up.api, "GET", "/metrics", "X-Auth-Token: x\r\n", "").0, 401);
    for scope in [
        json!({"system": {"all": true}}),
        json!({"project": {"name": "admin", "domain": {"id": "default"}}}),
    ] {
        let token = token(&up, &password, scope);
        let (status, head, _) = ask(&up.api, "GET", "/metrics", &format!("X-Auth-Token: {token}\r\n"), "");
        assert_eq!(status, 200);
        assert!(
            head.to_lowercase()
                .contains("content-type: application/openmetrics-text"),
            "{head}"
        );
    }

    // The listener of its own serves this and nothing else.
    assert_eq!(ask(&up.metrics, "GET", "/identity/v3", "", "").0, 404);
    assert_eq!(ask(&up.metrics, "POST", "/metrics", "", "").0, 405);
    let begun = Instant::now();
    let text = loop {
        let (status, _, text) = ask(&up.metrics, "GET", "/metrics", "", "");
        assert_eq!(status, 200);
        let node = "maru_nodes{state=\"alive\"} 2";
        if text.contains(node) && text.contains("maru_controller_runs_total{") {
            break text;
        }
        assert!(begun.elapsed() < DEADLINE, "{text}");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(text.ends_with("# EOF\n"));
    let refused = "maru_http_requests_total{service=\"metrics\",method=\"GET\",route=\"/\",status=\"401\"}";
    assert_eq!(value(&text, refused), 2.0);
    let made =
        "maru_http_requests_total{service=\"identity\",method=\"POST\",route=\"/v3/auth/tokens\",status=\"201\"}";
    assert_eq!(value(&text, made), 2.0);
    let took =
        "maru_http_request_duration_seconds_count{service=\"identity\",method=\"POST\",route=\"/v3/auth/tokens\"}";
    assert_eq!(value(&text, took), 2.0);
    assert!(value(&text, "maru_store_commit_duration_seconds_count") > 0.0);
    assert!(value(&text, "maru_objects{kind=\"user\"}") >= 1.0);
    assert!(value(&text, "maru_store_revision") > 0.0);
    assert_eq!(value(&text, "maru_panics_total"), 0.0);
    assert!(value(&text, "process_resident_memory_bytes") > 1e6);
    assert!(value(&text, "process_open_fds") > 5.0);
    assert!(text.contains("maru_controller_queue_depth{controller=\""));
    // Nothing of a tenant: no password, no token, no id of any object.
    assert!(!text.contains(&password));
    let hex = |s: &str| s.len() >= 32 && s.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    assert!(
        !text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').any(hex),
        "an id:\n{text}"
    );
}
