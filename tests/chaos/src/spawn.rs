//! Starts children from one thread that lives as long as the harness: the kernel tells a child
//! that its parent has died when the *thread* is gone that started it.

use std::path::PathBuf;
use std::process::Command;
use std::sync::{LazyLock, Mutex, PoisonError, mpsc};

use evermint_cluster_tests::Process;

struct Order {
    command: Command,
    log: PathBuf,
    done: mpsc::Sender<Process>,
}

static SPAWNER: LazyLock<Mutex<mpsc::Sender<Order>>> = LazyLock::new(|| {
    let (orders, incoming) = mpsc::channel::<Order>();
    std::thread::spawn(move || {
        for mut order in incoming {
            let process = Process::spawn(&mut order.command, &order.log);
            // Nobody waits any more only if the harness goes down; then the child is killed here.
            let _ = order.done.send(process);
        }
    });
    Mutex::new(orders)
});

/// Starts a child that dies with the harness, with its output appended to the file `log`.
///
/// # Panics
/// When the program cannot be started.
pub fn spawn(command: Command, log: PathBuf) -> Process {
    let (done, process) = mpsc::channel();
    let order = Order { command, log, done };
    let spawner = SPAWNER.lock().unwrap_or_else(PoisonError::into_inner);
    spawner.send(order).expect("the spawner runs");
    drop(spawner);
    process.recv().expect("the program starts")
}
