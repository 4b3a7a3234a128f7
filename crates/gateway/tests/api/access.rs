//! Every method, called as everyone, about every kind of place, through the real server. What has
//! to come of it follows from the rows of the table that the server checks by.

use std::sync::Arc;

use evermint_core::secret::Secret;
use evermint_gateway::CallerRole::{self, Admin, Editor, Known, Reader};
use evermint_gateway::{AdminToken, Config, METHODS, Method, Oidc, Place, REASON, Web, Who};
use tonic::Code;

use crate::calls::{bearer, call_with, sandbox_token};
use crate::harness::{Harness, config};
use crate::idp::{Idp, Signer, claims, oidc};

/// An operator: the role of its token, and where it holds that.
struct Operator {
    claim: &'static str,
    role: CallerRole,
    everywhere: bool,
}

const OPERATORS: [Operator; 6] = [
    operator("nothing", Known, true),
    operator("reader-a", Reader, false),
    operator("editor-a", Editor, false),
    operator("reader-all", Reader, true),
    operator("editor-all", Editor, true),
    operator("admin", Admin, true),
];

const fn operator(claim: &'static str, role: CallerRole, everywhere: bool) -> Operator {
    Operator {
        claim,
        role,
        everywhere,
    }
}

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum About {
    /// The workspace of some operators.
    Own,
    /// Another one.
    Other,
    /// The flag of the request is set, or its workspace is empty where that means the platform.
    Wide,
}

/// A request of `method` about something; `None` if none of its requests is.
fn message(method: &Method, about: About) -> Option<Vec<u8>> {
    let workspace = if about == About::Own {
        "team-a"
    } else {
        "team-b"
    };
    let mut message = Vec::new();
    let text = |field: u32, to: &mut Vec<u8>| {
        prost::encoding::string::encode(field, &workspace.to_owned(), to);
    };
    match (method.place, about) {
        (Place::Anywhere | Place::Everywhere, About::Own) => {}
        (Place::Anywhere | Place::Everywhere, About::Other | About::Wide) => return None,
        (Place::InOrAll(_, flag) | Place::InOrPlatform(_, flag), About::Wide) => {
            prost::encoding::bool::encode(flag, &true, &mut message);
        }
        (Place::InElsePlatform(_), About::Wide) => {}
        (Place::In(_) | Place::OfSandbox(..), About::Wide) => return None,
        (
            Place::In(field)
            | Place::InOrAll(field, _)
            | Place::InOrPlatform(field, _)
            | Place::InElsePlatform(field)
            | Place::OfSandbox(_, Some(field)),
            About::Own | About::Other,
        ) => text(field, &mut message),
        (Place::OfSandbox(_, None), About::Own) => {}
        (Place::OfSandbox(_, None), About::Other) => return None,
    }
    Some(message)
}

/// Whether an operator may make this call.
fn may(operator: &Operator, method: &Method, about: About) -> bool {
    let needed = match method.who {
        Who::Anyone => return true,
        Who::Sandbox => return false,
        Who::Operator(role) | Who::SandboxOr(role) => role,
    };
    let needs_admin = about == About::Wide
        && matches!(
            method.place,
            Place::InOrPlatform(..) | Place::InElsePlatform(_)
        );
    let needed = if needs_admin { Admin } else { needed };
    let there = match method.place {
        Place::Anywhere | Place::OfSandbox(_, None) => true,
        Place::Everywhere => operator.everywhere,
        _ => operator.everywhere || about == About::Own,
    };
    let held = if there { operator.role } else { Known };
    held >= needed
}

async fn guarded() -> (Harness, Signer) {
    let signer = Signer::new("k");
    let roles = [
        "reader-a=reader@team-a",
        "editor-a=editor@team-a",
        "reader-all=reader@*",
        "editor-all=editor@*",
        "admin=admin",
    ];
    let config = Config {
        admin: Some(AdminToken::new(&Secret::from("the-operator"))),
        oidc: Some(Oidc {
            roles: roles.iter().map(|rule| rule.parse().unwrap()).collect(),
            ..oidc()
        }),
        ..config()
    };
    let idp: Arc<dyn Web> = Idp::new(&[&signer]);
    (Harness::with_web(config, idp).await, signer)
}

/// What the door says to those who are known and have no business with a method.
const DOOR: [&str; 2] = [
    "sandbox principals may not call this method",
    "this method requires a sandbox principal",
];

/// Whether the door let a call in, and the code that it ended with.
async fn let_in(
    harness: &Harness,
    method: &Method,
    token: Option<&str>,
    message: Vec<u8>,
) -> (bool, Code) {
    let shown = token.map(bearer);
    let answer = call_with(&harness.channel, method.path, shown.as_deref(), message).await;
    match answer {
        Ok(()) => (true, Code::Ok),
        Err(status) => {
            let reason = status.metadata().get(REASON).and_then(|r| r.to_str().ok());
            // What a method itself refuses is another matter.
            let barred = match reason {
                Some("unauthenticated" | "role-missing" | "scope-missing") => true,
                Some("permission-denied") => DOOR.contains(&status.message()),
                _ => false,
            };
            (!barred, status.code())
        }
    }
}

