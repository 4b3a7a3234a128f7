//! The refusals of GitHub, which has no error codes: status and message tell, as in
//! [its documentation](https://docs.github.com/rest/apps/apps#create-an-installation-access-token-for-an-app).

use evermint_core::mint::FailureClass;

use crate::transport::Answer;

/// What a refusal means, and the remedy; `None` if it has no message of GitHub's.
pub(super) fn verdict(answer: &Answer, message: &str) -> Option<(FailureClass, &'static str)> {
    use FailureClass::{ConfigRefused, GrantRefused, Throttled};
    if message.is_empty() {
        return None;
    }
    let message = message.to_ascii_lowercase();
    let spent = answer.headers.get("x-ratelimit-remaining");
    let is_spent = spent.is_some_and(|left| left.as_bytes() == b"0");
    Some(match answer.status.as_u16() {
        403 | 429 if is_spent || message.contains("rate limit") => (
            Throttled,
            "wait; if it lasts, mint for fewer installations of this app at once",
        ),
        401 => (
            ConfigRefused,
            "GitHub does not accept the app's key: check app_id, and that private_key is one of this app's keys and was not deleted",
        ),
        403 if message.contains("suspended") => (
            GrantRefused,
            "the installation is suspended: have its owner unsuspend it, then rotate",
        ),
        403 => (
            ConfigRefused,
            "GitHub forbids it: check the app's permissions and the organization's IP allow list",
        ),
        404 => (
            GrantRefused,
            "there is no such installation of this app: it was uninstalled, or installation_id belongs to another app; install it and configure the refresh again",
        ),
        422 => (
            ConfigRefused,
            "the installation lacks what is asked for: correct repositories, repository_ids or permissions, or have its owner accept the new permissions",
        ),
        _ => return None,
    })
}
