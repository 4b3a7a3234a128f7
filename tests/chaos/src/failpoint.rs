//! Failpoints from outside: replicas of a test build (`evermint-failpoints`) are told at which line
//! to die, to stand still or to fail.

use std::fs;
use std::io;
use std::path::PathBuf;

use evermint_failpoint::{Action, Bug, DIRECTORY, HIT, PLANTED, Point};

use crate::history::Place;
use crate::world::World;

/// The name of the program that has failpoints.
pub const PROGRAM: &str = "evermint-failpoints";

/// Lets the replicas of a world be steered, from their next start on. Others ignore it.
///
/// # Errors
/// When a directory cannot be made.
pub fn install(world: &World) -> io::Result<()> {
    for place in &world.places {
        let dir = directory(world, place.place);
        fs::create_dir_all(&dir)?;
        place.env(DIRECTORY, Some(&dir.display().to_string()));
    }
    Ok(())
}

/// Plants a defect in the replicas of a world, from their next start on.
pub fn plant(world: &World, bug: Bug) {
    for place in &world.places {
        place.env(PLANTED, Some(bug.name()));
    }
}

/// Whether the program under test has failpoints.
pub fn available(world: &World) -> bool {
    let name = world.settings.binary.file_name();
    name.is_some_and(|name| name == PROGRAM)
}

fn directory(world: &World, place: Place) -> PathBuf {
    world.settings.dir.join(format!("failpoints-{place}"))
}

/// A point of one replica that waits to act; disarmed when dropped.
#[derive(Debug)]
pub struct Armed {
    file: PathBuf,
}

impl Armed {
    /// Arms a point for a subject; for any if that is empty.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn arm(
        world: &World,
        place: Place,
        point: Point,
        action: Action,
        subject: &str,
    ) -> io::Result<Self> {
        let file = directory(world, place).join(point.name());
        let hit = file.with_extension(HIT);
        if hit.exists() {
            fs::remove_file(&hit)?;
        }
        // In one step: a replica must not read half of it.
        let beside = file.with_extension("new");
        fs::write(&beside, format!("{action} {subject}\n"))?;
        fs::rename(&beside, &file)?;
        Ok(Self { file })
    }

    /// Whether it has acted.
    pub fn has_acted(&self) -> bool {
        self.file.with_extension(HIT).exists()
    }

    /// Takes it back. Whether it can act no more without having acted.
    pub fn disarm(&self) -> bool {
        fs::remove_file(&self.file).is_ok()
    }
}

impl Drop for Armed {
    fn drop(&mut self) {
        // Whichever of the two is there.
        let _ = fs::remove_file(&self.file);
        let _ = fs::remove_file(self.file.with_extension(HIT));
    }
}
