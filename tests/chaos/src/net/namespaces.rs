//! Network namespaces on a bridge: one for the bridge, one for each place, one for the harness.
//! Nothing of the host's own network is touched.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use rustix::process::{Pid, test_kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::netem::QUEUE;
use super::{Harm, Rule};
use crate::history::Place;
use crate::tool::run;

/// Where iproute2 keeps the names of namespaces.
const NAMED: &str = "/run/netns";
/// Names begin with this and the id of the process that made them.
const PREFIX: &str = "evermint-chaos-";
/// A network of our own; private, and not routed anywhere.
const NET: [u8; 3] = [10, 77, 0];
/// The harness's address in it.
const HARNESS: u8 = 254;
const API_PORT: u16 = 7443;
const PEER_PORT: u16 = 7444;

/// The namespaces of one run.
#[derive(Debug)]
pub struct Namespaces {
    prefix: String,
    places: usize,
}

impl Namespaces {
    /// Makes them, with the harness's own, and moves the calling thread into that one: threads and
    /// processes that it starts from now on live there too. To be called before any other thread
    /// is started.
    ///
    /// # Errors
    /// What is missing: root, iproute2, nftables, or the kernel's consent.
    pub async fn up(places: usize) -> Result<Self, String> {
        sweep().await;
        let net = Self {
            prefix: format!("{PREFIX}{}-", std::process::id()),
            places,
        };
        if let Err(why) = net.build().await {
            net.down().await;
            return Err(why);
        }
        Ok(net)
    }

    async fn build(&self) -> Result<(), String> {
        let switch = self.name("switch");
        ip(["netns", "add", &switch]).await?;
        ip(["-n", &switch, "link", "add", "br0", "type", "bridge"]).await?;
        ip(["-n", &switch, "link", "set", "br0", "up"]).await?;
        for place in 0..self.places {
            self.plug(&place.to_string(), &address(place)).await?;
            self.nft(place, &["add", "table", "inet", "chaos"]).await?;
            let chain = "{ type filter hook input priority -10; policy accept; }";
            self.nft(place, &["add", "chain", "inet", "chaos", "in", chain])
                .await?;
        }
        self.plug("harness", &Ipv4Addr::new(NET[0], NET[1], NET[2], HARNESS))
            .await
    }

    /// A namespace with an address on the bridge.
    async fn plug(&self, what: &str, address: &Ipv4Addr) -> Result<(), String> {
        let (switch, name) = (self.name("switch"), self.name(what));
        let port = format!("v-{what}");
        ip(["netns", "add", &name]).await?;
        ip(["-n", &name, "link", "set", "lo", "up"]).await?;
        ip([
            "-n", &switch, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns",
            &name,
        ])
        .await?;
        ip(["-n", &switch, "link", "set", &port, "master", "br0", "up"]).await?;
        ip([
            "-n",
            &name,
            "addr",
            "add",
            &format!("{address}/24"),
            "dev",
            "eth0",
        ])
        .await?;
        ip(["-n", &name, "link", "set", "eth0", "up"]).await
    }

