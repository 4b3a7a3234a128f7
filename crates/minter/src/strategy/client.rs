//! How an OAuth 2.0 client proves who it is: with a secret
//! ([RFC 6749 §2.3](https://www.rfc-editor.org/rfc/rfc6749#section-2.3)), with an assertion that it
//! signs or that somebody keeps for it in a file
//! ([RFC 7523 §2.2](https://www.rfc-editor.org/rfc/rfc7523#section-2.2)), or not at all. The one
//! place for all strategies that speak OAuth 2.0.

use std::sync::Arc;
use std::time::Duration;

use evermint_core::mint::{Failure, Fence};
use evermint_core::secret::Secret;
use http::HeaderValue;
use url::form_urlencoded::byte_serialize;

use super::entra;
use crate::assertion::{ALGORITHMS, Claims, Signer, certificate_of};
use crate::exchange::{Client, Proof, Request};
use crate::form::{Form, basic};
use crate::material::{FieldError, Format, Material, MaterialField, bad_material};
use crate::outside::Setup;
use crate::redact::Redactor;
use crate::response::{Tokens, Wanted};

const POST: &str = "client_secret_post";
const BASIC: &str = "client_secret_basic";
const KEY_JWT: &str = "private_key_jwt";

const ID: &str = "client_id";
const SECRET: &str = "client_secret";
const NEXT: &str = "client_secret_next";
/// Which of two secrets the issuer took last; written by mints, never by operators.
const IN_USE: &str = "client_secret_in_use";
const AUTH: &str = "client_auth";
const KEY: &str = "client_private_key";
const KEY_ID: &str = "client_key_id";
const ALGORITHM: &str = "client_key_algorithm";
const CERTIFICATE: &str = "client_certificate";
const FILE: &str = "client_assertion_file";
const ASSERTION_AUDIENCE: &str = "client_assertion_audience";

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The life of a client's assertion.
const ASSERTION_LIFE: Duration = Duration::from_secs(300);

/// The client's id.
pub(crate) const CLIENT_ID: MaterialField = MaterialField::public(
    ID,
    Format::Line,
    "the client's id, as registered at the issuer",
);

/// How the client proves who it is.
pub(crate) const AUTHENTICATION: &[MaterialField] = &[
    MaterialField::secret(
        SECRET,
        Format::Line,
        "the client's secret; a public client has none",
    ),
    MaterialField::secret(
        NEXT,
        Format::Line,
        "a second secret beside the first: shown once when the issuer refuses that one, and first from then on",
    ),
    MaterialField::secret(
        KEY,
        Format::Pem,
        "the client's private key, for private_key_jwt",
    )
    .checked(|pem| Signer::new(pem).map(drop)),
    MaterialField::public(
        FILE,
        Format::Path,
        "a file on the replicas with an assertion that proves the client (workload identity)",
    ),
    MaterialField::public(
        AUTH,
        Format::OneOf(&[POST, BASIC, KEY_JWT]),
        "how the client proves itself; client_secret_post unless a key is given",
    ),
    MaterialField::public(KEY_ID, Format::Line, "the id of the client's private key"),
    MaterialField::public(
        ALGORITHM,
        Format::OneOf(ALGORITHMS),
        "how assertions are signed; what goes with the key if not given",
    ),
    MaterialField::public(
        CERTIFICATE,
        Format::Pem,
        "the certificate of the client's private key, for Microsoft Entra",
    )
    .checked(|pem| certificate_of(pem).map(drop)),
    MaterialField::public(
        ASSERTION_AUDIENCE,
        Format::Line,
        "for whom the client's assertion is; the token endpoint if not given",
    ),
];

/// For whom the token is.
pub(crate) const TARGET: &[MaterialField] = &[
    MaterialField::public(
        "audience",
        Format::Line,
        "for whom the token is, at issuers that ask for it (Auth0 and others)",
    ),
    MaterialField::public(
        "resource",
        Format::Line,
        "the resource that the token is for (RFC 8707)",
    ),
];

