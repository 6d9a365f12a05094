//! The oslo.policy language and its enforcement.
//!
//! Every service declares its rules with their default checks ([`RuleDefault`]); a `policy.yaml` may override them.
//! A rule that nobody declared denies.
//!
//! Every slice of defaults is one service's name space: `rule:owner` means the service's own `owner` where it has one,
//! and otherwise another service's. Rules are parsed once, at [`Policy::build`]; unknown names, circles and checks that
//! would take too long are refused there, so that [`Policy::allows`] cannot fail.
//!
//! Before an object is loaded the gateway asks with the target attribute `__coarse`: what the target lacks is then
//! unknown, and unknown allows, because the handler asks again with the object (see `eval`).

mod check;
mod eval;
#[cfg(test)]
mod tests;

pub use check::{Check, Left, Template, parse_check, parse_lists};

use crate::Caller;
use eval::{Evaluation, Verdict};
use std::collections::HashMap;

/// Most nodes that one rule may visit, the rules that it names counted in full.
const MAX_COST: usize = 20_000;
/// Longest chain of rules that name one another.
const MAX_CHAIN: usize = 32;

/// A rule as a service declares it.
#[derive(Debug, Clone, Copy)]
pub struct RuleDefault {
    /// Name, upstream's: `os_compute_api:servers:show`.
    pub name: &'static str,
    /// Default check in the oslo.policy language: `role:reader and project_id:%(project_id)s`.
    pub check: &'static str,
}

/// What a rule is checked against: the attributes of the object acted on.
///
/// `%(project_id)s` in a check asks for `project_id` here; dotted names (`target.user.domain_id`) as upstream writes them.
#[derive(Debug, Clone, Default)]
pub struct Target {
    attributes: Vec<(String, String)>,
}

impl Target {
    /// No attributes.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }
    /// The object belongs to this project (sets `project_id` and `tenant_id`).
    #[must_use]
    pub fn project(id: &str) -> Self {
        Self::none().with("project_id", id).with("tenant_id", id)
    }
    /// The caller's own scope as target: the coarse check before an object is loaded.
    #[must_use]
    pub fn of_caller(caller: &Caller) -> Self {
        let mut t = Self::none()
            .with("user_id", &caller.user_id)
            .with("target.user.id", &caller.user_id);
        if let Some(p) = caller.project_id() {
            t = t
                .with("project_id", p)
                .with("tenant_id", p)
                .with("target.project.id", p);
        }
        if let Some(d) = caller.domain_id() {
            t = t
                .with("domain_id", d)
                .with("target.domain_id", d)
                .with("target.domain.id", d);
        }
        t
    }
    /// Adds an attribute.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.attributes.push((name.to_owned(), value.to_owned()));
        self
    }
    /// An attribute's value.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.attributes
            .iter()
            .rev()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }
}

/// All rules, ready to enforce. Immutable; swap the whole to reload.
#[derive(Debug, Default)]
pub struct Policy {
    /// Name to place; of several services' rules of one name, the first.
    names: HashMap<String, usize>,
    rules: Vec<Check>,
}

impl Policy {
    /// Builds the rules from the services' defaults and the text of a `policy.yaml`.
    ///
    /// # Errors
    /// Names the rule that does not parse, or that refers to a rule that does not exist.
    pub fn build(defaults: &[&[RuleDefault]], overrides: Option<&str>) -> Result<Self, String> {
        let mut names = HashMap::new();
        let mut rules = Vec::new();
        let mut labels = Vec::new();
        let mut spaces: Vec<HashMap<&str, usize>> = Vec::new();
        for (space, service) in defaults.iter().enumerate() {
            spaces.push(HashMap::new());
            for rule in *service {
                let check = parse_check(rule.check).map_err(|e| format!("policy rule {}: {e}", rule.name))?;
                let at = rules.len();
                match spaces[space].get(rule.name) {
                    Some(&other) if rules[other] == check => continue,
                    Some(_) => return Err(format!("policy rule {} is declared twice", rule.name)),
                    None => {}
                }
                spaces[space].insert(rule.name, at);
                names.entry(rule.name.to_owned()).or_insert(at);
                rules.push(check);
                labels.push((rule.name, space));
            }
        }
        for (name, check) in overrides.map(parse_overrides).transpose()?.unwrap_or_default() {
            let mut found = false;
            for (at, (label, _)) in labels.iter().enumerate() {
                if *label == name {
                    rules[at] = check.clone();
                    found = true;
                }
            }
            if !found {
                return Err(format!(
                    "policy.yaml: there is no rule '{name}'{}",
                    suggestion(&name, names.keys())
                ));
            }
        }
        for (at, (label, space)) in labels.iter().copied().enumerate() {
            let find = |name: &str| spaces[space].get(name).or_else(|| names.get(name)).copied();
            let mut check = std::mem::replace(&mut rules[at], Check::Deny);
            bind(&mut check, &find).map_err(|missing| {
                format!(
                    "policy rule {label}: it names the rule '{missing}', which does not exist{}",
                    suggestion(&missing, names.keys())
                )
            })?;
            rules[at] = check;
        }
        let mut costs = vec![Cost::New; rules.len()];
        for (at, (label, _)) in labels.iter().enumerate() {
            let cost = cost_of_rule(at, 0, &rules, &mut costs).map_err(|e| format!("policy rule {label}: {e}"))?;
            if cost > MAX_COST {
                return Err(format!(
                    "policy rule {label}: it makes {cost} checks, at most {MAX_COST}"
                ));
            }
        }
        Ok(Self { names, rules })
    }
    /// Whether `caller` may do `rule` to `target`. An unknown rule denies.
    #[must_use]
    pub fn allows(&self, rule: &str, caller: &Caller, target: &Target) -> bool {
        let Some(check) = self.names.get(rule).and_then(|at| self.rules.get(*at)) else {
            return false;
        };
        let missing = if target.get("__coarse").is_some() {
            Verdict::Unknown
        } else {
            Verdict::Deny
        };
        Evaluation {
            rules: &self.rules,
            caller,
            target,
            missing,
        }
        .run(check)
            != Verdict::Deny
    }
    /// Whether a rule is declared.
    #[must_use]
    pub fn knows(&self, rule: &str) -> bool {
        self.names.contains_key(rule)
    }
    /// Names of all rules, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.names.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }
}

