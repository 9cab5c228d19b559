//! Every message, field number, type, enum value and method against `contract.tsv`, both ways: nothing missing and
//! nothing that the contract does not have.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a broken descriptor set must fail the test"
)]

use std::collections::BTreeSet;

use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};

#[test]
fn descriptors_equal_the_contract() {
    let stated: BTreeSet<String> = include_str!("../contract.tsv")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.trim_end().to_owned())
        .collect();
    assert!(
        stated.len() > 300,
        "the table is cut short: {} lines",
        stated.len()
    );
    let ours = described();
    let missing: Vec<_> = stated.difference(&ours).collect();
    let extra: Vec<_> = ours.difference(&stated).collect();
    assert!(
        missing.is_empty() && extra.is_empty(),
        "missing: {missing:#?}\nnot in the contract: {extra:#?}"
    );
}

fn described() -> BTreeSet<String> {
    let set = FileDescriptorSet::decode(dirnode_proto::FILE_DESCRIPTOR_SET).unwrap();
    let mut lines = BTreeSet::new();
    for file in set
        .file
        .iter()
        .filter(|file| file.package().starts_with("agntcy.dir."))
    {
        let package = file.package();
        for message in &file.message_type {
            let name = format!("{package}.{}", message.name());
            lines.insert(format!("message\t{name}"));
            for field in &message.field {
                lines.insert(describe_field(package, &name, message, field));
            }
        }
        for enumeration in &file.enum_type {
            let name = format!("{package}.{}", enumeration.name());
            lines.insert(format!("enum\t{name}"));
            for value in &enumeration.value {
                lines.insert(format!("value\t{name}\t{}\t{}", value.number(), value.name()));
            }
        }
        for service in &file.service {
            for method in &service.method {
                let kind = match (method.client_streaming(), method.server_streaming()) {
                    (false, false) => "unary",
                    (true, false) => "client-stream",
                    (false, true) => "server-stream",
                    (true, true) => "bidi",
                };
                lines.insert(format!(
                    "method\t/{package}.{}/{}\t{kind}\t{}\t{}",
                    service.name(),
                    method.name(),
                    short_type(package, method.input_type()),
                    short_type(package, method.output_type())
                ));
            }
        }
    }
    lines
}

fn describe_field(
    package: &str,
    name: &str,
    message: &DescriptorProto,
    field: &FieldDescriptorProto,
) -> String {
    let entry = message
        .nested_type
        .iter()
        .find(|nested| field.type_name().ends_with(&format!(".{}", nested.name())));
    let kind = match (entry, field.r#type()) {
        (Some(_), Type::Message) => "map<string,string>".to_owned(),
        (_, Type::Message | Type::Enum) => short_type(package, field.type_name()),
        (_, Type::String) => "string".to_owned(),
        (_, Type::Bool) => "bool".to_owned(),
        (_, Type::Uint32) => "uint32".to_owned(),
        (_, Type::Bytes) => "bytes".to_owned(),
        (_, other) => format!("{other:?}"),
    };
    let optional = field.proto3_optional();
    let label = if entry.is_none() && field.label() == Label::Repeated {
        "repeated"
    } else if optional {
        "optional"
    } else {
        "singular"
    };
    let oneof = match field.oneof_index {
        Some(index) if !optional => message.oneof_decl[usize::try_from(index).unwrap()].name(),
        _ => "",
    };
    format!(
        "field\t{name}\t{}\t{}\t{label}\t{kind}\t{oneof}",
        field.number(),
        field.name()
    )
    .trim_end()
    .to_owned()
}

/// A type as the contract writes it: bare in its own package, `core.v1.Record` from another, `Struct` for Google's.
fn short_type(package: &str, full: &str) -> String {
    let full = full.trim_start_matches('.');
    if let Some(rest) = full.strip_prefix(package).and_then(|rest| rest.strip_prefix('.')) {
        return rest.to_owned();
    }
    full.strip_prefix("agntcy.dir.")
        .or_else(|| full.strip_prefix("google.protobuf."))
        .unwrap_or(full)
        .to_owned()
}
