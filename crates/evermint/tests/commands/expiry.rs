//! The end of a static credential.

use crate::site::Site;

const BUNDLE: [&str; 5] = ["sandbox", "bundle", "box", "--reveal", "-o=json"];

#[tokio::test(flavor = "multi_thread")]
async fn a_static_credential_that_has_ended_leaves_every_bundle() {
    let site = Site::start().await;
    let soon = site.write("soon", "soon-to-end");
    let long = site.write("long", "long-lived");
    site.done(&[
        "provider",
        "create",
        "api",
        "--type=generic",
        &format!("--credential=SOON=@{soon}"),
        &format!("--credential=LONG=@{long}"),
        "--credential-expires-at=SOON=+15s",
        "--credential-expires-at=LONG=2099-01-01T00:00:00Z",
    ]);
    site.done(&["sandbox", "create", "box", "--provider=api"]);
    let bundle = site.done(&BUNDLE).out;
    assert!(
        bundle.contains("soon-to-end") && bundle.contains("long-lived"),
        "{bundle}"
    );
    let shown = site.done(&["provider", "get", "api"]).out;
    assert!(shown.contains("in "), "{shown}");

    let bundle = site
        .until(&BUNDLE, |ran| !ran.out.contains("soon-to-end"))
        .await;
    assert!(bundle.out.contains("the value has expired"), "{bundle:?}");
    assert!(bundle.out.contains("long-lived"), "{bundle:?}");
    let shown = site.json(&["provider", "get", "api"]);
    let credentials = shown["provider"]["credentials"].as_array().unwrap();
    let soon = credentials.iter().find(|c| c["key"] == "SOON").unwrap();
    assert_eq!(
        (&soon["verdict"], &soon["live"]),
        (&"expired".into(), &false.into())
    );
    site.until(&["provider", "get", "api"], |ran| ran.out.contains(" ago"))
        .await;
    let listed = site.done(&["provider", "list"]).out;
    assert!(
        listed.contains("EXPIRES") && listed.contains(" ago"),
        "{listed}"
    );

    site.done(&[
        "provider",
        "update",
        "api",
        "--credential-expires-at=SOON=never",
    ]);
    let bundle = site.done(&BUNDLE).out;
    assert!(bundle.contains("soon-to-end"), "{bundle}");
    let seconds = [
        "provider",
        "update",
        "api",
        "--credential-expires-at=SOON=1784160000",
    ];
    let refused = site.run(&seconds);
    assert_eq!(refused.code, Some(2));
    assert!(refused.err.contains("not seconds"), "{refused:?}");
    site.stop().await;
}
