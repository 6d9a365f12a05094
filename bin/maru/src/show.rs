//! What the commands print, as text for people.

use serde_json::Value;

/// Nodes that are well and are shown without `--all`.
const NODES: usize = 3;
/// Nodes that are not well and are shown without `--all`.
const SICK: usize = 20;
/// Unknown things that are shown without `--all`.
const THINGS: usize = 10;

/// Nested JSON as indented lines.
#[must_use]
pub fn nested(value: &Value) -> String {
    let mut out = String::new();
    lines(&mut out, "", value);
    out
}

fn lines(out: &mut String, indent: &str, value: &Value) {
    let mut line = |text: String| {
        out.push_str(indent);
        out.push_str(&text);
        out.push('\n');
    };
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                match value {
                    Value::Object(m) if !m.is_empty() => {
                        out.push_str(&format!("{indent}{name}:\n"));
                        lines(out, &format!("{indent}  "), value);
                    }
                    Value::Array(list) if !list.is_empty() => {
                        out.push_str(&format!("{indent}{name}:\n"));
                        for item in list {
                            match item {
                                Value::Object(_) => {
                                    out.push_str(&format!("{indent}  -\n"));
                                    lines(out, &format!("{indent}    "), item);
                                }
                                other => out.push_str(&format!("{indent}  - {}\n", plain(other))),
                            }
                        }
                    }
                    other => out.push_str(&format!("{indent}{name}: {}\n", plain(other))),
                }
            }
        }
        other => line(plain(other)),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        Value::Null => "-".to_owned(),
        Value::Array(_) | Value::Object(_) => "none".to_owned(),
        other => other.to_string(),
    }
}

/// A cloud's status: its parts, what is unknown, how many nodes are how, those that are not well, and the first few that are; the
/// rest. `all` leaves nothing out.
#[must_use]
pub fn status(mut status: Value, all: bool) -> String {
    let nodes = status.as_object_mut().and_then(|s| s.remove("nodes"));
    // A machine that has joined knows itself alone.
    let Some(Value::Array(mut nodes)) = nodes else {
        return nested(&status);
    };
    let mut out = String::new();
    // What is asked for most often first; where the options came from last.
    for name in ["version", "url", "parts"] {
        if let Some(value) = status.as_object_mut().and_then(|s| s.remove(name)) {
            lines(&mut out, "", &serde_json::json!({ name: value }));
        }
    }
    out.push_str(&unknown(&mut nodes, all));
    let (well, sick): (Vec<_>, Vec<_>) = nodes.into_iter().partition(|n| n["well"] == true);
    out.push_str(&match (well.len(), sick.len()) {
        (0, 0) => "nodes: none has connected yet\n".to_owned(),
        (n, 0) => format!("nodes: {n}, all well\n"),
        (n, bad) => format!("nodes: {}, of which {bad} not well\n", n + bad),
    });
    for (list, shown, kind) in [(&sick, SICK, "not well"), (&well, NODES, "well")] {
        let shown = if all { list.len() } else { shown.min(list.len()) };
        for one in &list[..shown] {
            node(&mut out, one);
        }
        if list.len() > shown {
            let left = list.len() - shown;
            out.push_str(&format!("  and {left} more that are {kind}: maru status --all\n"));
        }
    }
    lines(&mut out, "", &status);
    out
}

/// A node in a few lines.
fn node(out: &mut String, node: &Value) {
    out.push_str(&format!("  {}: {}\n", plain(&node["node"]), plain(&node["state"])));
    let hello = &node["hello"];
    let of = |name: &str| plain(&hello[name]);
    if hello.is_object() {
        let version = hello["hypervisor_version"].as_u64().unwrap_or_default();
        let (major, minor, micro) = (version / 1_000_000, version / 1_000 % 1_000, version % 1_000);
        out.push_str(&format!(
            "    accelerator: {}\n    machine: {} processors ({}, {}), {} MiB of memory, {} GiB for disks, at {}\n    \
             volumes: {}\n    runs: Maru {}, {} {major}.{minor}.{micro}\n",
            of("accelerator"),
            of("vcpus"),
            of("cpu_model"),
            of("arch"),
            of("memory_mib"),
            of("disk_gib"),
            of("address"),
            of("storage"),
            of("version"),
            of("hypervisor_type"),
        ));
    }
    let used = &node["resources"];
    let of = |name: &str| plain(&used[name]);
    if used.is_object() {
        out.push_str(&format!(
            "    in use: {} guests, {} MiB of memory, {} GiB of disk ({} free), load {}\n",
            of("running"),
            of("memory_used_mib"),
            of("disk_used_gib"),
            of("disk_free_gib"),
            of("load"),
        ));
    }
}

