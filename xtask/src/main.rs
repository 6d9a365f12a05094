//! `cargo xtask check`: the invariants of the architecture, as tests.
//!
//! - core depends on no service and no driver; a service depends on other services' `model` only; node crates depend
//!   on agent-api, base and each other only; only `bin/maru` (and test crates) depend on everything.
//! - Only `core/store` touches an engine. `unsafe` only in the named node crates.
//! - No clock and no randomness except through the seams of `core/base`.
//! - No file over 800 lines.
//! - Every promise of SPECIFICATION.md names a test or a figure that exists.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use anyhow::{Context, Result, bail};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Crates whose code may be `unsafe`, each line with its reason there.
const UNSAFE: &[&str] = &[
    "node/qemu",
    "node/link",
    "node/sandbox",
    "node/dhcp",
    "node/metadata",
    "node/firewall",
    // No node crate: the fuzzer counts allocations and branches.
    "fuzz",
];
/// Crates that are an engine's own.
const ENGINES: &[&str] = &["redb", "etcd-client"];
const LINES_MAX: usize = 800;

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("check") => match check() {
            Ok(faults) if faults.is_empty() => {
                println!("xtask check: ok");
                ExitCode::SUCCESS
            }
            Ok(faults) => {
                for fault in &faults {
                    eprintln!("xtask check: {fault}");
                }
                eprintln!("xtask check: {} invariants broken", faults.len());
                ExitCode::FAILURE
            }
            Err(e) => {
                eprintln!("xtask check: {e:#}");
                ExitCode::FAILURE
            }
        },
        _ => {
            eprintln!("usage: cargo xtask check");
            ExitCode::FAILURE
        }
    }
}

fn check() -> Result<Vec<String>> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("the workspace has no top")?
        .to_path_buf();
    let mut faults = dependencies()?;
    let mut files = Vec::new();
    for dir in ["core", "services", "node", "bin", "tests", "fuzz", "xtask"] {
        walk(&top.join(dir), &mut files)?;
    }
    let promises = fs::read_to_string(top.join("SPECIFICATION.md")).context("cannot read SPECIFICATION.md")?;
    specification(&promises, |path| fs::read_to_string(top.join(path)).ok(), &mut faults);
    for file in files {
        let name = file.strip_prefix(&top).unwrap_or(&file).display().to_string();
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {name}"))?;
        source(&name, &text, &mut faults);
    }
    Ok(faults)
}

fn walk(dir: &Path, out: &mut Vec<PathBuf>) -> Result<()> {
    let Ok(entries) = fs::read_dir(dir) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            if path.file_name().is_some_and(|n| n != "target") {
                walk(&path, out)?;
            }
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
    out.sort();
    Ok(())
}

/// The rules on one source file.
fn source(name: &str, text: &str, faults: &mut Vec<String>) {
    let lines = text.lines().count();
    if lines > LINES_MAX {
        faults.push(format!(
            "{name} has {lines} lines, at most {LINES_MAX}: split it by noun"
        ));
    }
    let test = name.contains("/tests/")
        || name.starts_with("tests/")
        || name.ends_with("tests.rs")
        || name.contains("/examples/");
    if test || name.starts_with("xtask/") {
        return;
    }
    // Test modules stand at the end of a file.
    let code = text.split("#[cfg(test)]").next().unwrap_or(text);
    for (i, line) in code.lines().enumerate() {
        let line = line.trim_start();
        if line.starts_with("//") {
            continue;
        }
        let at = format!("{name}:{}", i + 1);
        if (line.contains("unsafe {") || line.contains("unsafe fn") || line.contains("unsafe impl"))
            && !UNSAFE.iter().any(|d| name.starts_with(d))
        {
            faults.push(format!("{at}: unsafe outside the named node crates"));
        }
        if !name.starts_with("core/base/") {
            for clock in ["Timestamp::now()", "SystemTime::now()", "Zoned::now()"] {
                if line.contains(clock) {
                    faults.push(format!("{at}: {clock} instead of maru_base::time::now()"));
                }
            }
            for random in ["rand::rng(", "rand::random", "thread_rng", "Uuid::new_v4"] {
                if line.contains(random) {
                    faults.push(format!("{at}: {random} instead of maru_base::random"));
                }
            }
        }
        for silent in ["todo!(", "unimplemented!("] {
            if line.contains(silent) {
                faults.push(format!("{at}: {silent})"));
            }
        }
    }
}

