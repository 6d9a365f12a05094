//! `/reshaper`: moves inventories and what is allocated of them in one step.

use super::{
    allocations,
    inventories::{generation, read_all},
    shape::{self, Node},
    since,
};
use crate::{
    App,
    app::{allocations::Reshape, inventories::check_capacity},
};
use maru_base::Result;
use maru_http::{Reply, Request, Routes};
use maru_placement_model::ProviderId;
use std::sync::Arc;

pub(super) fn routes(routes: Routes<App>) -> Routes<App> {
    routes.post("/reshaper", "placement:reshaper:reshape", reshape)
}

async fn reshape(app: Arc<App>, mut request: Request) -> Result<Reply> {
    since(&request, 30)?;
    let value = shape::body(&mut request).await?;
    let fields = Node::root(&value).fields(&["inventories", "allocations"], &[])?;
    let mut reshapes: Vec<Reshape> = Vec::new();
    let providers = fields.need("inventories")?;
    for (provider, node) in providers.entries(shape::is_uuid_key, "a UUID")? {
        let one = node.fields(&["resource_provider_generation", "inventories"], &[])?;
        let provider = ProviderId::from(shape::id(provider));
        if reshapes.iter().any(|r| r.provider == provider) {
            return Err(node.fail(&format!("provider {provider} is there twice")));
        }
        let inventories = read_all(&one.need("inventories")?)?;
        for (class, inventory) in &inventories {
            check_capacity(&provider, class, inventory, true)?;
        }
        reshapes.push(Reshape {
            provider,
            generation: generation(&one)?,
            inventories,
        });
    }
    if reshapes.is_empty() {
        return Err(providers.fail("{} does not have enough properties: name a provider at least"));
    }
    let wishes = allocations::wishes(&request, &fields.need("allocations")?)?;
    app.reshape(&reshapes, &wishes).await?;
    Ok(Reply::empty(204))
}
