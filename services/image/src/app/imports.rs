//! Imports: data that comes into an image by itself, out of the staging area, another image or an address.
//!
//! ```text
//!  begin (queued or uploading → importing, task pending)  ─►  a place among the running  ─►  run (task processing)
//!        ─►  done: image active, task success
//!        ─►  failed: image queued, nothing staged, task failure with why
//! ```
//! A process that dies leaves `importing` and a task that has not ended; [`App::recover`] clears both at the next start.

use super::{
    Draft,
    data::{Upload, declared},
    images::target,
    over_quota,
};
use crate::App;
use maru_base::{Error, Result};
use maru_http::Request;
use maru_image_model::{Image, ImageId, ImageStatus, KEPT_HOURS, Task, TaskId, TaskStatus, find_visible, usage};
use maru_store::{Object, Snapshot, Txn};
use serde_json::{Value, json};
use std::sync::Arc;

/// The one store of this cloud.
pub(crate) const STORE: &str = "local";
/// The property that says which stores an import failed for; empty when none.
const FAILED: &str = "os_glance_failed_import";
/// The property that says which stores an import is still to fill; empty when none.
const TO_DO: &str = "os_glance_importing_to_stores";
/// Properties that glance-download takes over (Glance's default).
const TAKEN: &[&str] = &["hw_", "trait:", "os_distro", "os_secure_boot", "os_type"];

/// How data comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Method {
    /// It was staged.
    GlanceDirect,
    /// From an address.
    WebDownload { uri: String },
    /// From an image of a region's image service.
    GlanceDownload {
        image: String,
        region: String,
        interface: String,
    },
    /// Into further stores.
    CopyImage,
}

/// An import as asked for.
pub(crate) struct Import {
    pub method: Method,
    /// Wished stores.
    pub stores: Vec<String>,
    /// All stores are wished, and those that have the data do not matter.
    pub all_stores: bool,
    /// What the task shows.
    pub asked: Value,
}

/// An import that runs.
struct Job {
    upload: Upload,
    task: TaskId,
    method: Method,
    /// The image that glance-download takes its data from, or why there is none.
    source: std::result::Result<ImageId, String>,
    /// Whether the image goes when its import fails.
    made: bool,
}

fn new_task(request: &Request, kind: &str, image: &ImageId, input: Value) -> Result<Task> {
    let caller = request.caller()?;
    let now = maru_base::time::now();
    Ok(Task {
        kind: kind.to_owned(),
        status: TaskStatus::Pending,
        owner: caller.project_id().cloned().unwrap_or_else(|| "".into()),
        user_id: caller.user_id.clone(),
        request_id: request.id.to_string(),
        image_id: image.clone(),
        input,
        result: Value::Null,
        message: String::new(),
        created_at: now,
        updated_at: now,
        expires_at: None,
    })
}

impl App {
    /// Begins an import into an image; it goes on by itself.
    pub(crate) async fn import(self: &Arc<Self>, request: &Request, id: &str, import: Import) -> Result<()> {
        if let Method::WebDownload { uri } = &import.method {
            self.fetcher.check(uri)?;
        }
        if let Some(unknown) = import.stores.iter().find(|s| *s != STORE) {
            return Err(Error::conflict(format!(
                "Store for identifier {unknown} not found; there is one store, '{STORE}'."
            )));
        }
        let input = json!({"image_id": id, "import_req": import.asked, "backend": [STORE]});
        let task = new_task(request, "api_image_import", &ImageId::from(id), input)?;
        if import.method == Method::CopyImage {
            return self.copy(request, id, import.all_stores, task).await;
        }
        self.begin_import(request, id, import.method, task, false)
            .await
            .map(|_| ())
    }

