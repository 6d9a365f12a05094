//! `/flavors` and `/service_profiles`.

use super::{
    body::{self, Body, invalid},
    row::{self, List, Row},
};
use crate::App;
use maru_auth::Target;
use maru_base::Result;
use maru_http::{Reply, Request};
use maru_network_model::{
    NetworkFlavor, NetworkFlavorId, ServiceProfile, ServiceProfileId, errors,
    flavor::{flavor_not_found, plan_add_profile, plan_delete_profile, plan_remove_profile, profile_not_found},
};
use maru_store::{Object, Snapshot};
use serde_json::json;
use std::{collections::BTreeSet, sync::Arc};

const FLAVORS: List = List {
    plural: "flavors",
    filters: &[],
    attributes: &[
        "id",
        "name",
        "description",
        "service_type",
        "enabled",
        "service_profiles",
    ],
    missing: |id| flavor_not_found(id),
};
const PROFILES: List = List {
    plural: "service_profiles",
    filters: &[],
    attributes: &["id", "description", "driver", "metainfo", "enabled"],
    missing: |id| profile_not_found(id),
};
/// The service types that have a provider here (`/service-providers`).
const TYPES: &[&str] = &["L3_ROUTER_NAT"];

fn flavor_row(id: &str, f: &NetworkFlavor) -> Row {
    let profiles: Vec<String> = f.profiles.iter().map(ToString::to_string).collect();
    Row::new(id)
        .with("name", f.name.as_str())
        .with("description", f.description.as_str())
        .with("service_type", f.service_type.as_str())
        .with("enabled", f.enabled)
        .with("service_profiles", profiles)
}

fn profile_row(id: &str, p: &ServiceProfile) -> Row {
    Row::new(id)
        .with("description", p.description.as_str())
        .with("driver", p.driver.as_str())
        .with("metainfo", p.metainfo.as_str())
        .with("enabled", p.enabled)
}

fn flavor(request: &Request, snapshot: &Snapshot) -> Result<Object<NetworkFlavor>> {
    let id = request.param("id");
    let found = snapshot.get::<NetworkFlavor>(&NetworkFlavorId::from(id));
    let found = found.ok_or_else(|| flavor_not_found(id))?;
    request.authorize(&Target::none())?;
    Ok(found)
}

fn profile(request: &Request, snapshot: &Snapshot) -> Result<Object<ServiceProfile>> {
    let id = request.param("id");
    let found = snapshot.get::<ServiceProfile>(&ServiceProfileId::from(id));
    let found = found.ok_or_else(|| profile_not_found(id))?;
    request.authorize(&Target::none())?;
    Ok(found)
}

pub(crate) async fn list(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.snapshot();
    let rows = snapshot
        .list::<NetworkFlavor>()
        .map(|o| flavor_row(&o.id, &o.value))
        .collect();
    FLAVORS.answer(&request, rows, |_, _, _| None)
}

pub(crate) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    let o = flavor(&request, &app.store.snapshot())?;
    row::one(200, "flavor", flavor_row(&o.id, &o.value), &request.query)
}

pub(crate) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let (bulk, bodies) = body::create(&mut request, "flavor", FLAVORS.plural).await?;
    request.authorize(&Target::none())?;
    let of = |mut b: Body| {
        let service_type = b.text("service_type", 255)?;
        let service_type = b.required("service_type", service_type)?;
        if !TYPES.contains(&service_type.as_str()) {
            return Err(invalid(
                "service_type",
                format!("'{service_type}' is not in {TYPES:?}, the types that have a provider here"),
            ));
        }
        let flavor = NetworkFlavor {
            name: b.text("name", 255)?.unwrap_or_default(),
            description: b.text("description", 1024)?.unwrap_or_default(),
            service_type,
            enabled: b.boolean("enabled")?.unwrap_or(true),
            profiles: BTreeSet::new(),
        };
        let _ = b.project()?;
        b.finish(&["service_profiles"])?;
        Ok(flavor)
    };
    let flavors: Result<Vec<_>> = bodies.into_iter().map(of).collect();
    let flavors = flavors?;
    let made = app
        .plan(|_, txn| {
            let put = |f: &NetworkFlavor| {
                let id = NetworkFlavorId::new_uuid();
                txn.create(&id, f);
                (id, f.clone())
            };
            Ok(flavors.iter().map(put).collect::<Vec<_>>())
        })
        .await?;
    row::created(
        bulk,
        "flavor",
        FLAVORS.plural,
        made.iter().map(|(id, f)| flavor_row(id, f)).collect(),
    )
}

pub(crate) async fn update(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let mut b = body::update(&mut request, "flavor").await?;
    let (name, description) = (b.text("name", 255)?, b.text("description", 1024)?);
    let enabled = b.boolean("enabled")?;
    b.finish(&["service_type", "service_profiles"])?;
    let (id, flavor) = app
        .plan(|snapshot, txn| {
            let read = flavor(&request, snapshot)?;
            let mut flavor = (*read.value).clone();
            flavor.name = name.clone().unwrap_or(flavor.name);
            flavor.description = description.clone().unwrap_or(flavor.description);
            flavor.enabled = enabled.unwrap_or(flavor.enabled);
            txn.update(&read, &flavor);
            Ok((read.id, flavor))
        })
        .await?;
    row::one(200, "flavor", flavor_row(&id, &flavor), &request.query)
}

