//! Where the built-in profiles lead: routes, and the places where sandboxes may use credentials.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use evermint_core::id::{CredentialKey, ProfileId};
use evermint_core::profile::{Auth, Profile};
use evermint_profiles::catalog;

fn profile(id: &str) -> Profile {
    let id = ProfileId::new(id).unwrap();
    catalog().builtin_named(&id).unwrap().as_ref().clone()
}

fn config(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
    let entries = entries.iter();
    entries
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn a_route_leads_where_settings_and_model_say() {
    let check =
        |id: &str, entries: &[(&str, &str)], model: &str, expected: Result<&str, &str>| match (
            profile(id).upstream(&config(entries), model, None),
            expected,
        ) {
            (Ok(upstream), Ok(url)) => assert_eq!(upstream.base_url, url),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (got, expected) => panic!("{id} {entries:?}: {got:?}, not {expected:?}"),
        };
    check("openai", &[], "gpt", Ok("https://api.openai.com/v1"));
    check(
        "openai",
        &[("base_url", "https://proxy.test/v1/")],
        "gpt",
        Ok("https://proxy.test/v1"),
    );
    check(
        "openai",
        &[("OPENAI_BASE_URL", "http://proxy.test")],
        "gpt",
        Err("https URL"),
    );
    check(
        "anthropic",
        &[],
        "claude",
        Ok("https://api.anthropic.com/v1"),
    );
    let p = ("project", "p-1");
    check(
        "google-vertex-ai",
        &[p],
        "google/gemini-2.5-pro",
        Ok(
            "https://us-central1-aiplatform.googleapis.com/v1/projects/p-1/locations/us-central1/endpoints/openapi",
        ),
    );
    check(
        "google-vertex-ai",
        &[p, ("region", "global")],
        "claude-sonnet-4",
        Ok(
            "https://aiplatform.googleapis.com/v1/projects/p-1/locations/global/publishers/anthropic/models",
        ),
    );
    check(
        "google-vertex-ai",
        &[p, ("VERTEX_AI_REGION", "eu"), ("publisher", "anthropic")],
        "some-model",
        Ok(
            "https://aiplatform.eu.rep.googleapis.com/v1/projects/p-1/locations/eu/publishers/anthropic/models",
        ),
    );
    check(
        "google-vertex-ai",
        &[],
        "claude-sonnet-4",
        Err("VERTEX_AI_PROJECT_ID"),
    );
    check(
        "google-vertex-ai",
        &[p, ("region", "evil.test/")],
        "x",
        Err("cannot take VERTEX_AI_REGION"),
    );
    check(
        "azure-openai",
        &[("resource", "mine")],
        "gpt",
        Ok("https://mine.openai.azure.com/openai/v1"),
    );
    check("azure-openai", &[], "gpt", Err("AZURE_OPENAI_RESOURCE"));
    check("generic-oauth2", &[], "m", Err("BASE_URL"));
    check("github", &[], "m", Err("where an inference API is"));
}

#[test]
fn the_shape_of_a_call_follows_from_the_profile() {
    let vertex = profile("google-vertex-ai");
    let settings = config(&[("project", "p-1")]);
    let claude = vertex.upstream(&settings, "claude-sonnet-4", None).unwrap();
    assert!(claude.model_in_path);
    assert_eq!(claude.request_path.as_deref(), Some(":rawPredict"));
    assert_eq!(claude.protocols, ["anthropic_messages"]);
    let gemini = vertex.upstream(&settings, "google/gemini", None).unwrap();
    assert!(!gemini.model_in_path);
    assert_eq!(gemini.request_path.as_deref(), Some("/chat/completions"));

    let azure = profile("azure-openai");
    let settings = config(&[("resource", "mine")]);
    let auth = |key: &str| {
        let key = CredentialKey::new(key).unwrap();
        azure.upstream(&settings, "gpt", Some(&key)).unwrap().auth
    };
    let bearer = Auth::Bearer {
        header: String::new(),
    };
    let api_key = Auth::Header {
        name: "api-key".to_owned(),
        prefix: String::new(),
    };
    assert_eq!(auth("AZURE_OPENAI_API_KEY"), api_key);
    assert_eq!(auth("AZURE_OPENAI_AD_TOKEN"), bearer);
    // A name of the operator's own is the first credential under another name.
    assert_eq!(auth("MY_TOKEN"), bearer);
}

#[test]
fn credentials_are_bound_to_the_hosts_that_settings_name() {
    let generic = profile("generic-oauth2");
    assert!(generic.bindings(&config(&[])).is_empty());
    assert!(generic.bindings(&config(&[("api_host", "a/b")])).is_empty());
    let [binding] = generic
        .bindings(&config(&[("api_host", "API.Example.com")]))
        .try_into()
        .unwrap();
    assert_eq!(
        (binding.host.as_str(), binding.port),
        ("api.example.com", 443)
    );

    let vertex = profile("google-vertex-ai");
    let settings = config(&[("project", "p-1"), ("region", "europe-west4")]);
    let plain = vertex.environment(&settings);
    let region = CredentialKey::new("CLOUD_ML_REGION").unwrap();
    assert_eq!(plain[&region], "europe-west4");
    assert!(
        vertex
            .bindings(&settings)
            .iter()
            .all(|b| b.host.ends_with("googleapis.com"))
    );
}