    /// Copies an image's data to the stores that do not have it: as there is one store, to none.
    async fn copy(&self, request: &Request, id: &str, all: bool, mut task: Task) -> Result<()> {
        task.status = TaskStatus::Success;
        task.expires_at = Some(task.created_at + jiff::SignedDuration::from_hours(KEPT_HOURS));
        let task_id = TaskId::new_uuid();
        self.store
            .plan(|snapshot| {
                let old = self.find(snapshot, request, id)?;
                request.authorize_rule("copy_image", &super::images::owned(&old))?;
                if old.status != ImageStatus::Active {
                    return Err(Error::conflict(format!(
                        "Only images with status active can be targeted for copying; this one is {}.",
                        old.status.as_str()
                    )));
                }
                if !all {
                    return Err(Error::conflict(format!(
                        "The image data is in the store '{STORE}' already, and there is no other."
                    )));
                }
                let mut image = (*old.value).clone();
                note(&mut image, "", "");
                let mut txn = Txn::new();
                txn.update(&old, &image);
                txn.create(&task_id, &task);
                Ok((txn, ()))
            })
            .await
    }

    /// Makes an image out of the data at an address; the task says how it goes.
    pub(crate) async fn import_task(
        self: &Arc<Self>,
        request: &Request,
        uri: String,
        draft: Draft,
        input: Value,
    ) -> Result<Object<Task>> {
        self.fetcher.check(&uri)?;
        declared(&draft.image)?;
        let image = self.create(request, draft).await?;
        let task = new_task(request, "import", &image.id, input)?;
        let id = self
            .begin_import(request, &image.id, Method::WebDownload { uri }, task, true)
            .await?;
        let found = self.store.snapshot().get::<Task>(&id);
        found.ok_or_else(|| Error::not_found(format!("No task found with ID {id}")))
    }

    async fn begin_import(
        self: &Arc<Self>,
        request: &Request,
        id: &str,
        method: Method,
        task: Task,
        made: bool,
    ) -> Result<TaskId> {
        let ticket = maru_base::random::hex32();
        let task_id = TaskId::new_uuid();
        let job = self
            .store
            .plan(|snapshot| {
                let old = if made {
                    let found = snapshot.get::<Image>(&ImageId::from(id));
                    found.ok_or_else(|| super::images::not_found(id))?
                } else {
                    self.find(snapshot, request, id)?
                };
                check_status(&old, &method)?;
                let format = match &method {
                    // Its formats come with the data.
                    Method::GlanceDownload { .. } => String::new(),
                    _ => declared(&old)?,
                };
                let mut image = (*old.value).clone();
                image.status = ImageStatus::Importing;
                image.upload = Some(ticket.clone());
                note(&mut image, STORE, "");
                image.updated_at = maru_base::time::now();
                let mut txn = Txn::new();
                txn.update(&old, &image);
                txn.create(&task_id, &task);
                let now = maru_base::time::now();
                let expired = snapshot
                    .find::<Task>("owner", &task.owner)
                    .filter(|t| t.expires_at.is_some_and(|e| e < now));
                for old in expired.take(50) {
                    txn.delete(&old);
                }
                let job = (old.id.clone(), old.owner.clone(), format);
                Ok((txn, job))
            })
            .await?;
        let (image, owner, format) = job;
        let job = Job {
            source: self.source(request, &method),
            upload: Upload {
                app: Arc::clone(self),
                image,
                ticket,
                owner,
                declared: format,
            },
            task: task_id.clone(),
            method,
            made,
        };
        // A task of its own: the client has its answer already.
        tokio::spawn(async move { job.run().await });
        Ok(task_id)
    }

    /// The image that glance-download means, if the caller may take its data.
    fn source(&self, request: &Request, method: &Method) -> std::result::Result<ImageId, String> {
        let Method::GlanceDownload {
            image,
            region,
            interface,
        } = method
        else {
            return Err(String::new());
        };
        if *region != self.region || !matches!(interface.as_str(), "public" | "internal" | "admin") {
            return Err(format!(
                "There is no image service with the interface '{interface}' in a region '{region}'; this is the region {}.",
                self.region
            ));
        }
        let snapshot = self.store.snapshot();
        let caller = request.caller().map_err(|e| e.to_string())?;
        find_visible(&snapshot, caller, &ImageId::from(image.as_str()))
            .filter(|found| request.may("download_image", &target(&snapshot, found, caller)))
            .map(|found| found.id)
            .ok_or_else(|| format!("No image found with ID {image}"))
    }

