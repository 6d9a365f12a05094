//! Image records: create, list, update, delete.

use crate::App;
use maru_auth::{Caller, Target};
use maru_base::{Error, ErrorKind, ProjectId, Result};
use maru_http::Request;
use maru_image_model::{DISK_FORMATS, Image, ImageId, ImageStatus, Member, MemberStatus, Visibility, find_visible};
use maru_store::{Object, Snapshot, Txn};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Container formats that the API takes.
const CONTAINER_FORMATS: &[&str] = &["ami", "ari", "aki", "bare", "ovf", "ova", "docker", "compressed"];
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
    "locations",
    "stores",
];
/// Most properties and tags of one image (upstream's quotas).
const PROPERTIES_MAX: usize = 128;
const TAGS_MAX: usize = 128;

/// A new image as asked for.
pub(crate) struct Draft {
    id: Option<ImageId>,
    owner: Option<ProjectId>,
    image: Image,
}

/// One operation of a JSON patch on an image.
pub(crate) enum PatchOp {
    Set {
        name: String,
        value: Value,
        must_exist: bool,
        must_be_new: bool,
    },
    Remove {
        name: String,
    },
}

/// The filters of an image list.
#[derive(Default)]
pub(crate) struct Filter {
    pub visibility: Option<String>,
    pub member_status: Option<String>,
    pub hidden: bool,
    pub equal: Vec<(String, Vec<String>)>,
    pub size_min: Option<u64>,
    pub size_max: Option<u64>,
    pub tags: Vec<String>,
    pub times: Vec<(bool, String, jiff::Timestamp)>,
}

/// The attributes that rules are checked against.
pub(crate) fn target(snapshot: &Snapshot, image: &Object<Image>, caller: &Caller) -> Target {
    let mut t = Target::project(&image.owner).with("owner", &image.owner);
    // A merely shared image is visible to its members alone.
    if image.visibility != Visibility::Shared {
        t = t.with("visibility", image.visibility.as_str());
    }
    if let Some(p) = caller.project_id()
        && image.visibility == Visibility::Shared
        && snapshot
            .get::<Member>(&maru_image_model::member_id(&image.id, p))
            .is_some()
    {
        t = t.with("member_id", p);
    }
    t
}

pub(crate) fn not_found(id: &str) -> Error {
    Error::not_found(format!("No image found with ID {id}"))
}

fn read_only(name: &str) -> Error {
    Error::forbidden(format!("Attribute '{name}' is read-only.")).with_field(name)
}

impl Draft {
    /// Checks the body of a create request.
    pub(crate) fn parse(body: &Value, caller: &Caller) -> Result<Self> {
        let Value::Object(map) = body else {
            return Err(Error::bad_request(
                "The request body must be a JSON object with the image's attributes.",
            ));
        };
        let now = maru_base::time::now();
        let owner = caller.project_id().cloned();
        let mut draft = Self {
            id: None,
            image: Image {
                name: None,
                owner: owner.clone().unwrap_or_else(|| ProjectId::from("")),
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
            },
            owner,
        };
        for (name, value) in map {
            if name == "id" {
                let text = value.as_str().unwrap_or("");
                let uuid = text.len() == 36
                    && text.char_indices().all(|(i, c)| {
                        if matches!(i, 8 | 13 | 18 | 23) {
                            c == '-'
                        } else {
                            c.is_ascii_hexdigit()
                        }
                    });
                if !uuid {
                    return Err(Error::invalid("id", "Invalid image id: it must be a UUID with dashes."));
                }
                draft.id = Some(ImageId::from(text.to_ascii_lowercase()));
            } else if name == "owner" {
                let text = value
                    .as_str()
                    .ok_or_else(|| Error::invalid("owner", "owner must be a project id."))?;
                if !caller.is_admin() && caller.project_id().is_none_or(|p| p.as_str() != text) {
                    return Err(
                        Error::forbidden("You are not permitted to create images owned by another project.")
                            .with_field("owner"),
                    );
                }
                draft.owner = Some(ProjectId::from(text));
            } else {
                set(&mut draft.image, name, value)?;
            }
        }
        match &draft.owner {
            Some(owner) => draft.image.owner = owner.clone(),
            None => {
                return Err(Error::forbidden(
                    "Images belong to a project: authenticate with a project scope (OS_PROJECT_NAME).",
                ));
            }
        }
        Ok(draft)
    }
}

