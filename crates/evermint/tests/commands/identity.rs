//! Who an operator is, shown by a certificate; and by a token that is replaced while a command runs.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use evermint::settings::Settings;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};

use crate::site::{Ran, Site, ran};

/// An authority for operators.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        Self { pem, issuer }
    }

    /// Writes a certificate for `name` and its key.
    fn sign(&self, dir: &Path, name: &str) {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(dir.join(format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_is_known_by_a_certificate() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let tls = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gateway/tests/tls");
    let site = Site::start_by(|dir, settings| {
        let ca = dir.join("operators-ca.pem");
        std::fs::write(&ca, &ours.pem).unwrap();
        ours.sign(dir, "alice");
        ours.sign(dir, "bob");
        theirs.sign(dir, "mallory");
        *settings = Settings {
            api_tls_cert: Some(tls.join("server.pem")),
            api_tls_key: Some(tls.join("server.key")),
            api_client_ca: Some(ca),
            api_client_roles: vec!["cn:alice=admin".parse().unwrap()],
            ..settings.clone()
        };
    })
    .await;
    let ca = format!("--tls-ca={}", tls.join("server.pem").display());
    let port = site.url.rsplit(':').next().unwrap();
    let gateway = format!("--gateway=https://localhost:{port}");
    let list = |who: &[&str]| -> Ran {
        let args = [&["provider", "list", &ca, &gateway][..], who].concat();
        ran(&mut site.command(&args), "")
    };
    let by = ["--client-cert=alice.pem", "--client-key=alice.key"];
    let started = std::time::Instant::now();
    while list(&by).code != Some(0) {
        assert!(started.elapsed() < crate::site::BOUND, "{:#?}", list(&by));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // The environment says it as well.
    let mut from_environment = site.command(&["provider", "list", &ca, &gateway]);
    from_environment.env("EVERMINT_CLIENT_CERT", "alice.pem");
    from_environment.env("EVERMINT_CLIENT_KEY", "alice.key");
    assert_eq!(ran(&mut from_environment, "").code, Some(0));

    for (who, code, words) in [
        (&[][..], 1, "--client-cert"),
        (
            &["--client-cert=bob.pem", "--client-key=bob.key"],
            1,
            "role",
        ),
        (
            &["--client-cert=mallory.pem", "--client-key=mallory.key"],
            1,
            "",
        ),
        (
            &["--client-cert=alice.pem", "--client-key=bob.key"],
            1,
            "client certificate",
        ),
        (
            &["--client-cert=alice.pem", "--client-key=gone.key"],
            1,
            "gone.key",
        ),
        (&["--client-cert=alice.pem"], 2, "--client-key"),
    ] {
        let refused = list(who);
        assert_eq!(refused.code, Some(code), "{who:?}: {refused:#?}");
        assert!(refused.err.contains(words), "{who:?}: {refused:#?}");
    }
    let plain = [
        &["provider", "list", "--gateway=http://localhost:1"][..],
        &by,
    ]
    .concat();
    let refused = ran(&mut site.command(&plain), "");
    assert_eq!(refused.code, Some(2), "{refused:#?}");
    assert!(refused.err.contains("use https"), "{refused:#?}");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_goes_on_with_the_token_that_took_the_place_of_its_own() {
    let site = Site::guarded().await;
    site.done(&["sandbox", "create", "agent-1"]);
    let token = |lifetime: &str, out: &str| {
        let issue = ["sandbox", "token", "agent-1", lifetime, "--out", out];
        site.done(&issue);
        std::fs::read_to_string(site.path().join(out)).unwrap()
    };
    let first = token("--lifetime=8s", "first");
    site.write("kept", &first);
    let watch = |file: &str| {
        let file = format!("--admin-token-file={file}");
        let mut command = site.command(&[&file, "sandbox", "watch", "agent-1", "--count=2"]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "it has a bundle");
        (child, out)
    };
    let ((kept, _kept_out), (mut lost, _lost_out)) = (watch("kept"), watch("first"));
    let next = token("--lifetime=10m", "next");
    site.write("beside", &next);
    std::fs::rename(site.path().join("beside"), site.path().join("kept")).unwrap();

    // Nobody has a token for the one that kept the first.
    let ended = lost.wait().unwrap();
    let mut told = String::new();
    lost.stderr
        .take()
        .unwrap()
        .read_to_string(&mut told)
        .unwrap();
    assert_eq!(ended.code(), Some(1), "{told}");
    assert!(told.contains("the token has expired"), "{told}");

    site.done(&[
        "provider",
        "create",
        "p",
        "--type=generic",
        "--credential=A_KEY=env:HOME",
    ]);
    site.done(&["sandbox", "attach", "agent-1", "p"]);
    let ended = kept.wait_with_output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
    site.stop().await;
}
