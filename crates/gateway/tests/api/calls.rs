//! Calls by path and with any token.

use evermint_proto::v1;
use evermint_proto::v1::sandbox_tokens_client::SandboxTokensClient;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::harness::Harness;

/// The header that shows a token.
pub(crate) fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// `message` with a bearer token.
pub(crate) fn by<T>(token: &str, message: T) -> Request<T> {
    with(&bearer(token), message)
}

/// `message` with an `authorization` header.
pub(crate) fn with<T>(authorization: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let value = MetadataValue::try_from(authorization).unwrap();
    request.metadata_mut().insert("authorization", value);
    request
}

/// Calls any method with an empty message.
pub(crate) async fn call(
    harness: &Harness,
    path: &str,
    authorization: Option<&str>,
) -> Result<(), Status> {
    call_with(&harness.channel, path, authorization, Vec::new()).await
}

/// Calls any method with the bytes of a message, and waits for the first of the answer.
pub(crate) async fn call_with(
    channel: &Channel,
    path: &str,
    authorization: Option<&str>,
    message: Vec<u8>,
) -> Result<(), Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    let ready = client.ready().await;
    ready.map_err(|e| Status::unavailable(e.to_string()))?;
    let request = match authorization {
        Some(value) => with(value, message),
        None => Request::new(message),
    };
    let path: PathAndQuery = path.parse().unwrap();
    let answer = client.server_streaming(request, path, Raw).await?;
    answer.into_inner().message().await.map(drop)
}

/// A new sandbox's token, asked for with an operator's.
pub(crate) async fn sandbox_token(harness: &Harness, operator: &str, name: &str) -> String {
    let create = v1::CreateSandboxRequest {
        name: name.to_owned(),
        ..Default::default()
    };
    let created = harness
        .sandboxes()
        .create_sandbox(by(operator, create))
        .await;
    created.unwrap();
    let issue = v1::IssueSandboxTokenRequest {
        sandbox: name.to_owned(),
        ..Default::default()
    };
    let mut tokens = SandboxTokensClient::new(harness.channel.clone());
    let issued = tokens.issue_sandbox_token(by(operator, issue)).await;
    issued.unwrap().into_inner().token
}

/// Messages as they are.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, message: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put_slice(to, &message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        bytes::Buf::advance(from, bytes::Buf::remaining(from));
        Ok(Some(()))
    }
}
