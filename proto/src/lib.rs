//! The wire of the Agent Directory: generated messages and services of `agntcy.dir.*.v1` and of our own
//! `dirnode.node.v1`, their descriptor bytes, the [`Struct`] that reads records nested thousands deep, and the codec that
//! answers bad bytes as the contract says.
//!
//! No logic beyond encoding. Shapes: grpc-api §1. `contract.tsv` beside this crate is the machine-readable table that a
//! test holds the descriptors against.

pub mod codec;
pub mod record;
mod struct_wire;
pub mod value;

pub use value::{Struct, Value};

/// The encoded `FileDescriptorSet` of every file here and its imports; what gRPC reflection serves.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

macro_rules! package {
    ($name:literal $(, use $own:path)?) => {
        #[expect(
            clippy::all,
            clippy::unwrap_used,
            missing_docs,
            reason = "generated code; unfulfilled where a package has none of it"
        )]
        #[allow(
            unfulfilled_lint_expectations,
            reason = "not every package trips every lint"
        )]
        pub mod v1 {
            $(#[doc(inline)] pub use $own;)?
            tonic::include_proto!($name);
        }
    };
}

/// Records, references, referrers.
pub mod core {
    package!("agntcy.dir.core.v1", use crate::record::Record);
}
/// Live events.
pub mod events {
    package!("agntcy.dir.events.v1");
}
/// Records by name and verified names.
pub mod naming {
    package!("agntcy.dir.naming.v1");
}
/// What a node of this implementation tells about itself; not part of the network's API.
pub mod node {
    package!("dirnode.node.v1");
}
/// Announcements to the network.
pub mod routing {
    package!("agntcy.dir.routing.v1");
}
/// Workloads near the node.
pub mod runtime {
    package!("agntcy.dir.runtime.v1");
}
/// Search over stored records.
pub mod search {
    package!("agntcy.dir.search.v1");
}
/// Scan reports.
pub mod security {
    package!("agntcy.dir.security.v1");
}
/// Signatures.
pub mod sign {
    package!("agntcy.dir.sign.v1");
}
/// Content and replication.
pub mod store {
    package!("agntcy.dir.store.v1");
}
