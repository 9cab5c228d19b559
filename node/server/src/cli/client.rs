//! The connection of a client command to a node, and references to records.

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use dirnode_proto::core::v1::{NamedRecordRef, Record, RecordRef};
use dirnode_proto::naming::v1::ResolveRequest;
use dirnode_proto::naming::v1::naming_service_client::NamingServiceClient;
use dirnode_proto::store::v1::store_service_client::StoreServiceClient;
use dirnode_record::{RecordCid, to_canonical};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, TimeoutExpired};

use super::ServerArgs;

/// Largest answer that is taken: a node may allow more than the default of 4 MiB.
pub(crate) const MAX_ANSWER_BYTES: usize = 64 << 20;

/// The header of a request holds eight digits.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(99_999_999);

/// A node to talk to.
pub(crate) struct Client {
    channel: Channel,
    address: String,
    timeout: Duration,
}

impl Client {
    /// Connects.
    pub(crate) async fn connect(args: &ServerArgs) -> anyhow::Result<Self> {
        let address = args.server_addr.trim();
        let uri = if address.contains("://") {
            address.to_owned()
        } else {
            format!("http://{address}")
        };
        let timeout = Duration::from_secs(args.timeout.max(1));
        let channel = Endpoint::from_shared(uri)
            .with_context(|| format!("failed to create client: {address:?} is no address; write host:port"))?
            .connect_timeout(timeout)
            .http2_keep_alive_interval(Duration::from_secs(120))
            .connect()
            .await
            .map_err(|error| {
                anyhow!(
                    "failed to create client: no node answers at {address} ({}); start one with `dirnode run`, or give \
                     --server-addr or DIRECTORY_CLIENT_SERVER_ADDRESS",
                    root_cause(&error)
                )
            })?;
        Ok(Self {
            channel,
            address: address.to_owned(),
            timeout,
        })
    }

    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub(crate) fn store(&self) -> StoreServiceClient<Channel> {
        StoreServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_ANSWER_BYTES)
            .max_encoding_message_size(MAX_ANSWER_BYTES)
    }

    pub(crate) fn naming(&self) -> NamingServiceClient<Channel> {
        NamingServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    /// A request that tells the node how long its caller waits, for what a node answers with as much as it has by then.
    pub(crate) fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.set_timeout(self.timeout.min(LONGEST_TIMEOUT));
        request
    }

    /// Waits for an answer no longer than the user said.
    pub(crate) async fn within<T>(
        &self,
        answer: impl Future<Output = Result<T, Status>>,
    ) -> anyhow::Result<T> {
        match tokio::time::timeout(self.timeout, answer).await {
            Ok(Err(status)) if !is_timeout(&status) => Err(describe(&status)),
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) | Err(_) => bail!(
                "no answer from {} in {:?}; raise --timeout if it is busy",
                self.address,
                self.timeout
            ),
        }
    }

    /// Records of a name, latest stored first.
    pub(crate) async fn resolve(
        &self,
        name: &str,
        version: Option<&str>,
    ) -> anyhow::Result<Vec<NamedRecordRef>> {
        let request = ResolveRequest {
            name: name.to_owned(),
            version: version.map(str::to_owned),
        };
        let mut naming = self.naming();
        let answer = self.within(naming.resolve(request)).await?;
        Ok(answer.into_inner().records)
    }

    /// The CID that a reference names: a CID, or `name[:version][@cid]`.
    pub(crate) async fn cid_of(&self, reference: &str) -> anyhow::Result<String> {
        let Reference { name, version, cid } = match Reference::parse(reference) {
            Reference {
                name: None,
                cid: Some(cid),
                ..
            } => return Ok(cid),
            named => named,
        };
        let name = name.unwrap_or_default();
        let found = self.resolve(&name, version.as_deref()).await?;
        let latest = found
            .first()
            .ok_or_else(|| anyhow!("no record found with name {name:?}"))?;
        match cid {
            Some(cid) if cid != latest.cid => {
                bail!(
                    "hash verification failed: {name} is {}, the reference says {cid}",
                    latest.cid
                )
            }
            _ => Ok(latest.cid.clone()),
        }
    }

    /// Reads one record and checks that it is what its CID says.
    pub(crate) async fn pull(&self, cid: &str) -> anyhow::Result<Record> {
        let request = tokio_stream::once(RecordRef { cid: cid.to_owned() });
        let mut store = self.store();
        let answer = async { only(store.pull(request).await?.into_inner()).await };
        let record = self
            .within(answer)
            .await?
            .ok_or_else(|| anyhow!("the node gave no answer for {cid}"))?;
        if let (Some(expected), Some(data)) = (RecordCid::parse(cid), &record.data) {
            let actual = RecordCid::of(&to_canonical(data)?);
            if actual != expected {
                bail!(
                    "content hashes to {actual}, expected {expected}; the node or the way to it changed the record"
                );
            }
        }
        Ok(record)
    }
}

