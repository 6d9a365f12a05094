//! Bad input of every kind on every route that takes JSON: never a 5xx, a 4xx that names the field, and nothing stored.
//!
//! Each route's sample request (`tests/kit/src/scene.rs`) is spoilt in one place at a time. What must be refused is what no
//! reading of the request allows: text that is not JSON, another type at the top, an object where a word belongs, a key that
//! upstream's schema does not have. Everything else (huge numbers, control characters, long texts) may be taken where upstream
//! takes it, but never breaks anything; and whatever is refused has committed nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use bytes::Bytes;
use maru_kit::{Actor, Body, Kit, Scene};
use serde_json::{Value, json};

/// A route with its good request.
struct Way {
    service: &'static str,
    name: String,
    method: String,
    path: String,
    headers: Vec<(&'static str, String)>,
    kind: &'static str,
    good: Value,
    who: Actor,
}

fn ways(scene: &Scene) -> Vec<Way> {
    let cloud = scene.kit.cloud();
    let mut out = Vec::new();
    for service in cloud.gateway().services() {
        for route in &service.routes {
            let method = route.method.to_string();
            let (kind, good) = match scene.body(service.name, &method, &route.path) {
                Some(Body::Json(v)) => ("application/json", v),
                Some(Body::Patch(v)) => ("application/openstack-images-v2.1-json-patch", v),
                _ => continue,
            };
            out.push(Way {
                service: service.name,
                name: format!("{} {method} {}", service.name, route.path),
                path: format!(
                    "{}{}",
                    service.prefixes[0],
                    scene
                        .fill(service.name, route.method.as_str(), &route.path, None)
                        .unwrap()
                ),
                headers: scene.headers(service.name, &route.path),
                kind,
                good,
                who: scene.rightful(service.name, &method, &route.path),
                method,
            });
        }
    }
    assert!(out.len() > 60, "only {} routes take JSON?", out.len());
    out
}

/// The request with one place changed: where, the field's name, and the body's text.
struct Spoilt {
    what: String,
    /// Any of these in the refusal names it; none when the text is not JSON at all.
    fields: Vec<String>,
    text: String,
    /// No reading of the request allows it.
    refused: bool,
}

/// Stands for text that is not JSON's own, such as a number of 400 digits.
const RAW: &str = "@raw@";

/// All places of a value: pointer and value.
fn places(value: &Value, at: &str, out: &mut Vec<(String, Value)>) {
    if !at.is_empty() {
        out.push((at.to_owned(), value.clone()));
    }
    let step = |key: &str| format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
    match value {
        Value::Object(map) => map.iter().for_each(|(k, v)| places(v, &step(k), out)),
        Value::Array(list) => list
            .iter()
            .enumerate()
            .for_each(|(i, v)| places(v, &step(&i.to_string()), out)),
        _ => {}
    }
}

fn spoil(good: &Value, strict: bool) -> Vec<Spoilt> {
    let mut all = Vec::new();
    let mut found = Vec::new();
    places(good, "", &mut found);
    let deep = format!("{}1{}", "[".repeat(120), "]".repeat(120));
    for (at, old) in &found {
        let wrapped = usize::from(good.as_object().is_some_and(|o| o.len() == 1));
        let mut names: Vec<String> = at
            .split('/')
            .skip(1)
            .filter(|p| p.parse::<usize>().is_err())
            .map(|p| p.replace("~1", "/").replace("~0", "~"))
            .collect();
        if names.len() > wrapped {
            // The name of the whole object says nothing about its part.
            names.drain(..wrapped);
        }
        let mut put = |what: &str, new: Value, raw: Option<&str>, refused: bool| {
            let mut bad = good.clone();
            *bad.pointer_mut(at).unwrap() = new;
            let mut text = bad.to_string();
            if let Some(raw) = raw {
                text = text.replace(&format!("\"{RAW}\""), raw);
            }
            let fields = match what {
                "with an unknown key" => vec!["no_such_key".to_owned()],
                "the number 1e400" | "the number 00" => Vec::new(),
                _ => names.clone(),
            };
            all.push(Spoilt {
                what: format!("{at} is {what}"),
                fields,
                text,
                refused,
            });
        };
        // Another shape of value altogether.
        let scalar = !(old.is_object() || old.is_array());
        put("an object", json!({"x": {"y": 1}}), None, !old.is_object());
        put("a list", json!([[{"x": 1}]]), None, !old.is_array());
        put("a number", json!(7), None, !scalar);
        put("a word", json!("x"), None, !scalar);
        put("a flag", json!(true), None, !scalar);
        put("null", Value::Null, None, false);
        // The right shape, wrong inside.
        for (what, text) in [
            ("empty", String::new()),
            ("long", "x".repeat(70_000)),
            ("NUL", "a\0b".to_owned()),
            ("control characters", "a\u{1}\r\n\u{7f}\u{85}b".to_owned()),
            ("unicode", "\u{202e}\u{1f600}한\u{fffd}\u{feff}é".to_owned()),
            ("a path", "../../../etc/passwd".to_owned()),
            ("a format", "%s%n{0}${x}<script>'\"\\".to_owned()),
        ] {
            if old.is_string() {
                put(what, Value::from(text), None, false);
            }
        }
        for raw in [
            "-1",
            "0",
            "9223372036854775808",
            "-9223372036854775809",
            "1e308",
            "0.5",
            "1e400",
            "00",
        ] {
            if scalar {
                put(
                    &format!("the number {raw}"),
                    Value::from(RAW),
                    Some(raw),
                    matches!(raw, "1e400" | "00"),
                );
            }
        }
        put("deep", Value::from(RAW), Some(&deep), true);
        if let (Value::Object(map), true) = (old, strict) {
            let mut more = map.clone();
            more.insert("no_such_key".to_owned(), json!(1));
            // The maps of free keys take any key; their values are words.
            let free = at.ends_with("metadata") || at.ends_with("extra_specs");
            if !free {
                put("with an unknown key", Value::Object(more), None, true);
            }
        }
        if let Value::Array(list) = old {
            let many: Vec<Value> = (0..5_000)
                .map(|_| list.first().cloned().unwrap_or(json!("x")))
                .collect();
            put("a long list", Value::Array(many), None, false);
        }
    }
    for (what, text) in [
        ("not JSON", "{\"a\":"),
        ("no JSON at all", "\u{0}\u{1}"),
        ("two values", "{} {}"),
        ("empty", ""),
        ("a list", "[]"),
        ("a word", "\"x\""),
        ("a number", "1"),
        ("null", "null"),
        ("an empty object", "{}"),
    ] {
        // A patch is a list, and one without operations changes nothing; the empty object holds no unknown key.
        let refused = !(what == "a list" && good.is_array()) && what != "an empty object";
        all.push(Spoilt {
            what: format!("the body is {what}"),
            fields: Vec::new(),
            text: text.to_owned(),
            refused,
        });
    }
    all.push(Spoilt {
        what: "the body is 100,000 deep".to_owned(),
        fields: Vec::new(),
        text: "[".repeat(100_000),
        refused: true,
    });
    all
}

async fn send(kit: &Kit, way: &Way, body: Bytes) -> maru_kit::Answer {
    let mut headers: Vec<(&str, &str)> = way.headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
    headers.push(("x-auth-token", &way.who.token));
    headers.push(("content-type", way.kind));
    kit.send(&way.method, &way.path, &headers, body).await.unwrap()
}

/// Places where another shape is a right value, or where the answer cannot name the field; with the reason.
const LENIENT: &[(&str, &str, &str)] = &[(
    "identity POST /v3/users",
    "/user/email",
    "upstream's schema does not know it: it is kept as it is given, like any further property",
)];

#[tokio::test(start_paused = true)]
async fn bad_input_is_refused_by_name_and_stores_nothing() {
    let scene = Scene::start().await;
    scene.kit.rest().await;
    let mut wrong: Vec<String> = Vec::new();
    let (mut sent, mut refused) = (0, 0);
    let mut statuses = std::collections::BTreeMap::<u16, u32>::new();
    for way in ways(&scene) {
        let strict = matches!(way.service, "compute" | "network" | "placement");
        let mut all = spoil(&way.good, strict);
        all.sort_by_key(|s| !s.refused);
        for bad in all {
            let lenient = LENIENT
                .iter()
                .any(|(n, at, _)| way.name == *n && bad.what.starts_with(at));
            let before = scene.kit.committed();
            let answer = send(&scene.kit, &way, Bytes::from(bad.text.clone())).await;
            let after = scene.kit.committed();
            sent += 1;
            *statuses.entry(answer.status).or_default() += 1;
            let head: String = answer.text().replace('\n', " ").chars().take(220).collect();
            let told = format!("{}: {}: {} {head}", way.name, bad.what, answer.status);
            if answer.status >= 500 && answer.status != 501 {
                wrong.push(format!("BROKE {told}"));
            } else if answer.status >= 400 {
                refused += 1;
                if before != after {
                    wrong.push(format!("STORED {told}"));
                }
                let says = answer.text();
                let named = bad.fields.is_empty() || bad.fields.iter().any(|f| says.contains(f.as_str()));
                if bad.refused && !lenient && answer.status == 400 && !named {
                    wrong.push(format!("UNNAMED {told}"));
                }
            } else if bad.refused && !lenient {
                wrong.push(format!("TAKEN {told}"));
            }
        }
        let junk = send(&scene.kit, &way, Bytes::from_static(b"{\"a\": \"\xff\xfe\"}")).await;
        if junk.status != 400 {
            wrong.push(format!("UTF-8 {}: {}", way.name, junk.status));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {sent} requests were answered wrongly:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    let faults = scene.kit.faults().await;
    assert!(faults.iter().all(|f| f.contains("has no server")), "{faults:?}");
    println!("bad input: {sent} requests, {refused} refused; by status: {statuses:?}");
}
