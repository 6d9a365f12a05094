//! One client's load and its account of what it was told.

use maru_system_tests::client::{Answer, Client};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

/// Seeded choices (xorshift64*), so that a run can be repeated.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
    pub fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 33) % n
    }
}

/// Lets time pass (a thread's own parking place is woken by the threads that it waits for).
pub fn pause(time: Duration) {
    let (_sender, receiver) = std::sync::mpsc::channel::<()>();
    receiver.recv_timeout(time).ok();
}

/// What is made, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Network,
    Subnet,
    Port,
    Group,
    Floating,
    Keypair,
    Image,
    Server,
}

impl Kind {
    /// In the order in which they can be deleted.
    const ALL: [Self; 8] = [
        Self::Server,
        Self::Image,
        Self::Keypair,
        Self::Floating,
        Self::Port,
        Self::Subnet,
        Self::Group,
        Self::Network,
    ];
    const fn path(self) -> &'static str {
        match self {
            Self::Network => "/network/v2.0/networks",
            Self::Subnet => "/network/v2.0/subnets",
            Self::Port => "/network/v2.0/ports",
            Self::Group => "/network/v2.0/security-groups",
            Self::Floating => "/network/v2.0/floatingips",
            Self::Keypair => "/compute/v2.1/os-keypairs",
            Self::Image => "/image/v2/images",
            Self::Server => "/compute/v2.1/servers",
        }
    }
    /// Name of one in a body, and of the list.
    const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Network => ("network", "networks"),
            Self::Subnet => ("subnet", "subnets"),
            Self::Port => ("port", "ports"),
            Self::Group => ("security_group", "security_groups"),
            Self::Floating => ("floatingip", "floatingips"),
            Self::Keypair => ("keypair", "keypairs"),
            Self::Image => ("", "images"),
            Self::Server => ("server", "servers"),
        }
    }
    /// The field in which each object has a name that no other has.
    const fn label(self) -> &'static str {
        if matches!(self, Self::Floating) {
            "description"
        } else {
            "name"
        }
    }
    fn object(self, body: &Value) -> &Value {
        if self.names().0.is_empty() {
            body
        } else {
            &body[self.names().0]
        }
    }
}

/// What is known of an object.
#[derive(Debug, Clone, PartialEq)]
enum Known {
    /// It was acknowledged: each of these fields has one of these values. More than one: an answer to a change is missing.
    There(BTreeMap<String, Vec<Value>>),
    /// Its creation or deletion was not answered.
    Maybe(BTreeMap<String, Vec<Value>>),
    /// Its deletion was acknowledged.
    Gone,
}

struct Object {
    kind: Kind,
    /// Empty while a creation is unanswered.
    id: String,
    label: String,
    known: Known,
    /// The network of a subnet or port.
    parent: Option<String>,
    /// What an image's file begins with, once its upload was acknowledged.
    data: Option<Vec<u8>>,
    /// Whether a server shall run, where that is known.
    on: Option<bool>,
}

/// A client with its account.
pub struct Load {
    client: Client,
    n: usize,
    random: Random,
    flavor: String,
    public: String,
    objects: Vec<Object>,
    made: u64,
}

impl Load {
    pub fn new(client: Client, n: usize, seed: u64, flavor: &str, public: &str) -> Self {
        Self {
            client,
            n,
            random: Random::new(seed),
            flavor: flavor.into(),
            public: public.into(),
            objects: Vec::new(),
            made: 0,
        }
    }

    /// Takes what is there without an account into it, so that it can be deleted.
    pub fn adopt_leftovers(&mut self) {
        for kind in Kind::ALL {
            for (id, label) in self.listed(kind) {
                // Names go on after those of the run before.
                let number = label.rsplit('-').next().and_then(|n| n.parse().ok()).unwrap_or(0);
                self.made = self.made.max(number);
                let known = Known::Maybe(BTreeMap::new());
                self.objects.push(Object {
                    kind,
                    id,
                    label,
                    known,
                    parent: None,
                    data: None,
                    on: None,
                });
            }
        }
        let left = self.clear();
        assert!(left.is_empty(), "what an earlier run left cannot be deleted: {left:?}");
    }

