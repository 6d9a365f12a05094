//! `/v2/images`.

use crate::{
    App,
    app::{Draft, Filter, PatchOp},
};
use maru_base::{Error, Result, time::seconds_z};
use maru_http::{
    Reply, Request,
    paging::{Direction, Page, sort_keys},
};
use maru_image_model::Image;
use maru_store::Object;
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::Value;
use std::{cmp::Ordering, sync::Arc};

/// Images on one page unless asked otherwise, and at most.
const PAGE: usize = 25;
const PAGE_MAX: usize = 1_000;
const SORT_KEYS: &[&str] = &[
    "name",
    "status",
    "container_format",
    "disk_format",
    "size",
    "id",
    "created_at",
    "updated_at",
    "min_ram",
    "min_disk",
    "owner",
    "visibility",
    "protected",
];

/// An image as the API shows it; properties stand beside the attributes.
struct View<'a>(&'a Object<Image>);

impl Serialize for View<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let image = self.0;
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in &image.properties {
            map.serialize_entry(name, value)?;
        }
        map.serialize_entry("name", &image.name)?;
        map.serialize_entry("disk_format", &image.disk_format)?;
        map.serialize_entry("container_format", &image.container_format)?;
        map.serialize_entry("visibility", image.visibility.as_str())?;
        map.serialize_entry("size", &image.size)?;
        map.serialize_entry("virtual_size", &image.virtual_size)?;
        map.serialize_entry("status", image.status.as_str())?;
        map.serialize_entry("checksum", &image.checksum)?;
        map.serialize_entry("protected", &image.protected)?;
        map.serialize_entry("min_ram", &image.min_ram)?;
        map.serialize_entry("min_disk", &image.min_disk)?;
        map.serialize_entry("owner", &image.owner)?;
        map.serialize_entry("os_hidden", &image.hidden)?;
        map.serialize_entry("os_hash_algo", &image.digest.as_ref().map(|_| "sha512"))?;
        map.serialize_entry("os_hash_value", &image.digest)?;
        map.serialize_entry("id", &image.id)?;
        map.serialize_entry("created_at", &seconds_z(image.created_at))?;
        map.serialize_entry("updated_at", &seconds_z(image.updated_at))?;
        map.serialize_entry("tags", &image.tags)?;
        map.serialize_entry("self", &format_args!("/v2/images/{}", image.id))?;
        map.serialize_entry("file", &format_args!("/v2/images/{}/file", image.id))?;
        map.serialize_entry("schema", "/v2/schemas/image")?;
        map.end()
    }
}

#[derive(Serialize)]
struct List<'a> {
    images: Vec<View<'a>>,
    first: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    schema: &'static str,
}

pub(super) async fn create(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let body = request.json_value().await?;
    let draft = Draft::parse(&body, request.caller()?)?;
    let image = app.create(&request, draft).await?;
    let location = format!("{}/v2/images/{}", request.base, image.id);
    Ok(Reply::json(201, &View(&image))?.header("location", &location))
}

pub(super) async fn show(app: Arc<App>, request: Request) -> Result<Reply> {
    let image = app.find(&app.store.snapshot(), &request, request.param("id"))?;
    Reply::json(200, &View(&image))
}

pub(super) async fn delete(app: Arc<App>, request: Request) -> Result<Reply> {
    app.delete(&request, request.param("id")).await?;
    Ok(Reply::empty(204))
}

pub(super) async fn list(app: Arc<App>, request: Request) -> Result<Reply> {
    let snapshot = app.store.snapshot();
    let filter = read_filter(&request)?;
    let mut page = Page::from_query(&request.query, PAGE, PAGE_MAX)?;
    let sort = read_sort(&request)?;
    let mut images = app.list(&snapshot, request.caller()?, &filter);
    images.sort_by(|a, b| compare(a, b, &sort));
    if page.limit == 0 {
        images.clear();
        page.marker = None;
    }
    let (images, more) = page.cut(images, |i| i.id.as_str())?;
    // Links are paths below the endpoint, as upstream writes them.
    let rest = request.query.encode_without(&["marker"]);
    let first = if rest.is_empty() {
        "/v2/images".to_owned()
    } else {
        format!("/v2/images?{rest}")
    };
    let next = images.last().filter(|_| more).map(|last| {
        let amp = if rest.is_empty() { "" } else { "&" };
        format!("/v2/images?{rest}{amp}marker={}", last.id)
    });
    Reply::json(
        200,
        &List {
            images: images.iter().map(View).collect(),
            first,
            next,
            schema: "/v2/schemas/images",
        },
    )
}

