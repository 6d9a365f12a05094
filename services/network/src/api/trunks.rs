//! `/trunks` and their subports.

use super::{
    body::{self, Body, invalid},
    candidates,
    row::{self, List, Row},
};
use crate::{App, app::access};
use maru_auth::Target;
use maru_base::Result;
use maru_http::{Reply, Request};
use maru_network_model::{
    Meta, Port, PortId, SubPort, Trunk, errors,
    trunk::{
        MOST_SUBPORTS, of_parent, plan_add, plan_create_trunk, plan_delete_trunk, plan_remove, status, trunk_not_found,
    },
};
use maru_store::{Object, Snapshot, Txn};
use serde_json::{Value, json};
use std::sync::Arc;

const LIST: List = List {
    plural: "trunks",
    filters: &[],
    attributes: &[
        "id",
        "name",
        "tenant_id",
        "project_id",
        "description",
        "port_id",
        "status",
        "admin_state_up",
        "sub_ports",
        "created_at",
        "updated_at",
        "revision_number",
    ],
    missing: |id| trunk_not_found(id),
};

/// The one way to tell the frames of subports apart.
const VLAN: &str = "vlan";

fn sub_port(s: &SubPort) -> Value {
    json!({"port_id": s.port_id.as_str(), "segmentation_id": s.segmentation_id, "segmentation_type": VLAN})
}

fn sub_ports(t: &Trunk) -> Vec<Value> {
    t.sub_ports.iter().map(sub_port).collect()
}

fn row_of(snapshot: &Snapshot, id: &str, t: &Trunk) -> Row {
    Row::new(id)
        .with("name", t.name.as_str())
        .project(&t.project_id)
        .with("port_id", t.port_id.as_str())
        .with("status", status(snapshot, t))
        .with("admin_state_up", t.admin_state_up)
        .with("sub_ports", sub_ports(t))
        .meta(&t.meta)
}

/// What a parent port shows of its trunk (`trunk_details`).
pub(super) fn details(snapshot: &Snapshot, port: &PortId) -> Option<Value> {
    let trunk = of_parent(snapshot, port)?;
    let subs: Vec<Value> = trunk
        .sub_ports
        .iter()
        .map(|s| {
            let mut view = sub_port(s);
            if let Some(port) = snapshot.get::<Port>(&s.port_id) {
                view["mac_address"] = port.mac_address.as_str().into();
            }
            view
        })
        .collect();
    Some(json!({"trunk_id": trunk.id.as_str(), "sub_ports": subs}))
}

/// The subports that a body names.
fn subs_of(b: &mut Body) -> Result<Option<Vec<SubPort>>> {
    let name = "sub_ports";
    let Some(items) = b.list(name, MOST_SUBPORTS)? else {
        return Ok(None);
    };
    let one = |item: Value| {
        let mut s = b.child(name, item)?;
        let port = s.uuid("port_id")?;
        let port_id = PortId::from(port.ok_or_else(|| invalid(name, "a subport needs its port_id"))?);
        let (kind, id) = (s.text("segmentation_type", 32)?, s.integer("segmentation_id")?);
        s.finish(&[])?;
        let (Some(kind), Some(id)) = (kind, id) else {
            return Err(invalid(
                name,
                format!(
                    "subport {port_id} is missing segmentation information: both segmentation_id and segmentation_type"
                ),
            ));
        };
        if kind != VLAN {
            return Err(invalid(
                name,
                format!("unknown segmentation_type '{kind}'; '{VLAN}' is known"),
            ));
        }
        let valid = u16::try_from(id).ok().filter(|id| (1..=4094).contains(id));
        let segmentation_id =
            valid.ok_or_else(|| invalid(name, format!("segmentation_id '{id}' is not in [1, 4094]")))?;
        Ok(SubPort {
            port_id,
            segmentation_id,
        })
    };
    items.into_iter().map(one).collect::<Result<_>>().map(Some)
}

/// Refuses ports that the caller does not see, and those of another project than the trunk's: who owns a network sees the ports
/// of others on it, and must not plug them in.
fn own_port(request: &Request, snapshot: &Snapshot, trunk: &Trunk, id: &PortId) -> Result<()> {
    let port = access::port(request, snapshot, id)?;
    if port.project_id == trunk.project_id || request.caller()?.is_admin() {
        return Ok(());
    }
    Err(errors::port_not_found(id))
}

pub(crate) async fn list(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.snapshot();
    let found = candidates(
        &request,
        &snapshot,
        "get_trunk",
        &[("port_id", "port")],
        |_, t: &Trunk| Target::project(&t.project_id),
        |_, _| Vec::new(),
    );
    let rows = found.iter().map(|o| row_of(&snapshot, &o.id, &o.value)).collect();
    LIST.answer(&request, rows, |_, _, _| None)
}

pub(crate) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.snapshot();
    let o = access::trunk(&request, &snapshot, request.param("id"))?;
    row::one(200, "trunk", row_of(&snapshot, &o.id, &o.value), &request.query)
}