/// Sets one attribute or property, checked.
fn set(image: &mut Image, name: &str, value: &Value) -> Result<()> {
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
        n if READ_ONLY.contains(&n) => return Err(read_only(n)),
        "id" | "owner" => return Err(read_only(name)),
        n if n.starts_with("os_glance_") => {
            return Err(Error::forbidden(format!("Attribute '{n}' is reserved for the service.")).with_field(n));
        }
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
            let list = value
                .as_array()
                .ok_or_else(|| Error::invalid(name, "tags must be a list of strings."))?;
            let mut tags = BTreeSet::new();
            for tag in list {
                let t = tag
                    .as_str()
                    .ok_or_else(|| Error::invalid(name, "tags must be a list of strings."))?;
                tags.insert(bounded(name, t)?);
            }
            image.tags = tags.into_iter().collect();
            if image.tags.len() > TAGS_MAX {
                return Err(Error::too_large(format!("An image may have at most {TAGS_MAX} tags.")).with_field("tags"));
            }
        }
        _ => {
            if name.is_empty() || name.len() > 255 || name.contains('/') {
                return Err(Error::invalid(
                    name,
                    "A property's name has 1 to 255 characters and no '/'.",
                ));
            }
            let t = text()?;
            if t.len() > 65_535 {
                return Err(Error::invalid(
                    name,
                    format!("The value of {name} is longer than 65535 bytes."),
                ));
            }
            image.properties.insert(name.to_owned(), t.to_owned());
            if image.properties.len() > PROPERTIES_MAX {
                return Err(Error::too_large(format!(
                    "An image may have at most {PROPERTIES_MAX} properties."
                )));
            }
        }
    }
    Ok(())
}

fn bounded(name: &str, text: &str) -> Result<String> {
    if text.chars().count() > 255 {
        return Err(Error::invalid(
            name,
            format!("Invalid value for {name}: at most 255 characters."),
        ));
    }
    Ok(text.to_owned())
}

impl App {
    /// An image that the caller may know of, authorised for the request's rule.
    pub(crate) fn find(&self, snapshot: &Snapshot, request: &Request, id: &str) -> Result<Object<Image>> {
        let caller = request.caller()?;
        let image = find_visible(snapshot, caller, &ImageId::from(id)).ok_or_else(|| not_found(id))?;
        request.authorize(&target(snapshot, &image, caller))?;
        Ok(image)
    }

    fn may_be_seen(request: &Request, image: &Image) -> Result<()> {
        let t = Target::project(&image.owner).with("owner", &image.owner);
        match image.visibility {
            Visibility::Public => request.authorize_rule("publicize_image", &t),
            Visibility::Community => request.authorize_rule("communitize_image", &t),
            _ => Ok(()),
        }
    }

    /// Makes a record.
    pub(crate) async fn create(&self, request: &Request, draft: Draft) -> Result<Object<Image>> {
        request.authorize(&Target::project(&draft.image.owner).with("owner", &draft.image.owner))?;
        Self::may_be_seen(request, &draft.image)?;
        let id = draft.id.unwrap_or_else(ImageId::new_uuid);
        let made = id.clone();
        self.store
            .plan(move |snapshot| {
                if snapshot.get::<Image>(&id).is_some() {
                    return Err(Error::conflict(format!("Image ID {id} already exists!")));
                }
                let mut txn = Txn::new();
                txn.create(&id, &draft.image);
                Ok((txn, ()))
            })
            .await?;
        self.store.snapshot().get(&made).ok_or_else(|| not_found(&made))
    }

    /// The images that a caller sees in a list, filtered, in no order yet.
    pub(crate) fn list(&self, snapshot: &Snapshot, caller: &Caller, filter: &Filter) -> Vec<Object<Image>> {
        let mut found: Vec<Object<Image>> = Vec::new();
        if caller.is_admin() && filter.visibility.is_none() {
            found.extend(snapshot.list::<Image>());
        } else {
            let mut ids = BTreeSet::new();
            let mut add = |image: Object<Image>| {
                if ids.insert(image.id.to_string()) {
                    found.push(image);
                }
            };
            let wanted = filter.visibility.as_deref();
            let everything = wanted == Some("all");
            match wanted {
                Some("community") => snapshot.find::<Image>("visibility", "community").for_each(&mut add),
                Some("public") => snapshot.find::<Image>("visibility", "public").for_each(&mut add),
                _ => {
                    snapshot.find::<Image>("visibility", "public").for_each(&mut add);
                    if everything {
                        snapshot.find::<Image>("visibility", "community").for_each(&mut add);
                    }
                    if caller.is_admin() {
                        snapshot.list::<Image>().for_each(&mut add);
                    }
                    if let Some(project) = caller.project_id() {
                        snapshot.find::<Image>("owner", project).for_each(&mut add);
                        let status = filter.member_status.as_deref().unwrap_or("accepted");
                        for m in snapshot.find::<Member>("project", project) {
                            let fits = match m.status {
                                MemberStatus::Accepted => matches!(status, "accepted" | "all"),
                                MemberStatus::Pending => matches!(status, "pending" | "all"),
                                MemberStatus::Rejected => matches!(status, "rejected" | "all"),
                            };
                            if fits
                                && let Some(image) = snapshot.get::<Image>(&m.image_id)
                                && image.visibility == Visibility::Shared
                            {
                                add(image);
                            }
                        }
                    }
                }
            }
        }
        found.retain(|image| filter.fits(image));
        found
    }

