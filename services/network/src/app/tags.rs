//! Tags of every resource that has them. What may be tagged is what may be updated: tags of a shared network are not
//! every project's to change.

use super::{App, access};
use maru_auth::Target;
use maru_base::Result;
use maru_http::Request;
use maru_network_model::{Meta, errors};
use maru_store::Snapshot;

/// What becomes of the tags.
#[derive(Debug, Clone)]
pub(crate) enum TagChange {
    Replace(Vec<String>),
    Add(Vec<String>),
    /// 404 when it is not there.
    Remove(String),
    Clear,
}

/// Most tags of one object.
const MOST: usize = 50;

fn apply(meta: &mut Meta, change: &TagChange) -> Result<()> {
    let mut tags = meta.tags.clone();
    match change {
        TagChange::Replace(new) => tags.clone_from(new),
        TagChange::Add(new) => tags.extend(new.iter().cloned()),
        TagChange::Clear => tags.clear(),
        TagChange::Remove(tag) => {
            if !tags.contains(tag) {
                return Err(errors::not_found("TagNotFound", "Tag", tag));
            }
            tags.retain(|t| t != tag);
        }
    }
    meta.set_tags(tags);
    if meta.tags.len() > MOST {
        return Err(errors::invalid_input(format!(
            "{} tags are more than the {MOST} that an object may have",
            meta.tags.len()
        )));
    }
    meta.touch();
    Ok(())
}

/// For each type of resource: its tags, and how they change.
macro_rules! resources {
    ($($name:literal, $load:path, $target:expr;)*) => {
        /// The tags of an object that the caller may see.
        pub(crate) fn tags_of(request: &Request, snapshot: &Snapshot, resource: &str, id: &str) -> Result<Vec<String>> {
            match resource {
                $($name => Ok($load(request, snapshot, id)?.value.meta.tags.clone()),)*
                other => Err(errors::not_found("HTTPNotFound", "Resource type", other)),
            }
        }
        impl App {
            pub(crate) async fn change_tags(&self, request: &Request, resource: &str, id: &str, change: &TagChange) -> Result<Vec<String>> {
                self.plan(|snapshot, txn| match resource {
                    $($name => {
                        let read = $load(request, snapshot, id)?;
                        #[allow(clippy::redundant_closure_call)]
                        let target: Target = ($target)(snapshot, &*read.value);
                        request.authorize(&target)?;
                        let mut value = (*read.value).clone();
                        apply(&mut value.meta, change)?;
                        txn.update(&read, &value);
                        Ok(value.meta.tags)
                    })*
                    other => Err(errors::not_found("HTTPNotFound", "Resource type", other)),
                })
                .await
            }
        }
    };
}

resources! {
    "networks", access::network, |_: &Snapshot, n: &maru_network_model::Network| access::of_network(n);
    "subnets", access::subnet, |s: &Snapshot, n: &maru_network_model::Subnet| access::of_subnet(s, n);
    "ports", access::port, |s: &Snapshot, p: &maru_network_model::Port| access::of_port(s, p);
    "routers", access::router, |_: &Snapshot, r: &maru_network_model::Router| Target::project(&r.project_id);
    "floatingips", access::floating_ip, |_: &Snapshot, f: &maru_network_model::FloatingIp| Target::project(&f.project_id);
    "subnetpools", access::subnet_pool, |_: &Snapshot, p: &maru_network_model::SubnetPool| access::of_pool(p);
    "security-groups", access::group, |_: &Snapshot, g: &maru_network_model::SecurityGroup| Target::project(&g.project_id);
    "trunks", access::trunk, |_: &Snapshot, t: &maru_network_model::Trunk| Target::project(&t.project_id);
}