pub(crate) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    app.plan(|snapshot, txn| {
        let read = flavor(&request, snapshot)?;
        txn.delete(&read);
        Ok(())
    })
    .await?;
    Ok(Reply::empty(204))
}

pub(crate) async fn add_profile(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let mut b = body::update(&mut request, "service_profile").await?;
    let profile = b.uuid("id")?;
    let profile = ServiceProfileId::from(b.required("id", profile)?);
    let _ = b.project()?;
    b.finish(&[])?;
    app.plan(|snapshot, txn| {
        let read = flavor(&request, snapshot)?;
        plan_add_profile(snapshot, txn, &read, &profile)
    })
    .await?;
    Reply::json(201, &json!({"service_profile": {"id": profile.as_str()}}))
}

pub(crate) async fn remove_profile(app: Arc<App>, request: Request) -> Result<Reply> {
    let profile = ServiceProfileId::from(request.param("profile"));
    app.plan(|snapshot, txn| {
        let read = flavor(&request, snapshot)?;
        plan_remove_profile(txn, &read, &profile)
    })
    .await?;
    Ok(Reply::empty(204))
}

/// No driver is installed that a profile could name, so that one says what to tell the service's own.
fn check_profile(p: &ServiceProfile) -> Result<()> {
    if !p.driver.is_empty() {
        return Err(errors::not_found(
            "ServiceProfileDriverNotFound",
            "Service Profile driver",
            &p.driver,
        ));
    }
    if p.metainfo.is_empty() {
        return Err(errors::refuse(
            maru_base::ErrorKind::BadRequest,
            "ServiceProfileEmpty",
            "Service Profile needs either a driver or metainfo.",
        ));
    }
    Ok(())
}

pub(crate) async fn list_profiles(app: Arc<App>, request: Request) -> Result<Reply> {
    request.authorize(&Target::none())?;
    let snapshot = app.store.snapshot();
    let rows = snapshot
        .list::<ServiceProfile>()
        .map(|o| profile_row(&o.id, &o.value))
        .collect();
    PROFILES.answer(&request, rows, |_, _, _| None)
}

pub(crate) async fn show_profile(app: Arc<App>, request: Request) -> Result<Reply> {
    let o = profile(&request, &app.store.snapshot())?;
    row::one(200, "service_profile", profile_row(&o.id, &o.value), &request.query)
}

pub(crate) async fn create_profile(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let (bulk, bodies) = body::create(&mut request, "service_profile", PROFILES.plural).await?;
    request.authorize(&Target::none())?;
    let of = |mut b: Body| {
        let profile = ServiceProfile {
            description: b.text("description", 1024)?.unwrap_or_default(),
            driver: b.text("driver", 1024)?.unwrap_or_default(),
            metainfo: b.text("metainfo", 4096)?.unwrap_or_default(),
            enabled: b.boolean("enabled")?.unwrap_or(true),
        };
        let _ = b.project()?;
        b.finish(&[])?;
        check_profile(&profile)?;
        Ok(profile)
    };
    let profiles: Result<Vec<_>> = bodies.into_iter().map(of).collect();
    let profiles = profiles?;
    let made = app
        .plan(|_, txn| {
            let put = |p: &ServiceProfile| {
                let id = ServiceProfileId::new_uuid();
                txn.create(&id, p);
                (id, p.clone())
            };
            Ok(profiles.iter().map(put).collect::<Vec<_>>())
        })
        .await?;
    row::created(
        bulk,
        "service_profile",
        PROFILES.plural,
        made.iter().map(|(id, p)| profile_row(id, p)).collect(),
    )
}

pub(crate) async fn update_profile(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let mut b = body::update(&mut request, "service_profile").await?;
    let (description, driver) = (b.text("description", 1024)?, b.text("driver", 1024)?);
    let (metainfo, enabled) = (b.text("metainfo", 4096)?, b.boolean("enabled")?);
    b.finish(&[])?;
    let (id, profile) = app
        .plan(|snapshot, txn| {
            let read = profile(&request, snapshot)?;
            let mut profile = (*read.value).clone();
            profile.description = description.clone().unwrap_or(profile.description);
            profile.driver = driver.clone().unwrap_or(profile.driver);
            profile.metainfo = metainfo.clone().unwrap_or(profile.metainfo);
            profile.enabled = enabled.unwrap_or(profile.enabled);
            check_profile(&profile)?;
            txn.update(&read, &profile);
            Ok((read.id, profile))
        })
        .await?;
    row::one(200, "service_profile", profile_row(&id, &profile), &request.query)
}

pub(crate) async fn delete_profile(app: Arc<App>, request: Request) -> Result<Reply> {
    app.plan(|snapshot, txn| {
        let read = profile(&request, snapshot)?;
        plan_delete_profile(snapshot, txn, &read)
    })
    .await?;
    Ok(Reply::empty(204))
}