    /// Applies a patch in one transaction.
    pub(crate) async fn update(&self, request: &Request, id: &str, ops: &[PatchOp]) -> Result<Object<Image>> {
        let caller = request.caller()?.clone();
        let key = ImageId::from(id);
        self.store
            .plan(|snapshot| {
                let old = self.find(snapshot, request, id)?;
                let mut image = (*old.value).clone();
                for op in ops {
                    apply(&mut image, &caller, op)?;
                }
                if image.visibility != old.visibility {
                    Self::may_be_seen(request, &image)?;
                }
                if image.owner != old.owner && !caller.is_admin() {
                    return Err(Error::forbidden("Owner can't be updated by a non admin.").with_field("owner"));
                }
                if old.status != ImageStatus::Queued
                    && (image.disk_format != old.disk_format || image.container_format != old.container_format)
                {
                    return Err(Error::forbidden(
                        "Attribute disk_format and container_format can be replaced only for a queued image.",
                    ));
                }
                image.updated_at = maru_base::time::now();
                let mut txn = Txn::new();
                txn.update(&old, &image);
                Ok((txn, ()))
            })
            .await?;
        self.store.snapshot().get(&key).ok_or_else(|| not_found(id))
    }

    /// Removes a record and its members; the blob goes when no image names it.
    pub(crate) async fn delete(&self, request: &Request, id: &str) -> Result<()> {
        let digest = self
            .store
            .plan(|snapshot| {
                let image = self.find(snapshot, request, id)?;
                if image.protected {
                    return Err(Error::forbidden(format!(
                        "Image {id} is protected and cannot be deleted; set protected to false first."
                    )));
                }
                let mut txn = Txn::new();
                txn.delete(&image);
                for member in snapshot.find::<Member>("image", id) {
                    txn.delete(&member);
                }
                Ok((txn, image.digest.clone()))
            })
            .await?;
        if let Some(digest) = digest {
            self.collect(&digest).await?;
        }
        Ok(())
    }

    /// Sets or clears a tag.
    pub(crate) async fn tag(&self, request: &Request, id: &str, tag: &str, add: bool) -> Result<()> {
        let tag = bounded("tag", tag)?;
        self.store
            .plan(|snapshot| {
                let old = self.find(snapshot, request, id)?;
                let mut image = (*old.value).clone();
                let at = image.tags.iter().position(|t| *t == tag);
                match (add, at) {
                    (true, None) => image.tags.push(tag.clone()),
                    (false, Some(at)) => {
                        image.tags.remove(at);
                    }
                    (false, None) => return Err(Error::not_found(format!("The tag '{tag}' is not on image {id}."))),
                    (true, Some(_)) => return Ok((Txn::new(), ())),
                }
                if image.tags.len() > TAGS_MAX {
                    return Err(Error::too_large(format!("An image may have at most {TAGS_MAX} tags.")));
                }
                image.tags.sort_unstable();
                image.updated_at = maru_base::time::now();
                let mut txn = Txn::new();
                txn.update(&old, &image);
                Ok((txn, ()))
            })
            .await
    }

    /// Deactivates or reactivates.
    pub(crate) async fn set_active(&self, request: &Request, id: &str, active: bool) -> Result<()> {
        self.store
            .plan(|snapshot| {
                let old = self.find(snapshot, request, id)?;
                let to = if active {
                    ImageStatus::Active
                } else {
                    ImageStatus::Deactivated
                };
                if old.status == to {
                    return Ok((Txn::new(), ()));
                }
                if !matches!(old.status, ImageStatus::Active | ImageStatus::Deactivated) {
                    return Err(Error::forbidden(format!(
                        "An image in status {} cannot be {}; it must be active or deactivated.",
                        old.status.as_str(),
                        if active { "reactivated" } else { "deactivated" }
                    )));
                }
                let mut image = (*old.value).clone();
                image.status = to;
                image.updated_at = maru_base::time::now();
                let mut txn = Txn::new();
                txn.update(&old, &image);
                Ok((txn, ()))
            })
            .await
    }
}

