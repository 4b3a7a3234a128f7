//! A number of faults of some kinds, instead of faults for some time; and the table of what came of
//! them.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use evermint_cluster_tests::say;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::check::Violation;
use crate::dice::Dice;
use crate::history::{Event, FaultId, Line, Nanos};
use crate::nemesis::{Nemesis, Struck};
use crate::world::World;

/// Faults that are under way at the same time, if there are enough replicas.
const LANES: usize = 2;
/// The pause after a fault for which there was no occasion.
const PAUSE: Duration = Duration::from_millis(300);
/// A campaign that has not struck for so long never will.
const PATIENCE: Duration = Duration::from_secs(240);

/// How often each nemesis is to strike, and has begun to.
struct Score {
    wanted: usize,
    begun: Vec<usize>,
    struck: usize,
    last: Instant,
}

/// Strikes `count` times, each nemesis as often as every other.
///
/// # Errors
/// When there was no occasion for too long.
pub async fn strike(
    world: &Arc<World>,
    nemeses: Vec<Box<dyn Nemesis>>,
    count: usize,
) -> Result<(), String> {
    if nemeses.is_empty() {
        return Err("no fault is left".to_owned());
    }
    let score = Arc::new(Mutex::new(Score {
        wanted: count,
        begun: vec![0; nemeses.len()],
        struck: 0,
        last: Instant::now(),
    }));
    let nemeses: Arc<[_]> = nemeses.into();
    let mut lanes = JoinSet::new();
    for n in 0..LANES {
        let (world, nemeses, score) = (Arc::clone(world), Arc::clone(&nemeses), Arc::clone(&score));
        let dice = Dice::new(world.settings.seed, &format!("lane-{n}"));
        lanes.spawn(async move { lane(&world, &nemeses, &score, dice).await });
    }
    while let Some(ended) = lanes.join_next().await {
        ended.map_err(|e| format!("a nemesis: {e}"))??;
    }
    Ok(())
}

async fn lane(
    world: &Arc<World>,
    nemeses: &[Box<dyn Nemesis>],
    score: &Mutex<Score>,
    mut dice: Dice,
) -> Result<(), String> {
    loop {
        let next = lock(score).next();
        let Some(n) = next else {
            return Ok(());
        };
        let nemesis = &nemeses[n];
        match nemesis.strike(world, &mut dice).await {
            Ok(Struck::Yes) => {
                let mut score = lock(score);
                score.struck += 1;
                score.last = Instant::now();
                say(&format!(
                    "{}/{} {}",
                    score.struck,
                    score.wanted,
                    nemesis.name()
                ));
            }
            Ok(Struck::No) => {
                let idle = lock(score).not_struck(n);
                if idle > PATIENCE {
                    return Err(format!("no occasion for {}", nemesis.name()));
                }
                sleep(PAUSE).await;
            }
            Err(missed) => {
                world.fail(format!(
                    "{}: {}: {missed}",
                    nemesis.family(),
                    nemesis.name()
                ));
                return Err("a fault went wrong".to_owned());
            }
        }
    }
}

fn lock(score: &Mutex<Score>) -> MutexGuard<'_, Score> {
    score.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Score {
    /// The nemesis that struck least so far; `None` if all is done or under way.
    fn next(&mut self) -> Option<usize> {
        if self.begun.iter().sum::<usize>() >= self.wanted {
            return None;
        }
        let n = (0..self.begun.len()).min_by_key(|n| self.begun[*n])?;
        self.begun[n] += 1;
        Some(n)
    }

    /// It found no occasion. For how long nobody has.
    fn not_struck(&mut self, n: usize) -> Duration {
        self.begun[n] -= 1;
        self.last.elapsed()
    }
}

/// One fault, and what followed.
struct Strike {
    name: String,
    from: Nanos,
    to: Nanos,
    write_ms: Option<u64>,
    mint_ms: Option<u64>,
    failed_reads: u64,
}

