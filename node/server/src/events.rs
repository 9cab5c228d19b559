//! The event bus: what happens on this node, to whoever listens now. Soft state, nothing is kept or replayed.
//!
//! Delivery never holds up the one who emits: each subscriber has a bounded buffer, and what does not fit is dropped
//! for that subscriber and counted (grpc-api §4.14).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use dirnode_proto::events::v1::{Event, EventType, ListenRequest};
use parking_lot::RwLock;
use tokio::sync::mpsc;

use crate::config;
use crate::runtime::Clock;

/// Subscribers at once; the next one is refused.
pub const MAX_SUBSCRIBERS: usize = 4096;
/// Filters of one subscriber, of all kinds together.
pub const MAX_FILTERS: usize = 1024;

/// Hands events to subscribers.
#[derive(Clone)]
pub struct EventBus(Arc<Inner>);

struct Inner {
    settings: config::Events,
    clock: Clock,
    next_id: AtomicU64,
    count: AtomicUsize,
    dropped: AtomicU64,
    subscribers: RwLock<BTreeMap<u64, Subscriber>>,
}

struct Subscriber {
    filter: Filter,
    buffer: mpsc::Sender<Event>,
}

/// Which events a subscriber wants.
#[derive(Debug, Clone)]
struct Filter(ListenRequest);

impl Filter {
    fn wants(&self, event: &Event) -> bool {
        let Self(asked) = self;
        let any = |list: &[String], test: &dyn Fn(&str) -> bool| {
            list.is_empty() || list.iter().any(|item| test(item))
        };
        (asked.event_types.is_empty() || asked.event_types.contains(&event.r#type))
            && any(&asked.cid_filters, &|cid| cid == event.resource_id)
            && any(&asked.label_filters, &|part| {
                event.labels.iter().any(|label| label.contains(part))
            })
    }
}

/// A subscription was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SubscribeError {
    /// Too many subscribers.
    #[error("{MAX_SUBSCRIBERS} subscribers listen already; try again later")]
    Full,
    /// Too many filters.
    #[error("{0} filters given, the limit is {MAX_FILTERS}")]
    TooManyFilters(usize),
}

impl EventBus {
    /// An empty bus.
    #[must_use]
    pub fn new(settings: config::Events, clock: Clock) -> Self {
        Self(Arc::new(Inner {
            settings,
            clock,
            next_id: AtomicU64::new(0),
            count: AtomicUsize::new(0),
            dropped: AtomicU64::new(0),
            subscribers: RwLock::default(),
        }))
    }

    /// Emits one event. `labels` is asked only when somebody listens.
    pub fn emit(&self, kind: EventType, resource_id: String, labels: impl FnOnce() -> Vec<String>) {
        let inner = &*self.0;
        let listened_to = inner.count.load(Ordering::Acquire) > 0;
        if (!listened_to && !inner.settings.log_published_events) || resource_id.is_empty() {
            return;
        }
        let now = (inner.clock)();
        let event = Event {
            id: uuid::Uuid::new_v4().to_string(),
            r#type: kind.into(),
            timestamp: Some(prost_types::Timestamp {
                seconds: now.div_euclid(1_000_000_000),
                nanos: i32::try_from(now.rem_euclid(1_000_000_000)).unwrap_or(0),
            }),
            resource_id,
            labels: labels(),
            metadata: Default::default(),
        };
        if inner.settings.log_published_events {
            tracing::info!(component = "events", kind = kind.as_str_name(), resource_id = %event.resource_id, "event published");
        }
        for (id, subscriber) in inner.subscribers.read().iter() {
            if !subscriber.filter.wants(&event) {
                continue;
            }
            if let Err(mpsc::error::TrySendError::Full(_)) = subscriber.buffer.try_send(event.clone()) {
                inner.dropped.fetch_add(1, Ordering::Relaxed);
                if inner.settings.log_slow_consumers {
                    tracing::warn!(
                        component = "events",
                        subscriber = id,
                        kind = kind.as_str_name(),
                        "event dropped, the subscriber is too slow"
                    );
                }
            }
        }
    }

