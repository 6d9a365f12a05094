//! Allocation candidates: every way in which a request for resources can be satisfied. A pure function of a snapshot.
//!
//! A candidate has an *anchor*: one tree of providers. Its resources come from providers of that tree and from providers
//! that share theirs (trait `MISC_SHARES_VIA_AGGREGATE`) through an aggregate in which some provider of the tree is, too.
//! A request is a set of groups. A group with a suffix is satisfied by one provider alone; the group without a suffix by
//! any number of them, which have the required traits between them. For each anchor the search walks
//!
//! ```text
//! anchor ─ group "" ─ class 1 ─ class 2 ─ traits? ─ group "1" ─ provider ─ group "2" ─ provider ─ subtrees? ─ found
//!                     └ provider of the pool with room     └ room left after the groups before? isolated?
//! ```
//!
//! and gives up a branch as soon as a provider's room is used up. The number of candidates is a product over the groups, so
//! the search ends after [`MOST_FOUND`] candidates or [`MOST_STEPS`] steps, as upstream's `max_allocation_candidates` does.

use crate::{ProviderId, ResourceProvider, Usages};
use maru_store::{Object, Snapshot};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Most candidates of one request.
pub const MOST_FOUND: usize = 10_000;
/// Most branches that one search looks at.
pub const MOST_STEPS: usize = 2_000_000;

/// What one group asks for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Group {
    /// Units by class; none for a group that only names qualities of a provider in a subtree.
    pub resources: BTreeMap<String, u64>,
    /// Of each set one trait must be there.
    pub required: Vec<BTreeSet<String>>,
    /// Traits that must not be there.
    pub forbidden: BTreeSet<String>,
    /// Of each set one aggregate must be there.
    pub member_of: Vec<BTreeSet<String>>,
    /// Aggregates that must not be there.
    pub not_member_of: BTreeSet<String>,
    /// Only from the tree that this provider is in.
    pub in_tree: Option<ProviderId>,
}

/// A request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wanted {
    /// Groups by suffix; the one without has the empty one.
    pub groups: BTreeMap<String, Group>,
    /// Whether groups with suffixes must come from different providers (`group_policy=isolate`).
    pub isolate: bool,
    /// Sets of suffixes whose providers must all lie under (or be) one of them.
    pub same_subtree: Vec<BTreeSet<String>>,
    /// Traits that the anchor's root must have.
    pub root_required: BTreeSet<String>,
    /// Traits that it must not have.
    pub root_forbidden: BTreeSet<String>,
    /// At most this many candidates.
    pub limit: Option<usize>,
    /// Whether several providers of one tree may be used in one candidate (microversion 1.29).
    pub nested: bool,
}

/// One way to satisfy a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Candidate {
    /// What to allocate.
    pub allocations: BTreeMap<ProviderId, BTreeMap<String, u64>>,
    /// Which providers satisfy which group.
    pub mappings: BTreeMap<String, BTreeSet<ProviderId>>,
}

/// All candidates, ordered by anchor and provider; see the module.
#[must_use]
pub fn find(snapshot: &Snapshot, usages: &Usages, wanted: &Wanted) -> Vec<Candidate> {
    let world = World::new(snapshot, usages);
    let Some(plans) = world.plans(wanted) else {
        return Vec::new();
    };
    let mut search = Search {
        world: &world,
        wanted,
        plans: &plans,
        limit: wanted.limit.unwrap_or(MOST_FOUND).min(MOST_FOUND),
        steps: MOST_STEPS,
        found: Vec::new(),
        seen: HashSet::new(),
        used: HashMap::new(),
        chosen: vec![BTreeSet::new(); plans.len()],
        pool: Vec::new(),
        anchor: 0,
    };
    for anchor in world.anchors() {
        let root = &world.providers[anchor];
        if !wanted.root_required.is_subset(&root.traits) || !wanted.root_forbidden.is_disjoint(&root.traits) {
            continue;
        }
        search.anchor = anchor;
        search.pool = world.pool(anchor);
        search.group(0);
        if search.done() {
            break;
        }
    }
    search.found
}

