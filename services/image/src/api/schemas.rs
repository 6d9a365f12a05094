//! `/v2/schemas/{name}`: the JSON schemas that clients build their models from.

use crate::{App, app::CONTAINER_FORMATS};
use maru_base::{Error, Result};
use maru_http::{Reply, Request};
use maru_image_model::DISK_FORMATS;
use serde_json::{Map, Value, json};
use std::sync::Arc;

pub(super) async fn show(_app: Arc<App>, request: Request) -> Result<Reply> {
    let name = request.param("name");
    let document = match name {
        "image" => image(),
        "images" => collection("images", image()),
        "member" => member(),
        "members" => collection("members", member()),
        "task" => task(),
        "tasks" => collection("tasks", task()),
        _ => {
            return Err(Error::not_found(format!(
                "There is no schema '{name}'; there are image, images, member, members, task, tasks."
            )));
        }
    };
    Reply::json(200, &document)
}

fn collection(name: &str, schema: Value) -> Value {
    let mut properties = Map::new();
    properties.insert(name.to_owned(), json!({"type": "array", "items": schema}));
    properties.insert("schema".into(), json!({"type": "string"}));
    if name != "members" {
        properties.insert("first".into(), json!({"type": "string"}));
        properties.insert("next".into(), json!({"type": "string"}));
    }
    let links = if name != "members" {
        json!([{"rel": "first", "href": "{first}"}, {"rel": "next", "href": "{next}"}, {"rel": "describedby", "href": "{schema}"}])
    } else {
        json!([{"rel": "describedby", "href": "{schema}"}])
    };
    json!({"name": name, "properties": properties, "links": links})
}

/// `/v2/schemas/metadefs/{name}`.
pub(super) async fn metadef(_app: Arc<App>, request: Request) -> Result<Reply> {
    let name = request.param("name");
    let document = match name {
        "namespace" => namespace(),
        "namespaces" => collection("namespaces", namespace()),
        "resource_type" => association(),
        "resource_types" => collection("resource_type_associations", association()),
        "object" => object(),
        "objects" => collection("objects", object()),
        "property" => {
            let mut schema = property();
            schema["name"] = "property".into();
            schema["properties"]["name"] = json!({"type": "string", "maxLength": 80});
            schema["required"] = json!(["name", "type", "title"]);
            schema
        }
        "properties" => json!({
            "name": "properties",
            "properties": {"properties": {"type": "object", "additionalProperties": property()}},
            "links": [{"rel": "describedby", "href": "{schema}"}],
        }),
        "tag" => tag(),
        "tags" => collection("tags", tag()),
        _ => {
            return Err(Error::not_found(format!(
                "There is no schema 'metadefs/{name}'; there are namespace, resource_type, object, property, tag and their plurals."
            )));
        }
    };
    Reply::json(200, &document)
}

/// Attributes that everything of a namespace has.
fn standing(properties: &mut Value) {
    for (name, what) in [
        ("created_at", "When it was made, ISO 8601"),
        ("updated_at", "When it last changed, ISO 8601"),
    ] {
        properties[name] = json!({"type": "string", "format": "date-time", "readOnly": true, "description": what});
    }
}

fn property() -> Value {
    let flag = json!({"type": "boolean"});
    let count = json!({"type": "integer", "minimum": 0});
    let texts = json!({"type": "array", "items": {"type": "string"}, "uniqueItems": true});
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["title", "type"],
        "properties": {
            "title": {"type": "string", "maxLength": 80}, "description": {"type": "string"},
            "type": {"type": "string", "enum": ["array", "boolean", "integer", "number", "object", "string"]},
            "operators": {"type": "array", "items": {"type": "string"}}, "required": texts, "enum": texts,
            "minimum": {"type": "number"}, "maximum": {"type": "number"}, "minLength": count, "maxLength": count,
            "pattern": {"type": "string", "format": "regex"}, "readonly": flag, "default": {},
            "items": {"type": "object"}, "uniqueItems": flag, "minItems": count, "maxItems": count, "additionalItems": flag,
        },
    })
}

fn object() -> Value {
    let mut properties = json!({
        "name": {"type": "string", "maxLength": 80}, "description": {"type": "string"},
        "required": {"type": "array", "items": {"type": "string"}},
        "properties": {"type": "object", "additionalProperties": property()},
        "schema": {"type": "string", "readOnly": true}, "self": {"type": "string", "readOnly": true},
    });
    standing(&mut properties);
    json!({"name": "object", "additionalProperties": false, "required": ["name"], "properties": properties})
}

fn tag() -> Value {
    let mut properties = json!({"name": {"type": "string", "maxLength": 80}});
    standing(&mut properties);
    json!({"name": "tag", "additionalProperties": false, "required": ["name"], "properties": properties})
}

fn association() -> Value {
    let mut properties = json!({
        "name": {"type": "string", "maxLength": 80, "description": "The resource type"},
        "prefix": {"type": "string", "maxLength": 80, "description": "What stands before each property's name there"},
        "properties_target": {"type": "string", "maxLength": 80, "description": "Which of the resource's properties are meant"},
    });
    standing(&mut properties);
    json!({"name": "resource_type_association", "additionalProperties": false, "required": ["name"], "properties": properties})
}

fn namespace() -> Value {
    let mut properties = json!({
        "namespace": {"type": "string", "maxLength": 80, "description": "Name of the namespace"},
        "display_name": {"type": "string", "maxLength": 80}, "description": {"type": "string", "maxLength": 500},
        "visibility": {"type": "string", "enum": ["public", "private"]}, "protected": {"type": "boolean"},
        "owner": {"type": "string", "maxLength": 255},
        "schema": {"type": "string", "readOnly": true}, "self": {"type": "string", "readOnly": true},
        "resource_type_associations": {"type": "array", "items": association()},
        "properties": {"type": "object", "additionalProperties": property()},
        "objects": {"type": "array", "items": object()}, "tags": {"type": "array", "items": tag()},
    });
    standing(&mut properties);
    json!({"name": "namespace", "additionalProperties": false, "required": ["namespace"], "properties": properties})
}

