//! Who may call what, in one place.
//!
//! | caller | may call |
//! | --- | --- |
//! | anyone | health and reflection |
//! | a sandbox, by its token | `Bundles` and `RenewSandboxToken`, for itself alone |
//! | the operator, by the admin token | everything but `RenewSandboxToken` |

use tonic::Status;

use crate::caller::Caller;
use crate::status;

/// Services that anyone may ask: for probes, load balancers and tools.
const OPEN: [&str; 2] = ["/grpc.health.", "/grpc.reflection."];

/// What sandboxes may call. Each of these looks at the caller, and speaks of it alone.
const SANDBOX: [&str; 2] = [
    "/evermint.v1.Bundles/",
    "/evermint.v1.SandboxTokens/RenewSandboxToken",
];

/// What only a sandbox can call.
const SANDBOX_ONLY: &str = SANDBOX[1];

/// Whether `path` needs no caller.
pub(crate) fn is_open(path: &str) -> bool {
    OPEN.iter().any(|open| path.starts_with(open))
}

/// Whether `caller` may call `path`.
///
/// # Errors
/// `PERMISSION_DENIED`.
pub(crate) fn check(path: &str, caller: &Caller) -> Result<(), Status> {
    let for_sandboxes = SANDBOX.iter().any(|prefix| path.starts_with(prefix));
    match caller {
        Caller::Sandbox(_) if !for_sandboxes => {
            Err(status::denied("sandboxes may not call this method"))
        }
        Caller::Admin | Caller::Anyone if path == SANDBOX_ONLY => {
            Err(status::denied("this method needs a sandbox's token"))
        }
        Caller::Sandbox(_) | Caller::Admin | Caller::Anyone => Ok(()),
    }
}