fn apply(image: &mut Image, caller: &Caller, op: &PatchOp) -> Result<()> {
    let base = |n: &str| {
        matches!(
            n,
            "name"
                | "visibility"
                | "os_hidden"
                | "protected"
                | "min_disk"
                | "min_ram"
                | "disk_format"
                | "container_format"
                | "tags"
                | "owner"
                | "id"
        )
    };
    match op {
        PatchOp::Set {
            name,
            value,
            must_exist,
            must_be_new,
        } => {
            if name == "owner" {
                let text = value
                    .as_str()
                    .ok_or_else(|| Error::invalid("owner", "owner must be a project id."))?;
                if !caller.is_admin() {
                    return Err(Error::forbidden("Owner can't be updated by a non admin.").with_field("owner"));
                }
                image.owner = ProjectId::from(text);
                return Ok(());
            }
            let there = base(name) || image.properties.contains_key(name);
            if *must_exist && !there && !READ_ONLY.contains(&name.as_str()) {
                return Err(Error::conflict(format!("Property {name} does not exist.")));
            }
            if *must_be_new && image.properties.contains_key(name) {
                return Err(Error::conflict(format!("Property {name} already present.")));
            }
            set(image, name, value)
        }
        PatchOp::Remove { name } => {
            if READ_ONLY.contains(&name.as_str()) {
                return Err(read_only(name));
            }
            if base(name) {
                return Err(Error::forbidden(format!("Property {name} may not be removed.")).with_field(name));
            }
            match image.properties.remove(name) {
                Some(_) => Ok(()),
                None => Err(Error::conflict(format!("Property {name} does not exist."))),
            }
        }
    }
}

/// An attribute's text, for filters and sorting.
pub(crate) fn attribute(image: &Object<Image>, name: &str) -> Option<String> {
    match name {
        "id" => Some(image.id.to_string()),
        "name" => image.name.clone(),
        "status" => Some(image.status.as_str().to_owned()),
        "owner" => Some(image.owner.to_string()),
        "visibility" => Some(image.visibility.as_str().to_owned()),
        "disk_format" => image.disk_format.clone(),
        "container_format" => image.container_format.clone(),
        "checksum" => image.checksum.clone(),
        "os_hash_value" => image.digest.clone(),
        "os_hash_algo" => image.digest.as_ref().map(|_| "sha512".to_owned()),
        "protected" => Some(image.protected.to_string()),
        "min_disk" => Some(image.min_disk.to_string()),
        "min_ram" => Some(image.min_ram.to_string()),
        "size" => image.size.map(|n| n.to_string()),
        _ => image.properties.get(name).cloned(),
    }
}

impl Filter {
    fn fits(&self, image: &Object<Image>) -> bool {
        if self.hidden != image.hidden {
            return false;
        }
        if let Some(v) = &self.visibility
            && v != "all"
            && v != image.visibility.as_str()
        {
            return false;
        }
        let times = self.times.iter().all(|(created, op, when)| {
            let t = if *created { image.created_at } else { image.updated_at };
            match op.as_str() {
                "gt" => t > *when,
                "gte" => t >= *when,
                "lt" => t < *when,
                "lte" => t <= *when,
                "neq" => t != *when,
                _ => t == *when,
            }
        });
        times
            && self.equal.iter().all(|(name, values)| {
                attribute(image, name).is_some_and(|have| {
                    values
                        .iter()
                        .any(|v| v.eq_ignore_ascii_case(&have) && (name == "protected" || *v == have))
                })
            })
            && self.tags.iter().all(|t| image.tags.contains(t))
            && self.size_min.is_none_or(|n| image.size.is_some_and(|s| s >= n))
            && self.size_max.is_none_or(|n| image.size.is_some_and(|s| s <= n))
    }
}

/// The refusal of a media type.
pub(crate) fn unsupported_media(found: &str, wanted: &str) -> Error {
    Error::new(
        ErrorKind::UnsupportedMedia,
        format!("The body is '{found}'; this request takes {wanted}."),
    )
}
