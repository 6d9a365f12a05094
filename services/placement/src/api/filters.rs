//! Reading query strings: resources, traits, aggregates, trees; each with the suffix of its request group.

use super::shape::canonical;
use maru_base::{Error, Result};
use maru_http::Request;
use maru_placement_model::{ProviderId, candidates::Group};
use std::collections::{BTreeMap, BTreeSet};

/// A refusal of a query parameter.
pub(super) fn invalid(key: &str, why: &str) -> Error {
    Error::invalid(key, format!("Invalid query string parameters: {key}: {why}."))
}

/// Refuses parameters that are not among these.
pub(super) fn only(request: &Request, known: &[&str]) -> Result<()> {
    for (key, _) in request.query.pairs() {
        if !known.contains(&key) {
            return Err(unexpected(key));
        }
    }
    Ok(())
}

/// The refusal of a parameter that is not known (in this microversion).
pub(super) fn unexpected(key: &str) -> Error {
    Error::invalid(
        key,
        format!(
            "Invalid query string parameters: Additional properties are not allowed ('{key}' was unexpected: it is not \
             known, or not in this microversion)."
        ),
    )
}

/// A UUID parameter, in its usual form.
pub(super) fn uuid(key: &str, text: &str) -> Result<String> {
    canonical(text.trim()).ok_or_else(|| invalid(key, &format!("'{text}' is not a 'uuid'")))
}

/// `VCPU:2,MEMORY_MB:1024`.
pub(super) fn resources(key: &str, text: &str) -> Result<BTreeMap<String, u64>> {
    let form = |got: &str| {
        Error::invalid(
            key,
            format!(
                "Badly formed resources parameter {key}: it takes the form ?{key}=VCPU:2,MEMORY_MB:1024. Got: {got}."
            ),
        )
    };
    if text.trim().is_empty() {
        return Err(form("empty string"));
    }
    text.split(',')
        .map(|piece| {
            let (class, amount) = piece
                .split_once(':')
                .filter(|(_, a)| !a.contains(':'))
                .ok_or_else(|| form(piece))?;
            let amount: i64 = amount.trim().parse().map_err(|_| {
                Error::invalid(
                    key,
                    format!("Requested resource {class} expected positive integer amount. Got: {amount}."),
                )
            })?;
            if amount < 1 {
                return Err(Error::invalid(
                    key,
                    format!("Requested resource {class} requires amount >= 1. Got: {amount}."),
                ));
            }
            Ok((class.trim().to_owned(), amount.unsigned_abs()))
        })
        .collect()
}

/// Sets of which each must have one, and what must not be there.
pub(super) type Sets = (Vec<BTreeSet<String>>, BTreeSet<String>);

/// `required`: `A,B,!C`; from microversion 1.39 also `in:A,B` and repeated.
pub(super) fn traits(request: &Request, key: &str) -> Result<Sets> {
    let repeated = request.at_least(1, 39);
    let mut values: Vec<&str> = request.query.all(key).collect();
    if !repeated {
        // Until then the last one counts.
        values.drain(..values.len().saturating_sub(1));
    }
    let mut sets = Sets::default();
    for value in values {
        one_of_traits(request, key, value, &mut sets)?;
    }
    Ok(sets)
}

/// One value of `required` or `root_required`.
pub(super) fn one_of_traits(request: &Request, key: &str, value: &str, sets: &mut Sets) -> Result<()> {
    let names = |text: &str| -> Result<Vec<String>> {
        let names: Vec<String> = text.split(',').map(|n| n.trim().to_owned()).collect();
        if names.iter().any(|n| n.trim_start_matches('!').is_empty()) {
            return Err(invalid(
                key,
                &format!("expected traits in the form HW_CPU_X86_VMX,!CUSTOM_MAGIC; got an empty trait in: {value}"),
            ));
        }
        Ok(names)
    };
    if let Some(any) = value.strip_prefix("in:") {
        if !request.at_least(1, 39) {
            return Err(invalid(
                key,
                &format!(
                    "the format 'in:HW_CPU_X86_VMX,CUSTOM_MAGIC' is supported since microversion 1.39. Got: {value}"
                ),
            ));
        }
        let any = names(any)?;
        if any.iter().any(|n| n.starts_with('!')) {
            return Err(invalid(
                key,
                &format!("the format 'in:HW_CPU_X86_VMX,CUSTOM_MAGIC' does not take forbidden traits. Got: {value}"),
            ));
        }
        sets.0.push(any.into_iter().collect());
        return Ok(());
    }
    for name in names(value)? {
        if !name.starts_with('!') {
            sets.0.push(BTreeSet::from([name]));
        } else if request.at_least(1, 22) {
            sets.1.insert(name.trim_start_matches('!').to_owned());
        } else {
            return Err(invalid(
                key,
                &format!("expected traits in the form HW_CPU_X86_VMX,CUSTOM_MAGIC in this microversion. Got: {value}"),
            ));
        }
    }
    Ok(())
}

/// `member_of`: a UUID or `in:U,V`; from microversion 1.24 repeated, from 1.32 with `!`.
pub(super) fn member_of(request: &Request, key: &str) -> Result<Sets> {
    if !request.at_least(1, 24) && request.query.all(key).count() > 1 {
        return Err(Error::invalid(
            key,
            format!("Multiple {key} parameters are not supported before microversion 1.24."),
        ));
    }
    let mut sets = Sets::default();
    for value in request.query.all(key) {
        let (forbidden, rest) = value.strip_prefix('!').map_or((false, value), |rest| (true, rest));
        let (many, rest) = rest.strip_prefix("in:").map_or((false, rest), |rest| (true, rest));
        if !many && rest.contains(',') {
            return Err(Error::invalid(
                key,
                format!(
                    "Multiple values for '{key}' must be prefixed with the 'in:' or '!in:' keyword using the valid \
                     microversion. Got: {value}."
                ),
            ));
        }
        if forbidden && !request.at_least(1, 32) {
            return Err(Error::invalid(
                key,
                format!("Forbidden {key} parameters are not supported before microversion 1.32."),
            ));
        }
        let ids = rest
            .split(',')
            .map(|id| {
                canonical(id)
                    .ok_or_else(|| invalid(key, &format!("expected '{key}' to contain valid UUID(s). Got: {id}")))
            })
            .collect::<Result<BTreeSet<String>>>()?;
        if forbidden {
            sets.1.extend(ids);
        } else {
            sets.0.push(ids);
        }
    }
    Ok(sets)
}

/// What the parameters with this suffix ask of providers.
pub(super) fn group(request: &Request, suffix: &str) -> Result<Group> {
    let key = |name: &str| format!("{name}{suffix}");
    let mut group = Group::default();
    if let Some(text) = request.query.get(&key("resources")) {
        group.resources = resources(&key("resources"), text)?;
    }
    (group.required, group.forbidden) = traits(request, &key("required"))?;
    (group.member_of, group.not_member_of) = member_of(request, &key("member_of"))?;
    if let Some(text) = request.query.get(&key("in_tree")) {
        group.in_tree = Some(ProviderId::from(uuid(&key("in_tree"), text)?));
    }
    Ok(group)
}