    /// Moves the calling thread into the harness's namespace: threads and processes that it starts
    /// from then on live there too.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn move_in(&self) -> Result<(), String> {
        enter_thread(&self.path("harness"))
    }

    /// Runs `make` on a thread that is at a place: sockets stay where they were made.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn at<T: Send>(&self, place: Place, make: impl FnOnce() -> T + Send) -> Result<T, String> {
        let path = self.path(&place.to_string());
        std::thread::scope(|scope| {
            let made = scope.spawn(|| enter_thread(&path).map(|()| make()));
            made.join().expect("it does not panic")
        })
    }

    pub(super) fn enter(&self, place: Place) -> Vec<OsString> {
        let mut net = OsString::from("--net=");
        net.push(self.path(&place.to_string()));
        vec!["nsenter".into(), net, "--".into()]
    }

    pub(super) fn api(&self, place: Place) -> SocketAddr {
        (address(place), API_PORT).into()
    }

    pub(super) fn peer(&self, place: Place) -> SocketAddr {
        (address(place), PEER_PORT).into()
    }

    pub(super) async fn harm(&self, from: Place, to: Place, harm: Harm) -> Result<Rule, String> {
        let from_address = address(from).to_string();
        let percent;
        let mut rule = vec!["ip", "saddr", &from_address];
        match harm {
            Harm::Drop => rule.extend(["counter", "drop"]),
            Harm::Reset => {
                rule.extend(["meta", "l4proto", "tcp", "counter", "reject"]);
                rule.extend(["with", "tcp", "reset"]);
            }
            Harm::Lose(of_hundred) => {
                percent = of_hundred.to_string();
                rule.extend(["numgen", "random", "mod", "100", "<", &percent]);
                rule.extend(["counter", "drop"]);
            }
        }
        let mut words = vec!["-a", "-e", "add", "rule", "inet", "chaos", "in"];
        words.extend(rule);
        let said = self.nft(to, &words).await?;
        let handle = said
            .rsplit_once("# handle ")
            .and_then(|(_, handle)| handle.split_whitespace().next()?.parse().ok())
            .ok_or(format!("nft gave no handle: {said}"))?;
        Ok(Rule {
            from,
            to,
            harm,
            handle,
        })
    }

    pub(super) async fn hits(&self, rule: &Rule) -> Result<u64, String> {
        let said = self
            .nft(rule.to, &["-a", "list", "chain", "inet", "chaos", "in"])
            .await?;
        let handle = format!("# handle {}", rule.handle);
        let line = said.lines().find(|line| line.trim_end().ends_with(&handle));
        let packets = line.and_then(|line| {
            let (_, after) = line.split_once("packets ")?;
            after.split_whitespace().next()?.parse().ok()
        });
        packets.ok_or(format!("nft knows no rule {}: {said}", rule.handle))
    }

    pub(super) async fn lift(&self, rule: &Rule) -> Result<(), String> {
        let handle = rule.handle.to_string();
        let words = ["delete", "rule", "inet", "chaos", "in", "handle", &handle];
        self.nft(rule.to, &words).await.map(drop)
    }

    /// Pulls a place's cable, or puts it in again.
    ///
    /// # Errors
    /// What the system said.
    pub async fn cable(&self, place: Place, plugged: bool) -> Result<(), String> {
        let (switch, port) = (self.name("switch"), format!("v-{place}"));
        let state = if plugged { "up" } else { "down" };
        ip(["-n", &switch, "link", "set", &port, state]).await
    }

    /// Limits the rate at which a place sends, in kbit/s; `None` lifts the limit.
    ///
    /// # Errors
    /// What the system said.
    pub async fn rate(&self, place: Place, kbit: Option<u32>) -> Result<(), String> {
        let name = self.name(&place.to_string());
        let Some(kbit) = kbit else {
            let words = ["tc", "-n", &name, "qdisc", "del", "dev", "eth0", "root"];
            return run(&words).await.map(drop);
        };
        let rate = format!("{kbit}kbit");
        let words = [
            "tc", "-n", &name, "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", &rate,
            "burst", "16kb", "latency", "400ms",
        ];
        run(&words).await.map(drop)
    }

    /// How many packets waited for the rate limit of a place, or were dropped by it.
    ///
    /// # Errors
    /// What the system said.
    pub async fn limited(&self, place: Place) -> Result<u64, String> {
        let name = self.name(&place.to_string());
        let said = run(&[
            "tc", "-n", &name, "-s", "qdisc", "show", "dev", "eth0", "root",
        ])
        .await?;
        let number = |before: &str| -> u64 {
            let after = said.split_once(before).map_or("", |(_, after)| after);
            let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().unwrap_or(0)
        };
        Ok(number("overlimits ") + number("dropped "))
    }

    /// Sends everything that a place receives from others through a queue of `netem`, or stops that.
    ///
    /// # Errors
    /// What the system said.
    pub async fn queue(&self, place: Place, on: bool) -> Result<(), String> {
        let name = self.name(&place.to_string());
        let action = if on { "-A" } else { "-D" };
        let queue = QUEUE.to_string();
        let words = [
            "ip",
            "netns",
            "exec",
            &name,
            "iptables",
            "-w",
            action,
            "INPUT",
            "-i",
            "eth0",
            "-j",
            "NFQUEUE",
            "--queue-num",
            &queue,
            "--queue-bypass",
        ];
        run(&words).await.map(drop)
    }

    async fn nft(&self, place: Place, words: &[&str]) -> Result<String, String> {
        let name = self.name(&place.to_string());
        let line = ["ip", "netns", "exec", &name, "nft"];
        run(&[&line, words].concat()).await
    }

    /// Removes them; links and rules go with them.
    pub(super) async fn down(&self) {
        remove(|name| name.starts_with(&self.prefix)).await;
    }

    fn name(&self, what: &str) -> String {
        format!("{}{what}", self.prefix)
    }

    fn path(&self, what: &str) -> PathBuf {
        Path::new(NAMED).join(self.name(what))
    }
}

fn address(place: Place) -> Ipv4Addr {
    let host = u8::try_from(place + 1).expect("a few places");
    Ipv4Addr::new(NET[0], NET[1], NET[2], host)
}

fn enter_thread(path: &Path) -> Result<(), String> {
    let say = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let file = File::open(path).map_err(|e| say(&e))?;
    move_into_link_name_space(
        std::os::fd::AsFd::as_fd(&file),
        Some(LinkNameSpaceType::Network),
    )
    .map_err(|e| say(&e))
}

async fn ip<const N: usize>(words: [&str; N]) -> Result<(), String> {
    run(&[&["ip"], &words[..]].concat()).await.map(drop)
}

/// Removes what runs have left behind that were killed before they could.
async fn sweep() {
    remove(|name| {
        let pid = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next());
        let pid = pid.and_then(|pid| Pid::from_raw(pid.parse().ok()?));
        pid.is_some_and(|pid| test_kill_process(pid).is_err())
    })
    .await;
}

async fn remove(which: impl Fn(&str) -> bool) {
    let Ok(named) = fs::read_dir(NAMED) else {
        return;
    };
    for name in named.flatten().map(|entry| entry.file_name()) {
        let Some(name) = name.to_str().filter(|name| which(name)) else {
            continue;
        };
        if let Err(why) = ip(["netns", "del", name]).await {
            evermint_cluster_tests::say(&format!("left behind: {why}"));
        }
    }
}
