//! The catalogue: rendering it for a caller, and setting it at start.

use crate::api::views::{CatalogEndpoint, CatalogService};
use maru_base::{ProjectId, Result, UserId};
use maru_identity_model::{
    Endpoint, EndpointId, Interface, Region, RegionId, Service, ServiceId, associated_endpoints, touch,
};
use maru_store::{Snapshot, Store, Txn};
use serde_json::Map;

/// The catalogue as a caller sees it: enabled services with their enabled endpoints; of a project that is associated with
/// endpoints, these alone.
pub(crate) fn render(snapshot: &Snapshot, project: Option<&ProjectId>, user: &UserId) -> Vec<CatalogService> {
    let only = project.and_then(|p| associated_endpoints(snapshot, p));
    let mut services: Vec<CatalogService> = snapshot
        .list::<Service>()
        .filter(|s| s.enabled)
        .map(|s| {
            let mut endpoints: Vec<CatalogEndpoint> = snapshot
                .find::<Endpoint>("service", &s.id)
                .filter(|e| e.enabled && only.as_ref().is_none_or(|only| only.contains(&e.id)))
                .filter_map(|e| {
                    let region = e.region_id.as_ref().map(ToString::to_string);
                    Some(CatalogEndpoint {
                        id: e.id.to_string(),
                        interface: e.interface.as_str(),
                        region_id: region.clone(),
                        url: e.url_for(project, user)?,
                        region,
                    })
                })
                .collect();
            endpoints.sort_by(|a, b| (&a.region, a.interface).cmp(&(&b.region, b.interface)));
            CatalogService {
                endpoints,
                id: s.id.to_string(),
                kind: s.kind.clone(),
                name: s.name.clone(),
            }
        })
        .filter(|s| only.is_none() || !s.endpoints.is_empty())
        .collect();
    services.sort_by(|a, b| a.kind.cmp(&b.kind));
    services
}

/// Makes the catalogue show these services (`type`, `name`, `url`) in a region, each with one address for all three
/// interfaces. What is right already is not written; other services and regions are left alone.
///
/// # Errors
/// When the store does not commit.
pub async fn set_catalogue(store: &Store, region: &str, entries: &[(&str, &str, &str)]) -> Result<()> {
    store
        .plan(|snapshot| {
            let mut txn = Txn::new();
            let region_id = RegionId::from(region);
            if snapshot.get::<Region>(&region_id).is_none() {
                let value = Region {
                    description: String::new(),
                    parent_region_id: None,
                    extra: Map::new(),
                };
                txn.create(&region_id, &value);
            }
            for (kind, name, url) in entries {
                let known = snapshot.find::<Service>("type", kind).next();
                let service_id = match &known {
                    Some(s) => s.id.clone(),
                    None => {
                        let id = ServiceId::new_hex();
                        let value = Service {
                            kind: (*kind).to_owned(),
                            name: (*name).to_owned(),
                            enabled: true,
                            extra: Map::new(),
                        };
                        txn.create(&id, &value);
                        id
                    }
                };
                let have: Vec<_> = snapshot
                    .find::<Endpoint>("service", &service_id)
                    .filter(|e| e.region_id.as_ref() == Some(&region_id))
                    .collect();
                for interface in Interface::ALL {
                    let value = Endpoint {
                        service_id: service_id.clone(),
                        region_id: Some(region_id.clone()),
                        interface,
                        url: (*url).to_owned(),
                        enabled: true,
                        extra: Map::new(),
                    };
                    match have.iter().find(|e| e.interface == interface) {
                        Some(e) if e.url == *url => {}
                        Some(e) => {
                            txn.update(e, &value);
                        }
                        None => {
                            txn.create(&EndpointId::new_hex(), &value);
                        }
                    }
                }
            }
            if !txn.is_empty() {
                touch(&mut txn);
            }
            Ok((txn, ()))
        })
        .await
}