/// Checks which pieces of a client's proof need, and which exclude, each other.
pub(crate) fn check(setup: &Setup<'_>) -> Vec<FieldError> {
    let material = &setup.material;
    let mut errors = Vec::new();
    let proofs: Vec<_> = [SECRET, KEY, FILE]
        .into_iter()
        .filter(|name| material.has(name))
        .collect();
    if proofs.len() > 1 {
        let problem = format!("excludes {}: give one of them", proofs[1..].join(" and "));
        errors.push(FieldError::new(proofs[0], problem));
    }
    match material.get(AUTH) {
        Some(POST | BASIC) if !material.has(SECRET) => {
            let problem =
                "needs a client_secret; a public client has none and needs no client_auth";
            errors.push(FieldError::new(AUTH, problem));
        }
        Some(KEY_JWT) if !material.has(KEY) => {
            let problem = "needs a client_private_key";
            errors.push(FieldError::new(AUTH, problem));
        }
        _ => {}
    }
    for name in [KEY_ID, ALGORITHM, CERTIFICATE, ASSERTION_AUDIENCE] {
        if material.has(name) && !material.has(KEY) {
            errors.push(FieldError::new(name, "needs a client_private_key"));
        }
    }
    if material.has(NEXT) && !material.has(SECRET) {
        let problem = format!("is a second one; the only one is {SECRET}");
        errors.push(FieldError::new(NEXT, problem));
    }
    if material.has(ALGORITHM) && material.has(CERTIFICATE) {
        let problem = "is PS256 with a client_certificate; leave it out";
        errors.push(FieldError::new(ALGORITHM, problem));
    }
    // A key that is no key is named by its own check.
    if material
        .get(KEY)
        .is_some_and(|pem| Signer::new(pem).is_ok())
        && let Err((field, problem)) = signer(material)
    {
        errors.push(FieldError::new(field, problem));
    }
    errors.extend(setup.check_path(FILE));
    errors
}

/// Where a client is optional, its proof needs it.
pub(crate) fn check_id(material: &Material<'_>) -> Option<FieldError> {
    let proof = [SECRET, KEY, FILE]
        .into_iter()
        .find(|name| material.has(name))?;
    let problem = format!("is missing: {proof} proves nobody without it");
    (!material.has(ID)).then(|| FieldError::new(ID, problem))
}

/// A client that is the grant itself has to prove itself.
pub(crate) fn check_proof(material: &Material<'_>) -> Option<FieldError> {
    let is_bare = [SECRET, KEY, FILE].iter().all(|name| !material.has(name));
    let problem =
        "is missing; give it, or client_private_key for private_key_jwt, or client_assertion_file";
    is_bare.then(|| FieldError::new(SECRET, problem))
}

/// Begins a request with what all grants of OAuth 2.0 share: grant type, client, scope, audience
/// and resource.
///
/// # Errors
/// Material that went bad, or a token file that cannot be read.
pub(crate) async fn request(
    setup: &Setup<'_>,
    fence: &Arc<dyn Fence>,
    grant_type: &str,
) -> Result<Request, Failure> {
    let material = &setup.material;
    let mut request = prove(setup, fence, Form::new(grant_type)).await?;
    if !setup.config.scopes.is_empty() {
        request.form.add("scope", setup.config.scopes.join(" "));
    }
    request.form.add_some("audience", material.get("audience"));
    request.form.add_some("resource", material.get("resource"));
    Ok(request)
}

/// Begins a request with a form and the client's proof.
///
/// # Errors
/// As [`request`].
pub(crate) async fn prove(
    setup: &Setup<'_>,
    fence: &Arc<dyn Fence>,
    form: Form,
) -> Result<Request, Failure> {
    let mut request = Request {
        url: entra::token_url(setup),
        form,
        client: Client::default(),
        other_client: None,
        redactor: Redactor::new(setup.material.secrets()),
        wanted: Wanted::AccessToken,
        proof: Proof::Lasting,
    };
    authenticate(setup, fence, &mut request).await?;
    Ok(request)
}