    /// Works until told to stop or until no answer comes; the number of acknowledged changes.
    pub fn run(&mut self, stop: &AtomicBool) -> u64 {
        let mut done = 0;
        while !stop.load(Ordering::Relaxed) {
            let step = match self.random.below(12) {
                0..=4 => self.create(),
                5..=6 => self.rename(),
                7 => self.upload(),
                8..=9 => self.power(),
                _ => self.remove(None),
            };
            match step {
                Some(true) => done += 1,
                Some(false) => {}
                None => break,
            }
        }
        done
    }

    fn pick(&mut self, want: impl Fn(&Object) -> bool) -> Option<usize> {
        let fit: Vec<usize> = (0..self.objects.len()).filter(|i| want(&self.objects[*i])).collect();
        let n = fit.len() as u64;
        (n > 0).then(|| fit[usize::try_from(self.random.below(n)).unwrap()])
    }
    fn there(object: &Object) -> bool {
        matches!(object.known, Known::There(_))
    }

    /// `None`: no answer; else whether something changed.
    fn create(&mut self) -> Option<bool> {
        let kind = Kind::ALL[usize::try_from(self.random.below(8)).unwrap()];
        // The simulated nodes have room for all; a run of any length looks at no more than this.
        let most = if kind == Kind::Server { 20 } else { 40 };
        if self
            .objects
            .iter()
            .filter(|o| o.kind == kind && o.known != Known::Gone)
            .count()
            >= most
        {
            return self.remove(Some(kind));
        }
        self.made += 1;
        let label = format!("t{}-{}", self.n, self.made);
        let network = self
            .pick(|o| o.kind == Kind::Network && Self::there(o))
            .map(|i| self.objects[i].id.clone());
        let (mut inner, parent) = match (kind, network) {
            (Kind::Subnet, Some(net)) => {
                let cidr = format!("10.{}.{}.0/24", self.made / 256 % 256, self.made % 256);
                (json!({"network_id": net, "ip_version": 4, "cidr": cidr}), Some(net))
            }
            (Kind::Port, Some(net)) => (json!({"network_id": net}), Some(net)),
            (Kind::Subnet | Kind::Port, None) => return Some(false),
            (Kind::Floating, _) => (json!({"floating_network_id": self.public}), None),
            (Kind::Keypair, _) => (json!({"public_key": KEY, "type": "ssh"}), None),
            (Kind::Image, _) => (json!({"disk_format": "raw", "container_format": "bare"}), None),
            (Kind::Server, _) => {
                let image = self.pick(|o| o.kind == Kind::Image && o.data.is_some() && Self::there(o));
                let Some(image) = image else { return Some(false) };
                let net = self
                    .pick(|o| o.kind == Kind::Subnet && Self::there(o))
                    .and_then(|i| self.objects[i].parent.clone());
                let networks = net.map_or_else(|| json!("none"), |n| json!([{"uuid": n}]));
                (
                    json!({"flavorRef": self.flavor, "imageRef": self.objects[image].id, "networks": networks, "metadata": {"a": "b"}}),
                    None,
                )
            }
            (Kind::Network | Kind::Group, _) => (json!({}), None),
        };
        inner[kind.label()] = label.clone().into();
        let body = if kind == Kind::Image {
            inner.clone()
        } else {
            json!({ kind.names().0: inner })
        };
        let mut fields = BTreeMap::from([(kind.label().to_owned(), vec![Value::from(label.as_str())])]);
        for name in ["network_id", "cidr", "disk_format", "metadata"] {
            if let Some(v) = inner.get(name) {
                fields.insert(name.to_owned(), vec![v.clone()]);
            }
        }
        let answer = self.client.json("POST", kind.path(), &body);
        let mut object = Object {
            kind,
            id: String::new(),
            label,
            known: Known::Maybe(fields.clone()),
            parent,
            data: None,
            on: None,
        };
        let outcome = match answer {
            None => None,
            Some(a) if a.ok() => {
                let made = kind.object(&a.body);
                object.id = made[if kind == Kind::Keypair { "name" } else { "id" }]
                    .as_str()
                    .unwrap_or_else(|| panic!("{a:?}"))
                    .to_owned();
                object.known = Known::There(fields);
                object.on = (kind == Kind::Server).then_some(true);
                Some(true)
            }
            Some(a) => {
                self.refused("create", kind, &a);
                return Some(false);
            }
        };
        self.objects.push(object);
        outcome
    }

