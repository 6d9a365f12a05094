//! The search for candidates against a brute force that tries every assignment of every provider.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use maru_placement_model::{
    Inventory, ProviderId, ResourceProvider, SHARES, Usages,
    candidates::{Candidate, Group, Wanted, find, trees},
    usage_key,
};
use maru_store::{Registry, Snapshot, Store, Txn};
use proptest::{collection::vec, prelude::*};
use std::collections::{BTreeMap, BTreeSet};

const CLASSES: [&str; 3] = ["VCPU", "MEMORY_MB", "DISK_GB"];
const TRAITS: [&str; 2] = ["HW_CPU_X86_AVX", "HW_NUMA_ROOT"];
const AGGREGATES: [&str; 2] = ["agg-a", "agg-b"];

/// total, reserved, min, max, step, doubled ratio, used.
type Stock = (u64, u64, u64, u64, u64, u8, u64);
/// What is used of a class at a provider.
type Used = BTreeMap<(ProviderId, String), u64>;

/// A provider as the generator makes it.
#[derive(Debug, Clone)]
struct Spec {
    /// One of those before it, or none.
    parent: Option<usize>,
    /// By class.
    stock: Vec<Option<Stock>>,
    traits: Vec<bool>,
    shares: bool,
    aggregates: Vec<bool>,
}

/// Mostly this, sometimes one more.
fn few(n: u64) -> impl Strategy<Value = u64> {
    prop_oneof![6 => Just(n), 1 => Just(n + 1)]
}

fn spec() -> impl Strategy<Value = Spec> {
    let stock = prop_oneof![
        1 => Just(None),
        4 => (3..9_u64, 0..2_u64, few(1), 2..9_u64, few(1), 1..5_u8, 0..3_u64).prop_map(Some),

    ];
    (
        prop::option::weighted(0.6, 0..6_usize),
        vec(stock, 3),
        vec(any::<bool>(), 2),
        prop::bool::weighted(0.4),
        vec(any::<bool>(), 2),
    )
        .prop_map(|(parent, stock, traits, shares, aggregates)| Spec {
            parent,
            stock,
            traits,
            shares,
            aggregates,
        })
}