/// All providers of the trees that some candidate takes from: what the summaries of an answer show.
#[must_use]
pub fn trees(snapshot: &Snapshot, candidates: &[Candidate]) -> Vec<Object<ResourceProvider>> {
    // Reading all is cheaper than asking for each.
    let taken: HashSet<&ProviderId> = candidates.iter().flat_map(|c| c.allocations.keys()).collect();
    let all: Vec<Object<ResourceProvider>> = snapshot.list::<ResourceProvider>().collect();
    let roots: HashSet<&ProviderId> = all
        .iter()
        .filter(|p| taken.contains(&p.id))
        .map(|p| &p.value.root)
        .collect();
    all.iter().filter(|p| roots.contains(&p.value.root)).cloned().collect()
}

/// The providers of a snapshot, and how they belong together.
struct World<'u> {
    usages: &'u Usages,
    providers: Vec<Object<ResourceProvider>>,
    places: HashMap<ProviderId, usize>,
    /// Members of each tree, by its root.
    trees: BTreeMap<ProviderId, Vec<usize>>,
    /// Providers that share with a tree of which they are no part, by its root.
    shared: HashMap<ProviderId, Vec<usize>>,
}

/// A group with the providers that may serve it.
struct Plan<'a> {
    suffix: &'a str,
    group: &'a Group,
    /// For each class (with a suffix: for the whole group, under the class `""`), whether a provider has the room and the
    /// qualities that do not depend on the anchor.
    classes: Vec<Class<'a>>,
}

struct Class<'a> {
    name: &'a str,
    amount: u64,
    fits: Vec<bool>,
}

impl<'u> World<'u> {
    fn new(snapshot: &Snapshot, usages: &'u Usages) -> Self {
        let providers: Vec<Object<ResourceProvider>> = snapshot.list::<ResourceProvider>().collect();
        let places: HashMap<ProviderId, usize> = providers.iter().enumerate().map(|(i, p)| (p.id.clone(), i)).collect();
        let mut trees: BTreeMap<ProviderId, Vec<usize>> = BTreeMap::new();
        let mut by_aggregate: HashMap<&str, BTreeSet<&ProviderId>> = HashMap::new();
        for (at, p) in providers.iter().enumerate() {
            trees.entry(p.root.clone()).or_default().push(at);
            for aggregate in &p.aggregates {
                by_aggregate.entry(aggregate).or_default().insert(&p.value.root);
            }
        }
        let mut shared: HashMap<ProviderId, Vec<usize>> = HashMap::new();
        for (at, p) in providers.iter().enumerate().filter(|(_, p)| p.shares()) {
            let with: BTreeSet<&ProviderId> = p
                .aggregates
                .iter()
                .filter_map(|a| by_aggregate.get(a.as_str()))
                .flatten()
                .copied()
                .collect();
            for root in with.into_iter().filter(|root| **root != p.root) {
                shared.entry(root.clone()).or_default().push(at);
            }
        }
        Self {
            usages,
            providers,
            places,
            trees,
            shared,
        }
    }

    fn usage(&self, p: usize, class: &str) -> i64 {
        self.usages.of(&self.providers[p].id, class)
    }

    /// Roots, in order.
    fn anchors(&self) -> impl Iterator<Item = usize> {
        self.trees.keys().filter_map(|root| self.places.get(root).copied())
    }

    /// Providers that an anchor's candidates may take from.
    fn pool(&self, anchor: usize) -> Vec<usize> {
        let root = &self.providers[anchor].id;
        let own = self.trees.get(root).into_iter().flatten();
        let mut pool: Vec<usize> = own
            .chain(self.shared.get(root).into_iter().flatten())
            .copied()
            .collect();
        pool.sort_unstable();
        pool
    }