#[tokio::test]
async fn every_method_is_open_to_those_whom_its_row_names_and_to_nobody_else() {
    let (harness, signer) = guarded().await;
    let sandbox = sandbox_token(&harness, "the-operator", "box").await;
    let tokens = OPERATORS.map(|operator| signer.sign(&claims(operator.claim)));
    for method in METHODS {
        let path = method.path;
        let plain = || message(method, About::Own).unwrap();
        let anyone = method.who == Who::Anyone;
        for token in [None, Some("hunter2"), Some("a.b.c")] {
            let (inside, code) = let_in(&harness, method, token, plain()).await;
            assert_eq!(inside, anyone, "{path} by {token:?}: {code:?}");
        }

        // Its own workspace is the default one.
        let (inside, code) = let_in(&harness, method, Some(&sandbox), Vec::new()).await;
        let its = anyone || matches!(method.who, Who::Sandbox | Who::SandboxOr(_));
        assert_eq!(inside, its, "{path} by a sandbox: {code:?}");

        for (operator, token) in OPERATORS.iter().zip(&tokens) {
            for about in [About::Own, About::Other, About::Wide] {
                let Some(message) = message(method, about) else {
                    continue;
                };
                let (inside, code) = let_in(&harness, method, Some(token), message).await;
                let may = may(operator, method, about);
                assert_eq!(
                    inside, may,
                    "{path} {about:?} by {}: {code:?}",
                    operator.claim
                );
            }
        }
        // The bootstrap token opens all but what is a sandbox's own.
        let (inside, code) = let_in(&harness, method, Some("the-operator"), plain()).await;
        assert_eq!(inside, method.who != Who::Sandbox, "{path}: {code:?}");
    }
}

#[tokio::test]
async fn a_method_without_a_row_is_refused_whoever_calls() {
    let (harness, _) = guarded().await;
    for path in [
        "/evermint.v1.Providers/Nothing",
        "/other.v1.Service/Method",
        "/",
    ] {
        for token in [None, Some("the-operator")] {
            let shown = token.map(bearer);
            let answer = call_with(&harness.channel, path, shown.as_deref(), Vec::new()).await;
            assert_eq!(answer.unwrap_err().code(), Code::Unimplemented, "{path}");
        }
    }
}

#[tokio::test]
async fn a_workspace_that_is_named_twice_or_badly_opens_no_other() {
    let (harness, signer) = guarded().await;
    let token = signer.sign(&claims("reader-a"));
    let list = METHODS
        .iter()
        .find(|m| m.path == "/evermint.v1.Providers/ListProviders")
        .unwrap();
    let text = |text: &str| {
        let mut field = Vec::new();
        prost::encoding::string::encode(1, &text.to_owned(), &mut field);
        field
    };
    for (what, message, inside) in [
        ("its own", text("team-a"), true),
        (
            "its own last, as the service reads it",
            [text("team-b"), text("team-a")].concat(),
            true,
        ),
        (
            "another one last",
            [text("team-a"), text("team-b")].concat(),
            false,
        ),
        ("none", Vec::new(), false),
        ("no name", text("team-a/../b"), false),
        ("in other letters", text("TEAM-A"), false),
        ("as a number", vec![0x08, 1], false),
        ("cut off", vec![0x0a, 200, b't'], false),
        ("no text", vec![0x0a, 1, 0xff], false),
        (
            "its own, and all",
            [text("team-a"), vec![0x10, 1]].concat(),
            false,
        ),
        (
            "its own, and all with a large number",
            [text("team-a"), vec![0x10, 0x80, 2]].concat(),
            false,
        ),
        (
            "its own, and a flag that is no flag",
            [text("team-a"), vec![0x12, 0]].concat(),
            false,
        ),
    ] {
        let (is, code) = let_in(&harness, list, Some(&token), message).await;
        assert_eq!(is, inside, "{what}: {code:?}");
    }
}

#[tokio::test]
async fn a_sandboxs_id_leads_to_its_own_workspace_whatever_the_request_says() {
    let (harness, signer) = guarded().await;
    sandbox_token(&harness, "the-operator", "box").await;
    let id = harness
        .cluster
        .committed()
        .sandboxes
        .keys()
        .next()
        .unwrap()
        .to_string();
    let get = METHODS
        .iter()
        .find(|m| m.path == "/evermint.v1.Bundles/GetBundle")
        .unwrap();
    let mut message = Vec::new();
    prost::encoding::string::encode(1, &id, &mut message);
    prost::encoding::string::encode(2, &"team-a".to_owned(), &mut message);
    for (claim, expected) in [
        ("editor-a", false),
        ("editor-all", true),
        ("reader-all", false),
    ] {
        let token = signer.sign(&claims(claim));
        let (inside, code) = let_in(&harness, get, Some(&token), message.clone()).await;
        assert_eq!(inside, expected, "{claim}: {code:?}");
    }
}