    /// A refusal is fine where two things exclude each other; a fault of the cloud is not.
    fn refused(&self, what: &str, kind: Kind, answer: &Answer) {
        let expected = match kind {
            // A subnet or a network is in use, a server has a task, its image or network goes at this moment.
            Kind::Server | Kind::Network | Kind::Subnet | Kind::Port | Kind::Floating => {
                [400, 404, 409].contains(&answer.status)
            }
            Kind::Image => [409].contains(&answer.status),
            _ => false,
        };
        assert!(expected, "client {} may {what} a {kind:?}, but: {answer:?}", self.n);
    }

    fn rename(&mut self) -> Option<bool> {
        let Some(i) = self.pick(|o| Self::there(o) && !matches!(o.kind, Kind::Keypair | Kind::Image)) else {
            return Some(false);
        };
        let (kind, id) = (self.objects[i].kind, self.objects[i].id.clone());
        self.made += 1;
        let new = Value::from(format!("changed {}", self.made));
        let field = "description";
        let body = json!({ kind.names().0: {field: new} });
        // A floating IP's description is how it is found again.
        if kind == Kind::Floating {
            return Some(false);
        }
        let answer = self.client.json("PUT", &format!("{}/{id}", kind.path()), &body);
        let Known::There(fields) = &mut self.objects[i].known else {
            return Some(false);
        };
        match answer {
            None => {
                // Before the first change it was the default.
                let empty = if kind == Kind::Server { Value::Null } else { "".into() };
                fields.entry(field.to_owned()).or_insert_with(|| vec![empty]).push(new);
                None
            }
            Some(a) if a.ok() => {
                fields.insert(field.to_owned(), vec![new]);
                Some(true)
            }
            Some(a) => {
                self.refused("change", kind, &a);
                Some(false)
            }
        }
    }

    fn upload(&mut self) -> Option<bool> {
        let Some(i) = self.pick(|o| o.kind == Kind::Image && Self::there(o) && o.data.is_none()) else {
            return Some(false);
        };
        let size = 512 + usize::try_from(self.random.below(1 << 18)).unwrap();
        let byte = u8::try_from(self.random.below(256)).unwrap();
        let data = vec![byte; size];
        let path = format!("{}/{}/file", Kind::Image.path(), self.objects[i].id);
        match self.client.send("PUT", &path, "application/octet-stream", &data)? {
            a if a.ok() => {
                let object = &mut self.objects[i];
                object.data = Some(data);
                if let Known::There(fields) = &mut object.known {
                    fields.insert("status".into(), vec!["active".into()]);
                    fields.insert("size".into(), vec![size.into()]);
                }
                Some(true)
            }
            a => {
                // An upload that was not answered may have been carried out.
                assert_eq!(a.status, 409, "{a:?}");
                Some(false)
            }
        }
    }

    fn power(&mut self) -> Option<bool> {
        let Some(i) = self.pick(|o| o.kind == Kind::Server && Self::there(o)) else {
            return Some(false);
        };
        let on = self.random.below(2) == 0;
        let path = format!("{}/{}/action", Kind::Server.path(), self.objects[i].id);
        let what = if on { "os-start" } else { "os-stop" };
        match self.client.json("POST", &path, &json!({ what: null })) {
            None => {
                self.objects[i].on = None;
                None
            }
            Some(a) if a.ok() => {
                self.objects[i].on = Some(on);
                Some(true)
            }
            Some(a) => {
                assert_eq!(a.status, 409, "{a:?}");
                Some(false)
            }
        }
    }

    fn remove(&mut self, kind: Option<Kind>) -> Option<bool> {
        let Some(i) = self.pick(|o| Self::there(o) && kind.is_none_or(|k| o.kind == k)) else {
            return Some(false);
        };
        let (kind, path) = (
            self.objects[i].kind,
            format!("{}/{}", self.objects[i].kind.path(), self.objects[i].id),
        );
        let answer = self.client.ask("DELETE", &path);
        let object = &mut self.objects[i];
        match answer {
            None => {
                if let Known::There(fields) = std::mem::replace(&mut object.known, Known::Gone) {
                    object.known = Known::Maybe(fields);
                }
                self.with_network(i);
                None
            }
            Some(a) if a.ok() => {
                object.known = Known::Gone;
                self.with_network(i);
                Some(true)
            }
            Some(a) => {
                self.refused("delete", kind, &a);
                Some(false)
            }
        }
    }

