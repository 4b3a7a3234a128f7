//! How an OAuth 2.0 client proves who it is,
//! [RFC 6749 §2.3](https://www.rfc-editor.org/rfc/rfc6749#section-2.3).

use evermint_core::mint::{Failure, MintOrder};
use http::HeaderValue;
use url::form_urlencoded::byte_serialize;

use crate::exchange::Request;
use crate::form::{Form, basic};
use crate::material::{FieldError, Material, MaterialField, line};
use crate::redact::Redactor;
use crate::response::Wanted;

/// The ways that `client_auth` may name.
const WAYS: [&str; 2] = ["client_secret_post", "client_secret_basic"];

pub(crate) const CLIENT_ID: MaterialField = MaterialField {
    name: "client_id",
    required: true,
    secret: false,
    about: "the client's id, as registered at the issuer",
    check: line,
};

pub(crate) const CLIENT_AUTH: MaterialField = MaterialField {
    name: "client_auth",
    required: false,
    secret: false,
    about: "how the client secret travels: client_secret_post (the default) or client_secret_basic",
    check: |text| match WAYS.contains(&text) {
        true => Ok(()),
        false => Err(format!("must be {}", WAYS.join(" or "))),
    },
};

pub(crate) const AUDIENCE: MaterialField = MaterialField {
    name: "audience",
    required: false,
    secret: false,
    about: "for whom the token is, at issuers that ask for it (Auth0 and others)",
    check: line,
};

pub(crate) const RESOURCE: MaterialField = MaterialField {
    name: "resource",
    required: false,
    secret: false,
    about: "the resource that the token is for (RFC 8707)",
    check: line,
};

/// `client_secret_basic` without a secret makes no sense.
pub(crate) fn check_auth(material: &Material<'_>) -> Vec<FieldError> {
    let is_idle = material.get("client_auth").is_some() && material.get("client_secret").is_none();
    let problem = "needs a client_secret; a public client has none and needs no client_auth";
    is_idle
        .then(|| FieldError::new("client_auth", problem))
        .into_iter()
        .collect()
}

/// Begins a request with what all grants of OAuth 2.0 share: grant type, client, scope, audience
/// and resource.
pub(crate) fn request(order: &MintOrder, grant_type: &str) -> Result<Request, Failure> {
    let material = Material::new(&order.config.material, &order.secrets);
    let mut redactor = Redactor::new(order.secrets.values());
    let mut form = Form::new(grant_type);
    let authorization = authenticate(&material, &mut form, &mut redactor)?;
    if !order.config.scopes.is_empty() {
        form.add("scope", order.config.scopes.join(" "));
    }
    form.add_some("audience", material.get("audience"));
    form.add_some("resource", material.get("resource"));
    Ok(Request {
        form,
        authorization,
        redactor,
        wanted: Wanted::AccessToken,
    })
}

/// Puts the client's id, and its secret if it has one, where they belong.
fn authenticate(
    material: &Material<'_>,
    form: &mut Form,
    redactor: &mut Redactor,
) -> Result<Option<HeaderValue>, Failure> {
    let id = material.require("client_id")?;
    let Some(secret) = material.secret("client_secret") else {
        form.add("client_id", id);
        return Ok(None);
    };
    if material.get("client_auth") == Some("client_secret_basic") {
        let header = basic(id, secret);
        let mut pair: String = byte_serialize(id.as_bytes()).collect();
        pair.push(':');
        pair.extend(byte_serialize(secret.expose()));
        redactor.add(pair.as_bytes());
        return Ok(Some(header));
    }
    form.add("client_id", id);
    form.add("client_secret", secret.expose());
    Ok(None)
}
