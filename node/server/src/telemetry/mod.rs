//! What the node tells about itself: logs and metrics (operations §5).

pub mod http;
pub mod logs;
pub mod metrics;
mod routing;
