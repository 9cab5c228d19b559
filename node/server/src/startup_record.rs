//! The record by which a node describes itself in its own directory (grpc-api §4.15), best effort, once it serves.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dirnode_record::read_struct;
use dirnode_store::{NamePattern, Store, VersionRule};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::ingest::Ingest;
use crate::policy::{Action, Policy};
use crate::runtime::Clock;

/// Name of the record, the same on every node.
pub const NAME: &str = "org.agntcy/directory";

/// How an agent uses a directory, in the form of a skill.
const SKILL: &str = "---\n\
name: agent-directory\n\
description: Find, read and store descriptions of AI agents in an Agent Directory node.\n\
---\n\
\n\
# Agent Directory\n\
\n\
The node answers gRPC (package `agntcy.dir`) on its API address. Reflection is on.\n\
\n\
- Read a record by CID: `dirnode pull CID`\n\
- Read its metadata: `dirnode info CID`\n\
- Find records by name: `dirnode resolve NAME`\n\
- Store a record: `dirnode push FILE`\n\
- Check a record before storing it: `dirnode validate FILE`\n";

/// Stores the record unless one of this name and version is there.
pub async fn publish(store: Store, ingest: Ingest, policy: Policy, clock: Clock) {
    let version = env!("CARGO_PKG_VERSION");
    if !store
        .resolve(&[NamePattern::new(NAME)], Some(&VersionRule::new(version)))
        .is_empty()
    {
        return;
    }
    let created_at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(clock()))
        .ok()
        .and_then(|time| time.replace_nanosecond(0).ok())
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_default();
    let text = document(version, &created_at).to_string();
    let data = match read_struct(text.as_bytes()) {
        Ok(data) => data,
        Err(error) => {
            tracing::error!(component = "startup", %error, "start-up record does not read");
            return;
        }
    };
    let permit = match policy.permit(Ingest::own_caller(), Action::Push) {
        Ok(permit) => permit,
        Err(denied) => {
            tracing::warn!(component = "startup", %denied, "start-up record not stored");
            return;
        }
    };
    match ingest.admit(data, &permit).await {
        Ok(admitted) => tracing::info!(component = "startup", cid = %admitted.cid, "start-up record stored"),
        Err(error) => tracing::warn!(component = "startup", %error, "start-up record not stored"),
    }
}

fn document(version: &str, created_at: &str) -> serde_json::Value {
    let digest: String = Sha256::digest(SKILL)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    json!({
        "name": NAME,
        "version": version,
        "schema_version": "1.0.0",
        "description": "An Agent Directory node: it stores records that describe agents and finds them by content and name.",
        "authors": ["dirnode"],
        "created_at": created_at,
        "skills": [{ "name": "agent_orchestration/agent_coordination", "id": 1004 }],
        "domains": [{ "name": "technology/software_engineering", "id": 102 }],
        "locators": [],
        "modules": [
            {
                "name": "core/language_model/agentskills",
                "id": 10302,
                "data": {},
                "artifact": {
                    "media_type": "application/agent-skills+md",
                    "data": STANDARD.encode(SKILL),
                    "digest": format!("sha256:{digest}"),
                    "size": SKILL.len(),
                },
            },
            {
                "name": "integration/mcp",
                "id": 202,
                "data": {
                    "name": "agent-directory",
                    "description": "The command line of the network offers a directory's API as MCP tools.",
                    "connections": [{ "type": "stdio", "command": "dirctl", "args": ["mcp", "serve"] }],
                },
            },
        ],
    })
}
