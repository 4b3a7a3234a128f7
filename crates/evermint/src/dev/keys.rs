//! Single key presses on a terminal.

use std::io::{IsTerminal, Read};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::sync::mpsc;

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Press {
    /// `k`
    Kill,
    /// `q`
    Quit,
}

/// A terminal that gives keys one by one; restored when dropped.
pub(super) struct Keyboard {
    before: Termios,
}

impl Keyboard {
    /// Listens to the terminal's keys; there is no keyboard if standard input is no terminal.
    pub(super) fn listen() -> (Option<Self>, mpsc::Receiver<Press>) {
        let (send, pressed) = mpsc::channel(4);
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return (None, pressed);
        }
        let Ok(before) = tcgetattr(&stdin) else {
            return (None, pressed);
        };
        let mut single = before.clone();
        single.local_modes -= LocalModes::ICANON | LocalModes::ECHO;
        if tcsetattr(&stdin, OptionalActions::Now, &single).is_err() {
            return (None, pressed);
        }
        // A read of standard input cannot be cancelled: the thread ends with the process.
        std::thread::spawn(move || {
            for byte in std::io::stdin().lock().bytes() {
                let press = match byte {
                    Ok(b'k' | b'K') => Press::Kill,
                    Ok(b'q' | b'Q') => Press::Quit,
                    Ok(_) => continue,
                    Err(_) => return,
                };
                if send.blocking_send(press).is_err() {
                    return;
                }
            }
        });
        (Some(Self { before }), pressed)
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        // Nothing is left to be done if it fails.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.before);
    }
}
