//! `agntcy.dir.core.v1.Record`: a tree that was read, or bytes that are sent as they are.

use bytes::{Buf, BufMut, Bytes};
use prost::encoding::{self, DecodeContext, WireType};
use prost::{DecodeError, Message};

use crate::Struct;

/// A record: an arbitrary JSON object, which the directory never rewrites.
///
/// Read from the wire, it is a tree. To be sent, it may also be the bytes of a message that is ready, which spares the
/// way through a tree.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Record {
    /// The OASF document.
    pub data: Option<Struct>,
    /// The whole message, encoded; sent in place of `data`. Empty when there is none.
    ready: Bytes,
}

impl Record {
    /// The record as it is on the wire. The bytes are not looked at.
    #[must_use]
    pub fn from_message(ready: Bytes) -> Self {
        Self { data: None, ready }
    }
}

impl From<Struct> for Record {
    fn from(data: Struct) -> Self {
        Self::from(Some(data))
    }
}

impl From<Option<Struct>> for Record {
    fn from(data: Option<Struct>) -> Self {
        Self {
            data,
            ready: Bytes::new(),
        }
    }
}

impl Message for Record {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        if !self.ready.is_empty() {
            buf.put_slice(&self.ready);
        } else if let Some(data) = &self.data {
            encoding::message::encode(1, data, buf);
        }
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        if tag == 1 {
            encoding::message::merge(wire_type, self.data.get_or_insert_default(), buf, ctx)
        } else {
            encoding::skip_field(wire_type, tag, buf, ctx)
        }
    }

    fn encoded_len(&self) -> usize {
        if self.ready.is_empty() {
            self.data
                .as_ref()
                .map_or(0, |data| encoding::message::encoded_len(1, data))
        } else {
            self.ready.len()
        }
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Value;

    #[test]
    fn a_message_that_is_ready_is_sent_as_it_is() {
        let data = Struct {
            fields: [("a".to_owned(), Value::Bool(true))].into(),
        };
        let bytes = Record::from(data.clone()).encode_to_vec();
        let ready = Record::from_message(bytes.clone().into());
        assert_eq!(
            (ready.encoded_len(), ready.encode_to_vec()),
            (bytes.len(), bytes.clone())
        );
        assert_eq!(Record::decode(bytes.as_slice()).unwrap().data, Some(data));
        assert_eq!(Record::from(None).encode_to_vec(), Vec::<u8>::new());
    }
}
