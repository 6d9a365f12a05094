//! Services and their route tables.

use crate::{ErrorStyle, Microversions, Reply, Request};
use futures_util::future::BoxFuture;
use http::Method;
use maru_base::Result;
use std::sync::Arc;

/// Who may come as far as the handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anyone, without a token: version documents, `POST /auth/tokens`.
    Public,
    /// Holders of a good token that this policy rule allows.
    Rule(&'static str),
}

pub(crate) type Handler = Arc<dyn Fn(Request) -> BoxFuture<'static, Result<Reply>> + Send + Sync>;

/// One route.
#[derive(Clone)]
pub struct Route {
    /// HTTP method.
    pub method: Method,
    /// Path below the service's prefix, with `{name}` parameters: `/v2.1/servers/{id}`.
    pub path: String,
    /// Who may.
    pub access: Access,
    /// Bytes of body at most.
    pub body_limit: u64,
    pub(crate) handler: Handler,
}

/// A service's API.
#[derive(Clone)]
pub struct Service {
    /// Its name in logs and audit: `compute`.
    pub name: &'static str,
    /// Path prefixes under which it is served; the first is the one of the catalogue: `["/compute"]`,
    /// identity: `["/identity", ""]`.
    pub prefixes: &'static [&'static str],
    /// The form of its error bodies.
    pub errors: ErrorStyle,
    /// Whether a slash after a collection makes another address, as in Glance and Cinder; elsewhere it is the same.
    pub strict_slash: bool,
    /// Its microversions, if it has them.
    pub microversions: Option<Microversions>,
    /// Its routes.
    pub routes: Vec<Route>,
}

/// Builds a route table over an application state.
pub struct Routes<A> {
    app: Arc<A>,
    routes: Vec<Route>,
}

impl<A: Send + Sync + 'static> Routes<A> {
    /// An empty table; every handler gets `app`.
    #[must_use]
    pub fn new(app: Arc<A>) -> Self {
        Self {
            app,
            routes: Vec::new(),
        }
    }
    /// Adds a route that is guarded by a policy rule. The usual body limit is 1 MiB; see [`Routes::limit`].
    #[must_use]
    pub fn on<F, Fut>(self, method: Method, path: &str, rule: &'static str, handler: F) -> Self
    where
        F: Fn(Arc<A>, Request) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Reply>> + Send + 'static,
    {
        self.add(method, path, Access::Rule(rule), handler)
    }
    /// Adds a route that needs no token.
    #[must_use]
    pub fn public<F, Fut>(self, method: Method, path: &str, handler: F) -> Self
    where
        F: Fn(Arc<A>, Request) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Reply>> + Send + 'static,
    {
        self.add(method, path, Access::Public, handler)
    }
    /// `GET`; `HEAD` is answered by it, too.
    #[must_use]
    pub fn get<F, Fut>(self, path: &str, rule: &'static str, handler: F) -> Self
    where
        F: Fn(Arc<A>, Request) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Reply>> + Send + 'static,
    {
        self.on(Method::GET, path, rule, handler)
    }
    /// `POST`.
    #[must_use]
    pub fn post<F, Fut>(self, path: &str, rule: &'static str, handler: F) -> Self
    where
        F: Fn(Arc<A>, Request) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Reply>> + Send + 'static,
    {
        self.on(Method::POST, path, rule, handler)
    }
    /// `PUT`.
    #[must_use]
    pub fn put<F, Fut>(self, path: &str, rule: &'static str, handler: F) -> Self
    where
        F: Fn(Arc<A>, Request) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Reply>> + Send + 'static,
    {
        self.on(Method::PUT, path, rule, handler)
    }
    /// `PATCH`.
    #[must_use]
    pub fn patch<F, Fut>(self, path: &str, rule: &'static str, handler: F) -> Self
    where
        F: Fn(Arc<A>, Request) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Reply>> + Send + 'static,
    {
        self.on(Method::PATCH, path, rule, handler)
    }
    /// `DELETE`.
    #[must_use]
    pub fn delete<F, Fut>(self, path: &str, rule: &'static str, handler: F) -> Self
    where
        F: Fn(Arc<A>, Request) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Reply>> + Send + 'static,
    {
        self.on(Method::DELETE, path, rule, handler)
    }
    /// Sets the body limit of the route added last, in bytes.
    #[must_use]
    pub fn limit(mut self, bytes: u64) -> Self {
        if let Some(route) = self.routes.last_mut() {
            route.body_limit = bytes;
        }
        self
    }
    /// The table.
    #[must_use]
    pub fn build(self) -> Vec<Route> {
        self.routes
    }

    fn add<F, Fut>(mut self, method: Method, path: &str, access: Access, handler: F) -> Self
    where
        F: Fn(Arc<A>, Request) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Reply>> + Send + 'static,
    {
        let app = Arc::clone(&self.app);
        self.routes.push(Route {
            method,
            path: path.to_owned(),
            access,
            body_limit: crate::limits::JSON,
            handler: Arc::new(move |request| Box::pin(handler(Arc::clone(&app), request))),
        });
        self
    }
}