fn task() -> Value {
    json!({
        "name": "task",
        "properties": {
            "id": {"type": "string", "pattern": UUID, "description": "The task's id"},
            "type": {"type": "string", "enum": ["import", "api_image_import"]},
            "input": {"type": ["null", "object"], "description": "What was asked for"},
            "result": {"type": ["null", "object"], "description": "What came of it"},
            "status": {"type": "string", "enum": ["pending", "processing", "success", "failure"]},
            "owner": {"type": "string"}, "message": {"type": "string", "description": "Why it failed"},
            "image_id": {"type": "string"}, "request_id": {"type": "string"}, "user_id": {"type": "string"},
            "created_at": {"type": "string"}, "updated_at": {"type": "string"}, "expires_at": {"type": "string"},
            "self": {"type": "string", "readOnly": true}, "schema": {"type": "string", "readOnly": true},
        },
    })
}

fn member() -> Value {
    json!({
        "name": "member",
        "properties": {
            "created_at": {"type": "string", "description": "When the member was added, ISO 8601"},
            "image_id": {"type": "string", "description": "The image", "pattern": UUID},
            "member_id": {"type": "string", "description": "The project the image is offered to"},
            "schema": {"readOnly": true, "type": "string"},
            "status": {"type": "string", "enum": ["pending", "accepted", "rejected"], "description": "The member's answer"},
            "updated_at": {"type": "string", "description": "When the member last changed, ISO 8601"},
        },
    })
}

const UUID: &str = "^([0-9a-fA-F]){8}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){12}$";

fn image() -> Value {
    let text = |what: &str| json!({"type": ["null", "string"], "maxLength": 255, "description": what});
    let number = |what: &str| json!({"type": "integer", "minimum": 0, "maximum": 2_147_483_647, "description": what});
    let fixed = |kind: Value, what: &str| json!({"type": kind, "readOnly": true, "description": what});
    let formats = |all: &[&str]| {
        std::iter::once(Value::Null)
            .chain(all.iter().map(|f| json!(f)))
            .collect::<Value>()
    };
    json!({
        "name": "image",
        "properties": {
            "id": {"type": "string", "pattern": UUID, "description": "The image's id"},
            "name": text("Name"),
            "status": {"type": "string", "readOnly": true, "description": "Where the image stands",
                "enum": ["queued", "saving", "active", "killed", "deleted", "uploading", "importing", "pending_delete", "deactivated"]},
            "visibility": {"type": "string", "enum": ["community", "public", "private", "shared"], "description": "Who sees it"},
            "protected": {"type": "boolean", "description": "Whether it refuses deletion"},
            "os_hidden": {"type": "boolean", "description": "Whether lists leave it out"},
            "checksum": {"type": ["null", "string"], "readOnly": true, "maxLength": 32, "description": "md5 of the data"},
            "os_hash_algo": {"type": ["null", "string"], "readOnly": true, "maxLength": 64, "description": "Algorithm of os_hash_value"},
            "os_hash_value": {"type": ["null", "string"], "readOnly": true, "maxLength": 128, "description": "Digest of the data"},
            "owner": text("Owning project"),
            "size": fixed(json!(["null", "integer"]), "Bytes of data"),
            "virtual_size": fixed(json!(["null", "integer"]), "Bytes that the disk inside shows"),
            "container_format": {"type": ["null", "string"], "description": "Container format",
                "enum": formats(CONTAINER_FORMATS)},
            "disk_format": {"type": ["null", "string"], "description": "Disk format", "enum": formats(DISK_FORMATS)},
            "created_at": fixed(json!("string"), "When it was made, ISO 8601"),
            "updated_at": fixed(json!("string"), "When it last changed, ISO 8601"),
            "tags": {"type": "array", "items": {"type": "string", "maxLength": 255}, "description": "Tags"},
            "min_ram": number("Least memory for a server, MiB"),
            "min_disk": number("Least disk for a server, GiB"),
            "self": fixed(json!("string"), "Path of the image"),
            "file": fixed(json!("string"), "Path of its data"),
            "schema": fixed(json!("string"), "Path of this schema"),
            "direct_url": fixed(json!("string"), "Address of the data in its store, where the cloud shows it"),
            "stores": fixed(json!("string"), "Stores that hold the data, where the cloud has several"),
            "locations": locations(),
        },
        "additionalProperties": {"type": "string"},
        "links": [
            {"rel": "self", "href": "{self}"},
            {"rel": "enclosure", "href": "{file}"},
            {"rel": "describedby", "href": "{schema}"},
        ],
    })
}

fn locations() -> Value {
    json!({
        "type": "array",
        "description": "Addresses of the data, where the cloud shows them",
        "items": {
            "type": "object",
            "properties": {
                "url": {"type": "string", "maxLength": 255},
                "metadata": {"type": "object"},
                "validation_data": {
                    "type": "object",
                    "writeOnly": true,
                    "additionalProperties": false,
                    "description": "Checksums of the data",
                    "properties": {
                        "checksum": {"type": "string", "minLength": 32, "maxLength": 32},
                        "os_hash_algo": {"type": "string", "maxLength": 64},
                        "os_hash_value": {"type": "string", "maxLength": 128},
                    },
                    "required": ["os_hash_algo", "os_hash_value"],
                },
            },
            "required": ["url", "metadata"],
        },
    })
}