    /// Ends tasks whose process died.
    pub(super) async fn recover_tasks(&self) -> Result<()> {
        let open: Vec<TaskId> = self
            .store
            .snapshot()
            .list::<Task>()
            .filter(|t| !t.value.status.ended())
            .map(|t| t.id.clone())
            .collect();
        for id in open {
            let active = |s: &Snapshot, t: &Task| {
                let image = s.get::<Image>(&t.image_id);
                image.is_some_and(|i| i.status == ImageStatus::Active)
            };
            self.set_task(&id, |snapshot, task| {
                if active(snapshot, task) {
                    task.status = TaskStatus::Success;
                } else {
                    task.status = TaskStatus::Failure;
                    task.message = "The process that ran it ended; ask for the import again.".to_owned();
                }
            })
            .await?;
        }
        Ok(())
    }

    async fn set_task(&self, id: &TaskId, change: impl Fn(&Snapshot, &mut Task)) -> Result<()> {
        self.store
            .plan(|snapshot| {
                let mut txn = Txn::new();
                if let Some(old) = snapshot.get::<Task>(id) {
                    let mut task = (*old.value).clone();
                    change(snapshot, &mut task);
                    task.updated_at = maru_base::time::now();
                    if task.status.ended() {
                        task.expires_at = Some(task.updated_at + jiff::SignedDuration::from_hours(KEPT_HOURS));
                    }
                    txn.update(&old, &task);
                }
                Ok((txn, ()))
            })
            .await
    }

    /// Removes the image that a failed task made, and that nobody has seen with data.
    async fn drop_made(&self, id: &ImageId) -> Result<()> {
        self.store
            .plan(|snapshot| {
                let mut txn = Txn::new();
                if let Some(image) = snapshot.get::<Image>(id).filter(|i| i.status == ImageStatus::Queued) {
                    txn.delete(&image);
                    usage::plan_release(&mut txn, &image);
                    usage::plan_retire(&mut txn, &image.id, &image.owner);
                }
                Ok((txn, ()))
            })
            .await
    }

    /// Notes on an image that its import failed.
    async fn mark_failed(&self, id: &ImageId) -> Result<()> {
        self.store
            .plan(|snapshot| {
                let mut txn = Txn::new();
                if let Some(old) = snapshot.get::<Image>(id).filter(|i| i.status == ImageStatus::Queued) {
                    let mut image = (*old.value).clone();
                    note(&mut image, "", STORE);
                    txn.update(&old, &image);
                }
                Ok((txn, ()))
            })
            .await
    }
}

/// Notes on an image how far its import is.
fn note(image: &mut Image, to_do: &str, failed: &str) {
    image.properties.insert(TO_DO.to_owned(), to_do.to_owned());
    image.properties.insert(FAILED.to_owned(), failed.to_owned());
}

/// Notes on an image that is active now that its import is done, if one ran.
pub(super) fn done(image: &mut Image) {
    if image.properties.contains_key(TO_DO) {
        note(image, "", "");
    }
}

fn check_status(image: &Image, method: &Method) -> Result<()> {
    let status = image.status.as_str();
    match method {
        Method::GlanceDirect => {
            if image.status != ImageStatus::Uploading || image.upload.is_some() || image.staged.is_none() {
                return Err(Error::conflict(format!(
                    "Import operation conflicts with image status '{status}': glance-direct takes an image whose data is staged (uploading)."
                )));
            }
        }
        Method::WebDownload { .. } | Method::GlanceDownload { .. } => {
            if image.status != ImageStatus::Queued {
                return Err(Error::conflict(format!(
                    "Import operation conflicts with image status '{status}': only a queued image takes data."
                )));
            }
        }
        // It takes a way of its own.
        Method::CopyImage => {}
    }
    Ok(())
}

impl Job {
    async fn run(self) {
        let app = Arc::clone(&self.upload.app);
        // Closed never: it lives as long as the service.
        let _place = app.imports.acquire().await;
        let begun = app.set_task(&self.task, |_, t| t.status = TaskStatus::Processing).await;
        let outcome = match begun {
            Ok(()) => self.data().await,
            Err(e) => Err(e),
        };
        let image = &self.upload.image;
        let (status, message, result) = match outcome {
            Ok(()) => (
                TaskStatus::Success,
                String::new(),
                if self.made {
                    json!({"image_id": image.as_str()})
                } else {
                    Value::Null
                },
            ),
            Err(error) => {
                tracing::info!(%image, error = %error.chain(), "an import failed");
                self.upload.abandon().await;
                let after = if self.made {
                    app.drop_made(image).await
                } else {
                    app.mark_failed(image).await
                };
                if let Err(error) = after {
                    tracing::warn!(%image, error = %error.chain(), "the image of a failed import is not marked");
                }
                (TaskStatus::Failure, error.to_string(), Value::Null)
            }
        };
        let ended = app
            .set_task(&self.task, |_, t| {
                t.status = status;
                t.message.clone_from(&message);
                t.result.clone_from(&result);
            })
            .await;
        if let Err(error) = ended {
            tracing::warn!(task = %self.task, error = %error.chain(), "the task stays open until the next start");
        }
    }

