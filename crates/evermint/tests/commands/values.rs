//! Where values come from: never has one to stand on the command line.

use crate::site::{Site, ran};

#[tokio::test(flavor = "multi_thread")]
async fn a_value_is_read_from_a_file_standard_input_the_environment_or_the_line() {
    let site = Site::start().await;
    let file = site.write("value", "from-a-file\n");
    let mut create = site.command(&[
        "provider",
        "create",
        "api",
        "--type=generic",
        &format!("--credential=A=@{file}"),
        "--credential=B=-",
        "--credential=C=env:C_VALUE",
        "--credential=D",
        "--config=region=env:REGION",
    ]);
    create
        .env("C_VALUE", "from-the-environment")
        .env("D", "by-its-name")
        .env("REGION", "europe-west4");
    let created = ran(&mut create, "from-standard-input\r\n");
    assert_eq!(created.code, Some(0), "{created:#?}");
    assert_eq!(created.err, "");
    assert!(created.out.contains("region=europe-west4"), "{created:?}");
    let plain = [
        "provider",
        "update",
        "api",
        "--credential=E=plain-e",
        "--credential=F=plain-f",
    ];
    let warned = site.done(&plain);
    assert_eq!(warned.err.matches("warning").count(), 1, "{warned:?}");
    assert!(
        warned.err.contains("E, F on the command line"),
        "{warned:?}"
    );
    assert!(!format!("{warned:?}").contains("plain-e"));

    site.done(&["sandbox", "create", "box", "--provider=api"]);
    let bundle = site.json(&["sandbox", "bundle", "box", "--reveal"]);
    let credentials = bundle["credentials"].as_array().unwrap();
    for (key, value) in [
        ("A", "from-a-file"),
        ("B", "from-standard-input"),
        ("C", "from-the-environment"),
        ("D", "by-its-name"),
        ("E", "plain-e"),
        ("F", "plain-f"),
    ] {
        let found = credentials.iter().find(|c| c["key"] == key).unwrap();
        assert_eq!(found["token"]["values"][key], value);
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_cannot_be_read_is_told_by_its_source() {
    let site = Site::start().await;
    let empty = site.write("empty", "\n");
    let huge = site.write("huge", &"x".repeat((1 << 20) + 1));
    let long = site.write("long", &"x".repeat(9000));
    for (sources, code, told) in [
        (&["A=@/nonexistent"][..], 1, "cannot read /nonexistent"),
        (&[&format!("A=@{empty}")], 2, "empty is empty"),
        (&[&format!("A=@{huge}")], 1, "more than 1048576 bytes"),
        (
            &[&format!("A=@{long}")],
            1,
            "is 9000 bytes long; at most 8192",
        ),
        (
            &["A=env:EVERMINT_NOT_SET_HERE"],
            2,
            "EVERMINT_NOT_SET_HERE is not set",
        ),
        (&["A=-"], 2, "standard input is empty"),
        (&["A=-", "B=-"], 2, "both read standard input"),
        (&["A=1", "A=2"], 2, "A is given twice"),
        (&["=hunter2"], 2, "KEY=@FILE"),
    ] {
        let mut args = vec!["provider", "create", "api", "--type=generic"];
        for source in sources {
            args.extend(["--credential", *source]);
        }
        let refused = site.run(&args);
        assert_eq!(refused.code, Some(code), "{sources:?}: {refused:#?}");
        assert!(refused.err.contains(told), "{sources:?}: {refused:#?}");
    }
    let list = site.json(&["provider", "list"]);
    assert_eq!(list["providers"], serde_json::json!([]));
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn material_that_a_strategy_knows_to_be_secret_is_warned_of_and_kept_secret() {
    let site = Site::start().await;
    site.done(&["provider", "create", "crm", "--type=generic-oauth2"]);
    let url = format!("--token-url={}", site.issuer.token_url());
    let configure = [
        "provider",
        "refresh",
        "configure",
        "crm",
        "--credential-key=CRM_TOKEN",
        "--strategy=oauth2-client-credentials",
        "--material=client_id=crm",
        "--material=client_secret=crm-secret",
        "--secret-material-key=client_id",
        &url,
    ];
    let warned = site.done(&configure);
    assert!(
        warned
            .err
            .contains("client_id, client_secret on the command line"),
        "{warned:?}"
    );
    for output in ["json", "yaml", "table"] {
        let shown = site.done(&["provider", "refresh", "status", "crm", "-o", output]);
        assert!(!shown.out.contains("crm-secret"), "{shown:?}");
    }
    site.stop().await;
}
