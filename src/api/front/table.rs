//! What routes are put into: a router that serves them, or one that also collects their documentation. A program that
//! only serves has no code that describes (`docs/decisions/0053-the-contract-is-served-from-a-file.md`).

use std::convert::Infallible;

use axum::Router;
use axum::extract::Request;
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, Route};
use tower_layer::Layer;
use tower_service::Service;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

use crate::api::state::AppState;

/// The operations of one path, in both forms. [`operations!`] makes them.
#[derive(Debug)]
pub(crate) struct Operations<S, D> {
    /// The path and its handlers.
    pub(crate) served: S,
    /// The same with their documentation.
    pub(crate) described: D,
}

/// Where routes are put into.
pub(crate) trait Table: Sized {
    /// An empty one.
    fn new() -> Self;

    /// Adds the operations of one path.
    fn with<S, D>(self, operations: Operations<S, D>) -> Self
    where
        S: FnOnce() -> (String, MethodRouter<AppState>),
        D: FnOnce() -> UtoipaMethodRouter<AppState>;

    /// Adds all of another one.
    fn merge(self, other: Self) -> Self;

    /// Puts a layer around all operations so far.
    fn layer<L>(self, layer: L) -> Self
    where
        L: Layer<Route> + Clone + Send + Sync + 'static,
        L::Service: Service<Request> + Clone + Send + Sync + 'static,
        <L::Service as Service<Request>>::Response: IntoResponse + 'static,
        <L::Service as Service<Request>>::Error: Into<Infallible> + 'static,
        <L::Service as Service<Request>>::Future: Send + 'static;
}

impl Table for Router<AppState> {
    fn new() -> Self {
        Self::new()
    }

    fn with<S, D>(self, operations: Operations<S, D>) -> Self
    where
        S: FnOnce() -> (String, MethodRouter<AppState>),
        D: FnOnce() -> UtoipaMethodRouter<AppState>,
    {
        let (path, handlers) = (operations.served)();
        self.route(&path, handlers)
    }

    fn merge(self, other: Self) -> Self {
        self.merge(other)
    }

    fn layer<L>(self, layer: L) -> Self
    where
        L: Layer<Route> + Clone + Send + Sync + 'static,
        L::Service: Service<Request> + Clone + Send + Sync + 'static,
        <L::Service as Service<Request>>::Response: IntoResponse + 'static,
        <L::Service as Service<Request>>::Error: Into<Infallible> + 'static,
        <L::Service as Service<Request>>::Future: Send + 'static,
    {
        self.layer(layer)
    }
}

impl Table for OpenApiRouter<AppState> {
    fn new() -> Self {
        Self::new()
    }

    fn with<S, D>(self, operations: Operations<S, D>) -> Self
    where
        S: FnOnce() -> (String, MethodRouter<AppState>),
        D: FnOnce() -> UtoipaMethodRouter<AppState>,
    {
        self.routes((operations.described)())
    }

    fn merge(self, other: Self) -> Self {
        self.merge(other)
    }

    fn layer<L>(self, layer: L) -> Self
    where
        L: Layer<Route> + Clone + Send + Sync + 'static,
        L::Service: Service<Request> + Clone + Send + Sync + 'static,
        <L::Service as Service<Request>>::Response: IntoResponse + 'static,
        <L::Service as Service<Request>>::Error: Into<Infallible> + 'static,
        <L::Service as Service<Request>>::Future: Send + 'static,
    {
        self.layer(layer)
    }
}

/// The operations of these handlers, which have one path: method and path are those of their annotations.
macro_rules! operations {
    ($($($handler:ident)::+),+ $(,)?) => {
        $crate::api::front::table::Operations {
            served: || {
                use utoipa_axum::PathItemExt as _;
                let (mut paths, mut handlers) = (Vec::new(), axum::routing::MethodRouter::new());
                $(
                    paths.push(utoipa_axum::routes!(@path [path()] of $($handler)::+));
                    for method in utoipa_axum::routes!(@path [methods()] of $($handler)::+) {
                        handlers = handlers.on(method.to_method_filter(), $($handler)::+);
                    }
                )+
                // All have the same.
                (paths.pop().unwrap_or_default(), handlers)
            },
            described: || utoipa_axum::routes!($($($handler)::+),+),
        }
    };
}
pub(in crate::api) use operations;
