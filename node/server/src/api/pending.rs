//! Services of the contract that this release registers but does not serve yet. Each call says so, by name; the README
//! lists them. `SignService/Sign` is not served by design: private keys stay with their owners (grpc-api §4.12).

use std::pin::Pin;

use dirnode_proto::routing::v1 as routing;
use dirnode_proto::runtime::v1 as runtime;
use dirnode_proto::search::v1 as search;
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
impl routing::routing_service_server::RoutingService for Pending {
    type SearchStream = Answers<routing::SearchResponse>;
    type ListStream = Answers<routing::ListResponse>;

    async fn publish(&self, _: Request<routing::PublishRequest>) -> Result<Response<()>, Status> {
        not_served("announcing records to the network (RoutingService/Publish)")
    }

    async fn unpublish(&self, _: Request<routing::UnpublishRequest>) -> Result<Response<()>, Status> {
        not_served("announcing records to the network (RoutingService/Unpublish)")
    }

    async fn search(
        &self,
        _: Request<routing::SearchRequest>,
    ) -> Result<Response<Self::SearchStream>, Status> {
        not_served("searching the network (RoutingService/Search)")
    }

    async fn list(&self, _: Request<routing::ListRequest>) -> Result<Response<Self::ListStream>, Status> {
        not_served("listing announced records (RoutingService/List)")
    }

    async fn get_provider_count(
        &self,
        _: Request<routing::GetProviderCountRequest>,
    ) -> Result<Response<routing::GetProviderCountResponse>, Status> {
        not_served("counting providers (RoutingService/GetProviderCount)")
    }
}

#[tonic::async_trait]
impl routing::publication_service_server::PublicationService for Pending {
    type ListPublicationsStream = Answers<routing::ListPublicationsItem>;

    async fn create_publication(
        &self,
        _: Request<routing::PublishRequest>,
    ) -> Result<Response<routing::CreatePublicationResponse>, Status> {
        not_served("announcing records to the network (PublicationService/CreatePublication)")
    }

    async fn list_publications(
        &self,
        _: Request<routing::ListPublicationsRequest>,
    ) -> Result<Response<Self::ListPublicationsStream>, Status> {
        not_served("announcing records to the network (PublicationService/ListPublications)")
    }

    async fn get_publication(
        &self,
        _: Request<routing::GetPublicationRequest>,
    ) -> Result<Response<routing::GetPublicationResponse>, Status> {
        not_served("announcing records to the network (PublicationService/GetPublication)")
    }
}

#[tonic::async_trait]
impl search::search_service_server::SearchService for Pending {
    type SearchCIDsStream = Answers<search::SearchCiDsResponse>;
    type SearchRecordsStream = Answers<search::SearchRecordsResponse>;

    async fn search_ci_ds(
        &self,
        _: Request<search::SearchCiDsRequest>,
    ) -> Result<Response<Self::SearchCIDsStream>, Status> {
        not_served("searching stored records (SearchService/SearchCIDs)")
    }

    async fn search_records(
        &self,
        _: Request<search::SearchRecordsRequest>,
    ) -> Result<Response<Self::SearchRecordsStream>, Status> {
        not_served("searching stored records (SearchService/SearchRecords)")
    }

    async fn count_records(
        &self,
        _: Request<search::CountRecordsRequest>,
    ) -> Result<Response<search::CountRecordsResponse>, Status> {
        not_served("searching stored records (SearchService/CountRecords)")
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
