//! Formats, colours, manual pages.

use std::collections::BTreeSet;

use crate::site::{Site, program, ran};

#[tokio::test(flavor = "multi_thread")]
async fn every_command_answers_in_json_and_yaml() {
    let site = Site::start().await;
    assert_eq!(site.crm("crm-secret").code, Some(0));
    site.done(&["sandbox", "create", "box", "--provider=crm"]);
    for args in [
        &["provider", "list"][..],
        &["provider", "get", "crm"],
        &["provider", "refresh", "status"],
        &["provider", "test", "crm"],
        &["inference", "list"],
        &["sandbox", "list"],
        &["sandbox", "bundle", "box"],
        &["cluster", "status"],
        &["audit"],
    ] {
        let json = site.json(args);
        let yaml = site.done(&[args, &["-o=yaml"]].concat()).out;
        let keys: Vec<_> = json.as_object().unwrap().keys().collect();
        for key in keys {
            let line = format!("{key}:");
            assert!(
                yaml.lines().any(|l| l.starts_with(&line)),
                "{args:?}: {line} {yaml}"
            );
        }
        assert!(!yaml.contains('\x1b'), "{yaml}");
    }
    let table = site.done(&["provider", "list"]).out;
    assert!(table.starts_with("NAME"), "{table}");
    assert!(
        !table.contains('\x1b'),
        "colours are for terminals: {table}"
    );
    site.stop().await;
}

#[test]
fn every_command_has_a_manual_page() {
    fn walk(command: &clap::Command, name: &str, pages: &mut BTreeSet<String>) {
        pages.insert(format!("{name}.1"));
        for command in command.get_subcommands() {
            walk(command, &format!("{name}-{}", command.get_name()), pages);
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("man1");
    let made = ran(program().args(["man", "--dir"]).arg(&pages), "");
    assert_eq!(made.code, Some(0), "{made:#?}");
    let mut expected = BTreeSet::new();
    walk(&evermint::cli::command(), "evermint", &mut expected);
    let found: BTreeSet<String> = std::fs::read_dir(&pages)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let missing: Vec<_> = expected.difference(&found).collect();
    assert!(missing.is_empty(), "{missing:?} of {found:?}");
    let page = std::fs::read_to_string(pages.join("evermint-provider-create.1")).unwrap();
    assert!(page.contains("KEY=@FILE") || page.contains("KEY=@FILE".replace('-', "\\-").as_str()));
    let first = ran(program().arg("man"), "");
    assert!(first.out.contains(".TH evermint 1"), "{first:?}");
}
