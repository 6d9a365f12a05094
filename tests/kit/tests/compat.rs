//! docs/compat: how much of each API's reference is served, computed from the routes of the real gateway.
//!
//! The documented operations are in `tests/conformance/api_ref_operations.tsv` (project, method, path). A documented operation is
//! served when a route has its method and its path, whatever the parameters are called. The generated part of
//! `docs/compat/<service>.md` says so; what stands outside of it is written by hand and kept. A stale file fails here;
//! `COMPAT=write cargo test -p maru-kit --test compat` brings it up to date.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use maru_kit::Kit;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    path::{Path, PathBuf},
};

/// Service, its project in the list, and how paths of the list begin where our routes do not say so.
const SERVICES: &[(&str, &str, &str)] = &[
    ("identity", "keystone", "Keystone v3"),
    ("image", "glance", "Glance v2"),
    ("placement", "placement", "Placement"),
    ("compute", "nova", "Nova v2.1"),
    ("network", "neutron(neutron-lib)", "Neutron v2.0"),
    ("volume", "cinder", "Cinder v3"),
];
const BEGIN: &str = "<!-- generated: COMPAT=write cargo test -p maru-kit --test compat -->";
const END: &str = "<!-- generated: end -->";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A path with every parameter as `{}`, without a version at its front and a slash at its end.
fn normal(service: &str, path: &str) -> String {
    let path = path.split('?').next().unwrap_or_default().trim_end_matches('/');
    // Some of the reference's paths leave the version out, some name it.
    let path = match service {
        "compute" => path.strip_prefix("/v2.1").unwrap_or(path),
        "network" => path.strip_prefix("/v2.0").unwrap_or(path),
        // The project in the path is served as well, and means nothing.
        "volume" => {
            // One path of the reference is without the slash at its front.
            let path = path
                .strip_prefix("/v3")
                .or_else(|| path.strip_prefix("v3"))
                .unwrap_or(path);
            ["/{project_id}", "/{admin_project_id}"]
                .iter()
                .find_map(|project| path.strip_prefix(project))
                .unwrap_or(path)
        }
        _ => path,
    };
    let parts = path.split('/').map(|part| if part.contains('{') { "{}" } else { part });
    parts.collect::<Vec<_>>().join("/")
}

type Operations = BTreeSet<(String, String)>;

fn documented(service: &str, project: &str) -> Operations {
    let list = std::fs::read_to_string(root().join("tests/conformance/api_ref_operations.tsv")).unwrap();
    let lines = list.lines().filter_map(|line| {
        let mut columns = line.split('\t');
        let (p, method, path) = (columns.next()?, columns.next()?, columns.next()?);
        // The references still hold the admin API of Keystone v2 and all of Cinder v2, which upstream removed.
        let gone = service == "identity" && path.starts_with("/v2.0") || service == "volume" && path.starts_with("/v2");
        (p == project && !gone).then(|| (method.to_owned(), normal(service, path)))
    });
    lines.collect()
}

fn percent(part: usize, whole: usize) -> usize {
    (part * 100).checked_div(whole).unwrap_or(100)
}

/// The part of a documented path that groups it: its first collection.
fn group(path: &str) -> &str {
    let mut parts = path
        .split('/')
        .filter(|p| !p.is_empty() && !matches!(*p, "v3" | "v2" | "{}"));
    parts.next().unwrap_or("/")
}

/// Whether a route is of the form of a documented path: a route's parameter fits any word (`/schemas/{name}`: `/schemas/image`),
/// and a documented parameter in front fits a collection (`/{resource_type}/{id}/tags`: `/networks/{id}/tags`).
fn fits(route: &str, path: &str) -> bool {
    let (route, path): (Vec<&str>, Vec<&str>) = (route.split('/').collect(), path.split('/').collect());
    route.len() == path.len()
        && route
            .iter()
            .zip(&path)
            .enumerate()
            .all(|(n, (r, p))| r == p || *r == "{}" || (n == 1 && *p == "{}"))
}