    /// A network takes its subnets along; what is known of it is known of them.
    fn with_network(&mut self, i: usize) {
        if self.objects[i].kind != Kind::Network {
            return;
        }
        let (id, gone) = (self.objects[i].id.clone(), self.objects[i].known == Known::Gone);
        for subnet in self
            .objects
            .iter_mut()
            .filter(|o| o.kind == Kind::Subnet && o.parent.as_ref() == Some(&id))
        {
            subnet.known = match std::mem::replace(&mut subnet.known, Known::Gone) {
                Known::There(fields) | Known::Maybe(fields) if !gone => Known::Maybe(fields),
                _ => Known::Gone,
            };
        }
    }

    fn listed(&self, kind: Kind) -> Vec<(String, String)> {
        let query = if kind == Kind::Floating || kind == Kind::Keypair {
            ""
        } else {
            "?limit=1000"
        };
        let answer = self
            .client
            .ask("GET", &format!("{}{query}", kind.path()))
            .expect("a list");
        assert!(answer.ok(), "{kind:?}: {answer:?}");
        let own = format!("t{}-", self.n);
        let list = answer.body[kind.names().1].as_array().cloned().unwrap_or_default();
        list.iter()
            .map(|o| if kind == Kind::Keypair { &o["keypair"] } else { o })
            .filter_map(|o| {
                let label = o[kind.label()].as_str()?;
                let id = if kind == Kind::Keypair {
                    label
                } else {
                    o["id"].as_str()?
                };
                label.starts_with(&own).then(|| (id.to_owned(), label.to_owned()))
            })
            .collect()
    }

    /// What was acknowledged and is not so. Afterwards the account is what is there.
    pub fn compare(&mut self) -> Vec<String> {
        let mut lost = Vec::new();
        let mut lists: BTreeMap<Kind, Vec<(String, String)>> = BTreeMap::new();
        for i in 0..self.objects.len() {
            let (kind, label) = (self.objects[i].kind, self.objects[i].label.clone());
            if self.objects[i].id.is_empty() {
                let list = lists.entry(kind).or_insert_with(|| self.listed(kind));
                match list.iter().find(|(_, l)| *l == label) {
                    Some((id, _)) => self.objects[i].id.clone_from(id),
                    None => {
                        self.objects[i].known = Known::Gone;
                        continue;
                    }
                }
            }
            let answer = self
                .client
                .ask("GET", &format!("{}/{}", kind.path(), self.objects[i].id))
                .expect("an answer");
            let shown = kind.object(&answer.body);
            let object = &mut self.objects[i];
            match (&mut object.known, answer.status) {
                (Known::Gone, 404) => {}
                // A server's deletion takes its time: it shall end, which `quiet` sees to.
                (Known::Gone, 200) if kind == Kind::Server => {}
                (Known::Maybe(_), 404) => object.known = Known::Gone,
                // Its deletion was not answered, but it began.
                (Known::Maybe(_), 200) if shown["OS-EXT-STS:task_state"] == "deleting" => object.known = Known::Gone,
                (Known::There(fields) | Known::Maybe(fields), 200) => {
                    for (name, values) in fields.iter_mut() {
                        if values.contains(&shown[name.as_str()]) {
                            *values = vec![shown[name.as_str()].clone()];
                        } else {
                            lost.push(format!(
                                "{kind:?} {label}: {name} is {} and was acknowledged as {values:?}",
                                shown[name.as_str()]
                            ));
                        }
                    }
                    let fields = std::mem::take(fields);
                    object.known = Known::There(fields);
                    if kind == Kind::Image && shown["status"] == "active" && object.data.is_none() {
                        // The upload that was not answered was carried out; its bytes are not compared.
                        object.data = Some(Vec::new());
                    }
                }
                (known, status) => lost.push(format!(
                    "{kind:?} {label} answers {status}, but it is {known:?}: {answer:?}"
                )),
            }
        }
        // The bytes of one image a round: they are on disk like those of the others.
        if let Some(i) = self.pick(|o| o.data.as_ref().is_some_and(|d| !d.is_empty()) && Self::there(o)) {
            let object = &self.objects[i];
            let path = format!("{}/{}", Kind::Image.path(), object.id);
            let answer = self.client.ask("GET", &path).expect("an answer");
            let file = self
                .client
                .ask("GET", &format!("{path}/file"))
                .expect("an image's bytes");
            let size = object.data.as_ref().map_or(0, Vec::len).to_string();
            if !file.ok() || file.header("content-length") != Some(size.as_str()) || answer.body["checksum"].is_null() {
                lost.push(format!(
                    "the bytes of image {}: {} and {:?}",
                    object.label, file.head, answer.body
                ));
            }
        }
        // What is there and nobody asked for.
        for kind in Kind::ALL {
            for (id, label) in self.listed(kind) {
                if !self.objects.iter().any(|o| o.id == id) {
                    lost.push(format!("{kind:?} {label} ({id}) is there, but nobody made it"));
                }
            }
        }
        self.objects
            .retain(|o| o.known != Known::Gone || o.kind == Kind::Server);
        lost
    }