/// The client's secrets, the one that was taken last first.
fn secrets<'a>(material: &Material<'a>) -> (Option<&'a Secret>, Option<&'a Secret>) {
    let pair = (material.secret(SECRET), material.secret(NEXT));
    match material.secret(IN_USE).map(Secret::expose) {
        Some(name) if name == NEXT.as_bytes() && pair.1.is_some() => (pair.1, pair.0),
        _ => pair,
    }
}

/// What is to be remembered of a client with two secrets after the issuer took its other one.
pub(crate) fn in_use(material: &Material<'_>, tokens: &Tokens) -> Option<(String, Secret)> {
    let was_next = material.secret(IN_USE).map(Secret::expose) == Some(NEXT.as_bytes());
    let name = if was_next { SECRET } else { NEXT };
    tokens
        .by_other_client
        .then(|| (IN_USE.to_owned(), Secret::from(name)))
}

/// Puts the client's id, and its proof if it has one, where they belong.
async fn authenticate(
    setup: &Setup<'_>,
    fence: &Arc<dyn Fence>,
    request: &mut Request,
) -> Result<(), Failure> {
    let material = &setup.material;
    let Some(id) = material.get(ID) else {
        return Ok(());
    };
    let is_basic = material.get(AUTH) == Some(BASIC);
    let mut by_secret = |secret: &Secret| {
        let mut client = Client::default();
        if is_basic {
            client.authorization = Some(header(id, secret, &mut request.redactor));
        } else {
            client.form.add(ID, id);
            client.form.add(SECRET, secret.expose());
        }
        client
    };
    if let (Some(first), second) = secrets(material) {
        let other = second.map(&mut by_secret);
        request.client = by_secret(first);
        request.other_client = other;
        return Ok(());
    }
    request.client.form.add(ID, id);
    if material.has(KEY) {
        let signer = signer(material).map_err(|(field, p)| bad_material(field, &p))?;
        let now = setup.outside.skews.now(&request.url);
        let claims = Claims {
            iss: id,
            sub: Some(id),
            aud: material.get(ASSERTION_AUDIENCE).unwrap_or(&request.url),
            ..Claims::dated(now, ASSERTION_LIFE)
        };
        let assertion = signer.sign(&claims, KEY)?;
        request.add_assertion(assertion.as_bytes());
        request.proof = Proof::Dated;
    } else if let Some(path) = material.get(FILE) {
        let files = &setup.outside.token_files;
        let assertion = files.read(&**fence, FILE, path).await?;
        request.add_assertion(assertion.expose());
        request.proof = Proof::Borrowed;
    }
    Ok(())
}

impl Request {
    fn add_assertion(&mut self, assertion: &[u8]) {
        self.redactor.add(assertion);
        let form = &mut self.client.form;
        form.add("client_assertion_type", ASSERTION_TYPE);
        form.add("client_assertion", assertion);
    }
}

/// The header of `client_secret_basic`.
fn header(id: &str, secret: &Secret, redactor: &mut Redactor) -> HeaderValue {
    let mut pair: String = byte_serialize(id.as_bytes()).collect();
    pair.push(':');
    pair.extend(byte_serialize(secret.expose()));
    redactor.add(pair.as_bytes());
    basic(id, secret)
}

/// The client's signer; the error names the field at fault.
fn signer(material: &Material<'_>) -> Result<Signer, (&'static str, String)> {
    let pem = material.get(KEY).ok_or((KEY, "is missing".to_owned()))?;
    let mut signer = Signer::new(pem)
        .map_err(|problem| (KEY, problem))?
        .key_id(material.get(KEY_ID));
    if let Some(name) = material.get(ALGORITHM) {
        signer = signer.algorithm(name).map_err(|p| (ALGORITHM, p))?;
    }
    match material.get(CERTIFICATE) {
        Some(certificate) => signer
            .certificate(certificate, pem)
            .map_err(|problem| (CERTIFICATE, problem)),
        None => Ok(signer),
    }
}
