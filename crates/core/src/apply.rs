//! x
use crate::{command::{Proposal, Answer}, record::Key, state::State, time::UnixMs};
/// x
pub fn apply(_s: &mut State, _p: &Proposal, _at: UnixMs) -> (Answer, Vec<Key>) { todo!() }
