//! The attributes of an image: what a request may set, and the limits of each.

use super::Settings;
use maru_auth::Caller;
use maru_base::{Error, ProjectId, Result};
use maru_image_model::{DISK_FORMATS, Image, ImageId, ImageStatus, Visibility};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Container formats that the API takes.
pub(crate) const CONTAINER_FORMATS: &[&str] = &["ami", "ari", "aki", "bare", "ovf", "ova", "docker", "compressed"];
/// Attributes that only the service writes.
const READ_ONLY: &[&str] = &[
    "status",
    "checksum",
    "size",
    "virtual_size",
    "created_at",
    "updated_at",
    "self",
    "file",
    "schema",
    "direct_url",
    "os_hash_algo",
    "os_hash_value",
    "stores",
];
/// Names that a property may not have.
const RESERVED: &[&str] = &["location", "deleted", "deleted_at"];
/// Attributes that every image has.
const BASE: &[&str] = &[
    "name",
    "visibility",
    "os_hidden",
    "protected",
    "min_disk",
    "min_ram",
    "disk_format",
    "container_format",
    "tags",
    "owner",
    "id",
];
/// Prefix of properties that the service keeps for itself.
const RESERVED_PREFIX: &str = "os_glance_";
/// Bytes of one property's value at most, as upstream's column holds.
const VALUE_MAX: usize = 65_535;

/// A new image as asked for.
pub(crate) struct Draft {
    pub id: Option<ImageId>,
    pub image: Image,
}

/// Whether every image has an attribute of this name.
pub(crate) fn is_base(name: &str) -> bool {
    BASE.contains(&name)
}

/// Refuses the names that no request may write.
pub(crate) fn check_writable(name: &str) -> Result<()> {
    if READ_ONLY.contains(&name) {
        return Err(Error::forbidden(format!("Attribute '{name}' is read-only.")).with_field(name));
    }
    if RESERVED.contains(&name) || name.starts_with(RESERVED_PREFIX) {
        return Err(Error::forbidden(format!("Attribute '{name}' is reserved.")).with_field(name));
    }
    Ok(())
}

/// An image without anything.
pub(crate) fn blank(owner: ProjectId) -> Image {
    let now = maru_base::time::now();
    Image {
        name: None,
        owner,
        status: ImageStatus::Queued,
        visibility: Visibility::Shared,
        hidden: false,
        protected: false,
        disk_format: None,
        container_format: None,
        proven_format: None,
        min_disk: 0,
        min_ram: 0,
        size: None,
        virtual_size: None,
        checksum: None,
        digest: None,
        tags: Vec::new(),
        properties: BTreeMap::new(),
        created_at: now,
        updated_at: now,
        upload: None,
        staged: None,
    }
}

impl Draft {
    /// Checks the body of a create request.
    pub(crate) fn parse(body: &Value, caller: &Caller, settings: &Settings) -> Result<Self> {
        let Value::Object(map) = body else {
            return Err(Error::bad_request(
                "The request body must be a JSON object with the image's attributes.",
            ));
        };
        let mut id = None;
        let mut owner = caller.project_id().cloned();
        let mut image = blank(ProjectId::from(""));
        for (name, value) in map {
            match name.as_str() {
                "id" => id = Some(image_id(value)?),
                "owner" => owner = Some(owner_of(value)?),
                "locations" => {
                    return Err(
                        Error::forbidden("Attribute 'locations' is reserved: upload the data instead.")
                            .with_field("locations"),
                    );
                }
                _ => {
                    check_writable(name)?;
                    set(&mut image, name, value)?;
                }
            }
        }
        image.owner = owner.ok_or_else(|| {
            Error::forbidden("Images belong to a project: authenticate with a project scope (OS_PROJECT_NAME).")
        })?;
        check_limits(&image, settings)?;
        Ok(Self { id, image })
    }
}

fn image_id(value: &Value) -> Result<ImageId> {
    let text = value.as_str().unwrap_or("");
    let uuid = text.len() == 36
        && text.char_indices().all(|(i, c)| {
            if matches!(i, 8 | 13 | 18 | 23) {
                c == '-'
            } else {
                c.is_ascii_hexdigit()
            }
        });
    if uuid {
        Ok(ImageId::from(text.to_ascii_lowercase()))
    } else {
        Err(Error::invalid(
            "id",
            "Invalid value for id: it must be a UUID with dashes.",
        ))
    }
}