fn read_sort(request: &Request) -> Result<Vec<(String, Direction)>> {
    let mut sort = Vec::new();
    if let Some(text) = request.query.get("sort") {
        if request.query.has("sort_key") || request.query.has("sort_dir") {
            return Err(Error::invalid(
                "sort",
                "Use either sort or sort_key and sort_dir, not both.",
            ));
        }
        for piece in text.split(',') {
            let (key, dir) = piece.split_once(':').unwrap_or((piece, "desc"));
            let (key, dir) = (key.trim(), dir.trim());
            if !SORT_KEYS.contains(&key) {
                return Err(Error::invalid(
                    "sort",
                    format!("'{key}' cannot be sorted by; choose from {}.", SORT_KEYS.join(", ")),
                ));
            }
            let dir = match dir {
                "asc" => Direction::Ascending,
                "desc" => Direction::Descending,
                other => {
                    return Err(Error::invalid(
                        "sort",
                        format!("'{other}' is not a sort direction; use asc or desc."),
                    ));
                }
            };
            sort.push((key.to_owned(), dir));
        }
    } else {
        let dirs: Vec<&str> = request.query.all("sort_dir").collect();
        sort = sort_keys(&request.query, SORT_KEYS)?;
        // Without a direction Glance sorts the newest first.
        if dirs.is_empty() {
            for (_, d) in &mut sort {
                *d = Direction::Descending;
            }
        }
        if sort.is_empty() {
            let dir = if dirs.first() == Some(&"asc") {
                Direction::Ascending
            } else {
                Direction::Descending
            };
            sort.push(("created_at".to_owned(), dir));
        }
    }
    // Ties are broken so that markers are stable.
    let last = sort.last().map_or(Direction::Descending, |(_, d)| *d);
    for key in ["created_at", "id"] {
        if !sort.iter().any(|(k, _)| k == key) {
            sort.push((key.to_owned(), last));
        }
    }
    Ok(sort)
}