    /// The groups with their providers; `None` when one of them can be served by nobody.
    fn plans<'a>(&self, wanted: &'a Wanted) -> Option<Vec<Plan<'a>>> {
        let mut plans = Vec::new();
        for (suffix, group) in &wanted.groups {
            let tree = match &group.in_tree {
                None => None,
                Some(id) => Some(self.providers[*self.places.get(id)?].root.clone()),
            };
            let here = |p: &ResourceProvider| tree.as_ref().is_none_or(|root| p.root == *root);
            let room = |p: &Object<ResourceProvider>, class: &str, amount: u64| {
                p.inventories.get(class).is_some_and(|inventory| {
                    inventory.allows_unit(amount)
                        && self.usages.of(&p.id, class).saturating_add(as_i64(amount)) <= inventory.capacity()
                })
            };
            let mut classes = Vec::new();
            if suffix.is_empty() {
                for (class, amount) in &group.resources {
                    let fits = |p: &Object<ResourceProvider>| {
                        here(p) && p.traits.is_disjoint(&group.forbidden) && room(p, class, *amount)
                    };
                    classes.push(Class {
                        name: class,
                        amount: *amount,
                        fits: self.providers.iter().map(fits).collect(),
                    });
                }
            } else {
                let fits = |p: &Object<ResourceProvider>| {
                    here(p)
                        && p.traits.is_disjoint(&group.forbidden)
                        && has_each(&p.traits, &group.required)
                        && has_each(&p.aggregates, &group.member_of)
                        && p.aggregates.is_disjoint(&group.not_member_of)
                        && group.resources.iter().all(|(class, amount)| room(p, class, *amount))
                };
                classes.push(Class {
                    name: "",
                    amount: 0,
                    fits: self.providers.iter().map(fits).collect(),
                });
            }
            if classes.iter().any(|c| !c.fits.contains(&true)) {
                return None;
            }
            plans.push(Plan { suffix, group, classes });
        }
        Some(plans)
    }

    /// Whether one of the providers is above (or is) all of them.
    fn one_subtree(&self, providers: &BTreeSet<usize>) -> bool {
        let above = |top: usize, mut at: usize| loop {
            if at == top {
                return true;
            }
            match self.providers[at].parent.as_ref().and_then(|p| self.places.get(p)) {
                Some(parent) => at = *parent,
                None => return false,
            }
        };
        providers.len() <= 1 || providers.iter().any(|top| providers.iter().all(|p| above(*top, *p)))
    }
}

fn as_i64(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}

/// Whether one of each set is there.
pub(crate) fn has_each(have: &BTreeSet<String>, sets: &[BTreeSet<String>]) -> bool {
    sets.iter().all(|any| !any.is_disjoint(have))
}

/// The walk; see the module.
struct Search<'a> {
    world: &'a World<'a>,
    wanted: &'a Wanted,
    plans: &'a [Plan<'a>],
    limit: usize,
    steps: usize,
    found: Vec<Candidate>,
    seen: HashSet<Candidate>,
    /// Units taken so far, by provider and class.
    used: HashMap<(usize, &'a str), u64>,
    /// Providers chosen so far, by group.
    chosen: Vec<BTreeSet<usize>>,
    pool: Vec<usize>,
    anchor: usize,
}

impl<'a> Search<'a> {
    fn done(&self) -> bool {
        self.steps == 0 || self.found.len() >= self.limit
    }

    /// Chooses for the group at `at` and those after it.
    fn group(&mut self, at: usize) {
        let Some(plan) = self.plans.get(at) else {
            self.keep();
            return;
        };
        if plan.suffix.is_empty() {
            self.class(at, 0);
        } else {
            self.provider(at);
        }
    }

    /// Chooses the one provider of a group with a suffix.
    fn provider(&mut self, at: usize) {
        let plan = &self.plans[at];
        for place in 0..self.pool.len() {
            let p = self.pool[place];
            if self.done() {
                return;
            }
            self.steps -= 1;
            if !plan.classes[0].fits[p] || (self.wanted.isolate && self.taken_by_suffix(at, p)) {
                continue;
            }
            let resources = &plan.group.resources;
            if resources
                .iter()
                .all(|(class, amount)| self.leaves_room(p, class, *amount))
            {
                for (class, amount) in resources {
                    *self.used.entry((p, class)).or_default() += amount;
                }
                self.chosen[at].insert(p);
                self.group(at + 1);
                self.chosen[at].clear();
                for (class, amount) in resources {
                    self.give_back(p, class, *amount);
                }
            }
        }
    }