/// A project id as the value of `owner`.
pub(crate) fn owner_of(value: &Value) -> Result<ProjectId> {
    match value.as_str() {
        Some(text) if !text.is_empty() => Ok(ProjectId::from(bounded("owner", text)?)),
        _ => Err(Error::invalid(
            "owner",
            "Invalid value for owner: it must be a project id.",
        )),
    }
}

/// Checks how many properties and tags an image has.
pub(crate) fn check_limits(image: &Image, settings: &Settings) -> Result<()> {
    let over = |what: &str, field: &str, have: usize, limit: usize| {
        Error::too_large(format!(
            "An image may have at most {limit} {what}; this one would have {have}. Remove some first."
        ))
        .with_field(field)
    };
    if image.tags.len() > settings.tags {
        return Err(over("tags", "tags", image.tags.len(), settings.tags));
    }
    // What the service notes is not the user's.
    let own = image
        .properties
        .keys()
        .filter(|name| !name.starts_with(RESERVED_PREFIX))
        .count();
    if own > settings.properties {
        return Err(over("properties", "properties", own, settings.properties));
    }
    Ok(())
}

/// Sets one attribute or property, checked. `id` and `owner` have rules of their own and are not set here.
pub(crate) fn set(image: &mut Image, name: &str, value: &Value) -> Result<()> {
    let text = || {
        value
            .as_str()
            .ok_or_else(|| Error::invalid(name, format!("Invalid value for {name}: it must be a string.")))
    };
    let number = || {
        value.as_u64().filter(|n| *n <= i32::MAX as u64).ok_or_else(|| {
            Error::invalid(
                name,
                format!("Invalid value for {name}: it must be an integer from 0 to 2147483647."),
            )
        })
    };
    let flag = || {
        value
            .as_bool()
            .ok_or_else(|| Error::invalid(name, format!("Invalid value for {name}: it must be true or false.")))
    };
    let format = |all: &[&str]| -> Result<Option<String>> {
        if value.is_null() {
            return Ok(None);
        }
        let t = text()?;
        if all.contains(&t) {
            Ok(Some(t.to_owned()))
        } else {
            Err(Error::invalid(
                name,
                format!("Invalid value for {name}: '{t}' is not one of {}.", all.join(", ")),
            ))
        }
    };
    match name {
        "name" => {
            image.name = match value {
                Value::Null => None,
                _ => Some(bounded(name, text()?)?),
            }
        }
        "visibility" => {
            image.visibility = match text()? {
                "public" => Visibility::Public,
                "private" => Visibility::Private,
                "shared" => Visibility::Shared,
                "community" => Visibility::Community,
                other => {
                    return Err(Error::invalid(
                        name,
                        format!(
                            "Invalid value for visibility: '{other}' is not one of community, public, private, shared."
                        ),
                    ));
                }
            }
        }
        "os_hidden" => image.hidden = flag()?,
        "protected" => image.protected = flag()?,
        "min_disk" => image.min_disk = number()?,
        "min_ram" => image.min_ram = number()?,
        "disk_format" => image.disk_format = format(DISK_FORMATS)?,
        "container_format" => image.container_format = format(CONTAINER_FORMATS)?,
        "tags" => {
            let refuse = || Error::invalid(name, "Invalid value for tags: it must be a list of strings.");
            let mut tags = BTreeSet::new();
            for tag in value.as_array().ok_or_else(refuse)? {
                tags.insert(bounded(name, tag.as_str().ok_or_else(refuse)?)?);
            }
            image.tags = tags.into_iter().collect();
        }
        _ => {
            if name.is_empty() || name.chars().count() > 255 {
                return Err(Error::invalid(
                    name.chars().take(255).collect::<String>(),
                    "Custom property should not be greater than 255 characters, nor empty.",
                ));
            }
            let t = text()?;
            if t.len() > VALUE_MAX {
                return Err(Error::invalid(
                    name,
                    format!("Invalid value for {name}: it is longer than {VALUE_MAX} bytes."),
                ));
            }
            image.properties.insert(name.to_owned(), t.to_owned());
        }
    }
    Ok(())
}

/// A text of at most 255 characters.
pub(crate) fn bounded(name: &str, text: &str) -> Result<String> {
    if text.chars().count() > 255 {
        return Err(Error::invalid(
            name,
            format!("Invalid value for {name}: it is longer than 255 characters."),
        ));
    }
    Ok(text.to_owned())
}