/// Reads a `policy.yaml`: a map from rule names to checks (text, or the older list of lists).
fn parse_overrides(text: &str) -> Result<Vec<(String, Check)>, String> {
    if text
        .lines()
        .all(|l| l.trim().is_empty() || l.trim_start().starts_with('#'))
    {
        return Ok(Vec::new());
    }
    let map: std::collections::BTreeMap<String, serde_json::Value> =
        serde_saphyr::from_str(text).map_err(|e| format!("policy.yaml is not a map of rules to checks: {e}"))?;
    map.into_iter()
        .map(|(name, value)| {
            let check = match &value {
                serde_json::Value::String(text) => parse_check(text),
                serde_json::Value::Array(items) => parse_lists(items),
                serde_json::Value::Null => parse_check(""),
                other => Err(format!("{other} is not a check: write text")),
            };
            check
                .map(|c| (name.clone(), c))
                .map_err(|e| format!("policy.yaml: rule {name}: {e}"))
        })
        .collect()
}

/// Replaces the names of rules by their places; gives the first name that is unknown.
fn bind(check: &mut Check, find: &impl Fn(&str) -> Option<usize>) -> Result<(), String> {
    match check {
        Check::Rule(name) => {
            let at = find(name).ok_or_else(|| name.clone())?;
            *check = Check::Bound(at);
            Ok(())
        }
        Check::Not(inner) => bind(inner, find),
        Check::And(items) | Check::Or(items) => items.iter_mut().try_for_each(|i| bind(i, find)),
        _ => Ok(()),
    }
}

/// What is known of a rule's cost while all are computed.
#[derive(Clone, Copy)]
enum Cost {
    New,
    Open,
    Known(usize),
}

fn cost_of_rule(at: usize, chain: usize, rules: &[Check], costs: &mut [Cost]) -> Result<usize, String> {
    match costs[at] {
        Cost::Known(cost) => return Ok(cost),
        Cost::Open => return Err("it names itself, through the rules that it names".to_owned()),
        Cost::New if chain > MAX_CHAIN => {
            return Err(format!("rules name one another over more than {MAX_CHAIN} steps"));
        }
        Cost::New => costs[at] = Cost::Open,
    }
    let cost = cost_of(&rules[at], chain, rules, costs)?;
    costs[at] = Cost::Known(cost);
    Ok(cost)
}

fn cost_of(check: &Check, chain: usize, rules: &[Check], costs: &mut [Cost]) -> Result<usize, String> {
    Ok(match check {
        Check::Bound(at) => cost_of_rule(*at, chain + 1, rules, costs)?.saturating_add(1),
        Check::Not(inner) => cost_of(inner, chain, rules, costs)?.saturating_add(1),
        Check::And(items) | Check::Or(items) => {
            let mut sum = 1_usize;
            for item in items {
                sum = sum.saturating_add(cost_of(item, chain, rules, costs)?);
            }
            sum
        }
        _ => 1,
    })
}

/// `; did you mean 'x'?` with the closest name, if one is close.
fn suggestion<'a>(name: &str, names: impl Iterator<Item = &'a String>) -> String {
    let closest = names.map(|n| (distance(name, n), n)).min();
    match closest {
        Some((d, n)) if d <= name.len() / 3 + 1 => format!("; did you mean '{n}'?"),
        _ => String::new(),
    }
}

/// Levenshtein's distance, in bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let change = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
