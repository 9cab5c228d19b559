//! Services of the contract that this release registers but does not serve yet. Each call says so, by name; the README
//! lists them. `SignService/Sign` is not served by design: private keys stay with their owners (grpc-api §4.12).

use std::pin::Pin;

use dirnode_proto::runtime::v1 as runtime;
use dirnode_proto::sign::v1 as sign;
use dirnode_proto::store::v1 as sync;
use futures_util::Stream;
use tonic::{Request, Response, Status};

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Registered, and answers `UNIMPLEMENTED`.
#[derive(Debug, Clone, Copy)]
pub struct Pending;

fn not_served<T>(what: &str) -> Result<Response<T>, Status> {
    Err(Status::unimplemented(format!(
        "{what} is not served by this release of dirnode"
    )))
}

#[tonic::async_trait]
impl sync::sync_service_server::SyncService for Pending {
    type ListSyncsStream = Answers<sync::ListSyncsItem>;

    async fn create_sync(
        &self,
        _: Request<sync::CreateSyncRequest>,
    ) -> Result<Response<sync::CreateSyncResponse>, Status> {
        not_served("replication between directories (SyncService/CreateSync)")
    }

    async fn list_syncs(
        &self,
        _: Request<sync::ListSyncsRequest>,
    ) -> Result<Response<Self::ListSyncsStream>, Status> {
        not_served("replication between directories (SyncService/ListSyncs)")
    }

    async fn get_sync(
        &self,
        _: Request<sync::GetSyncRequest>,
    ) -> Result<Response<sync::GetSyncResponse>, Status> {
        not_served("replication between directories (SyncService/GetSync)")
    }

    async fn delete_sync(
        &self,
        _: Request<sync::DeleteSyncRequest>,
    ) -> Result<Response<sync::DeleteSyncResponse>, Status> {
        not_served("replication between directories (SyncService/DeleteSync)")
    }

    async fn request_registry_credentials(
        &self,
        _: Request<sync::RequestRegistryCredentialsRequest>,
    ) -> Result<Response<sync::RequestRegistryCredentialsResponse>, Status> {
        not_served("replication between directories (SyncService/RequestRegistryCredentials)")
    }
}

#[tonic::async_trait]
impl sign::sign_service_server::SignService for Pending {
    async fn sign(&self, _: Request<sign::SignRequest>) -> Result<Response<sign::SignResponse>, Status> {
        Err(Status::unimplemented(
            "server-side signing not implemented - use client SDK",
        ))
    }

    async fn verify(
        &self,
        _: Request<sign::VerifyRequest>,
    ) -> Result<Response<sign::VerifyResponse>, Status> {
        not_served("verifying signatures (SignService/Verify)")
    }
}

#[tonic::async_trait]
impl runtime::discovery_service_server::DiscoveryService for Pending {
    type ListWorkloadsStream = Answers<runtime::Workload>;

    async fn get_workload(
        &self,
        _: Request<runtime::GetWorkloadRequest>,
    ) -> Result<Response<runtime::Workload>, Status> {
        not_served("workload discovery (DiscoveryService/GetWorkload)")
    }

    async fn list_workloads(
        &self,
        _: Request<runtime::ListWorkloadsRequest>,
    ) -> Result<Response<Self::ListWorkloadsStream>, Status> {
        not_served("workload discovery (DiscoveryService/ListWorkloads)")
    }
}