    /// Chooses the provider of a class of the group without a suffix, and of the classes after it.
    fn class(&mut self, at: usize, which: usize) {
        let plan = &self.plans[at];
        let Some(class) = plan.classes.get(which) else {
            let traits: BTreeSet<String> = self.chosen[at]
                .iter()
                .flat_map(|p| self.world.providers[*p].traits.iter().cloned())
                .collect();
            if has_each(&traits, &plan.group.required) {
                self.group(at + 1);
            }
            return;
        };
        for place in 0..self.pool.len() {
            let p = self.pool[place];
            if self.done() {
                return;
            }
            self.steps -= 1;
            if !class.fits[p] || !self.in_aggregates(plan.group, p) || !self.leaves_room(p, class.name, class.amount) {
                continue;
            }
            let fresh = self.chosen[at].insert(p);
            *self.used.entry((p, class.name)).or_default() += class.amount;
            self.class(at, which + 1);
            self.give_back(p, class.name, class.amount);
            if fresh {
                self.chosen[at].remove(&p);
            }
        }
    }

    /// An aggregate of the anchor's root spans its whole tree; one that shares must be a member itself.
    fn in_aggregates(&self, group: &Group, p: usize) -> bool {
        let root = &self.world.providers[self.anchor];
        let provider = &self.world.providers[p];
        let own = provider.root == root.id;
        let among =
            has_each(&provider.aggregates, &group.member_of) || (own && has_each(&root.aggregates, &group.member_of));
        // A tree that was asked for by name is not served by one that shares.
        let apart = group.in_tree.is_none() || own;
        among
            && apart
            && provider.aggregates.is_disjoint(&group.not_member_of)
            && root.aggregates.is_disjoint(&group.not_member_of)
    }

    fn taken_by_suffix(&self, at: usize, p: usize) -> bool {
        self.plans[..at]
            .iter()
            .zip(&self.chosen)
            .any(|(plan, chosen)| !plan.suffix.is_empty() && chosen.contains(&p))
    }

    /// Whether `amount` fits beside what this candidate takes already. Alone it does; then only the sum can be too much.
    fn leaves_room(&self, p: usize, class: &'a str, amount: u64) -> bool {
        let before = self.used.get(&(p, class)).copied().unwrap_or(0);
        before == 0 || self.sum_fits(p, class, before.saturating_add(amount))
    }

    fn sum_fits(&self, p: usize, class: &str, sum: u64) -> bool {
        self.world.providers[p].inventories.get(class).is_some_and(|i| {
            sum <= i.max_unit && as_i64(sum) <= i.capacity().saturating_sub(self.world.usage(p, class))
        })
    }

    fn give_back(&mut self, p: usize, class: &'a str, amount: u64) {
        if let Some(used) = self.used.get_mut(&(p, class)) {
            *used -= amount;
            if *used == 0 {
                self.used.remove(&(p, class));
            }
        }
    }

    /// All groups are served: keeps the candidate unless a rule over the whole refuses it.
    fn keep(&mut self) {
        for suffixes in &self.wanted.same_subtree {
            let members: BTreeSet<usize> = self
                .plans
                .iter()
                .zip(&self.chosen)
                .filter(|(plan, _)| suffixes.contains(plan.suffix))
                .flat_map(|(_, chosen)| chosen.iter().copied())
                .collect();
            if !self.world.one_subtree(&members) {
                return;
            }
        }
        let mut allocations: BTreeMap<ProviderId, BTreeMap<String, u64>> = BTreeMap::new();
        for ((p, class), amount) in &self.used {
            let id = self.world.providers[*p].id.clone();
            allocations.entry(id).or_default().insert((*class).to_owned(), *amount);
        }
        if !self.wanted.nested {
            let roots: BTreeSet<&ProviderId> = allocations
                .keys()
                .filter_map(|id| self.world.places.get(id))
                .map(|p| &self.world.providers[*p].value.root)
                .collect();
            if roots.len() < allocations.len() {
                return;
            }
        }
        let mappings = self
            .plans
            .iter()
            .zip(&self.chosen)
            .map(|(plan, chosen)| {
                let ids = chosen.iter().map(|p| self.world.providers[*p].id.clone()).collect();
                (plan.suffix.to_owned(), ids)
            })
            .collect();
        let candidate = Candidate { allocations, mappings };
        // One that takes only from providers that share is found at each of their anchors.
        if self.world.shared.is_empty() || self.seen.insert(candidate.clone()) {
            self.found.push(candidate);
        }
    }
}