pub(crate) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let (bulk, bodies) = body::create(&mut request, "trunk", LIST.plural).await?;
    let of = |mut b: Body| {
        let port = b.uuid("port_id")?;
        let trunk = Trunk {
            project_id: access::project_for(&request, b.project()?)?,
            name: b.text("name", 255)?.unwrap_or_default(),
            port_id: PortId::from(b.required("port_id", port)?),
            sub_ports: subs_of(&mut b)?.unwrap_or_default(),
            admin_state_up: b.boolean("admin_state_up")?.unwrap_or(true),
            meta: Meta::new(b.text("description", 255)?.unwrap_or_default()),
        };
        b.finish(&[])?;
        Ok(trunk)
    };
    let trunks: Result<Vec<_>> = bodies.into_iter().map(of).collect();
    let trunks = trunks?;
    let made = app
        .plan(|snapshot, txn| {
            let mut made = Vec::with_capacity(trunks.len());
            for t in &trunks {
                request.authorize(&Target::project(&t.project_id))?;
                own_port(&request, snapshot, t, &t.port_id)?;
                t.sub_ports
                    .iter()
                    .try_for_each(|s| own_port(&request, snapshot, t, &s.port_id))?;
                made.push((plan_create_trunk(snapshot, txn, t)?, t.clone()));
            }
            Ok(made)
        })
        .await?;
    let snapshot = app.store.snapshot();
    let rows = made.iter().map(|(id, t)| row_of(&snapshot, id, t)).collect();
    row::created(bulk, "trunk", LIST.plural, rows)
}

pub(crate) async fn update(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let mut b = body::update(&mut request, "trunk").await?;
    let (name, description) = (b.text("name", 255)?, b.text("description", 255)?);
    let up = b.boolean("admin_state_up")?;
    b.finish(&["port_id", "sub_ports"])?;
    let (id, trunk) = changed(&app, &request, |_, txn, read| {
        let mut trunk = (*read.value).clone();
        trunk.name = name.clone().unwrap_or(trunk.name);
        trunk.admin_state_up = up.unwrap_or(trunk.admin_state_up);
        if let Some(text) = &description {
            trunk.meta.description.clone_from(text);
        }
        trunk.meta.touch();
        txn.update(read, &trunk);
        Ok(trunk)
    })
    .await?;
    let snapshot = app.store.snapshot();
    row::one(200, "trunk", row_of(&snapshot, &id, &trunk), &request.query)
}

pub(crate) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    app.plan(|snapshot, txn| plan_delete_trunk(snapshot, txn, &writable(&request, snapshot)?))
        .await?;
    Ok(Reply::empty(204))
}

pub(crate) async fn get_subports(app: Arc<App>, request: Request) -> Result<Reply> {
    let o = access::trunk(&request, &app.store.snapshot(), request.param("id"))?;
    request.authorize(&Target::project(&o.project_id))?;
    Reply::json(200, &json!({"sub_ports": sub_ports(&o.value)}))
}

pub(crate) async fn add_subports(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let mut b = body::bare(&mut request).await?;
    let subs = subs_of(&mut b)?;
    let subs = b.required("sub_ports", subs)?;
    b.finish(&[])?;
    let (id, trunk) = changed(&app, &request, |snapshot, txn, read| {
        subs.iter()
            .try_for_each(|s| own_port(&request, snapshot, &read.value, &s.port_id))?;
        plan_add(snapshot, txn, read, &subs)
    })
    .await?;
    Reply::json(200, &row_of(&app.store.snapshot(), &id, &trunk))
}

pub(crate) async fn remove_subports(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let mut b = body::bare(&mut request).await?;
    let items = b.list("sub_ports", MOST_SUBPORTS)?;
    let items = b.required("sub_ports", items)?;
    let one = |item: Value| {
        let mut s = b.child("sub_ports", item)?;
        let port = s.uuid("port_id")?;
        // They may be named whole, as they are shown.
        let _ = (s.raw("segmentation_type"), s.raw("segmentation_id"));
        s.finish(&[])?;
        Ok(PortId::from(
            port.ok_or_else(|| invalid("sub_ports", "a subport needs its port_id"))?,
        ))
    };
    let gone: Vec<PortId> = items.into_iter().map(one).collect::<Result<_>>()?;
    b.finish(&[])?;
    let (id, trunk) = changed(&app, &request, |snapshot, txn, read| {
        plan_remove(snapshot, txn, read, &gone)
    })
    .await?;
    Reply::json(200, &row_of(&app.store.snapshot(), &id, &trunk))
}

/// Changes the trunk of the address.
async fn changed(
    app: &App,
    request: &Request,
    change: impl Fn(&Snapshot, &mut Txn, &Object<Trunk>) -> Result<Trunk>,
) -> Result<(String, Trunk)> {
    app.plan(|snapshot, txn| {
        let read = writable(request, snapshot)?;
        access::check_revision(request, &read.meta)?;
        let trunk = change(snapshot, txn, &read)?;
        Ok((read.id.to_string(), trunk))
    })
    .await
}

/// The trunk of the address, which the caller may change.
fn writable(request: &Request, snapshot: &Snapshot) -> Result<Object<Trunk>> {
    let read = access::trunk(request, snapshot, request.param("id"))?;
    request.authorize(&Target::project(&read.project_id))?;
    Ok(read)
}