    /// Waits until no server is on its way; those that do not arrive are stuck.
    pub fn quiet(&mut self, limit: Duration) -> Vec<String> {
        let deadline = Instant::now() + limit;
        let mut stuck = Vec::new();
        for object in self
            .objects
            .iter_mut()
            .filter(|o| o.kind == Kind::Server && !o.id.is_empty())
        {
            loop {
                let answer = self
                    .client
                    .ask("GET", &format!("{}/{}", Kind::Server.path(), object.id))
                    .expect("an answer");
                let (status, task) = (
                    &answer.body["server"]["status"],
                    &answer.body["server"]["OS-EXT-STS:task_state"],
                );
                let arrived = match (&object.known, answer.status) {
                    (Known::Gone, 404) => true,
                    (Known::There(_), 200) if task.is_null() => match object.on {
                        Some(true) => status == "ACTIVE",
                        Some(false) => status == "SHUTOFF",
                        None => status == "ACTIVE" || status == "SHUTOFF",
                    },
                    _ => false,
                };
                if arrived {
                    break;
                }
                if Instant::now() > deadline {
                    stuck.push(format!(
                        "server {} ({:?}, to run: {:?}): {answer:?}",
                        object.label, object.known, object.on
                    ));
                    break;
                }
                pause(Duration::from_millis(20));
            }
        }
        self.objects.retain(|o| o.known != Known::Gone);
        stuck
    }

    /// Deletes all; what cannot be deleted and what is still counted.
    pub fn clear(&mut self) -> Vec<String> {
        let mut held = Vec::new();
        for kind in Kind::ALL {
            let paths: Vec<String> = self
                .objects
                .iter()
                .filter(|o| o.kind == kind && !o.id.is_empty())
                .map(|o| format!("{}/{}", kind.path(), o.id))
                .collect();
            for path in &paths {
                let answer = self.client.ask("DELETE", path).expect("an answer");
                if !answer.ok() && answer.status != 404 {
                    held.push(format!("{path} cannot be deleted: {answer:?}"));
                }
            }
            let deadline = Instant::now() + Duration::from_secs(60);
            for path in &paths {
                while self.client.ask("GET", path).expect("an answer").status != 404 {
                    if Instant::now() > deadline {
                        held.push(format!("{path} does not go"));
                        break;
                    }
                    pause(Duration::from_millis(20));
                }
            }
        }
        self.objects.clear();
        let limits = self.client.ask("GET", "/compute/v2.1/limits").expect("limits").body["limits"]["absolute"].clone();
        for name in ["totalInstancesUsed", "totalCoresUsed", "totalRAMUsed"] {
            if limits[name] != 0 {
                held.push(format!("client {}: {name} is {}", self.n, limits[name]));
            }
        }
        held
    }
}

/// A key's public part; nobody has the private one.
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1rCe9Aqjxj9VZ3n4XHFTkbGSdYKK0m0xtcoKkqzSYy load";
