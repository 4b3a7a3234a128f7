//! The profiles that come with a build.

use evermint_core::profile::catalog::Catalog;

/// The texts of the built-in profiles, by file name.
pub const FILES: &[(&str, &str)] = &[
    ("anthropic", include_str!("../builtin/anthropic.yaml")),
    ("aws", include_str!("../builtin/aws.yaml")),
    ("aws-bedrock", include_str!("../builtin/aws-bedrock.yaml")),
    ("azure-openai", include_str!("../builtin/azure-openai.yaml")),
    ("deepinfra", include_str!("../builtin/deepinfra.yaml")),
    (
        "generic-oauth2",
        include_str!("../builtin/generic-oauth2.yaml"),
    ),
    ("github", include_str!("../builtin/github.yaml")),
    ("github-app", include_str!("../builtin/github-app.yaml")),
    ("google-cloud", include_str!("../builtin/google-cloud.yaml")),
    (
        "google-vertex-ai",
        include_str!("../builtin/google-vertex-ai.yaml"),
    ),
    ("ibm-watsonx", include_str!("../builtin/ibm-watsonx.yaml")),
    (
        "microsoft-graph",
        include_str!("../builtin/microsoft-graph.yaml"),
    ),
    ("nvidia", include_str!("../builtin/nvidia.yaml")),
    ("openai", include_str!("../builtin/openai.yaml")),
];

/// The catalog of the built-in profiles. A test reads and lints all of them.
pub fn catalog() -> Catalog {
    let documents = FILES.iter().flat_map(|(_, text)| crate::read(text));
    Catalog::new(documents.filter_map(|document| document.profile))
}
