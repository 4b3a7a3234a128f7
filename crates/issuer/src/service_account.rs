//! A service account with a fresh key pair, as an operator would download it from Google.

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der},
    rsa::{KeyPair, KeySize},
    signature::KeyPair as _,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{
    Error,
    secret::{Secret, random_text},
};

/// A service account and both halves of its key.
#[derive(Clone, Debug)]
pub struct ServiceAccount {
    /// The account's e-mail address: the `iss` of its assertions.
    pub email: String,
    /// The id of the key, for the assertion's header.
    pub key_id: String,
    /// PKCS #8, PEM.
    pub private_key_pem: Secret,
    /// SubjectPublicKeyInfo, PEM.
    pub public_key_pem: String,
}

impl ServiceAccount {
    /// An account with a new RSA key of 2048 bits; not yet registered with any issuer.
    ///
    /// # Errors
    /// [`Error::KeyGeneration`] when the key pair cannot be made.
    pub fn generate(email: impl Into<String>) -> Result<Self, Error> {
        let pair = KeyPair::generate(KeySize::Rsa2048).map_err(|_| Error::KeyGeneration)?;
        let private = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).map_err(|_| Error::KeyGeneration)?;
        let public = AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key())
            .map_err(|_| Error::KeyGeneration)?;
        Ok(Self {
            email: email.into(),
            key_id: random_text(15),
            private_key_pem: pem("PRIVATE KEY", private.as_ref()).into(),
            public_key_pem: pem("PUBLIC KEY", public.as_ref()),
        })
    }

    /// The JSON that Google hands out for a key, with `token_uri` pointing to `url` of an issuer.
    pub fn key_file(&self, url: &str) -> Value {
        json!({
            "type": "service_account",
            "project_id": "evermint-test",
            "private_key_id": self.key_id,
            "private_key": self.private_key_pem.expose(),
            "client_email": self.email,
            "client_id": "100000000000000000000",
            "token_uri": format!("{url}/token"),
            "universe_domain": "googleapis.com",
        })
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = (0..text.len())
        .step_by(64)
        .map(|at| &text[at..text.len().min(at + 64)])
        .collect();
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
}