fn compare(a: &Object<Image>, b: &Object<Image>, sort: &[(String, Direction)]) -> Ordering {
    for (key, dir) in sort {
        let order = match key.as_str() {
            "name" => a.name.cmp(&b.name),
            "status" => a.status.as_str().cmp(b.status.as_str()),
            "container_format" => a.container_format.cmp(&b.container_format),
            "disk_format" => a.disk_format.cmp(&b.disk_format),
            "size" => a.size.cmp(&b.size),
            "created_at" => a.created_at.cmp(&b.created_at),
            "updated_at" => a.updated_at.cmp(&b.updated_at),
            "min_ram" => a.min_ram.cmp(&b.min_ram),
            "min_disk" => a.min_disk.cmp(&b.min_disk),
            "owner" => a.owner.cmp(&b.owner),
            "visibility" => a.visibility.as_str().cmp(b.visibility.as_str()),
            "protected" => a.protected.cmp(&b.protected),
            _ => a.id.cmp(&b.id),
        };
        let order = if *dir == Direction::Descending {
            order.reverse()
        } else {
            order
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    Ordering::Equal
}

fn read_filter(request: &Request) -> Result<Filter> {
    let mut filter = Filter::default();
    for (name, value) in request.query.pairs() {
        match name {
            "limit" | "marker" | "sort" | "sort_key" | "sort_dir" => {}
            "visibility" => {
                if !["public", "private", "shared", "community", "all"].contains(&value) {
                    return Err(Error::invalid(
                        "visibility",
                        format!("Invalid visibility value: '{value}'."),
                    ));
                }
                filter.visibility = Some(value.to_owned());
            }
            "member_status" => {
                if !["accepted", "pending", "rejected", "all"].contains(&value) {
                    return Err(Error::invalid("member_status", format!("Invalid status: '{value}'.")));
                }
                filter.member_status = Some(value.to_owned());
            }
            "os_hidden" => filter.hidden = request.query.bool("os_hidden")?.unwrap_or(false),
            "tag" => filter.tags.push(value.to_owned()),
            "size_min" => filter.size_min = request.query.number("size_min")?,
            "size_max" => filter.size_max = request.query.number("size_max")?,
            "created_at" | "updated_at" => {
                let (op, text) = match value.split_once(':') {
                    Some((op, text)) if ["gt", "gte", "lt", "lte", "eq", "neq"].contains(&op) => (op, text),
                    _ => ("eq", value),
                };
                let when: jiff::Timestamp = text
                    .parse()
                    .map_err(|_| Error::invalid(name, format!("'{text}' is not a time of ISO 8601.")))?;
                filter.times.push((name == "created_at", op.to_owned(), when));
            }
            _ => {
                let values = match value.strip_prefix("in:") {
                    Some(list) => quoted_list(name, list)?,
                    None => vec![value.strip_prefix("eq:").unwrap_or(value).to_owned()],
                };
                filter.equal.push((name.to_owned(), values));
            }
        }
    }
    Ok(filter)
}

/// The values of `in:a,"b,c",d`.
fn quoted_list(name: &str, text: &str) -> Result<Vec<String>> {
    let mut out = Vec::new();
    let mut rest = text;
    loop {
        if let Some(tail) = rest.strip_prefix('"') {
            let (value, after) = tail
                .split_once('"')
                .ok_or_else(|| Error::invalid(name, format!("The filter of {name} has a quote that does not end.")))?;
            out.push(value.to_owned());
            rest = after;
            match rest.strip_prefix(',') {
                Some(more) => rest = more,
                None if rest.is_empty() => return Ok(out),
                None => {
                    return Err(Error::invalid(
                        name,
                        format!("The filter of {name} has text after a quoted value."),
                    ));
                }
            }
        } else {
            match rest.split_once(',') {
                Some((value, more)) => {
                    out.push(value.to_owned());
                    rest = more;
                }
                None => {
                    out.push(rest.to_owned());
                    return Ok(out);
                }
            }
        }
    }
}

pub(super) async fn update(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let kind = request.header("content-type").unwrap_or("").to_owned();
    let v20 = match kind.split(';').next().map(str::trim) {
        Some("application/openstack-images-v2.1-json-patch") => false,
        Some("application/openstack-images-v2.0-json-patch") => true,
        _ => {
            return Err(Error::new(
                maru_base::ErrorKind::UnsupportedMedia,
                format!("The body is '{kind}'; a patch is application/openstack-images-v2.1-json-patch."),
            ));
        }
    };
    let bytes = request.bytes().await?;
    let body: Value = serde_json::from_slice(&bytes)
        .map_err(|e| Error::bad_request(format!("The request body is not valid JSON: {e}.")))?;
    let ops = body
        .as_array()
        .ok_or_else(|| Error::bad_request("The request body must be a list of patch operations."))?
        .iter()
        .enumerate()
        .map(|(i, op)| patch_op(i, op, v20))
        .collect::<Result<Vec<_>>>()?;
    let image = app.update(&request, request.param("id"), &ops).await?;
    Reply::json(200, &View(&image))
}

/// Reads one operation; media type v2.0 spells it `{"add": "/name", "value": ...}`.
fn patch_op(i: usize, op: &Value, v20: bool) -> Result<PatchOp> {
    let at = |f: &str| format!("{i}.{f}");
    let map = op
        .as_object()
        .ok_or_else(|| Error::invalid(i.to_string(), "Each operation must be a JSON object."))?;
    let (verb, path) = if v20 {
        ["add", "replace", "remove"]
            .iter()
            .find_map(|v| map.get(*v).map(|p| (*v, p)))
            .ok_or_else(|| Error::invalid(at("op"), "Operations must be add, replace or remove."))?
    } else {
        let verb = map.get("op").and_then(Value::as_str).unwrap_or("");
        let path = map
            .get("path")
            .ok_or_else(|| Error::invalid(at("path"), "The operation has no path."))?;
        (verb, path)
    };
    let path = path.as_str().unwrap_or("");
    let name = path
        .strip_prefix('/')
        .filter(|n| !n.is_empty() && !n.contains('/'))
        .ok_or_else(|| {
            Error::invalid(
                at("path"),
                format!("'{path}' is not a path of one name, such as /name."),
            )
        })?
        .replace("~1", "/")
        .replace("~0", "~");
    let value = || {
        map.get("value")
            .cloned()
            .ok_or_else(|| Error::invalid(at("value"), format!("The operation on {path} has no value.")))
    };
    match verb {
        "add" => Ok(PatchOp::Set {
            value: value()?,
            must_exist: false,
            must_be_new: false,
            name,
        }),
        "replace" => Ok(PatchOp::Set {
            value: value()?,
            must_exist: true,
            must_be_new: false,
            name,
        }),
        "remove" => Ok(PatchOp::Remove { name }),
        other => Err(Error::invalid(
            at("op"),
            format!("'{other}' is not an operation; use add, replace or remove."),
        )),
    }
}

pub(super) async fn upload(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let id = request.param("id").to_owned();
    app.upload(&mut request, &id).await?;
    Ok(Reply::empty(204))
}

pub(super) async fn download(app: Arc<App>, request: Request) -> Result<Reply> {
    let Some(d) = app.download(&request, request.param("id")).await? else {
        return Ok(Reply::empty(204));
    };
    let reply = match d.part {
        None => Reply::stream(200, "application/octet-stream", Some(d.total), d.stream),
        Some((start, length)) => Reply::stream(206, "application/octet-stream", Some(length), d.stream).header(
            "content-range",
            &format!("bytes {start}-{}/{}", start + length - 1, d.total),
        ),
    };
    Ok(match (&d.image.checksum, d.part) {
        (Some(md5), None) => reply.header("content-md5", md5),
        _ => reply,
    })
}

pub(super) async fn add_tag(app: Arc<App>, request: Request) -> Result<Reply> {
    app.tag(&request, request.param("id"), request.param("tag"), true)
        .await?;
    Ok(Reply::empty(204))
}

pub(super) async fn remove_tag(app: Arc<App>, request: Request) -> Result<Reply> {
    app.tag(&request, request.param("id"), request.param("tag"), false)
        .await?;
    Ok(Reply::empty(204))
}

pub(super) async fn deactivate(app: Arc<App>, request: Request) -> Result<Reply> {
    app.set_active(&request, request.param("id"), false).await?;
    Ok(Reply::empty(204))
}

pub(super) async fn reactivate(app: Arc<App>, request: Request) -> Result<Reply> {
    app.set_active(&request, request.param("id"), true).await?;
    Ok(Reply::empty(204))
}
