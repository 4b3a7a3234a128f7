//! Bundles as gateways give them.

use evermint_proto::v1;

/// A live value, of one name and this generation, with an end in so many milliseconds.
pub fn token(name: &str, value: &str, generation: u64, ends_in_ms: Option<u64>) -> v1::Token {
    v1::Token {
        values: [(name.to_owned(), value.to_owned())].into(),
        expires_at_ms: ends_in_ms.map(|ms| crate::gateway::now_ms() + ms),
        generation,
    }
}

/// A route to `base_url`, as model `routed`, whose token goes into the `authorization` header.
pub fn route(name: &str, base_url: &str, token: v1::Token) -> v1::ResolvedRoute {
    v1::ResolvedRoute {
        name: name.to_owned(),
        provider: format!("provider-of-{name}"),
        model: "routed".to_owned(),
        credential_key: token.values.keys().next().cloned().unwrap_or_default(),
        token: Some(token),
        base_url: base_url.to_owned(),
        auth: Some(v1::Auth {
            place: Some(v1::auth::Place::Header(v1::HeaderAuth {
                name: "authorization".to_owned(),
                prefix: "Bearer ".to_owned(),
            })),
        }),
        ..v1::ResolvedRoute::default()
    }
}

/// A credential of a provider that is attached.
pub fn credential(provider: &str, key: &str, token: v1::Token) -> v1::BundleCredential {
    let variables = token.values.keys().map(|name| v1::SecretVariable {
        key: name.clone(),
        identity: format!("{provider}:{name}"),
        handle: String::new(),
    });
    v1::BundleCredential {
        provider: provider.to_owned(),
        key: key.to_owned(),
        variables: variables.collect(),
        token: Some(token),
        ..v1::BundleCredential::default()
    }
}

/// A bundle.
pub fn bundle(
    generation: u64,
    routes: Vec<v1::ResolvedRoute>,
    credentials: Vec<v1::BundleCredential>,
) -> v1::Bundle {
    v1::Bundle {
        sandbox: "00000000-0000-0000-0000-000000000007".to_owned(),
        generation,
        revision: format!("{generation:016x}"),
        environment_revision: generation,
        routes,
        credentials,
        ..v1::Bundle::default()
    }
}
