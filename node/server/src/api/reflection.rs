//! gRPC reflection, v1 and v1alpha: what this node serves, and the files that describe it.
//!
//! A question about something unknown is answered inside the stream, as the protocol says, and the stream goes on; so a
//! client that asks for one name too many keeps its session. State: none besides the embedded descriptors.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::try_unfold;
use prost::Message as _;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto};
use tonic::{Code, Request, Response, Status, Streaming};

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A `FileDescriptorSet` whose files stay the bytes they came as, custom options included.
#[derive(Clone, PartialEq, prost::Message)]
struct RawFiles {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    files: Vec<Bytes>,
}

/// One file, and the files it imports.
struct File {
    bytes: Bytes,
    imports: Vec<String>,
}

/// The descriptors by every name they can be asked for.
#[derive(Default)]
struct Index {
    services: BTreeSet<String>,
    files: BTreeMap<String, File>,
    /// Full name of a service, method, message, field, oneof, enum or enum value to the file it is in.
    symbols: BTreeMap<String, String>,
    messages: BTreeSet<String>,
}

/// The service, in both versions of the protocol.
#[derive(Clone)]
pub struct Reflection(Arc<Index>);

impl Reflection {
    /// Describes everything in `sets`, each an encoded `FileDescriptorSet`.
    ///
    /// # Errors
    /// When one of them does not decode.
    pub fn new(sets: &[&[u8]]) -> Result<Self, prost::DecodeError> {
        let mut index = Index::default();
        for set in sets {
            for bytes in RawFiles::decode(*set)?.files {
                let file = FileDescriptorProto::decode(bytes.clone())?;
                index.add(&file, bytes);
            }
        }
        Ok(Self(Arc::new(index)))
    }
}

impl Index {
    fn add(&mut self, file: &FileDescriptorProto, bytes: Bytes) {
        let (name, package) = (file.name(), file.package());
        for service in &file.service {
            let full = join(package, service.name());
            for method in &service.method {
                self.symbol(join(&full, method.name()), name);
            }
            self.symbol(full.clone(), name);
            self.services.insert(full);
        }
        // Nested messages wait in a list: descriptors are ours, but nothing here recurses.
        let mut waiting: Vec<(String, &DescriptorProto)> = file
            .message_type
            .iter()
            .map(|message| (package.to_owned(), message))
            .collect();
        while let Some((scope, message)) = waiting.pop() {
            let full = join(&scope, message.name());
            let members = message.field.iter().map(|field| field.name());
            for member in members.chain(message.oneof_decl.iter().map(|oneof| oneof.name())) {
                self.symbol(join(&full, member), name);
            }
            self.enums(&full, &message.enum_type, name);
            waiting.extend(message.nested_type.iter().map(|nested| (full.clone(), nested)));
            self.symbol(full.clone(), name);
            self.messages.insert(full);
        }
        self.enums(package, &file.enum_type, name);
        self.files.entry(name.to_owned()).or_insert_with(|| File {
            bytes,
            imports: file.dependency.clone(),
        });
    }

    fn enums(&mut self, scope: &str, enums: &[EnumDescriptorProto], file: &str) {
        for kind in enums {
            self.symbol(join(scope, kind.name()), file);
            // Values are named beside their enum, not inside it.
            for value in &kind.value {
                self.symbol(join(scope, value.name()), file);
            }
        }
    }

    fn symbol(&mut self, name: String, file: &str) {
        self.symbols.insert(name, file.to_owned());
    }

    /// A file and everything it imports, itself first.
    fn file(&self, name: &str) -> Result<Vec<Vec<u8>>, String> {
        let first = self
            .files
            .get(name)
            .ok_or_else(|| format!("file {:?} is not known", shown(name)))?;
        let (mut found, mut seen, mut waiting) = (Vec::new(), BTreeSet::from([name]), vec![first]);
        while let Some(file) = waiting.pop() {
            found.push(file.bytes.to_vec());
            let new = file.imports.iter().filter(|import| seen.insert(import.as_str()));
            waiting.extend(new.filter_map(|import| self.files.get(import)));
        }
        Ok(found)
    }

    fn file_of(&self, symbol: &str) -> Result<Vec<Vec<u8>>, String> {
        let file = self.symbols.get(symbol.trim_start_matches('.'));
        self.file(file.ok_or_else(|| format!("symbol {:?} is not known", shown(symbol)))?)
    }

    /// No message here has extensions.
    fn extensions(&self, message: &str) -> Result<Vec<i32>, String> {
        let known = self.messages.contains(message.trim_start_matches('.'));
        if known {
            Ok(Vec::new())
        } else {
            Err(format!("message {:?} is not known", shown(message)))
        }
    }
}

