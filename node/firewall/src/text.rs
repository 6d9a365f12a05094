//! A ruleset as data, and as text for `nft -f`: whole, or as the difference to another one. Each text is one transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// The table's name in every family.
pub(crate) const TABLE: &str = "maru";

/// The hook chains and maps of the two tables; see the crate's header for what each is for.
const BRIDGE_BASE: &str = r#"table bridge maru {
	map mark_of { type ifname : mark; }
	map source { type ifname : verdict; }
	map target { type ifname : verdict; }
	chain source_side {
		type filter hook prerouting priority -350; policy accept;
		meta mark set 0
		meta mark set iifname map @mark_of
		iifname vmap @source
		iifname "tap*" drop
	}
	chain target_side {
		type filter hook forward priority -10; policy accept;
		meta mark set 0
		meta mark set oifname map @mark_of
		oifname vmap @target
		oifname "tap*" drop
	}
	chain own_stack {
		type filter hook input priority 0; policy drop;
	}
	chain arp_form {
		arp htype != 1 drop
		arp ptype != 0x0800 drop
		arp hlen != 6 drop
		arp plen != 4 drop
	}
	chain dhcp4 {
		ip saddr 0.0.0.0 udp sport 68 udp dport 67 accept
		udp sport 67 drop
		udp dport 68 drop
	}
	chain never6 {
		icmpv6 type { 134, 137 } drop
		udp sport 547 drop
		udp dport 546 drop
	}
	chain unspecified6 {
		icmpv6 type { 131, 132, 133, 135, 143 } accept
		drop
	}
	chain known_types {
		ether type { arp, ip, ip6 } accept
		drop
	}
}
"#;

const INET_BASE: &str = r#"table inet maru {
	map zones { typeof iifname : ct zone; }
	map from_port { type mark : verdict; }
	map to_port { type mark : verdict; }
	chain zone {
		type filter hook prerouting priority -450; policy accept;
		ct zone set iifname map @zones
	}
	chain from_always {
		icmpv6 type { 134, 137 } drop
		udp sport { 67, 547 } drop
		udp dport { 68, 546 } drop
		udp sport 68 udp dport 67 accept
		udp sport 546 udp dport 547 accept
		icmpv6 type { 131, 132, 133, 135, 136, 143 } accept
		ip daddr 169.254.169.254 tcp dport 80 accept
		ip6 daddr fe80::a9fe:a9fe tcp dport 80 accept
	}
	chain to_always {
		udp sport 67 udp dport 68 accept
		udp sport 547 udp dport 546 accept
		icmpv6 type { 130, 131, 132, 134, 135, 136, 143 } accept
	}
	chain from_guest {
		type filter hook prerouting priority -150; policy accept;
		meta mark 0 accept
		meta mark vmap @from_port
		drop
	}
	chain to_guest {
		type filter hook forward priority 0; policy accept;
		meta mark 0 accept
		meta mark vmap @to_port
		drop
	}
}
"#;

/// One of the two tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    Bridge,
    Inet,
}

impl Family {
    fn name(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Inet => "inet",
        }
    }
}

/// A ruleset: what differs from machine to machine, on top of the fixed base.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ruleset {
    /// Chains and their rules.
    pub(crate) chains: BTreeMap<(Family, String), Vec<String>>,
    /// Sets of addresses (table inet): type and elements.
    pub(crate) sets: BTreeMap<String, (&'static str, BTreeSet<String>)>,
    /// Elements of the base's maps.
    pub(crate) maps: BTreeMap<(Family, &'static str), BTreeMap<String, String>>,
}

impl Ruleset {
    pub(crate) fn chain(&mut self, family: Family, name: String, rules: Vec<String>) {
        self.chains.insert((family, name), rules);
    }
    pub(crate) fn map(&mut self, family: Family, map: &'static str, key: String, value: String) {
        self.maps.entry((family, map)).or_default().insert(key, value);
    }

    /// The whole, replacing whatever was there.
    #[must_use]
    pub fn full(&self) -> String {
        let mut out = String::new();
        for family in [Family::Bridge, Family::Inet] {
            let f = family.name();
            // Declaring it first makes the deletion work whether it was there or not.
            let _ = writeln!(out, "table {f} {TABLE}\ndelete table {f} {TABLE}");
        }
        out.push_str(BRIDGE_BASE);
        out.push_str(INET_BASE);
        out.push_str(&self.delta(&Self::default()));
        out
    }

    /// What leads from `old` to this. Empty if nothing differs.
    #[must_use]
    pub fn delta(&self, old: &Self) -> String {
        let mut out = String::new();
        for (family, name) in self.chains.keys().filter(|k| !old.chains.contains_key(k)) {
            let _ = writeln!(out, "add chain {} {TABLE} {name}", family.name());
        }
        for (name, (kind, _)) in self.sets.iter().filter(|(k, _)| !old.sets.contains_key(*k)) {
            let _ = writeln!(out, "add set inet {TABLE} {name} {{ type {kind}; }}");
        }
        let nothing = BTreeMap::new();
        for ((family, map), olds) in &old.maps {
            let news = self.maps.get(&(*family, *map)).unwrap_or(&nothing);
            let gone = olds
                .iter()
                .filter(|(k, v)| news.get(*k) != Some(v))
                .map(|(k, _)| k.clone());
            elements(&mut out, "delete", family.name(), map, gone);
        }
        let empty = BTreeSet::new();
        for (name, (_, news)) in &self.sets {
            let olds = old.sets.get(name).map_or(&empty, |(_, e)| e);
            elements(&mut out, "delete", "inet", name, olds.difference(news).cloned());
            elements(&mut out, "add", "inet", name, news.difference(olds).cloned());
        }
        // Flush all that changes before any is filled: old rules may refer to what goes.
        let changed = || {
            self.chains
                .iter()
                .filter(|(k, rules)| old.chains.get(*k) != Some(rules))
        };
        for ((family, name), _) in changed().filter(|(k, _)| old.chains.contains_key(k)) {
            let _ = writeln!(out, "flush chain {} {TABLE} {name}", family.name());
        }
        for ((family, name), rules) in changed().filter(|(_, rules)| !rules.is_empty()) {
            let _ = writeln!(out, "table {} {TABLE} {{\n\tchain {name} {{", family.name());
            for rule in rules {
                let _ = writeln!(out, "\t\t{rule}");
            }
            out.push_str("\t}\n}\n");
        }
        for ((family, map), news) in &self.maps {
            let olds = old.maps.get(&(*family, *map)).unwrap_or(&nothing);
            let added = news
                .iter()
                .filter(|(k, v)| olds.get(*k) != Some(v))
                .map(|(k, v)| format!("{k} : {v}"));
            elements(&mut out, "add", family.name(), map, added);
        }
        let gone = || old.chains.keys().filter(|k| !self.chains.contains_key(k));
        for verb in ["flush", "delete"] {
            for (family, name) in gone() {
                let _ = writeln!(out, "{verb} chain {} {TABLE} {name}", family.name());
            }
        }
        for name in old.sets.keys().filter(|k| !self.sets.contains_key(*k)) {
            let _ = writeln!(out, "delete set inet {TABLE} {name}");
        }
        out
    }
}

/// `add` or `delete element`, in lines of bounded length.
fn elements(out: &mut String, verb: &str, family: &str, name: &str, items: impl Iterator<Item = String>) {
    let items: Vec<String> = items.collect();
    for chunk in items.chunks(256) {
        let _ = writeln!(out, "{verb} element {family} {TABLE} {name} {{ {} }}", chunk.join(", "));
    }
}
