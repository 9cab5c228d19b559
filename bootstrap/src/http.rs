//! The small HTTP side: metrics, liveness and readiness (operations §5.1, §5.3).
//!
//! Answers GET and HEAD on three paths and knows nothing of the network: texts come from outside. Hostile clients find
//! bounds: connections at once, size of a request head, time for it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock;

/// Connections at once; above it the next one waits in the backlog of the system.
const MAX_CONNECTIONS: usize = 32;
/// A request head must be here within this time; an idle connection is closed after it.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// Largest request head.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// What a listener waits after an accept that failed, such as for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the pages say.
pub trait Pages: Send + Sync + 'static {
    /// OpenMetrics text.
    fn metrics(&self) -> String;

    /// Whether the node can do its work, and a line on why.
    fn ready(&self) -> impl Future<Output = (bool, String)> + Send;
}

/// Which pages a listener has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// All of them.
    Everything,
    /// Liveness and readiness only.
    Health,
}

/// Serves until `stop`; what is being answered then is answered.
pub async fn serve<P: Pages>(listener: TcpListener, pages: Arc<P>, offer: Offer, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let connections = TaskTracker::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            break;
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(component = "http", %error, "connection not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (pages, stop) = (Arc::clone(&pages), stop.clone());
        let connection = connections.track_future(async move {
            let service = service_fn(move |request| answer(request, Arc::clone(&pages), offer));
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_WITHIN)
                .max_buf_size(MAX_HEAD_BYTES)
                .serve_connection(TokioIo::new(stream), service);
            tokio::pin!(connection);
            // A client that goes away or sends nonsense is its own affair.
            tokio::select! {
                _ = connection.as_mut() => {}
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    let _ = tokio::time::timeout(HEAD_WITHIN, connection).await;
                }
            }
            drop(place);
        });
        clock::spawn("http.connection", connection);
    }
    connections.close();
    connections.wait().await;
}

async fn answer<P: Pages>(
    request: Request<Incoming>,
    pages: Arc<P>,
    offer: Offer,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return Ok(text(
            StatusCode::METHOD_NOT_ALLOWED,
            "only GET and HEAD\n".to_owned(),
        ));
    }
    Ok(match (request.uri().path(), offer) {
        ("/healthz/live", _) => text(StatusCode::OK, "ok\n".to_owned()),
        ("/healthz/ready", _) => match pages.ready().await {
            (true, line) => text(StatusCode::OK, line),
            (false, line) => text(StatusCode::SERVICE_UNAVAILABLE, line),
        },
        ("/metrics", Offer::Everything) => metrics(&pages.metrics(), request.headers()),
        _ => text(StatusCode::NOT_FOUND, "no such page\n".to_owned()),
    })
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    typed(status, "text/plain; charset=utf-8", body)
}

fn typed(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// OpenMetrics for whoever asks for it, else the older text of Prometheus.
fn metrics(open: &str, headers: &HeaderMap) -> Response<Full<Bytes>> {
    let wants_open = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("application/openmetrics-text"));
    if wants_open {
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        typed(StatusCode::OK, kind, open.to_owned())
    } else {
        let kind = "text/plain; version=0.0.4; charset=utf-8";
        typed(StatusCode::OK, kind, older(open))
    }
}

/// The older text: counters carry their suffix in the head lines too, there are no units and no end mark.
fn older(open: &str) -> String {
    let counters: std::collections::HashSet<&str> = open
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let mut plain = String::with_capacity(open.len() + 1024);
    for line in open.lines() {
        if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        }
        let mut parts = line.splitn(4, ' ');
        if let (Some("#"), Some(what), Some(name), Some(rest)) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        {
            let suffix = if counters.contains(name) { "_total" } else { "" };
            plain.push_str(&format!("# {what} {name}{suffix} {rest}"));
        } else {
            plain.push_str(line);
        }
        plain.push('\n');
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    struct Fixed(bool);

    impl Pages for Fixed {
        fn metrics(&self) -> String {
            "# HELP a Things.\n# TYPE a counter\na_total 1\n# EOF\n".to_owned()
        }

        async fn ready(&self) -> (bool, String) {
            (self.0, "because\n".to_owned())
        }
    }

    async fn ask(address: std::net::SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn pages_are_served_until_the_stop() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let server = serve(listener, Arc::new(Fixed(false)), Offer::Everything, stop.clone());
        let asker = async {
            let get = |path: &str, more: &str| {
                format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{more}\r\n")
            };
            let live = ask(address, &get("/healthz/live", "")).await;
            assert!(
                live.starts_with("HTTP/1.1 200") && live.ends_with("ok\n"),
                "{live}"
            );
            let ready = ask(address, &get("/healthz/ready", "")).await;
            assert!(
                ready.starts_with("HTTP/1.1 503") && ready.ends_with("because\n"),
                "{ready}"
            );
            let plain = ask(address, &get("/metrics", "")).await;
            assert!(plain.contains("# TYPE a_total counter\na_total 1\n"), "{plain}");
            assert!(!plain.contains("# EOF"), "{plain}");
            let open = ask(
                address,
                &get("/metrics", "accept: application/openmetrics-text\r\n"),
            )
            .await;
            assert!(open.contains("# TYPE a counter\na_total 1\n# EOF"), "{open}");
            let missing = ask(address, &get("/", "")).await;
            assert!(missing.starts_with("HTTP/1.1 404"), "{missing}");
            let nonsense = ask(address, "nonsense\r\n\r\n").await;
            assert!(nonsense.starts_with("HTTP/1.1 400"), "{nonsense}");
            let huge = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "a".repeat(2 * MAX_HEAD_BYTES));
            let mut stream = TcpStream::connect(address).await.unwrap();
            // The server may hang up before everything is written.
            let _ = stream.write_all(huge.as_bytes()).await;
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            assert!(!String::from_utf8_lossy(&answer).contains(" 200 "));
            stop.cancel();
        };
        tokio::join!(server, asker);
    }
}
