//! What has to hold when processes die, pause and come back. Each file tells one story.

mod bad_input;
mod cold_restart;
mod isolation;
mod issuers;
mod joining;
mod keys;
mod leader_kills;
mod lost_answer;
mod openshell;
mod openshell_sandboxes;
mod paused_owner;
mod planted;
mod race;
mod secrets;
mod wiped_replica;
