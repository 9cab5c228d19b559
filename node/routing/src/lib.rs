//! Publish, announcements, search, republish and expiry: a state machine without sockets or clocks.
