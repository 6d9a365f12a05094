//! What the back end of a node offers, and whether that meets a volume type's extra specs, by upstream's rules of comparison.

use std::collections::BTreeMap;

/// What every node's back end says of itself, by the names that extra specs use.
pub(crate) fn offered() -> BTreeMap<&'static str, &'static str> {
    BTreeMap::from([
        ("volume_backend_name", "local"),
        ("vendor_name", "Open Source"),
        ("driver_version", env!("CARGO_PKG_VERSION")),
        ("pool_name", "local"),
        ("multiattach", "True"),
        ("thin_provisioning_support", "True"),
        ("thick_provisioning_support", "False"),
        ("online_extend_support", "True"),
        ("replication_enabled", "False"),
        ("consistent_group_snapshot_enabled", "True"),
        ("group_replication_enabled", "False"),
    ])
}

/// The first extra spec that the back end does not meet, in words. A spec with a scope other than `capabilities` is for
/// drivers and is not compared; nor is the transport: how a node reaches a volume is this cloud's own affair.
pub(crate) fn unmet(specs: &BTreeMap<String, String>) -> Option<String> {
    let offered = offered();
    specs.iter().find_map(|(key, wanted)| {
        let name = match key.split_once(':') {
            Some(("capabilities", name)) => name,
            Some(_) => return None,
            None => key.as_str(),
        };
        if name == "storage_protocol" {
            return None;
        }
        match offered.get(name) {
            Some(have) if meets(have, wanted) => None,
            Some(have) => Some(format!("offers {name}={have}, not {wanted}")),
            None => Some(format!("offers no {name}")),
        }
    })
}

/// Whether what there is meets what is wanted: `<is>`, `<in>`, `<or>`, `s==` and its siblings, numbers, or the same words.
fn meets(have: &str, wanted: &str) -> bool {
    let words: Vec<&str> = wanted.split_whitespace().collect();
    let numbers = |a: &str, b: &str| -> Option<(f64, f64)> { Some((a.parse().ok()?, b.parse().ok()?)) };
    match words.as_slice() {
        ["<is>", word] => have.eq_ignore_ascii_case(word),
        ["<in>", rest @ ..] => rest.iter().filter(|w| **w != "<in>").all(|w| have.contains(w)),
        ["<or>", rest @ ..] => rest.iter().filter(|w| **w != "<or>").any(|w| have == *w),
        ["s==", word] => have == *word,
        ["s!=", word] => have != *word,
        ["s<", word] => have < *word,
        ["s<=", word] => have <= *word,
        ["s>", word] => have > *word,
        ["s>=", word] => have >= *word,
        [op @ ("=" | ">=" | "<=" | "==" | "!="), word] => numbers(have, word).is_some_and(|(a, b)| match *op {
            "<=" => a <= b,
            "==" => (a - b).abs() < f64::EPSILON,
            "!=" => (a - b).abs() >= f64::EPSILON,
            // Upstream's `=` is "at least".
            _ => a >= b,
        }),
        _ => have.eq_ignore_ascii_case(wanted.trim()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs_are_compared_as_upstream_does() {
        for (have, wanted, meets_it) in [
            ("True", "<is> true", true),
            ("False", "<is> True", false),
            ("local", "local", true),
            ("local", "<in> oca", true),
            ("local", "<or> lvm <or> local", true),
            ("local", "<or> lvm <or> ceph", false),
            ("10", "= 9", true),
            ("10", ">= 11", false),
            ("10", "== 10", true),
            ("local", "s== local", true),
            ("local", "s!= local", false),
            ("local", ">= 5", false),
        ] {
            assert_eq!(meets(have, wanted), meets_it, "{have} {wanted}");
        }
    }

    #[test]
    fn what_is_not_offered_is_named() {
        let specs = |k: &str, v: &str| BTreeMap::from([(k.to_owned(), v.to_owned())]);
        assert_eq!(unmet(&specs("vendor_name", "Open Source")), None);
        assert_eq!(unmet(&specs("capabilities:volume_backend_name", "local")), None);
        assert_eq!(unmet(&specs("RESKEY:availability_zones", "x")), None);
        assert_eq!(unmet(&specs("storage_protocol", "iSCSI")), None);
        assert!(unmet(&specs("vendor_name", "ACME")).is_some_and(|w| w.contains("vendor_name")));
        assert!(unmet(&specs("speed", "fast")).is_some_and(|w| w.contains("no speed")));
    }
}