/// Splits the documented operations into those that a route serves and those that none does, and asks the gateway to be sure:
/// what is not served says so, and what is served under a word of its own is there.
async fn split(kit: &Kit, service: &str, want: &Operations, have: &Operations) -> (Operations, Operations) {
    let admin = kit.admin().token;
    let (mut yes, mut no) = (Operations::new(), Operations::new());
    for operation in want {
        let (method, path) = operation;
        // HEAD is answered by what answers GET.
        let methods: &[&str] = if method == "HEAD" { &["HEAD", "GET"] } else { &[method] };
        let of = |exact: bool| {
            have.iter()
                .any(|(m, r)| methods.contains(&m.as_str()) && if exact { r == path } else { fits(r, path) })
        };
        let full = match service {
            "compute" => format!("/compute/v2.1{path}"),
            "network" => format!("/network/v2.0{path}"),
            "volume" => format!("/volume/v3{path}"),
            _ => format!("/{service}{path}"),
        };
        let ask = async || {
            kit.call(method, &full.replace("{}", "x"), &admin, Value::Null)
                .await
                .status
        };
        let served = of(true) || (of(false) && (path.contains("{}") || method != "GET" || ask().await < 400));
        if served {
            yes.insert(operation.clone());
        } else {
            let status = ask().await;
            assert!(
                matches!(status, 404 | 405 | 501),
                "{service} {method} {full} is not served and answers {status}"
            );
            no.insert(operation.clone());
        }
    }
    (yes, no)
}

fn page(title: &str, yes: &Operations, no: &Operations) -> String {
    let mut groups: BTreeMap<&str, (usize, Vec<String>)> = BTreeMap::new();
    for (_, path) in yes {
        groups.entry(group(path)).or_default().0 += 1;
    }
    for (method, path) in no {
        groups
            .entry(group(path))
            .or_default()
            .1
            .push(format!("{method} {path}"));
    }
    let all = yes.len() + no.len();
    let mut out = format!(
        "{BEGIN}\n\nOf the {all} operations that the reference of {title} documents, {} are served ({} %).\n\n\
         | resource | served | documented |\n|---|---:|---:|\n",
        yes.len(),
        percent(yes.len(), all)
    );
    for (name, (served, missing)) in &groups {
        writeln!(out, "| {name} | {served} | {} |", served + missing.len()).unwrap();
    }
    if !no.is_empty() {
        out.push_str("\nNot served; each answers 404, 405 or 501:\n\n");
    }
    for (name, (_, missing)) in groups.iter().filter(|(_, (_, missing))| !missing.is_empty()) {
        writeln!(out, "- {name}: `{}`", missing.join("`, `")).unwrap();
    }
    write!(out, "\n{END}").unwrap();
    out
}

#[tokio::test(start_paused = true)]
async fn the_pages_say_what_is_served() {
    let kit = Kit::builder().nodes(0).start().await;
    let write = std::env::var("COMPAT").is_ok_and(|v| v == "write");
    let mut stale = Vec::new();
    for (service, project, title) in SERVICES {
        let cloud = kit.cloud();
        // A service's list of versions may stand beside it, with a name that begins with the service's.
        let beside = format!("{service}-");
        let found = cloud.gateway().services().iter();
        let have: Operations = found
            .filter(|s| s.name == *service || s.name.starts_with(&beside))
            .flat_map(|s| s.routes.iter())
            .map(|r| (r.method.to_string(), normal(service, &r.path)))
            .collect();
        let want = documented(service, project);
        assert!(want.len() > 30, "{project}: only {} operations in the list", want.len());
        let (yes, no) = split(&kit, service, &want, &have).await;
        let generated = page(title, &yes, &no);
        println!(
            "{service}: {} of {} documented operations are served ({} %)",
            yes.len(),
            want.len(),
            percent(yes.len(), want.len())
        );
        let file = root().join(format!("docs/compat/{service}.md"));
        let old = std::fs::read_to_string(&file).unwrap_or_default();
        let new = match (old.split_once(BEGIN), old.split_once(END)) {
            (Some((before, _)), Some((_, after))) => format!("{before}{generated}{after}"),
            _ => format!("# {title} in Maru\n\n{generated}\n"),
        };
        if write {
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, &new).unwrap();
        } else if old != new {
            stale.push(format!("docs/compat/{service}.md"));
        }
    }
    assert!(
        stale.is_empty(),
        "{} no longer say what is served; run: COMPAT=write cargo test -p maru-kit --test compat",
        stale.join(", ")
    );
}
