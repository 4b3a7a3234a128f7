//! What a command finds in its environment: where the agent is, and whom to trust. Secrets are never
//! in it.

use std::collections::BTreeMap;

use crate::agent::Agent;
use crate::ca::{Publish, publish};
use crate::config::Cloud;
use crate::error::Error;
use crate::metadata::{aws, azure, provider};

/// Where other programs look for what they are to trust: the system's authorities and the agent's.
const BUNDLES: [&str; 8] = [
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "AWS_CA_BUNDLE",
    "PIP_CERT",
    "GIT_SSL_CAINFO",
    "CARGO_HTTP_CAINFO",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
];

/// SDKs refuse to start without a key; the agent takes it out of every call.
const KEYS: [&str; 4] = [
    "OPENAI_API_KEY",
    "ANTHROPIC_API_KEY",
    "GEMINI_API_KEY",
    "GOOGLE_API_KEY",
];
const NO_KEY: &str = "evermint-agent";

/// What programs reach without the proxy: this machine.
const DIRECT: &str = "localhost,127.0.0.1,::1";

/// Names that begin so are the agent's own, such as the place of the sandbox's token.
pub(crate) const OWN_PREFIX: &str = "EVERMINT_";

impl Agent {
    /// The variables for a command: placeholders, and what sends it through the agent.
    ///
    /// # Errors
    /// [`Error::State`] if the key of a metadata endpoint cannot be kept.
    pub fn environment(&self) -> Result<BTreeMap<String, String>, Error> {
        let mut variables = self.placeholders();
        let mut set = |name: &str, value: String| variables.insert(name.to_owned(), value);
        let url = format!("http://{}", self.address());
        for name in ["HTTP_PROXY", "HTTPS_PROXY"] {
            set(name, url.clone());
            set(&name.to_lowercase(), url.clone());
        }
        for name in ["NO_PROXY", "no_proxy"] {
            set(name, DIRECT.to_owned());
        }
        // Node reads the variables above only if it is told to.
        set("NODE_USE_ENV_PROXY", "1".to_owned());
        let bundle = self.bundle_file().display().to_string();
        for name in BUNDLES {
            set(name, bundle.clone());
        }
        let certificate = self.certificate_file().display().to_string();
        set("NODE_EXTRA_CA_CERTS", certificate.clone());
        set("DENO_CERT", certificate);
        set("OPENAI_BASE_URL", format!("{url}/v1"));
        set("ANTHROPIC_BASE_URL", url.clone());
        set("GOOGLE_GEMINI_BASE_URL", url);
        for name in KEYS {
            variables
                .entry(name.to_owned())
                .or_insert_with(|| NO_KEY.to_owned());
        }
        self.metadata_environment(&mut variables)?;
        Ok(variables)
    }

    /// The sandbox's own variables, short of those of providers that a metadata endpoint gives: SDKs
    /// would take a placeholder for a credential, and not look further.
    fn placeholders(&self) -> BTreeMap<String, String> {
        let snapshot = self.server.shared.client.snapshot();
        let mut variables = snapshot.child_environment();
        for cloud in [Cloud::Google, Cloud::Aws, Cloud::Azure] {
            let metadata = self.server.local.serves(cloud);
            let given = metadata.and_then(|metadata| provider(&snapshot, metadata).ok());
            for credential in given.into_iter().flat_map(|provider| provider.credentials) {
                for variable in credential.variables() {
                    variables.remove(&variable.key);
                }
            }
        }
        variables
    }

    /// Where the metadata endpoints are, for those that are served.
    fn metadata_environment(&self, variables: &mut BTreeMap<String, String>) -> Result<(), Error> {
        let mut set = |name: &str, value: String| variables.insert(name.to_owned(), value);
        let address = self.local_address();
        let local = &self.server.local;
        if local.serves(Cloud::Google).is_some() {
            for name in ["GCE_METADATA_HOST", "GCE_METADATA_IP", "GCE_METADATA_ROOT"] {
                set(name, address.to_string());
            }
        }
        if local.serves(Cloud::Aws).is_some() {
            let path = self.server.shared.ca.dir().join("aws-key");
            publish(&path, local.aws_key.as_bytes(), Publish::Anyway).map_err(|e| {
                Error::State {
                    path: path.clone(),
                    problem: e.to_string(),
                }
            })?;
            set(
                "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                format!("http://{address}{}", aws::PATH),
            );
            set(
                "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
                path.display().to_string(),
            );
        }
        if local.serves(Cloud::Azure).is_some() {
            set(
                "IDENTITY_ENDPOINT",
                format!("http://{address}{}", azure::PATH),
            );
            set("IDENTITY_HEADER", local.azure_key.clone());
        }
        Ok(())
    }
}