/// The table of a history: each kind of fault of `family`, in Markdown; `None` if there was none.
pub fn table(history: &[Line], family: &str, violations: &[Violation]) -> Option<String> {
    let strikes = strikes(history, family);
    if strikes.is_empty() {
        return None;
    }
    let mut names: Vec<&str> = Vec::new();
    for strike in &strikes {
        if !names.contains(&strike.name.as_str()) {
            names.push(&strike.name);
        }
    }
    let mut table = String::from(
        "| fault | times | violations | next write, ms: median, max | next mint of that credential, ms: median, max | failed reads |\n| --- | --- | --- | --- | --- | --- |\n",
    );
    let mut row = |name: &str, of: &[&Strike]| {
        let broken = violations
            .iter()
            .filter(|v| of.iter().any(|s| (s.from..=s.to).contains(&v.at)));
        let failed: u64 = of.iter().map(|strike| strike.failed_reads).sum();
        let write = spread(of.iter().filter_map(|strike| strike.write_ms));
        let mint = spread(of.iter().filter_map(|strike| strike.mint_ms));
        let (times, broken) = (of.len(), broken.count());
        // Writing to a string cannot fail.
        let _ = writeln!(
            table,
            "| {name} | {times} | {broken} | {write} | {mint} | {failed} |"
        );
    };
    for name in names {
        let of: Vec<_> = strikes.iter().filter(|s| s.name == name).collect();
        row(name, &of);
    }
    row("all", &strikes.iter().collect::<Vec<_>>());
    Some(table)
}

fn spread(times: impl Iterator<Item = u64>) -> String {
    let mut times: Vec<u64> = times.collect();
    times.sort_unstable();
    match times.last() {
        Some(max) => format!("{}, {max}", times[times.len() / 2]),
        None => "–".to_owned(),
    }
}

fn strikes(history: &[Line], family: &str) -> Vec<Strike> {
    let mut strikes: Vec<(FaultId, Strike)> = Vec::new();
    for line in history {
        match &line.event {
            Event::FaultBegins {
                fault,
                family: of,
                name,
                ..
            } if of == family => {
                let strike = Strike {
                    name: name.clone(),
                    from: line.at,
                    to: line.at,
                    write_ms: None,
                    mint_ms: None,
                    failed_reads: 0,
                };
                strikes.push((*fault, strike));
            }
            Event::Failover(failover) => {
                let strike = strikes.iter_mut().find(|(id, _)| *id == failover.fault);
                if let Some((_, strike)) = strike {
                    strike.to = line.at;
                    strike.write_ms = failover.write_ms;
                    strike.mint_ms = failover.mint_ms;
                    strike.failed_reads = failover.failed_reads;
                }
            }
            Event::FaultEnds { fault } => {
                let strike = strikes.iter_mut().find(|(id, _)| id == fault);
                if let Some((_, strike)) = strike {
                    strike.to = strike.to.max(line.at);
                }
            }
            _ => {}
        }
    }
    strikes.into_iter().map(|(_, strike)| strike).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Failover;

    fn line(at: Nanos, event: Event) -> Line {
        let unix_ms = 0;
        Line { at, unix_ms, event }
    }

    fn strike(
        fault: FaultId,
        at: Nanos,
        name: &str,
        write_ms: u64,
        mint_ms: Option<u64>,
    ) -> [Line; 3] {
        [
            line(
                at,
                Event::FaultBegins {
                    fault,
                    family: "step".to_owned(),
                    name: name.to_owned(),
                    replicas: vec![0],
                    detail: String::new(),
                },
            ),
            line(at + 5, Event::FaultEnds { fault }),
            line(
                at + 9,
                Event::Failover(Failover {
                    fault,
                    replica: 0,
                    client: "c".to_owned(),
                    write_ms: Some(write_ms),
                    mint_ms,
                    failed_reads: 1,
                }),
            ),
        ]
    }

    #[test]
    fn a_table_has_a_row_for_each_kind_and_one_for_all() {
        let history = [
            strike(1, 10, "before-send", 100, Some(1_000)),
            strike(2, 30, "after-answer", 300, None),
            strike(3, 50, "before-send", 200, Some(3_000)),
        ]
        .concat();
        let violation = |at| Violation {
            promise: "I2",
            at,
            what: String::new(),
        };
        let table = table(&history, "step", &[violation(35), violation(25)]).unwrap();
        let rows: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(
            rows,
            [
                "| before-send | 2 | 0 | 200, 200 | 3000, 3000 | 2 |",
                "| after-answer | 1 | 1 | 300, 300 | – | 1 |",
                "| all | 3 | 1 | 200, 300 | 3000, 3000 | 3 |",
            ]
        );
    }

    #[test]
    fn nemeses_take_turns_until_there_are_enough() {
        let mut score = Score {
            wanted: 3,
            begun: vec![0, 0],
            struck: 0,
            last: Instant::now(),
        };
        assert_eq!([score.next(), score.next()], [Some(0), Some(1)]);
        score.not_struck(0);
        assert_eq!([score.next(), score.next()], [Some(0), Some(0)]);
        assert_eq!(score.next(), None);
    }
}
