//! The two small HTTP listeners: metrics, and the liveness and readiness of older releases (operations §5.1, §5.3).

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;
use crate::api::health::Health;

/// Serves `/metrics` until `stop`.
pub async fn serve_metrics(listener: TcpListener, metrics: Arc<Metrics>, stop: CancellationToken) {
    let router = Router::new().route("/metrics", get(scrape)).with_state(metrics);
    serve("metrics", listener, router, stop).await;
}

/// Serves `/healthz/live` and `/healthz/ready` until `stop`.
pub async fn serve_health(listener: TcpListener, health: Health, stop: CancellationToken) {
    let router = Router::new()
        .route("/healthz/live", get(|| async { "ok\n" }))
        .route("/healthz/ready", get(ready))
        .with_state(health);
    serve("health", listener, router, stop).await;
}

async fn serve(name: &'static str, listener: TcpListener, router: Router, stop: CancellationToken) {
    let ended = axum::serve(listener, router)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await;
    if let Err(error) = ended {
        tracing::error!(component = name, %error, "http listener ended");
    }
}

async fn scrape(State(metrics): State<Arc<Metrics>>, headers: HeaderMap) -> impl IntoResponse {
    let wants_open = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("application/openmetrics-text"));
    let (text, kind) = if wants_open {
        (
            metrics.open_metrics(),
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        )
    } else {
        (metrics.prometheus(), "text/plain; version=0.0.4; charset=utf-8")
    };
    match text {
        Ok(text) => (StatusCode::OK, [(header::CONTENT_TYPE, kind)], text),
        Err(_) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            [(header::CONTENT_TYPE, "text/plain")],
            String::new(),
        ),
    }
}

async fn ready(State(health): State<Health>) -> impl IntoResponse {
    match health.failing() {
        failing if failing.is_empty() => (StatusCode::OK, "ready\n".to_owned()),
        failing => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready: {}\n", failing.join(", ")),
        ),
    }
}
