//! One mint: material is opened, the issuer is asked, the answer is sealed.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use evermint_core::credential::Credential;
use evermint_core::mint::{Failure, FailureClass, MintOrder, Minted};
use evermint_core::secret::{Sealed, Secret};
use evermint_core::time::millis;
use evermint_failpoint::{Point, check, reach};
use evermint_protocol::journal::SealedMint;
use evermint_protocol::owner::MintTask;
use evermint_seal::Context;
use futures::FutureExt;
use tokio::sync::oneshot;
use tracing::Instrument;

use crate::fence::ClockFence;
use crate::room::Room;
use crate::trace;

/// Runs `task` to its end, or until `abort` fires. Its connection is closed when this returns.
pub(crate) async fn run(
    room: &Room,
    task: MintTask,
    abort: oneshot::Receiver<()>,
) -> Result<SealedMint, Failure> {
    let span = tracing::info_span!(
        "mint",
        { trace::CREDENTIAL } = %task.credential.id,
        { trace::TICKET } = %task.ticket,
        { trace::ATTEMPT } = task.credential.attempt.0,
        { trace::REASON } = task.credential.ticket().map(|t| t.reason.as_str()),
    );
    async {
        let result = tokio::select! {
            result = guarded(room, &task) => result,
            Ok(()) = abort => Err(failure(
                FailureClass::Unclear,
                "the mint was cut short by a reconfiguration".to_owned(),
            )),
        };
        match &result {
            Ok(mint) => tracing::info!(lifetime_ms = mint.lifetime_ms, "minted"),
            Err(failure) => tracing::warn!(
                class = ?failure.class,
                cause = failure.cause,
                remedy = failure.remedy,
                "mint failed"
            ),
        }
        result
    }
    .instrument(span)
    .await
}

/// A strategy that panics fails its own mint and nothing else.
async fn guarded(room: &Room, task: &MintTask) -> Result<SealedMint, Failure> {
    let _line = room.lines.hold(&task.credential.id).await;
    match AssertUnwindSafe(mint(room, task)).catch_unwind().await {
        Ok(result) => result,
        Err(_) => Err(failure(
            FailureClass::Unclear,
            "the strategy panicked; this is a defect of evermint".to_owned(),
        )),
    }
}

async fn mint(room: &Room, task: &MintTask) -> Result<SealedMint, Failure> {
    let order = order(room, task)?;
    let key = task.credential.id.key.as_str();
    reach(Point::BeforeSend, key);
    let minted = room.minter.mint(order).await?;
    check(Point::AfterAnswer, key).map_err(|e| failure(FailureClass::Unclear, e.to_string()))?;
    seal(room, &task.credential, minted)
}

fn order(room: &Room, task: &MintTask) -> Result<MintOrder, Failure> {
    let credential = &task.credential;
    let refresh = credential.refresh.as_ref().ok_or_else(|| {
        failure(
            FailureClass::Unsent,
            "the refresh was deleted before the mint began".to_owned(),
        )
    })?;
    let mut secrets = BTreeMap::new();
    for (name, sealed) in &refresh.material {
        let context = Context::material(&credential.id, name);
        let secret = room.keyring().open(&context, sealed).map_err(|e| {
            failure(
                FailureClass::Unsent,
                format!("material {name} could not be opened: {e}"),
            )
        })?;
        secrets.insert(name.clone(), secret);
    }
    Ok(MintOrder {
        credential: credential.id.clone(),
        ticket: task.ticket,
        config: refresh.config.clone(),
        secrets,
        fence: Arc::new(ClockFence::new(task.deadline, Arc::clone(&room.clock))),
    })
}

/// Seals all outputs that the refresh declares, each under its own name; without one of them the
/// mint fails as a whole.
fn seal(room: &Room, credential: &Credential, minted: Minted) -> Result<SealedMint, Failure> {
    let id = &credential.id;
    let seal = |context: Context<'_>, secret: &Secret| -> Result<Sealed, Failure> {
        room.keyring().seal(&context, secret).map_err(|e| {
            failure(
                FailureClass::Unclear,
                format!("the issuer's answer could not be sealed: {e}"),
            )
        })
    };
    let token = seal(Context::value(id, &id.key), &minted.token)?;
    let mut outputs = BTreeMap::from([(id.key.clone(), token)]);
    let declared = credential.refresh.iter().flat_map(|r| &r.config.outputs);
    for (output, key) in declared {
        let secret = minted.extra_outputs.get(output).ok_or_else(|| Failure {
            remedy: "see why it is missing, or configure the refresh without it".to_owned(),
            ..failure(
                FailureClass::UnknownRefusal,
                format!("the mint gave no {output}"),
            )
        })?;
        outputs.insert(key.clone(), seal(Context::value(id, key), secret)?);
    }
    let mut new_material = BTreeMap::new();
    for (name, secret) in &minted.new_material {
        let sealed = seal(Context::material(id, name), secret)?;
        new_material.insert(name.clone(), sealed);
    }
    Ok(SealedMint {
        outputs,
        lifetime_ms: minted.lifetime.map(millis),
        new_material,
        material_lifetimes_ms: minted
            .material_lifetimes
            .into_iter()
            .map(|(name, lifetime)| (name, millis(lifetime)))
            .collect(),
    })
}

fn failure(class: FailureClass, cause: String) -> Failure {
    Failure {
        class,
        cause,
        remedy: String::new(),
        retry_after_ms: None,
    }
}