    async fn data(&self) -> Result<()> {
        match &self.method {
            Method::GlanceDirect => self.staged().await,
            Method::WebDownload { uri } => {
                let fetched = self.upload.app.fetcher.get(uri).await?;
                let writer = self.upload.fill(fetched.body, fetched.length).await?;
                self.upload.settle(writer).await
            }
            Method::GlanceDownload { .. } => match &self.source {
                Ok(source) => self.take_over(source).await,
                Err(why) => Err(Error::bad_request(why.clone())),
            },
            Method::CopyImage => Err(Error::conflict("There is no other store.")),
        }
    }

    /// Staged bytes become the image's once they are looked into.
    async fn staged(&self) -> Result<()> {
        let app = &self.upload.app;
        let image = self.upload.current(&app.store.snapshot())?;
        let Some(staged) = image.staged.clone() else {
            return Err(Error::conflict("Nothing is staged for this image."));
        };
        let path = app.blobs.path(&staged.digest).ok_or_else(|| {
            Error::new(
                maru_base::ErrorKind::Internal,
                "The staged data is missing on this machine; stage it again.",
            )
        })?;
        let inspected = app.inspector.inspect(&path, &self.upload.declared).await?;
        app.store
            .plan(|snapshot| {
                let old = self.upload.current(snapshot)?;
                let mut image = (*old.value).clone();
                image.status = ImageStatus::Active;
                image.upload = None;
                image.staged = None;
                note(&mut image, "", "");
                image.size = Some(staged.size);
                image.virtual_size = inspected.virtual_size;
                image.proven_format = Some(inspected.proven_format.clone());
                image.checksum = Some(staged.checksum.clone());
                image.digest = Some(staged.digest.clone());
                image.updated_at = maru_base::time::now();
                // Its bytes are held since they were staged.
                let mut txn = Txn::new();
                txn.update(&old, &image);
                Ok((txn, ()))
            })
            .await
    }

    /// The data of another image of this cloud: the same blob, which is there already and was looked into.
    async fn take_over(&self, source: &ImageId) -> Result<()> {
        let app = &self.upload.app;
        app.store
            .plan(|snapshot| {
                let from = snapshot
                    .get::<Image>(source)
                    .filter(|i| i.status == ImageStatus::Active)
                    .ok_or_else(|| Error::not_found(format!("No active image found with ID {source}")))?;
                let old = self.upload.current(snapshot)?;
                let mut image = (*old.value).clone();
                image.status = ImageStatus::Active;
                image.upload = None;
                image.disk_format.clone_from(&from.disk_format);
                image.container_format.clone_from(&from.container_format);
                image.proven_format.clone_from(&from.proven_format);
                image.size = from.size;
                image.virtual_size = from.virtual_size;
                image.checksum.clone_from(&from.checksum);
                image.digest.clone_from(&from.digest);
                let taken = from
                    .properties
                    .iter()
                    .filter(|(name, _)| TAKEN.iter().any(|t| name.starts_with(t)));
                note(&mut image, "", "");
                image.properties.extend(taken.map(|(k, v)| (k.clone(), v.clone())));
                image.updated_at = maru_base::time::now();
                let mut txn = Txn::new();
                // It may be deleted at this moment, and its blob with it.
                txn.unchanged(&from);
                txn.update(&old, &image);
                if let Some(size) = image.size {
                    usage::plan_hold(&mut txn, &image.owner, size, app.settings.project_bytes);
                }
                Ok((txn, ()))
            })
            .await
            .map_err(over_quota)
    }
}
