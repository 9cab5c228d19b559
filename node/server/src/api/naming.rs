//! `NamingService`: records by name, and the verdict on a name (grpc-api §4.12).

use std::sync::Arc;

use dirnode_proto::core::v1::NamedRecordRef;
use dirnode_proto::naming::v1::naming_service_server::NamingService;
use dirnode_proto::naming::v1::{
    GetVerificationInfoRequest, GetVerificationInfoResponse, ResolveRequest, ResolveResponse,
};
use dirnode_store::{NamePattern, VersionRule};
use tonic::{Request, Response, Status};

use super::Api;
use super::status::search_status;
use crate::policy::{Action, Caller};
use crate::queries;

/// Longest name and version that are looked for; a record cannot have longer ones of any use.
const MAX_TEXT_BYTES: usize = 64 * 1024;

/// The service.
pub struct NamingApi(Arc<Api>);

impl NamingApi {
    pub fn new(api: Arc<Api>) -> Self {
        Self(api)
    }

    async fn find(&self, name: String, version: Option<String>) -> Result<Vec<NamedRecordRef>, Status> {
        self.0.policy.permit(Caller::Anonymous, Action::Resolve)?;
        if name.is_empty() {
            return Err(Status::invalid_argument("name is required"));
        }
        let version = version.filter(|version| !version.is_empty());
        if name.len() + version.as_ref().map_or(0, String::len) > MAX_TEXT_BYTES {
            return Err(Status::invalid_argument(format!(
                "name and version exceed {MAX_TEXT_BYTES} bytes"
            )));
        }
        let has_scheme = name.starts_with("http://") || name.starts_with("https://");
        let mut names = vec![NamePattern::new(&name)];
        if !has_scheme {
            names.extend(["http://", "https://"].map(|scheme| NamePattern::new(&format!("{scheme}{name}"))));
        }
        let rule = version.as_deref().map(VersionRule::new);
        let found = queries::resolve(&self.0.store, names, rule)
            .await
            .map_err(|error| search_status(&error))?;
        if found.is_empty() {
            let version = version
                .map(|version| format!(" and version {}", go_quoted(&version)))
                .unwrap_or_default();
            return Err(Status::not_found(format!(
                "no record found with name {}{version}",
                go_quoted(&name)
            )));
        }
        let reference = |named: dirnode_store::Named| NamedRecordRef {
            name: named.name,
            version: named.version,
            cid: named.cid.to_string(),
        };
        Ok(found.into_iter().map(reference).collect())
    }
}

/// A text in double quotes.
fn go_quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() => quoted.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[tonic::async_trait]
impl NamingService for NamingApi {
    async fn resolve(&self, request: Request<ResolveRequest>) -> Result<Response<ResolveResponse>, Status> {
        let ResolveRequest { name, version } = request.into_inner();
        let records = self.find(name, version).await?;
        Ok(Response::new(ResolveResponse { records }))
    }

    /// Nothing on this node verifies names yet, so every answer is that there is no verification, which is also what
    /// clients see elsewhere until the task that does it has run.
    async fn get_verification_info(
        &self,
        request: Request<GetVerificationInfoRequest>,
    ) -> Result<Response<GetVerificationInfoResponse>, Status> {
        let request = request.into_inner();
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        if given(request.cid).is_none() {
            let name = given(request.name)
                .ok_or_else(|| Status::invalid_argument("either cid or name is required"))?;
            self.find(name, request.version).await?;
        }
        Ok(Response::new(GetVerificationInfoResponse {
            verified: false,
            verification: None,
            error_message: Some("no verification found".to_owned()),
        }))
    }
}