fn join(scope: &str, name: &str) -> String {
    if scope.is_empty() {
        name.to_owned()
    } else {
        format!("{scope}.{name}")
    }
}

fn shown(text: &str) -> String {
    text.chars().take(256).collect()
}

macro_rules! serve {
    ($version:ident) => {
        const _: () = {
            use tonic_reflection::pb::$version::server_reflection_request::MessageRequest as Ask;
            use tonic_reflection::pb::$version::server_reflection_response::MessageResponse as Say;
            use tonic_reflection::pb::$version::{
                ErrorResponse, ExtensionNumberResponse, FileDescriptorResponse, ListServiceResponse,
                ServerReflectionRequest, ServerReflectionResponse, ServiceResponse,
            };

            fn answer(index: &Index, ask: &Ask) -> Say {
                let files = |files| {
                    Say::FileDescriptorResponse(FileDescriptorResponse {
                        file_descriptor_proto: files,
                    })
                };
                let found = match ask {
                    Ask::FileByFilename(name) => index.file(name).map(files),
                    Ask::FileContainingSymbol(symbol) => index.file_of(symbol).map(files),
                    Ask::FileContainingExtension(extension) => Err(format!(
                        "extensions of {:?} are not known",
                        shown(&extension.containing_type)
                    )),
                    Ask::AllExtensionNumbersOfType(message) => {
                        index.extensions(message).map(|extension_number| {
                            let base_type_name = message.clone();
                            Say::AllExtensionNumbersResponse(ExtensionNumberResponse {
                                base_type_name,
                                extension_number,
                            })
                        })
                    }
                    Ask::ListServices(_) => {
                        let service = index
                            .services
                            .iter()
                            .map(|name| ServiceResponse { name: name.clone() })
                            .collect();
                        Ok(Say::ListServicesResponse(ListServiceResponse { service }))
                    }
                };
                found.unwrap_or_else(|error_message| {
                    Say::ErrorResponse(ErrorResponse {
                        error_code: Code::NotFound.into(),
                        error_message,
                    })
                })
            }

            #[tonic::async_trait]
            impl tonic_reflection::pb::$version::server_reflection_server::ServerReflection for Reflection {
                type ServerReflectionInfoStream = Answers<ServerReflectionResponse>;

                async fn server_reflection_info(
                    &self,
                    requests: Request<Streaming<ServerReflectionRequest>>,
                ) -> Result<Response<Self::ServerReflectionInfoStream>, Status> {
                    let state = (requests.into_inner(), Arc::clone(&self.0));
                    Ok(Response::new(Box::pin(try_unfold(
                        state,
                        |(mut requests, index)| async move {
                            let Some(request) = requests.message().await? else {
                                return Ok(None);
                            };
                            let Some(ask) = &request.message_request else {
                                return Err(Status::invalid_argument(
                                    "reflection request asks for nothing",
                                ));
                            };
                            let said = ServerReflectionResponse {
                                valid_host: request.host.clone(),
                                message_response: Some(answer(&index, ask)),
                                original_request: Some(request),
                            };
                            Ok(Some((said, (requests, index))))
                        },
                    ))))
                }
            }
        };
    };
}

serve!(v1);
serve!(v1alpha);

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> Index {
        let sets = [dirnode_proto::FILE_DESCRIPTOR_SET];
        Arc::into_inner(Reflection::new(&sets).unwrap().0).unwrap()
    }

    #[test]
    fn every_name_leads_to_its_file_and_what_that_imports() {
        let index = index();
        let names = |found: Result<Vec<Vec<u8>>, String>| -> Vec<String> {
            let files = found.unwrap();
            files
                .iter()
                .map(|bytes| {
                    FileDescriptorProto::decode(bytes.as_slice())
                        .unwrap()
                        .name()
                        .to_owned()
                })
                .collect()
        };
        for symbol in [
            "agntcy.dir.store.v1.StoreService",
            "agntcy.dir.store.v1.StoreService.Push",
            ".agntcy.dir.store.v1.PushReferrerRequest",
            "agntcy.dir.store.v1.PushReferrerRequest.record_ref",
        ] {
            let files = names(index.file_of(symbol));
            assert_eq!(files[0], "agntcy/dir/store/v1/store_service.proto", "{symbol}");
            assert!(
                files.contains(&"google/protobuf/struct.proto".to_owned()),
                "{symbol}: {files:?}"
            );
        }
        assert!(
            index
                .file_of("agntcy.dir.events.v1.EVENT_TYPE_RECORD_PUSHED")
                .is_ok()
        );
        assert!(index.file_of("no.such.Symbol").is_err() && index.file("no/such.proto").is_err());
    }
}
