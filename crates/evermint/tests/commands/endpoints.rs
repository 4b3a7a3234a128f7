//! Which token endpoints an operator may use without the configuration of the replicas naming them:
//! those of built-in profiles and of the platform's, and no others.

use crate::site::{Ran, Site};

/// A profile that fixes its endpoint. Google's is answered by the issuer of the test.
const PROFILE: &str = "\
id: ID
credentials:
  - name: key
    env_vars: [HOUSE_KEY]
    refresh:
      strategy: oauth2-client-credentials
      token_url: https://oauth2.googleapis.com/token
      scopes: [a]
      material:
        - {name: client_id, required: true}
        - {name: client_secret, required: true, secret: true}
";

impl Site {
    fn configure(&self, kind: &str, more: &[&str]) -> Ran {
        self.done(&["provider", "create", kind, &format!("--type={kind}")]);
        let args = [
            "provider",
            "refresh",
            "configure",
            kind,
            "--credential-key=HOUSE_KEY",
            "--strategy=oauth2-client-credentials",
            "--material=client_id=crm",
            "--secret-material=client_secret=crm-secret",
            "--wait",
        ];
        self.run(&[&args[..], more].concat())
    }

    fn import(&self, id: &str, more: &[&str]) {
        let path = self.write(&format!("{id}.yaml"), &PROFILE.replace("ID", id));
        self.done(&[&["provider", "profile", "import", &path][..], more].concat());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_is_an_admins_to_name() {
    let site = Site::start().await;
    site.import("ours", &[]);
    site.import("everyones", &["--platform"]);
    let google = "https://oauth2.googleapis.com/token";
    let token_url = format!("--token-url={google}");
    let loopback = format!("--token-url={}", site.issuer.token_url());
    for (kind, more, field) in [
        ("generic-oauth2", vec![token_url.as_str()], "token_url"),
        ("ours", vec![], "token_url"),
    ] {
        let refused = site.configure(kind, &more);
        assert_eq!(refused.code, Some(1), "{kind}: {refused:?}");
        for words in [
            field,
            "token endpoint at oauth2.googleapis.com is not among the allowed ones",
            r#"list "oauth2.googleapis.com" in issuers.allow_endpoints"#,
            "evermint provider profile import --platform",
        ] {
            assert!(refused.err.contains(words), "{kind}: {words}: {refused:?}");
        }
        site.done(&["provider", "delete", kind]);
    }
    // The revocation endpoint gets secrets, too.
    let elsewhere = [loopback.as_str(), "--revoke-url=https://idp.example/revoke"];
    let refused = site.configure("generic-oauth2", &elsewhere);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused.err.contains("idp.example is not among"),
        "{refused:?}"
    );

    let configured = site.configure("everyones", &[]);
    assert_eq!(configured.code, Some(0), "{configured:?}");
    assert!(configured.out.contains("minted"), "{configured:?}");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_the_replicas_list_is_an_operators_to_name() {
    let site = Site::start_by(|_, settings| {
        settings.issuers_allow_endpoints = vec!["*.googleapis.com".parse().unwrap()];
    })
    .await;
    site.import("ours", &[]);
    let token_url = "--token-url=https://oauth2.googleapis.com/token";
    for (kind, more) in [("generic-oauth2", &[token_url][..]), ("ours", &[])] {
        let configured = site.configure(kind, more);
        assert_eq!(configured.code, Some(0), "{kind}: {configured:?}");
        assert!(configured.out.contains("minted"), "{kind}: {configured:?}");
    }
    site.stop().await;
}
