//! The requests of a login by SASL and their answers: SaslHandshake, SaslAuthenticate, and the one
//! ApiVersions before (`SaslServerAuthenticator`). `net` carries the login out.
//!
//! Once a client has logged in, and on listeners without SASL, both requests come at a wrong time.

use bytes::{Bytes, BytesMut};
use weir_protocol::api::{ApiKey, unsupported_api_versions};
use weir_protocol::error::ErrorCode;
use weir_protocol::frame::encode_response;
use weir_protocol::header::{HeaderError, RequestHeader};
use weir_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, Message, SaslAuthenticateRequest,
    SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};
use weir_protocol::primitive::EncodeError;
use weir_security::sasl::{Input, Refusal, Reply};

use super::{RequestContext, Services, api_versions};
use crate::metadata::MetadataImage;

/// A frame of a login, decoded.
#[derive(Debug)]
pub(crate) enum LoginFrame {
    /// ApiVersions.
    ApiVersions(Result<(), Refusal>),
    /// SaslHandshake.
    Handshake {
        /// The version.
        version: i16,
        /// The mechanism.
        mechanism: String,
    },
    /// SaslAuthenticate, with the token.
    Authenticate(Bytes),
    /// A token without header.
    Token(Bytes),
    /// Another request.
    Other,
    /// No request that is served.
    Malformed,
}

/// What an answer repeats of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    api: ApiKey,
    version: i16,
    correlation_id: i32,
}

impl LoginFrame {
    /// Reads a frame that is a request. Of other APIs than the three the body is not looked at.
    pub(crate) fn request(mut frame: BytesMut) -> (Self, Option<Asked>) {
        let header = match RequestHeader::parse(&mut frame) {
            Ok(header) => header,
            Err(HeaderError::UnsupportedApiVersions { correlation_id, .. }) => {
                let asked = Asked { api: ApiKey::ApiVersions, version: 0, correlation_id };
                return (Self::ApiVersions(Err(Refusal::Version)), Some(asked));
            }
            Err(_) => return (Self::Malformed, None),
        };
        let RequestHeader { api, version, correlation_id, .. } = header;
        let mut body = frame.freeze();
        let read = match api {
            ApiKey::ApiVersions => ApiVersionsRequest::decode(&mut body, version).map(|request| {
                let is_named = api_versions::names_software(&request, version);
                Self::ApiVersions(if is_named { Ok(()) } else { Err(Refusal::Software) })
            }),
            ApiKey::SaslHandshake => SaslHandshakeRequest::decode(&mut body, version)
                .map(|SaslHandshakeRequest { mechanism }| Self::Handshake { version, mechanism }),
            ApiKey::SaslAuthenticate => SaslAuthenticateRequest::decode(&mut body, version)
                .map(|request| Self::Authenticate(request.auth_bytes)),
            _ => Ok(Self::Other),
        };
        (read.unwrap_or(Self::Malformed), Some(Asked { api, version, correlation_id }))
    }

    /// The frame in the words of the state machine.
    pub(crate) fn input(&self) -> Input<'_> {
        match self {
            Self::ApiVersions(asked) => Input::ApiVersions(*asked),
            Self::Handshake { version, mechanism } => {
                Input::Handshake { version: *version, mechanism }
            }
            Self::Authenticate(token) => Input::Authenticate { token },
            Self::Token(token) => Input::Token(token),
            Self::Other => Input::Other,
            Self::Malformed => Input::Malformed,
        }
    }
}

/// The bytes of an answer; `None` if the request has no answer that says so. `names` are the
/// mechanisms of the listener.
pub(crate) fn encode(
    reply: Reply,
    asked: Option<Asked>,
    names: &[String],
    image: &MetadataImage,
) -> Result<Option<Bytes>, EncodeError> {
    if let Reply::Token(token) = reply {
        let length = u32::try_from(token.len()).unwrap_or(u32::MAX);
        return Ok(Some([&length.to_be_bytes()[..], &token].concat().into()));
    }
    let Some(Asked { api, version, correlation_id }) = asked else { return Ok(None) };
    let illegal = ErrorCode::IllegalSaslState;
    let handshake = |error: ErrorCode, mechanisms: &[String]| {
        let response =
            SaslHandshakeResponse { error_code: error.code(), mechanisms: mechanisms.to_vec() };
        encode_response(&response, ApiKey::SaslHandshake, version, correlation_id)
    };
    let authenticate = |response: SaslAuthenticateResponse| {
        encode_response(&response, ApiKey::SaslAuthenticate, version, correlation_id)
    };
    let failed = |error: ErrorCode, message: String| SaslAuthenticateResponse {
        error_code: error.code(),
        error_message: Some(message),
        ..Default::default()
    };
    let versions = |response: &ApiVersionsResponse| {
        encode_response(response, ApiKey::ApiVersions, version, correlation_id)
    };
    let versions_error = |error: ErrorCode| {
        versions(&ApiVersionsResponse { error_code: error.code(), ..Default::default() })
    };
    let frame = match reply {
        Reply::ApiVersions(Ok(())) => versions(&api_versions::describe(image)),
        Reply::ApiVersions(Err(Refusal::Version)) => versions(&unsupported_api_versions()),
        Reply::ApiVersions(Err(Refusal::Software)) => versions_error(ErrorCode::InvalidRequest),
        Reply::Handshake => handshake(ErrorCode::None, names),
        Reply::UnknownMechanism => handshake(ErrorCode::UnsupportedSaslMechanism, names),
        Reply::HandshakeRefused => handshake(illegal, &[]),
        Reply::Authenticate { token, session_lifetime_ms } => {
            authenticate(SaslAuthenticateResponse {
                error_message: None,
                auth_bytes: token.into(),
                session_lifetime_ms: i64::try_from(session_lifetime_ms).unwrap_or(i64::MAX),
                ..Default::default()
            })
        }
        Reply::Failed(message) => {
            authenticate(failed(ErrorCode::SaslAuthenticationFailed, message))
        }
        Reply::AuthenticateRefused => authenticate(failed(illegal, OUT_OF_TURN.to_owned())),
        Reply::IllegalState if api == ApiKey::ApiVersions => versions_error(illegal),
        Reply::IllegalState | Reply::Token(_) => return Ok(None),
    }?;
    Ok(Some(frame.freeze()))
}

/// `KafkaApis.handleSaslAuthenticateRequest`.
const OUT_OF_TURN: &str = "SaslAuthenticate request received after successful authentication";

/// Answers SaslHandshake outside of a login.
pub(crate) fn handshake_out_of_turn(
    _: &Services,
    _: &RequestContext,
    _: SaslHandshakeRequest,
) -> SaslHandshakeResponse {
    SaslHandshakeResponse { error_code: ErrorCode::IllegalSaslState.code(), mechanisms: vec![] }
}

/// Answers SaslAuthenticate outside of a login.
pub(crate) fn authenticate_out_of_turn(
    _: &Services,
    _: &RequestContext,
    _: SaslAuthenticateRequest,
) -> SaslAuthenticateResponse {
    SaslAuthenticateResponse {
        error_code: ErrorCode::IllegalSaslState.code(),
        error_message: Some(OUT_OF_TURN.to_owned()),
        ..Default::default()
    }
}
