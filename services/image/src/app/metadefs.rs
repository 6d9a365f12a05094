//! Metadata definitions. All writes of a namespace and what it defines are changes of one object.

use super::images::owned_by;
use crate::App;
use maru_auth::Target;
use maru_base::{Error, ErrorKind, Result};
use maru_http::Request;
use maru_image_model::metadef::{Namespace, NamespaceName};
use maru_store::{Object, Snapshot, Txn};

/// Most objects, properties, tags or resource types of one namespace.
const MOST: usize = 500;
/// Bytes of a namespace with all that it defines.
const BYTES: usize = 1 << 20;

/// What a namespace's parts are called in refusals.
pub(crate) fn missing(what: &str, name: &str, namespace: &str) -> Error {
    Error::not_found(format!(
        "Metadata definition {what} not found: there is no '{name}' in namespace '{namespace}'."
    ))
}
pub(crate) fn duplicate(what: &str, name: &str) -> Error {
    Error::conflict(format!("A metadata definition {what} with name={name} already exists."))
}
fn no_namespace(name: &str) -> Error {
    Error::not_found(format!("Metadata definition namespace={name} was not found."))
}

fn target(n: &Namespace) -> Target {
    let t = owned_by(&n.owner);
    if n.public { t.with("visibility", "public") } else { t }
}

fn check(n: &Namespace) -> Result<()> {
    for (what, count) in [
        ("objects", n.objects.len()),
        ("properties", n.properties.len()),
        ("tags", n.tags.len()),
        ("resource_type_associations", n.resource_types.len()),
    ] {
        if count > MOST {
            return Err(
                Error::too_large(format!("A namespace has at most {MOST} {what}; make another.")).with_field(what),
            );
        }
    }
    let bytes = serde_json::to_vec(n).map_or(usize::MAX, |v| v.len());
    if bytes > BYTES {
        return Err(Error::too_large(format!(
            "A namespace has at most {BYTES} bytes with all that it defines; make another."
        )));
    }
    Ok(())
}

impl App {
    /// A namespace that the caller may see, authorised for the request's rule.
    pub(crate) fn namespace(&self, snapshot: &Snapshot, request: &Request, name: &str) -> Result<Object<Namespace>> {
        let caller = request.caller()?;
        let found = snapshot
            .get::<Namespace>(&NamespaceName::from(name))
            .filter(|n| n.public || caller.is_admin() || caller.project_id().is_some_and(|p| *p == n.owner));
        let found = found.ok_or_else(|| no_namespace(name))?;
        request.authorize(&target(&found.value))?;
        Ok(found)
    }

    /// All namespaces that the caller sees.
    pub(crate) fn namespaces(&self, snapshot: &Snapshot, request: &Request) -> Result<Vec<Object<Namespace>>> {
        let caller = request.caller()?;
        if caller.is_admin() {
            return Ok(snapshot.list::<Namespace>().collect());
        }
        let mut found: Vec<Object<Namespace>> = snapshot.find::<Namespace>("visibility", "public").collect();
        if let Some(project) = caller.project_id() {
            found.extend(snapshot.find::<Namespace>("owner", project).filter(|n| !n.public));
        }
        found.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(found)
    }

    pub(crate) async fn create_namespace(&self, request: &Request, name: &str, namespace: &Namespace) -> Result<()> {
        request.authorize(&owned_by(&namespace.owner))?;
        check(namespace)?;
        let id = NamespaceName::from(name);
        self.store
            .plan(|snapshot| {
                if snapshot.get::<Namespace>(&id).is_some() {
                    return Err(Error::conflict(format!(
                        "The metadata definition namespace={name} already exists."
                    )));
                }
                let mut txn = Txn::new();
                txn.create(&id, namespace);
                Ok((txn, ()))
            })
            .await
    }

    /// Changes a namespace or what it defines; `removes` is refused while it is protected.
    pub(crate) async fn change_namespace<T>(
        &self,
        request: &Request,
        name: &str,
        removes: bool,
        mut change: impl FnMut(&mut Namespace) -> Result<T>,
    ) -> Result<(Namespace, T)> {
        self.store
            .plan(|snapshot| {
                let read = self.namespace(snapshot, request, name)?;
                if removes {
                    refuse_protected(name, &read.value)?;
                }
                let mut namespace = (*read.value).clone();
                let answer = change(&mut namespace)?;
                check(&namespace)?;
                let mut txn = Txn::new();
                txn.update(&read, &namespace);
                Ok((txn, (namespace, answer)))
            })
            .await
    }

    /// Renames a namespace while it changes.
    pub(crate) async fn update_namespace(
        &self,
        request: &Request,
        name: &str,
        to: &str,
        mut change: impl FnMut(&mut Namespace),
    ) -> Result<Namespace> {
        self.store
            .plan(|snapshot| {
                let read = self.namespace(snapshot, request, name)?;
                let mut namespace = (*read.value).clone();
                change(&mut namespace);
                namespace.times.updated_at = maru_base::time::now();
                let mut txn = Txn::new();
                if name == to {
                    txn.update(&read, &namespace);
                } else {
                    let id = NamespaceName::from(to);
                    if snapshot.get::<Namespace>(&id).is_some() {
                        return Err(Error::conflict(format!(
                            "Invalid update. It would result in a duplicate metadata definition namespace with the same name of {to}."
                        )));
                    }
                    txn.delete(&read);
                    txn.create(&id, &namespace);
                }
                Ok((txn, namespace))
            })
            .await
    }

    pub(crate) async fn delete_namespace(&self, request: &Request, name: &str) -> Result<()> {
        self.store
            .plan(|snapshot| {
                let read = self.namespace(snapshot, request, name)?;
                refuse_protected(name, &read.value)?;
                let mut txn = Txn::new();
                txn.delete(&read);
                Ok((txn, ()))
            })
            .await
    }
}

fn refuse_protected(name: &str, namespace: &Namespace) -> Result<()> {
    if namespace.protected {
        return Err(Error::new(
            ErrorKind::Forbidden,
            format!(
                "Metadata definition namespace {name} is protected and cannot be deleted, nor what it defines; set protected to false first."
            ),
        ));
    }
    Ok(())
}
