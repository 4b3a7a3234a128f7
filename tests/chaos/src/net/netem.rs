//! Delay, jitter, loss and reordering for kernels without netem: the harness's own program reads
//! packets from a queue of the kernel, in the namespace that they arrive in, and gives each its
//! verdict when its time has come.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nfq::{Queue, Verdict};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::Network;
use crate::history::Place;
use crate::spawn::spawn;
use crate::world::World;

/// The queue's number, in each namespace.
pub(crate) const QUEUE: u16 = 1;
/// Most packets that wait.
const WAITING_MAX: u32 = 65_535;
/// The pause of the loop when nothing is to be done.
const IDLE: Duration = Duration::from_micros(300);

/// What happens to packets.
#[derive(Clone, Debug)]
pub struct Netem {
    /// How long each is kept.
    pub delay: Duration,
    /// By how much that varies.
    pub jitter: Duration,
    /// How many in a hundred are lost.
    pub loss_percent: u32,
    /// Whether a packet may overtake another.
    pub reorder: bool,
    /// Where chance comes from.
    pub seed: u64,
}

impl Netem {
    /// Lets it happen to all that a place receives, for so long. How many packets came by.
    ///
    /// # Errors
    /// What the system said.
    pub async fn run(
        &self,
        world: &Arc<World>,
        place: Place,
        length: Duration,
    ) -> Result<u64, String> {
        let Network::Namespaces(net) = &world.net else {
            return Err("only in a namespace".to_owned());
        };
        let program = std::env::current_exe().map_err(|e| e.to_string())?;
        let mut words: Vec<std::ffi::OsString> =
            vec!["setpriv".into(), "--pdeathsig".into(), "KILL".into()];
        words.extend(world.net.enter(place));
        words.push(program.into());
        words.push("netem".into());
        words.extend(self.words(length).into_iter().map(Into::into));
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        let log = world
            .settings
            .dir
            .join("logs")
            .join(format!("netem-{place}-{}", world.recorder.number()));
        let mut process = spawn(command, log.clone());
        net.queue(place, true).await?;
        tokio::time::sleep(length).await;
        let unqueued = net.queue(place, false).await;
        let ended = world
            .until("netem ends", Duration::from_secs(10), || {
                let ended = process.exit().is_some();
                async move { ended.then_some(()).ok_or("it runs on".to_owned()) }
            })
            .await;
        process.kill();
        unqueued?;
        ended?;
        let said = std::fs::read_to_string(&log).map_err(|e| e.to_string())?;
        let packets = said
            .split_once(" packets")
            .and_then(|(n, _)| n.trim().parse().ok());
        packets.ok_or(format!("netem said: {said}"))
    }

    /// The arguments of the program that does it.
    fn words(&self, length: Duration) -> Vec<String> {
        [
            self.delay.as_millis(),
            self.jitter.as_millis(),
            self.loss_percent.into(),
            self.reorder.into(),
            self.seed.into(),
            // A little longer than the rule that feeds it.
            (length + Duration::from_secs(1)).as_millis(),
        ]
        .map(|n| n.to_string())
        .into()
    }

    /// Does it, in the namespace of this process, as `words` of another process say. How many
    /// packets came by.
    ///
    /// # Errors
    /// When the words are wrong, or the kernel gives no queue.
    pub fn serve(words: &[String]) -> Result<u64, String> {
        let numbers: Vec<u64> = words.iter().filter_map(|word| word.parse().ok()).collect();
        let &[delay, jitter, loss, reorder, seed, length] = &numbers[..] else {
            return Err("usage: netem DELAY_MS JITTER_MS LOSS REORDER SEED LENGTH_MS".to_owned());
        };
        let netem = Self {
            delay: Duration::from_millis(delay),
            jitter: Duration::from_millis(jitter),
            loss_percent: u32::try_from(loss).unwrap_or(100),
            reorder: reorder > 0,
            seed,
        };
        netem
            .pass(Duration::from_millis(length))
            .map_err(|e| format!("the kernel's queue: {e}"))
    }

    fn pass(&self, length: Duration) -> std::io::Result<u64> {
        let mut queue = Queue::open()?;
        queue.bind(QUEUE)?;
        queue.set_queue_max_len(QUEUE, WAITING_MAX)?;
        queue.set_nonblocking(true);
        let mut random = StdRng::seed_from_u64(self.seed);
        let end = Instant::now() + length;
        let mut waiting = BinaryHeap::new();
        let (mut packets, mut last) = (0, Instant::now());
        while Instant::now() < end || !waiting.is_empty() {
            let mut idle = true;
            while let Ok(mut message) = queue.recv() {
                idle = false;
                packets += 1;
                if random.random_range(0..100) < self.loss_percent {
                    message.set_verdict(Verdict::Drop);
                    queue.verdict(message)?;
                    continue;
                }
                let spread = random.random_range(Duration::ZERO..=2 * self.jitter);
                let mut due = Instant::now() + (self.delay + spread).saturating_sub(self.jitter);
                if !self.reorder {
                    due = due.max(last);
                    last = due;
                }
                waiting.push(Waiting(Reverse((due, packets)), message));
            }
            while waiting.peek().is_some_and(|w| w.0.0.0 <= Instant::now()) {
                let Some(Waiting(_, mut message)) = waiting.pop() else {
                    break;
                };
                message.set_verdict(Verdict::Accept);
                queue.verdict(message)?;
                idle = false;
            }
            if idle {
                std::thread::sleep(IDLE);
            }
        }
        Ok(packets)
    }
}

/// A packet, due at its time; earlier ones are greater.
struct Waiting(Reverse<(Instant, u64)>, nfq::Message);

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}