/// What is unknown on all nodes, with what can be done; taken from the nodes.
fn unknown(nodes: &mut [Value], all: bool) -> String {
    let mut things = Vec::new();
    for node in nodes {
        let name = plain(&node["node"]);
        if let Some(Value::Array(list)) = node.as_object_mut().and_then(|n| n.remove("unknown")) {
            things.extend(list.into_iter().map(|thing| (name.clone(), thing)));
        }
    }
    if things.is_empty() {
        return "unknown: nothing\n".to_owned();
    }
    // Guests first: with them, their networks and routers come back.
    let rank = |thing: &Value| match thing["what"].as_str() {
        Some("server") => 0,
        Some("disk" | "volume" | "volume-snapshot") => 1,
        _ => 2,
    };
    things.sort_by_key(|(_, thing)| rank(thing));
    let mut out = format!(
        "unknown: {} on the nodes that the store does not know, as after a restore; kept until it is adopted or discarded\n",
        match things.len() {
            1 => "one thing".to_owned(),
            n => format!("{n} things"),
        }
    );
    let shown = if all { things.len() } else { THINGS.min(things.len()) };
    for (node, thing) in &things[..shown] {
        let word = |name: &str| plain(&thing[name]);
        out.push_str(&format!(
            "  {} {} on {node}: {}\n",
            word("what"),
            word("id"),
            word("description")
        ));
        match thing["adopt"].as_str() {
            Some(adopt) => out.push_str(&format!("    to take it back: {adopt}\n")),
            None if rank(thing) == 2 => {
                out.push_str("    comes back with the first server on it that is adopted\n");
            }
            None => {}
        }
        out.push_str(&format!("    to remove it for good: {}\n", word("discard")));
    }
    if things.len() > shown {
        out.push_str(&format!("  and {} more: maru status --all\n", things.len() - shown));
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn of(n: usize, well: bool) -> Value {
        json!({"node": format!("n{n}"), "well": well, "state": if well { "up" } else { "down: silent for 61 s" }, "silent_s": 0,
            "hello": {"accelerator": "kvm: /dev/kvm", "storage": "qcow2 files", "vcpus": 8, "cpu_model": "fast", "arch": "x86_64", "memory_mib": 1024,
                "disk_gib": 10, "address": "192.0.2.1", "version": "1.2.3", "hypervisor_type": "QEMU", "hypervisor_version": 10_000_002},
            "resources": {"running": 3, "memory_used_mib": 512, "disk_used_gib": 4, "disk_free_gib": 6, "load": "0.1, 0.2, 0.3"},
            "unknown": []})
    }

    #[test]
    fn a_node_is_a_few_lines() {
        let text = status(json!({"nodes": [of(1, true)]}), false);
        let expected = "unknown: nothing\nnodes: 1, all well\n  n1: up\n    accelerator: kvm: /dev/kvm\n    \
             machine: 8 processors (fast, x86_64), 1024 MiB of memory, 10 GiB for disks, at 192.0.2.1\n    \
             volumes: qcow2 files\n    runs: Maru 1.2.3, QEMU 10.0.2\n    in use: 3 guests, 512 MiB of memory, 4 GiB of disk (6 free), load 0.1, 0.2, 0.3\n";
        assert_eq!(text, expected);
        let away = json!({"node": "n2", "well": false, "state": "has not connected", "unknown": []});
        let text = status(json!({"nodes": [away]}), false);
        assert_eq!(
            text,
            "unknown: nothing\nnodes: 1, of which 1 not well\n  n2: has not connected\n"
        );
    }

    #[test]
    fn of_a_thousand_nodes_the_sick_ones_are_seen() {
        let nodes: Vec<Value> = (1..=1000).map(|n| of(n, n != 500 && n != 700)).collect();
        let show = |all| status(json!({"version": "1", "nodes": nodes}), all);
        let short = show(false);
        assert!(short.contains("nodes: 1000, of which 2 not well\n"), "{short}");
        assert!(short.contains("  n500: down") && short.contains("  n700: down") && short.contains("  n1: up\n"));
        assert!(!short.contains("  n4: "), "{short}");
        assert!(
            short.contains("and 995 more that are well: maru status --all\n"),
            "{short}"
        );
        assert!(short.lines().count() < 60, "{}", short.lines().count());
        let long = show(true);
        assert!((1..=1000).all(|n| long.contains(&format!("  n{n}: "))));
        assert!(!long.contains(" more "), "nothing is left out");
    }

    #[test]
    fn each_unknown_thing_is_told_with_what_can_be_done() {
        let mut one = of(1, true);
        one["unknown"] = json!([
            {"what": "network", "id": "net", "description": "bridge", "discard": "maru discard network net"},
            {"what": "server", "id": "s", "description": "web is Running", "adopt": "maru adopt server s", "discard": "maru discard server s"},
        ]);
        let text = status(json!({"nodes": [one]}), false);
        let expected = "unknown: 2 things on the nodes that the store does not know, as after a restore; kept until it is adopted or discarded\n  \
             server s on n1: web is Running\n    to take it back: maru adopt server s\n    to remove it for good: maru discard server s\n  \
             network net on n1: bridge\n    comes back with the first server on it that is adopted\n    \
             to remove it for good: maru discard network net\n";
        assert!(text.starts_with(expected), "{text}");
    }
}
