//! JSON in gRPC's frames: what travels is what is in files.

use std::io::Write;
use std::marker::PhantomData;

use bytes::{Buf, BufMut};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Status};

pub(crate) struct Json<E, D>(PhantomData<fn(E) -> D>);

impl<E, D> Json<E, D> {
    pub(crate) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<E: Serialize + Send + 'static, D: DeserializeOwned + Send + 'static> Codec for Json<E, D> {
    type Encode = E;
    type Decode = D;
    type Encoder = Json<E, D>;
    type Decoder = Json<E, D>;

    fn encoder(&mut self) -> Self::Encoder {
        Self::new()
    }

    fn decoder(&mut self) -> Self::Decoder {
        Self::new()
    }
}

impl<E: Serialize, D> Encoder for Json<E, D> {
    type Item = E;
    type Error = Status;

    fn encode(&mut self, item: E, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        let mut into = into.writer();
        serde_json::to_writer(&mut into, &item)
            .map_err(|error| Status::new(Code::Internal, error.to_string()))?;
        Ok(into.flush()?)
    }
}

impl<E, D: DeserializeOwned> Decoder for Json<E, D> {
    type Item = D;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<D>, Status> {
        let malformed = |error: serde_json::Error| Status::new(Code::InvalidArgument, error.to_string());
        serde_json::from_reader(from.reader()).map(Some).map_err(malformed)
    }
}
