//! `/address-scopes`.

use super::{
    body::{self, Body, invalid},
    candidates,
    row::{self, List, Row},
};
use crate::{App, app::access};
use maru_auth::Target;
use maru_base::Result;
use maru_http::{Reply, Request};
use maru_network_model::{AddressScope, AddressScopeId, address_scope::plan_delete_scope, errors};
use std::sync::Arc;

const LIST: List = List {
    plural: "address_scopes",
    filters: &[],
    attributes: &["id", "name", "tenant_id", "project_id", "ip_version", "shared"],
    missing: |id| errors::not_found("AddressScopeNotFound", "Address scope", id),
};

fn row_of(id: &str, s: &AddressScope) -> Row {
    Row::new(id)
        .with("name", s.name.as_str())
        .project(&s.project_id)
        .with("ip_version", s.ip_version)
        .with("shared", s.shared)
}

fn request_of(request: &Request, mut b: Body) -> Result<AddressScope> {
    let project_id = access::project_for(request, b.project()?)?;
    let name = b.text("name", 255)?.unwrap_or_default();
    let version = b.integer("ip_version")?;
    let ip_version = match b.required("ip_version", version)? {
        4 => 4,
        6 => 6,
        other => return Err(invalid("ip_version", format!("'{other}' is not in [4, 6]"))),
    };
    let shared = b.boolean("shared")?.unwrap_or(false);
    if shared {
        request.authorize_rule("create_address_scope:shared", &Target::project(&project_id))?;
    }
    b.finish(&[])?;
    Ok(AddressScope {
        project_id,
        name,
        ip_version,
        shared,
    })
}

pub(crate) async fn list(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.snapshot();
    let found = candidates(
        &request,
        &snapshot,
        "get_address_scope",
        &[("name", "name")],
        |_, s| access::of_scope(s),
        |s, _| s.find::<AddressScope>("visible", "shared").collect(),
    );
    let rows = found.iter().map(|o| row_of(&o.id, &o.value)).collect();
    LIST.answer(&request, rows, |_, _, _| None)
}

pub(crate) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    let o = access::address_scope(&request, &app.store.snapshot(), request.param("id"))?;
    row::one(200, "address_scope", row_of(&o.id, &o.value), &request.query)
}

pub(crate) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let (bulk, bodies) = body::create(&mut request, "address_scope", "address_scopes").await?;
    let scopes: Result<Vec<_>> = bodies.into_iter().map(|b| request_of(&request, b)).collect();
    let scopes = scopes?;
    let made = app
        .plan(|_, txn| {
            let mut made = Vec::with_capacity(scopes.len());
            for scope in &scopes {
                request.authorize(&Target::project(&scope.project_id))?;
                let id = AddressScopeId::new_uuid();
                txn.create(&id, scope);
                made.push((id, scope.clone()));
            }
            Ok(made)
        })
        .await?;
    row::created(
        bulk,
        "address_scope",
        "address_scopes",
        made.iter().map(|(id, s)| row_of(id, s)).collect(),
    )
}

pub(crate) async fn update(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let mut b = body::update(&mut request, "address_scope").await?;
    let name = b.text("name", 255)?;
    let shared = b.boolean("shared")?;
    b.finish(&["ip_version"])?;
    let (id, scope) = app
        .plan(|snapshot, txn| {
            let read = access::address_scope(&request, snapshot, request.param("id"))?;
            let target = access::of_scope(&read.value);
            request.authorize(&target)?;
            let mut scope = (*read.value).clone();
            scope.name = name.clone().unwrap_or(scope.name);
            if let Some(on) = shared.filter(|on| *on != scope.shared) {
                request.authorize_rule("update_address_scope:shared", &target)?;
                if !on {
                    return Err(errors::bad_request(
                        "address_scope",
                        "unable to update: a shared address scope can't be made unshared",
                    ));
                }
                scope.shared = on;
            }
            txn.update(&read, &scope);
            Ok((read.id, scope))
        })
        .await?;
    row::one(200, "address_scope", row_of(&id, &scope), &request.query)
}

pub(crate) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    app.plan(|snapshot, txn| {
        let read = access::address_scope(&request, snapshot, request.param("id"))?;
        request.authorize(&access::of_scope(&read.value))?;
        plan_delete_scope(snapshot, txn, &read)
    })
    .await?;
    Ok(Reply::empty(204))
}