fn some_of<const N: usize>(names: [&'static str; N]) -> impl Strategy<Value = BTreeSet<String>> {
    vec(prop::bool::weighted(0.5), N).prop_map(move |chosen| {
        let pairs = names.iter().zip(chosen);
        pairs.filter(|(_, c)| *c).map(|(n, _)| (*n).to_owned()).collect()
    })
}

fn sets<const N: usize>(names: [&'static str; N]) -> impl Strategy<Value = Vec<BTreeSet<String>>> {
    vec(
        some_of(names).prop_filter("one of none is never there", |s| !s.is_empty()),
        0..2,
    )
}

fn group(least: usize) -> impl Strategy<Value = Group> {
    (
        vec((0..3_usize, 1..4_u64), least..3),
        sets(TRAITS),
        some_of(TRAITS),
        sets(AGGREGATES),
        some_of(AGGREGATES),
        prop::option::weighted(0.2, 0..6_usize),
        (prop::bool::weighted(0.2), prop::bool::weighted(0.2)),
    )
        .prop_map(
            |(resources, required, forbidden, member_of, not_member_of, in_tree, on)| Group {
                resources: resources.into_iter().map(|(c, n)| (CLASSES[c].to_owned(), n)).collect(),
                required,
                forbidden: if on.0 { forbidden } else { BTreeSet::new() },
                member_of,
                not_member_of: if on.1 { not_member_of } else { BTreeSet::new() },
                in_tree: in_tree.map(id),
            },
        )
}

fn wanted() -> impl Strategy<Value = Wanted> {
    (
        prop::option::weighted(0.7, group(1)),
        prop::option::weighted(0.7, group(1)),
        prop::option::weighted(0.7, group(0)),
        any::<bool>(),
        prop::option::weighted(0.5, Just(())),
        (some_of(TRAITS), some_of(TRAITS), prop::bool::weighted(0.15)),
        prop::bool::weighted(0.8),
    )
        .prop_map(|(plain, one, two, isolate, subtree, (yes, no, roots), nested)| {
            let named = [("", plain), ("_A", one), ("_B", two)];
            let groups: BTreeMap<String, Group> = named
                .into_iter()
                .filter_map(|(s, g)| Some((s.to_owned(), g?)))
                .collect();
            let suffixes: BTreeSet<String> = groups.keys().filter(|s| !s.is_empty()).cloned().collect();
            Wanted {
                same_subtree: subtree
                    .filter(|()| !suffixes.is_empty())
                    .map(|()| suffixes)
                    .into_iter()
                    .collect(),
                groups,
                isolate,
                root_required: if roots { yes } else { BTreeSet::new() },
                root_forbidden: if roots { no } else { BTreeSet::new() },
                limit: None,
                nested,
            }
        })
        .prop_filter("a request has a group", |w| !w.groups.is_empty())
}

fn id(at: usize) -> ProviderId {
    ProviderId::from(format!("00000000-0000-0000-0000-{at:012}"))
}

/// The generated world in a store; gives its snapshot and what is used.
fn world(specs: &[Spec]) -> (Snapshot, BTreeMap<ProviderId, ResourceProvider>, Used) {
    let mut registry = Registry::new();
    maru_placement_model::register(&mut registry);
    let store = Store::in_memory(registry);
    let mut providers = BTreeMap::new();
    let mut used = BTreeMap::new();
    let mut txn = Txn::new();
    let now = maru_base::time::now();
    for (at, spec) in specs.iter().enumerate() {
        let parent = spec.parent.filter(|p| *p < at).map(id);
        let above: Option<&ResourceProvider> = parent.as_ref().and_then(|p| providers.get(p));
        let root = above.map_or_else(|| id(at), |p| p.root.clone());
        let mut inventories = BTreeMap::new();
        for (class, stock) in CLASSES.iter().zip(&spec.stock) {
            let Some((total, reserved, min_unit, max_unit, step_size, half, taken)) = *stock else {
                continue;
            };
            let allocation_ratio = f64::from(half) / 2.0;
            let inventory = Inventory {
                total,
                reserved,
                min_unit,
                max_unit,
                step_size,
                allocation_ratio,
            };
            if taken > 0 {
                txn.add(usage_key(&id(at), class), i64::try_from(taken).unwrap(), None);
            }
            used.insert((id(at), (*class).to_owned()), taken);
            inventories.insert((*class).to_owned(), inventory);
        }
        let pick = |names: &[&str], on: &[bool]| -> BTreeSet<String> {
            names
                .iter()
                .zip(on)
                .filter(|(_, on)| **on)
                .map(|(n, _)| (*n).to_owned())
                .collect()
        };
        let mut traits = pick(&TRAITS, &spec.traits);
        if spec.shares {
            traits.insert(SHARES.to_owned());
        }
        let provider = ResourceProvider {
            name: format!("p{at}"),
            generation: 0,
            parent,
            root,
            inventories,
            traits,
            aggregates: pick(&AGGREGATES, &spec.aggregates),
            created_at: now,
            updated_at: now,
        };
        txn.create(&id(at), &provider);
        providers.insert(id(at), provider);
    }
    futures_executor(store.commit(txn)).unwrap();
    (store.snapshot(), providers, used)
}

/// The engine in memory answers at once.
fn futures_executor<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
        .block_on(future)
}

/// Every candidate, by trying everything.
fn brute(providers: &BTreeMap<ProviderId, ResourceProvider>, used: &Used, wanted: &Wanted) -> BTreeSet<Candidate> {
    // What has to be chosen: (group, class), with the whole group as one choice where it has a suffix.
    let mut slots: Vec<(&String, Option<&String>)> = Vec::new();
    for (suffix, group) in &wanted.groups {
        if suffix.is_empty() {
            slots.extend(group.resources.keys().map(|c| (suffix, Some(c))));
        } else {
            slots.push((suffix, None));
        }
    }
    let ids: Vec<&ProviderId> = providers.keys().collect();
    let mut found = BTreeSet::new();
    let mut choice = vec![0; slots.len()];
    loop {
        let chosen: Vec<&ProviderId> = choice.iter().map(|c| ids[*c]).collect();
        for anchor in ids.iter().filter(|i| providers[**i].parent.is_none()) {
            if let Some(candidate) = check(providers, used, wanted, &slots, &chosen, anchor) {
                found.insert(candidate);
            }
        }
        // The next one, as a number in base n.
        let mut place = 0;
        while place < choice.len() {
            choice[place] += 1;
            if choice[place] < ids.len() {
                break;
            }
            choice[place] = 0;
            place += 1;
        }
        if place == choice.len() {
            return found;
        }
    }
}

fn check(
    providers: &BTreeMap<ProviderId, ResourceProvider>,
    used: &Used,
    wanted: &Wanted,
    slots: &[(&String, Option<&String>)],
    chosen: &[&ProviderId],
    anchor: &ProviderId,
) -> Option<Candidate> {
    let top = &providers[anchor];
    let all =
        |have: &BTreeSet<String>, sets: &[BTreeSet<String>]| sets.iter().all(|s| s.iter().any(|n| have.contains(n)));
    let none = |have: &BTreeSet<String>, not: &BTreeSet<String>| !not.iter().any(|n| have.contains(n));
    let ok = |condition: bool| condition.then_some(());
    ok(wanted.root_required.iter().all(|t| top.traits.contains(t)) && none(&top.traits, &wanted.root_forbidden))?;
    let reach = |p: &ResourceProvider| {
        p.root == *anchor
            || (p.traits.contains(SHARES)
                && providers
                    .values()
                    .any(|q| q.root == *anchor && q.aggregates.iter().any(|a| p.aggregates.contains(a))))
    };
    let free = |id: &ProviderId, class: &String, amount: u64| {
        let i = &providers[id].inventories[class];
        #[allow(clippy::cast_precision_loss)]
        let room = (i.total as f64 - i.reserved as f64) * i.allocation_ratio;
        #[allow(clippy::cast_precision_loss)]
        let after = (used[&(id.clone(), class.clone())] + amount) as f64;
        after <= room && amount <= i.max_unit
    };
    let alone = |id: &ProviderId, class: &String, amount: u64| {
        providers[id]
            .inventories
            .get(class)
            .is_some_and(|i| amount >= i.min_unit && amount.is_multiple_of(i.step_size) && free(id, class, amount))
    };
    let mut sums: BTreeMap<ProviderId, BTreeMap<String, u64>> = BTreeMap::new();
    let mut mappings: BTreeMap<String, BTreeSet<ProviderId>> = BTreeMap::new();
    let mut between: BTreeSet<String> = BTreeSet::new();
    for ((suffix, class), id) in slots.iter().zip(chosen) {
        let (group, p) = (&wanted.groups[*suffix], &providers[*id]);
        ok(reach(p) && none(&p.traits, &group.forbidden))?;
        if let Some(tree) = &group.in_tree {
            ok(providers.get(tree).is_some_and(|t| t.root == p.root))?;
        }
        let takes: Vec<(&String, u64)> = match class {
            None => {
                ok(all(&p.traits, &group.required) && all(&p.aggregates, &group.member_of))?;
                ok(none(&p.aggregates, &group.not_member_of))?;
                group.resources.iter().map(|(c, n)| (c, *n)).collect()
            }
            Some(class) => {
                let own = p.root == *anchor;
                ok(own || group.in_tree.is_none())?;
                ok(all(&p.aggregates, &group.member_of) || (own && all(&top.aggregates, &group.member_of)))?;
                ok(none(&p.aggregates, &group.not_member_of) && none(&top.aggregates, &group.not_member_of))?;
                between.extend(p.traits.iter().cloned());
                vec![(*class, group.resources[*class])]
            }
        };
        for (class, amount) in takes {
            ok(alone(id, class, amount))?;
            *sums.entry((*id).clone()).or_default().entry(class.clone()).or_default() += amount;
        }
        mappings.entry((*suffix).clone()).or_default().insert((*id).clone());
    }
    if let Some(plain) = wanted.groups.get("") {
        ok(all(&between, &plain.required))?;
    }
    ok(sums
        .iter()
        .all(|(id, of)| of.iter().all(|(class, n)| free(id, class, *n))))?;
    let single: Vec<&ProviderId> = slots
        .iter()
        .zip(chosen)
        .filter(|((s, _), _)| !s.is_empty())
        .map(|(_, id)| *id)
        .collect();
    if wanted.isolate {
        ok(single.iter().collect::<BTreeSet<_>>().len() == single.len())?;
    }
    for suffixes in &wanted.same_subtree {
        let members: BTreeSet<&ProviderId> = suffixes.iter().flat_map(|s| &mappings[s]).collect();
        let chain = |id: &ProviderId| {
            let mut up = vec![id.clone()];
            while let Some(parent) = &providers[up.last().unwrap()].parent {
                up.push(parent.clone());
            }
            up
        };
        ok(members.iter().any(|top| members.iter().all(|m| chain(m).contains(top))))?;
    }
    if !wanted.nested {
        let roots: BTreeSet<&ProviderId> = sums.keys().map(|id| &providers[id].root).collect();
        ok(roots.len() == sums.len())?;
    }
    Some(Candidate {
        allocations: sums,
        mappings,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, ..ProptestConfig::default() })]
    #[test]
    fn the_search_finds_what_trying_everything_finds(specs in vec(spec(), 1..7), wanted in wanted()) {
        let (snapshot, providers, used) = world(&specs);
        let found = find(&snapshot, &Usages::read(&snapshot), &wanted);
        let set: BTreeSet<Candidate> = found.iter().cloned().collect();
        prop_assert_eq!(set.len(), found.len(), "one is there twice");
        prop_assert_eq!(&set, &brute(&providers, &used, &wanted));
        // A limit cuts, and only that.
        for limit in [1, 2, 5] {
            let few = find(&snapshot, &Usages::read(&snapshot), &Wanted { limit: Some(limit), ..wanted.clone() });
            prop_assert_eq!(&few[..], &found[..found.len().min(limit)]);
        }
        // The summaries are of whole trees, and of all that is taken from.
        let shown: BTreeSet<ProviderId> = trees(&snapshot, &found).iter().map(|p| p.id.clone()).collect();
        for id in found.iter().flat_map(|c| c.allocations.keys()) {
            for (other, p) in &providers {
                prop_assert!(p.root != providers[id].root || shown.contains(other));
            }
        }
    }
}

