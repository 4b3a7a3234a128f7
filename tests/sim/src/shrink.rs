//! From a failing seed to a small story: faults are taken away while the run still fails.

use crate::config::{Config, Fault};
use crate::mutant::Mutant;
use crate::report::{Broken, Failure};
use crate::world::World;

/// The most runs that are spent on it.
const RUNS_MAX: u32 = 400;

/// Lines of the trace in a report, at least.
const TAIL: usize = 50;

/// Finds a small configuration that breaks the same promise.
pub fn shrink(config: Config, mutant: Option<Mutant>, broken: Broken) -> Failure {
    let mut best = Attempt {
        config,
        broken,
        mutant,
        runs: 0,
    };
    // Nothing after the failure matters.
    let end = best.broken.at;
    best.change(|c| c.horizon = c.horizon.min(end + 1));
    best.change(|c| {
        let of_others = |f: &Fault| matches!(f, Fault::Detach { sandbox, .. } if *sandbox > 0);
        c.schedule.retain(|(_, fault)| !of_others(fault));
        c.sandboxes = 1;
    });
    let classes: [fn(&mut Config); 9] = [
        |c| c.lost = 0,
        |c| c.doubled = 0,
        |c| c.late = 0,
        |c| c.failed = 0,
        |c| c.throttled = 0,
        |c| c.hung = 0,
        |c| c.unheard = 0,
        |c| c.slowest = 50,
        |c| c.drift_ppm.fill(0),
    ];
    for class in classes {
        best.change(class);
    }
    let mut piece = best.config.schedule.len();
    while piece > 0 {
        let mut at = 0;
        while at < best.config.schedule.len() {
            let until = (at + piece).min(best.config.schedule.len());
            let smaller = best.change(|c| {
                c.schedule.drain(at..until);
            });
            if !smaller {
                at += piece;
            }
        }
        piece /= 2;
    }
    let tail = match World::new(best.config.clone(), mutant)
        .with_trace(TAIL)
        .run()
    {
        Err((_, tail)) => tail,
        Ok(_) => Vec::new(),
    };
    Failure {
        broken: best.broken,
        config: best.config,
        tail,
    }
}

struct Attempt {
    config: Config,
    broken: Broken,
    mutant: Option<Mutant>,
    runs: u32,
}

impl Attempt {
    /// Keeps the change if the same promise still breaks.
    fn change(&mut self, change: impl FnOnce(&mut Config)) -> bool {
        if self.runs >= RUNS_MAX {
            return false;
        }
        self.runs += 1;
        let mut config = self.config.clone();
        change(&mut config);
        match World::new(config.clone(), self.mutant).run() {
            Err((broken, _)) if broken.promise == self.broken.promise => {
                self.config = config;
                self.broken = broken;
                true
            }
            _ => false,
        }
    }
}
