//! `--revoke`: the issuer is told, and the command says what became of that.

use evermint_issuer::Client;

use crate::site::Site;

impl Site {
    /// Registers a provider with a refresh token, revoked at `path` of the issuer.
    fn user(&self, name: &str, path: &str) {
        let seeded = self.handle().seed(Client::new(name));
        let token = self.write("rt", seeded.refresh_token.expose());
        self.done(&["provider", "create", name, "--type=generic-oauth2"]);
        self.done(&[
            "provider",
            "refresh",
            "configure",
            name,
            "--credential-key=USER_TOKEN",
            "--strategy=oauth2-refresh-token",
            &format!("--material=client_id={name}"),
            &format!("--secret-material=refresh_token=@{token}"),
            &format!("--token-url={}", self.issuer.token_url()),
            &format!("--revoke-url={}/{path}", self.issuer.url()),
            "--wait",
        ]);
    }

    fn is_alive(&self, client: &str) -> bool {
        let families = self.handle().families();
        let mut of_client = families.iter().filter(|family| family.client == client);
        of_client.any(|family| family.is_alive())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_is_revoked_with_its_refresh_or_its_provider() {
    let site = Site::start().await;
    for (name, delete) in [
        (
            "ann",
            &[
                "provider",
                "refresh",
                "delete",
                "ann",
                "--credential-key=USER_TOKEN",
            ][..],
        ),
        ("bob", &["provider", "delete", "bob"]),
    ] {
        site.user(name, "revoke");
        assert!(site.is_alive(name));
        let deleted = site.done(&[delete, &["--revoke", "--wait", "--wait-erased"]].concat());
        let told = format!("grant of {name}/USER_TOKEN is revoked at the issuer");
        assert!(deleted.out.contains(&told), "{deleted:?}");
        assert!(deleted.err.contains("erased from the logs"), "{deleted:?}");
        assert!(!site.is_alive(name));
    }
    let listed = site.json(&["provider", "refresh", "revocations", "bob"]);
    let bob = &listed["revocations"][0];
    assert_eq!(
        (&bob["state"], &bob["tries"]),
        (&"revoked".into(), &1.into())
    );
    let audit = site.done(&["audit"]).out;
    assert!(audit.contains("revocation (grant)"), "{audit}");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_was_not_told_is_said_and_the_material_is_gone() {
    let site = Site::start().await;
    site.user("ann", "nowhere");
    let deleted = site.run(&["provider", "delete", "ann", "--revoke", "--wait"]);
    assert_eq!(deleted.code, Some(1), "{deleted:?}");
    for words in ["provider ann deleted", "was not revoked: HTTP 404", "try: "] {
        assert!(deleted.out.contains(words), "{words}: {deleted:?}");
    }
    assert!(site.is_alive("ann"));
    let gone = site.run(&["provider", "get", "ann"]);
    assert_eq!(gone.code, Some(1));

    // One that does not answer leaves it open; nobody has to wait for it.
    site.user("bob", "revoke");
    let dark = "--revoke-url=http://127.0.0.1:9/revoke";
    let url = format!("--token-url={}", site.issuer.token_url());
    let seeded = site.handle().seed(Client::new("bob"));
    let token = site.write("rt", seeded.refresh_token.expose());
    site.done(&[
        "provider",
        "refresh",
        "configure",
        "bob",
        "--credential-key=USER_TOKEN",
        "--material=client_id=bob",
        &format!("--secret-material=refresh_token=@{token}"),
        "--strategy=oauth2-refresh-token",
        &url,
        dark,
    ]);
    let deleted = site.run(&["provider", "delete", "bob", "--revoke", "--wait=1s"]);
    assert_eq!(deleted.code, Some(3), "{deleted:?}");
    assert!(deleted.out.contains("still to be revoked"), "{deleted:?}");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_revokes_the_old_value_and_never_a_grant() {
    let site = Site::start().await;
    site.done(&["provider", "create", "crm", "--type=generic-oauth2"]);
    let secret = site.write("secret", "crm-secret");
    site.done(&[
        "provider",
        "refresh-config",
        "crm",
        "--credential-key=CRM_TOKEN",
        "--strategy=oauth2-client-credentials",
        "--material=client_id=crm",
        &format!("--token-url={}", site.issuer.token_url()),
        &format!("--revoke-url={}", site.issuer.revoke_url()),
        &format!("--secret-material=client_secret=@{secret}"),
        "--wait",
    ]);
    let rotated = site.done(&["provider", "rotate", "crm", "--revoke=1s", "--wait"]);
    let told = "value of crm/CRM_TOKEN is revoked at the issuer";
    assert!(rotated.out.contains(told), "{rotated:?}");
    let later = site.done(&["provider", "rotate", "crm", "--revoke", "--wait"]);
    assert!(later.out.contains("still to be revoked, in"), "{later:?}");

    site.user("ann", "revoke");
    let refused = site.run(&["provider", "rotate", "ann", "--revoke", "--wait"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.err.contains("come from one grant"), "{refused:?}");
    assert!(site.is_alive("ann"));

    assert_eq!(site.crm_without_revocation(), Some(1));
    site.stop().await;
}

impl Site {
    /// What `--revoke` does where nobody knows how to tell the issuer.
    fn crm_without_revocation(&self) -> Option<i32> {
        self.done(&["provider", "delete", "crm"]);
        assert_eq!(self.crm("crm-secret").code, Some(0));
        let refused = self.run(&["provider", "delete", "crm", "--revoke"]);
        assert!(refused.err.contains("--revoke-url"), "{refused:?}");
        self.done(&["provider", "get", "crm"]);
        refused.code
    }
}