/// Every row of a table of promises names at least one enforcer, or says that it has none; every named one exists: `path#test` is a
/// function of that file that is a test (in core/store/src/conformance a case of the suite), `path#"figure"` a text in it.
fn specification(text: &str, read: impl Fn(&str) -> Option<String>, faults: &mut Vec<String>) {
    let mut rows = 0;
    for (i, line) in text.lines().enumerate() {
        if !line.starts_with("| ") || line.starts_with("| promise |") {
            continue;
        }
        rows += 1;
        let at = format!("SPECIFICATION.md:{}", i + 1);
        let named: Vec<(&str, &str)> = line
            .split('`')
            .skip(1)
            .step_by(2)
            .filter_map(|code| code.split_once('#'))
            .filter(|(path, _)| path.contains('/') && !path.contains(' '))
            .collect();
        if named.is_empty() && !line.contains("**not enforced**") {
            faults.push(format!(
                "{at}: names nothing that enforces it; say **not enforced** if nothing does"
            ));
        }
        for (path, name) in named {
            let Some(source) = read(path) else {
                faults.push(format!("{at}: there is no file {path}"));
                continue;
            };
            let there = match name.strip_prefix('"').and_then(|n| n.strip_suffix('"')) {
                Some(figure) => source.contains(figure),
                None => is_test(&source, name, path.contains("/conformance/")),
            };
            if !there {
                faults.push(format!("{at}: {path} has no test or figure {name}"));
            }
        }
    }
    if rows == 0 {
        faults.push("SPECIFICATION.md has no table of promises".to_owned());
    }
}

/// Whether a file has a test of that name; a case of a suite is a plain function.
fn is_test(source: &str, name: &str, suite: bool) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let head = format!("fn {name}(");
    lines.iter().enumerate().any(|(i, line)| {
        let declared = line
            .find(&head)
            .is_some_and(|at| line[..at].is_empty() || line[..at].ends_with(' '));
        // Attributes and comments stand between `#[test]` and the function.
        declared
            && (suite
                || lines[..i]
                    .iter()
                    .rev()
                    .take_while(|l| l.starts_with("#[") || l.starts_with("//"))
                    .any(|l| l.contains("test")))
    })
}

/// The rules on who may depend on whom.
fn dependencies() -> Result<Vec<String>> {
    let output = std::process::Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .output()
        .context("cargo metadata does not run")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    }
    let meta: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let top = meta["workspace_root"].as_str().unwrap_or_default().to_owned();
    let mut place: BTreeMap<String, String> = BTreeMap::new();
    let packages = meta["packages"].as_array().context("cargo metadata has no packages")?;
    for package in packages {
        let manifest = package["manifest_path"].as_str().unwrap_or_default();
        let dir = manifest
            .trim_start_matches(&top)
            .trim_start_matches('/')
            .trim_end_matches("/Cargo.toml");
        place.insert(package["name"].as_str().unwrap_or_default().to_owned(), dir.to_owned());
    }
    let mut faults = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let from = place.get(name).cloned().unwrap_or_default();
        for dep in package["dependencies"].as_array().into_iter().flatten() {
            let dep_name = dep["name"].as_str().unwrap_or_default();
            let normal = dep["kind"].is_null();
            if normal && ENGINES.contains(&dep_name) && from != "core/store" {
                faults.push(format!("{from} depends on the engine {dep_name}; only core/store may"));
            }
            if let Some(to) = place.get(dep_name)
                && normal
                && !allowed(&from, to)
            {
                faults.push(format!("{from} may not depend on {to}"));
            }
        }
    }
    Ok(faults)
}

/// Whether a crate in folder `from` may depend on one in folder `to`.
fn allowed(from: &str, to: &str) -> bool {
    let area = |p: &str| p.split('/').next().unwrap_or_default().to_owned();
    match area(from).as_str() {
        "core" => area(to) == "core",
        "services" => {
            let own = from.trim_end_matches("/model");
            let model = to.ends_with("/model");
            area(to) == "core"
                || (area(to) == "services" && (model || to == own))
                // The service that speaks to the nodes is the one that knows their contract.
                || (from == "services/nodes" && to == "node/agent-api")
        }
        "node" => area(to) == "node" || to == "core/base",
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::{allowed, specification};

    #[test]
    fn a_promise_names_what_enforces_it() {
        let read = |path: &str| {
            (path == "a/b.rs")
                .then(|| "#[test]\n#[ignore]\nfn holds() {}\nfn helper() {}\nreport('speed, all')".to_owned())
        };
        let faults = |row: &str| {
            let mut faults = Vec::new();
            specification(row, read, &mut faults);
            faults.len()
        };
        assert_eq!(faults("| it holds | `a/b.rs#holds` `a/b.rs#\"speed\"` |"), 0);
        assert_eq!(faults("| not yet | **not enforced** |"), 0);
        assert_eq!(faults("| `maru up` is good | nothing |"), 1);
        assert_eq!(faults("| a helper is no test | `a/b.rs#helper` |"), 1);
        assert_eq!(
            faults("| misspelt | `a/b.rs#hold` `a/c.rs#holds` `a/b.rs#\"sped\"` |"),
            3
        );
        assert_eq!(faults("no table"), 1);
    }

    #[test]
    fn the_rooms_and_their_doors() {
        assert!(allowed("core/http", "core/auth"));
        assert!(!allowed("core/http", "services/identity/model"));
        assert!(allowed("services/compute", "services/network/model"));
        assert!(!allowed("services/compute", "services/network"));
        assert!(!allowed("services/compute", "node/agent-api"));
        assert!(allowed("services/nodes", "node/agent-api"));
        assert!(allowed("node/agent", "node/qemu"));
        assert!(!allowed("node/agent", "core/store"));
        assert!(allowed("bin/maru", "node/agent"));
    }
}