/// What a reference says.
#[derive(Debug, PartialEq, Eq)]
struct Reference {
    name: Option<String>,
    version: Option<String>,
    cid: Option<String>,
}

impl Reference {
    fn parse(text: &str) -> Self {
        let text = text.trim();
        if RecordCid::parse(text).is_some() {
            return Self {
                name: None,
                version: None,
                cid: Some(text.to_owned()),
            };
        }
        let (rest, cid) = match text.rsplit_once('@') {
            Some((rest, cid)) if RecordCid::parse(cid).is_some() => (rest, Some(cid.to_owned())),
            _ => (text, None),
        };
        // The colon of a scheme or port is none of a version: what follows those has a slash.
        let (name, version) = match rest.rsplit_once(':') {
            Some((name, version)) if !version.is_empty() && !version.contains('/') => {
                (name, Some(version.to_owned()))
            }
            _ => (rest, None),
        };
        Self {
            name: Some(name.to_owned()),
            version,
            cid,
        }
    }
}

/// The one answer of a stream; the stream is read to its end.
pub(crate) async fn only<T>(mut answers: tonic::Streaming<T>) -> Result<Option<T>, Status> {
    let first = answers.message().await?;
    while answers.message().await?.is_some() {}
    Ok(first)
}

/// A status as an error: its text, and the code where the text is empty.
pub(crate) fn describe(status: &Status) -> anyhow::Error {
    if status.message().is_empty() {
        anyhow!("the node answered {:?}", status.code())
    } else {
        anyhow!("{} ({:?})", status.message(), status.code())
    }
}

/// Whether the library gave up by the deadline of the request, at this end or the other.
fn is_timeout(status: &Status) -> bool {
    status.code() == Code::Cancelled && status.message() == TimeoutExpired(()).to_string()
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read() {
        const CID: &str = "baeareicecnx2gvntm6fbcrvnc336qze6st5u7qq7457igegamd3bzkx7ri";
        let check = |text: &str, name: Option<&str>, version: Option<&str>, cid: Option<&str>| {
            let [name, version, cid] = [name, version, cid].map(|part| part.map(str::to_owned));
            assert_eq!(Reference::parse(text), Reference { name, version, cid }, "{text}");
        };
        check(CID, None, None, Some(CID));
        check("example.org/a", Some("example.org/a"), None, None);
        check("example.org/a:v1", Some("example.org/a"), Some("v1"), None);
        check(
            &format!("example.org/a:v1@{CID}"),
            Some("example.org/a"),
            Some("v1"),
            Some(CID),
        );
        check(
            &format!("example.org/a@{CID}"),
            Some("example.org/a"),
            None,
            Some(CID),
        );
        check(
            "https://example.org:80/a",
            Some("https://example.org:80/a"),
            None,
            None,
        );
        check("me@example.org", Some("me@example.org"), None, None);
    }
}