    /// Starts listening; ends when the returned value is dropped.
    ///
    /// # Errors
    /// [`SubscribeError`] when a bound is reached.
    pub fn subscribe(&self, request: ListenRequest) -> Result<Subscription, SubscribeError> {
        let filters = request.event_types.len() + request.cid_filters.len() + request.label_filters.len();
        if filters > MAX_FILTERS {
            return Err(SubscribeError::TooManyFilters(filters));
        }
        let (buffer, events) = mpsc::channel(self.0.settings.subscriber_buffer_size);
        let mut subscribers = self.0.subscribers.write();
        if subscribers.len() >= MAX_SUBSCRIBERS {
            return Err(SubscribeError::Full);
        }
        let id = self.0.next_id.fetch_add(1, Ordering::Relaxed);
        subscribers.insert(
            id,
            Subscriber {
                filter: Filter(request),
                buffer,
            },
        );
        self.0.count.store(subscribers.len(), Ordering::Release);
        drop(subscribers);
        Ok(Subscription {
            id,
            bus: self.clone(),
            events,
        })
    }

    /// Ends every subscription, so that streams end when the node stops.
    pub fn close(&self) {
        self.0.subscribers.write().clear();
        self.0.count.store(0, Ordering::Release);
    }

    /// Subscribers now, and events dropped since the start.
    #[must_use]
    pub fn figures(&self) -> (usize, u64) {
        (
            self.0.count.load(Ordering::Relaxed),
            self.0.dropped.load(Ordering::Relaxed),
        )
    }
}

/// One subscriber's end of the bus.
pub struct Subscription {
    id: u64,
    bus: EventBus,
    events: mpsc::Receiver<Event>,
}

impl Subscription {
    /// The next event; `None` once the bus is closed.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut subscribers = self.bus.0.subscribers.write();
        subscribers.remove(&self.id);
        self.bus.0.count.store(subscribers.len(), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bus(buffer: usize) -> EventBus {
        let settings = config::Events {
            subscriber_buffer_size: buffer,
            log_slow_consumers: false,
            log_published_events: false,
        };
        EventBus::new(settings, Arc::new(|| 1_500_000_000))
    }

    fn request(types: &[EventType], labels: &[&str], cids: &[&str]) -> ListenRequest {
        ListenRequest {
            event_types: types.iter().map(|kind| (*kind).into()).collect(),
            label_filters: labels.iter().map(ToString::to_string).collect(),
            cid_filters: cids.iter().map(ToString::to_string).collect(),
        }
    }

    #[tokio::test]
    async fn filters_are_alternatives_inside_a_kind_and_all_hold_across_kinds() {
        let bus = bus(10);
        let mut heard = bus
            .subscribe(request(&[EventType::RecordPushed], &["nope", "/skills/a"], &[]))
            .unwrap();
        bus.emit(EventType::RecordPushed, "c1".into(), || {
            vec!["/skills/abc".into()]
        });
        bus.emit(EventType::RecordPushed, "c2".into(), || vec!["/domains/a".into()]);
        bus.emit(EventType::RecordDeleted, "c3".into(), Vec::new);
        bus.close();
        let event = heard.next().await.unwrap();
        assert_eq!(event.resource_id, "c1");
        assert_eq!(event.timestamp.unwrap().nanos, 500_000_000);
        assert!(heard.next().await.is_none());
    }

    #[tokio::test]
    async fn a_slow_subscriber_loses_events_and_nobody_else_does() {
        let bus = bus(2);
        let _slow = bus.subscribe(ListenRequest::default()).unwrap();
        for n in 0..5 {
            bus.emit(EventType::RecordPushed, format!("c{n}"), Vec::new);
        }
        assert_eq!(bus.figures(), (1, 3));
    }

    #[test]
    fn a_subscription_that_is_dropped_is_gone() {
        let bus = bus(2);
        drop(bus.subscribe(ListenRequest::default()).unwrap());
        assert_eq!(bus.figures().0, 0);
        bus.emit(EventType::RecordPushed, "c".into(), || {
            panic!("labels are asked though nobody listens")
        });
    }
}