/// A request whose candidates are too many to count ends (class G: one request must not hold a processor for ever).
#[test]
fn a_search_has_an_end() {
    let stock = Some((1_000, 0, 1, 1_000, 1, 2, 0));
    let spec = |parent| Spec {
        parent,
        stock: vec![stock; 3],
        traits: vec![false; 2],
        shares: false,
        aggregates: vec![false; 2],
    };
    let specs: Vec<Spec> = (0..40).map(|at| spec((at > 0).then_some(0))).collect();
    let (snapshot, ..) = world(&specs);
    let one = Group {
        resources: BTreeMap::from([("VCPU".to_owned(), 1)]),
        ..Group::default()
    };
    let mut wanted = Wanted {
        groups: (0..12).map(|n| (format!("_{n}"), one.clone())).collect(),
        nested: true,
        ..Wanted::default()
    };
    assert_eq!(
        find(&snapshot, &Usages::read(&snapshot), &wanted).len(),
        maru_placement_model::candidates::MOST_FOUND
    );
    // Without any candidate at all: forty to the twelfth branches, all of which end at the last group.
    wanted.same_subtree = vec![BTreeSet::from(["_0".to_owned(), "_1".to_owned()])];
    wanted.isolate = true;
    let deep = Group {
        required: vec![BTreeSet::from(["HW_NUMA_ROOT".to_owned()])],
        ..one
    };
    wanted.groups.insert("_z".to_owned(), deep);
    assert_eq!(find(&snapshot, &Usages::read(&snapshot), &wanted).len(), 0);
}
