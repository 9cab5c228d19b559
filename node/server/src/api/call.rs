//! What surrounds every call, outermost first: panic recovery, rate limit, metrics, access log (grpc-api §5).
//!
//! A call lives as long as its answer's body; it ends once, with a code, whether it is answered, fails, panics or is
//! given up by the caller.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::body::Body;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::frames::FrameCounter;
use super::limit::Limits;
use super::status::{code_name, in_network_words};
use crate::runtime::moment;
use crate::telemetry::metrics::Method;

/// Surrounds the services of the node.
#[derive(Clone)]
pub struct CallLayer(Arc<Surroundings>);

struct Surroundings {
    methods: Arc<HashMap<String, Arc<Method>>>,
    limits: Option<Limits>,
}

impl CallLayer {
    /// Knows the methods that exist, and the limits.
    #[must_use]
    pub fn new(methods: Arc<HashMap<String, Arc<Method>>>, limits: Option<Limits>) -> Self {
        Self(Arc::new(Surroundings { methods, limits }))
    }
}

impl<S> Layer<S> for CallLayer {
    type Service = CallService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        CallService {
            inner,
            around: Arc::clone(&self.0),
        }
    }
}

/// A surrounded service.
#[derive(Clone)]
pub struct CallService<S> {
    inner: S,
    around: Arc<Surroundings>,
}

impl<S> Service<Request<Body>> for CallService<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Send,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let peer = request
            .extensions()
            .get::<TcpConnectInfo>()
            .and_then(TcpConnectInfo::remote_addr);
        let path = request.uri().path();
        let Some(method) = self.around.methods.get(path).cloned() else {
            if is_reflection(path) {
                return Box::pin(self.inner.call(request));
            }
            let answer = no_such_method(path, &self.around.methods).into_http();
            return Box::pin(std::future::ready(Ok(answer)));
        };
        let caller = peer.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |peer| peer.ip());
        if self
            .around
            .limits
            .as_ref()
            .is_some_and(|limits| !limits.admit(path, caller))
        {
            let text = format!(
                "{path} is rejected by grpc_ratelimit middleware, please retry later. rpc error: code = ResourceExhausted \
                 desc = rate limit exceeded"
            );
            return Box::pin(std::future::ready(Ok(
                Status::resource_exhausted(text).into_http()
            )));
        }
        let call = Call::start(method, peer, request.headers());
        let request = request.map(|body| {
            Body::new(Counted {
                body,
                frames: FrameCounter::default(),
                method: Arc::clone(&call.method),
            })
        });
        let serving = match catch_unwind(AssertUnwindSafe(|| self.inner.call(request))) {
            Ok(serving) => serving,
            Err(_) => return Box::pin(std::future::ready(Ok(call.answer(panicked().into_http())))),
        };
        Box::pin(AssertUnwindSafe(serving).catch_unwind().map(move |served| {
            let response = match served {
                Ok(Ok(response)) => response,
                Err(_) => panicked().into_http(),
            };
            Ok(call.answer(response))
        }))
    }
}

fn panicked() -> Status {
    tracing::error!(
        component = "grpc",
        "a handler panicked; the call was answered with INTERNAL"
    );
    Status::internal("internal server error")
}

fn is_reflection(path: &str) -> bool {
    [
        "/grpc.reflection.v1.ServerReflection/",
        "/grpc.reflection.v1alpha.ServerReflection/",
    ]
    .iter()
    .any(|prefix| path.starts_with(prefix))
}

fn no_such_method(path: &str, methods: &HashMap<String, Arc<Method>>) -> Status {
    let shown = |text: &str| text.chars().take(256).collect::<String>();
    match path.strip_prefix('/').and_then(|path| path.rsplit_once('/')) {
        None => Status::unimplemented(format!("malformed method name: {:?}", shown(path))),
        Some((service, name)) if methods.values().any(|method| method.service == service) => {
            Status::unimplemented(format!("unknown method {} for service {service}", shown(name)))
        }
        Some((service, _)) => Status::unimplemented(format!("unknown service {}", shown(service))),
    }
}

/// One call, from its start to its one end.
struct Call {
    method: Arc<Method>,
    start: Instant,
    log: Option<LogFacts>,
}

struct LogFacts {
    peer: Option<SocketAddr>,
    request_id: Option<HeaderValue>,
    correlation_id: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
}

/// A header as text; empty when it is none.
fn text(value: Option<&HeaderValue>) -> &str {
    value.and_then(|value| value.to_str().ok()).unwrap_or_default()
}

impl Call {
    fn start(method: Arc<Method>, peer: Option<SocketAddr>, headers: &HeaderMap) -> Self {
        method.started.inc();
        // Probes would drown everything else.
        let logged = method.service != "grpc.health.v1.Health" && tracing::enabled!(tracing::Level::ERROR);
        let log = logged.then(|| LogFacts {
            peer,
            request_id: headers.get("x-request-id").cloned(),
            correlation_id: headers.get("x-correlation-id").cloned(),
            user_agent: headers.get("user-agent").cloned(),
        });
        if let Some(facts) = &log {
            // The line at the end says all of this again; this one is for calls that hang.
            tracing::debug!(
                component = "grpc",
                protocol = "grpc",
                grpc.component = "server",
                grpc.service = method.service.as_str(),
                grpc.method = method.name.as_str(),
                grpc.method_type = method.kind,
                peer.address = facts
                    .peer
                    .map(|peer| peer.to_string())
                    .unwrap_or_default()
                    .as_str(),
                request_id = text(facts.request_id.as_ref()),
                "started call"
            );
        }
        Self {
            method,
            start: moment(),
            log,
        }
    }

    /// Ties the call to its answer, whose end will be the call's.
    fn answer(self, response: Response<Body>) -> Response<Body> {
        let (mut parts, body) = response.into_parts();
        // An answer that is only a status has it in the headers.
        let early = Status::from_header_map(&parts.headers).map(|status| reword(status, &mut parts.headers));
        let mut tied = Answer {
            body,
            frames: FrameCounter::default(),
            call: Some(self),
        };
        if let Some(status) = early {
            tied.end(&status);
        }
        Response::from_parts(parts, Body::new(tied))
    }

    fn end(self, status: &Status) {
        let seconds = self.start.elapsed().as_secs_f64();
        self.method.handled(status.code(), seconds);
        let Some(facts) = self.log else { return };
        macro_rules! finished {
            ($level:ident) => {
                tracing::$level!(
                    component = "grpc",
                    protocol = "grpc",
                    grpc.component = "server",
                    grpc.service = self.method.service.as_str(),
                    grpc.method = self.method.name.as_str(),
                    grpc.method_type = self.method.kind,
                    peer.address = facts
                        .peer
                        .map(|peer| peer.to_string())
                        .unwrap_or_default()
                        .as_str(),
                    request_id = text(facts.request_id.as_ref()),
                    correlation_id = text(facts.correlation_id.as_ref()),
                    user_agent = text(facts.user_agent.as_ref()),
                    grpc.code = code_name(status.code()),
                    grpc.error = status.message(),
                    grpc.time_ms = seconds * 1000.0,
                    "finished call"
                )
            };
        }
        match status.code() {
            Code::Ok
            | Code::Cancelled
            | Code::DeadlineExceeded
            | Code::NotFound
            | Code::AlreadyExists
            | Code::Aborted => finished!(info),
            Code::InvalidArgument
            | Code::Unauthenticated
            | Code::PermissionDenied
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::OutOfRange => finished!(warn),
            _ => finished!(error),
        }
    }
}

/// Puts the transport's words into the network's, in place.
fn reword(status: Status, headers: &mut HeaderMap) -> Status {
    match in_network_words(&status) {
        Some(ours) => {
            if let Err(error) = ours.add_header(headers) {
                tracing::error!(component = "grpc", %error, "status could not be put into headers");
            }
            ours
        }
        None => status,
    }
}

/// A request's body, counted.
struct Counted {
    body: Body,
    frames: FrameCounter,
    method: Arc<Method>,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            this.method.received.inc_by(this.frames.take(data));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body: counted, guarded against panics, and the end of its call.
struct Answer {
    body: Body,
    frames: FrameCounter,
    call: Option<Call>,
}

impl Answer {
    fn end(&mut self, status: &Status) {
        if let Some(call) = self.call.take() {
            call.end(status);
        }
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let Ok(polled) = catch_unwind(AssertUnwindSafe(|| Pin::new(&mut this.body).poll_frame(context)))
        else {
            let status = panicked();
            this.end(&status);
            // What panicked is not asked again.
            this.body = Body::empty();
            let mut trailers = HeaderMap::new();
            return Poll::Ready(match status.add_header(&mut trailers) {
                Ok(()) => Some(Ok(Frame::trailers(trailers))),
                Err(error) => Some(Err(error)),
            });
        };
        match polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    let messages = this.frames.take(data);
                    if let Some(call) = &this.call {
                        call.method.sent.inc_by(messages);
                    }
                    return Poll::Ready(Some(Ok(frame)));
                }
                match frame.into_trailers() {
                    Ok(mut trailers) => {
                        let status = Status::from_header_map(&trailers)
                            .unwrap_or_else(|| Status::unknown("no status"));
                        let status = reword(status, &mut trailers);
                        this.end(&status);
                        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
                    }
                    Err(frame) => Poll::Ready(Some(Ok(frame))),
                }
            }
            Poll::Ready(Some(Err(status))) => {
                this.end(&status);
                Poll::Ready(Some(Err(status)))
            }
            Poll::Ready(None) => {
                this.end(&Status::ok(""));
                Poll::Ready(None)
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answer {
    /// The caller went away before the end.
    fn drop(&mut self) {
        self.end(&Status::cancelled("the caller went away"));
    }
}
