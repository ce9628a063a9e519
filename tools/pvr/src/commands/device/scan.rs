//! `pvr device scan`.

use crate::{
    commands::Context,
    error::{During, Error, Result},
};
use clap::Parser;
use runtime::dns::{Data, Kind, MESSAGE_MAX, Message, Writer, texts};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, UdpSocket},
    time::{Duration, Instant},
};

/// Find the devices in the network
///
/// Asks by mDNS, for as long as --time says, who is a device: ours and the original's answer. What they say is shown as they
/// say it and is not believed: a device is known by its pairing. Shows each device on the standard error, as the original
/// does; --json prints all of them.
#[derive(Parser, Debug)]
#[command(after_help = "Examples:
  pvr device scan
  pvr device scan --time 3 --json
  pvr scan")]
pub(in crate::commands) struct Args {
    /// Seconds to listen
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=600))]
    time: u64,
}

const GROUP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(224, 0, 0, 251), 5353);
/// What the original's devices announce, and what ours announce besides.
const SERVICES: [&str; 2] = ["_ssh._tcp.local", "_pvr._tcp.local"];
/// Time between two questions.
const AGAIN: Duration = Duration::from_secs(2);
/// Names that are remembered: a network that is full of nonsense must not fill the memory.
const NAMES_MAX: usize = 4096;

/// What was heard.
#[derive(Default)]
struct Heard {
    /// Texts, host and port by instance.
    instances: BTreeMap<String, Instance>,
    /// Addresses by host.
    hosts: BTreeMap<String, (BTreeSet<Ipv4Addr>, BTreeSet<Ipv6Addr>)>,
}

#[derive(Default)]
struct Instance {
    texts: BTreeMap<String, String>,
    service: Option<(u16, String)>,
}

pub(in crate::commands) fn run(context: &Context, args: &Args) -> Result<()> {
    let sockets = sockets()?;
    context.warn("Scanning ...");
    let until = Instant::now() + Duration::from_secs(args.time);
    let (mut heard, mut ask_at, mut shown) = (Heard::default(), Instant::now(), BTreeSet::new());
    while Instant::now() < until {
        if Instant::now() >= ask_at {
            ask(&sockets)?;
            ask_at = Instant::now() + AGAIN;
        }
        for socket in &sockets {
            listen(socket, &mut heard);
        }
        for device in heard.devices() {
            let id = device["id"].as_str().unwrap_or_default().to_owned();
            if shown.insert(id) && !context.json {
                context.warn(&described(&device));
            }
        }
    }
    let devices: Vec<_> = heard.devices().collect();
    if context.json {
        context.say(json!(devices), String::new);
    } else {
        context.warn(&format!("Pantavisor devices detected in network: {} (see above for details)", devices.len()));
    }
    Ok(())
}

/// A socket for each of our addresses: a question goes to the network of its socket.
fn sockets() -> Result<Vec<UdpSocket>> {
    let mut sockets = Vec::new();
    for address in addresses()? {
        // One that is gone again, or cannot multicast, has no devices behind it.
        if let Ok(socket) = UdpSocket::bind((address, 0)) {
            socket.set_read_timeout(Some(Duration::from_millis(50))).during(|| "set up a socket")?;
            sockets.push(socket);
        }
    }
    if sockets.is_empty() {
        return Err(Error::host("this machine has no network").hint("is an interface up, with an address?"));
    }
    Ok(sockets)
}

/// Our own addresses, as the kernel lists them.
fn addresses() -> Result<BTreeSet<Ipv4Addr>> {
    let table = std::fs::read_to_string("/proc/net/fib_trie").during(|| "look at this machine's addresses")?;
    let mut last = None;
    let mut found = BTreeSet::new();
    for line in table.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse::<Ipv4Addr>().ok();
        } else if line.starts_with("/32 host LOCAL") {
            found.extend(last.filter(|address| !address.is_loopback()));
        }
    }
    Ok(found)
}

fn ask(sockets: &[UdpSocket]) -> Result<()> {
    for service in SERVICES {
        let mut out = [0; MESSAGE_MAX];
        let question = Writer::question(&mut out, 0, service, Kind::Pointer).finish().unwrap_or_default();
        for socket in sockets {
            let _ = socket.send_to(question, GROUP); // asked again soon
        }
    }
    Ok(())
}

/// What comes within a moment.
fn listen(socket: &UdpSocket, heard: &mut Heard) {
    let mut bytes = [0; 9000];
    for _ in 0..64 {
        match socket.recv_from(&mut bytes) {
            Ok((count, SocketAddr::V4(_))) => heard.take(&bytes[..count]),
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

impl Heard {
    fn take(&mut self, bytes: &[u8]) {
        let Some(message) = Message::read(bytes).filter(|message| message.is_answer) else { return };
        for record in message.records() {
            if self.instances.len() + self.hosts.len() >= NAMES_MAX {
                return;
            }
            let name = record.name.as_str().to_owned();
            match record.data {
                Data::A(address) => drop(self.hosts.entry(name).or_default().0.insert(address.into())),
                Data::Aaaa(address) => drop(self.hosts.entry(name).or_default().1.insert(address.into())),
                Data::Service(port, host) => {
                    self.instances.entry(name).or_default().service = Some((port, host.as_str().to_owned()));
                }
                Data::Texts(data) => {
                    let of = &mut self.instances.entry(name).or_default().texts;
                    for text in texts(data).take(32) {
                        let text: String = String::from_utf8_lossy(text).chars().filter(|c| !c.is_control()).collect();
                        let (key, value) = text.split_once('=').unwrap_or((&text, ""));
                        of.insert(key.to_ascii_lowercase(), value.to_owned());
                    }
                }
                Data::Pointer(_) | Data::Other => {}
            }
        }
    }

    /// Who says that it is a device; ours once, by the service that says more.
    fn devices(&self) -> impl Iterator<Item = Value> + '_ {
        let mut by_id: BTreeMap<&str, (&String, &Instance)> = BTreeMap::new();
        for (name, instance) in &self.instances {
            let Some(id) = instance.texts.get("device-id").filter(|id| !id.is_empty()) else { continue };
            let (true, Some(_)) = (SERVICES.iter().any(|service| name.ends_with(service)), &instance.service) else {
                continue;
            };
            if name.ends_with(SERVICES[1]) || !by_id.contains_key(id.as_str()) {
                by_id.insert(id, (name, instance));
            }
        }
        by_id.into_iter().map(|(id, (name, instance))| {
            let (port, host) = instance.service.clone().unwrap_or_default();
            let (v4, v6) = self.hosts.get(&host).cloned().unwrap_or_default();
            let text = |key: &str| instance.texts.get(key).filter(|value| !value.is_empty());
            json!({"id": id, "host": format!("{host}."), "ipv4": v4, "ipv6": v6, "port": port,
                "challenge": text("challenge"), "pantahub": text("pantahub"), "access": text("access"),
                "transport": text("transport"), "endpoint": name.ends_with(SERVICES[1])})
        })
    }
}

/// As the original shows it; a device of ours has an endpoint instead of a hub.
fn described(device: &Value) -> String {
    let text = |key: &str| device[key].as_str().unwrap_or_default();
    let list = |key: &str| {
        let all: Vec<_> = device[key].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        all.join(" ")
    };
    let (id, challenge, hub, port) = (text("id"), text("challenge"), text("pantahub"), &device["port"]);
    let state = match (device["endpoint"] == true, challenge) {
        (true, _) => format!("{}, {}", text("access"), text("transport")),
        (false, "") => "owned".into(),
        (false, _) => "unclaimed".into(),
    };
    let mut lines = vec![
        format!("ID: {id} ({state})"),
        format!("Host: {}", text("host")),
        format!("IPv4: [{}]", list("ipv4")),
        format!("IPv6: [{}]", list("ipv6")),
        format!("Port: {port}"),
    ];
    if device["endpoint"] == true {
        let address = device["ipv4"][0].as_str().unwrap_or_default();
        if text("access") != "open" {
            lines.push(format!("Pair Cmd: pvr device pair {address}:{port}"));
        }
        lines.push(format!("PVR Clone: http://{address}:{port}"));
    } else if !challenge.is_empty() {
        lines.push(format!("Claim Cmd: pvr claim -c {challenge} {hub}/devices/{id}"));
    } else {
        lines.push(format!("Pantahub WWW: https://www.pantahub.com/u/_/devices/{id}"));
        lines.push(format!("PVR Clone: {hub}/trails/{id}"));
    }
    lines.iter().map(|line| format!("\t{line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime::dns::{Named, Pair};

    /// What a device of the original says: instance, challenge, hub; and what it is not believed.
    fn original(challenge: &str) -> Vec<u8> {
        let mut out = [0; MESSAGE_MAX];
        let mut writer = Writer::answer(&mut out, 0);
        let instance = "localhost._ssh._tcp.local";
        writer.record("_ssh._tcp.local", Kind::Pointer, false, 120, &[&Named(instance)]);
        writer.record(instance, Kind::Service, true, 120, &[&[0, 0, 0, 0, 0, 22], &Named("localhost.local")]);
        let pairs = [
            Pair("device-id", "61147e8af0e0f5000a50d11c"),
            Pair("challenge", challenge),
            Pair("pantahub", "https://api.pantahub.com:443"),
        ];
        writer.record(instance, Kind::Texts, true, 120, &[&pairs[0], &pairs[1], &pairs[2]]);
        writer.record("localhost.local", Kind::A, true, 120, &[&[192, 168, 68, 115]]);
        writer.record("printer._ssh._tcp.local", Kind::Texts, true, 120, &[&Pair("model", "x")]);
        writer.finish().unwrap().to_vec()
    }

    #[test]
    fn devices_of_the_original_are_shown_as_it_shows_them() {
        let mut heard = Heard::default();
        heard.take(&original("marginally-optimum-midge"));
        heard.take(b"\0\0\x84\0\0\x01\xff\xff\xff\xff\xff\xff nonsense");
        let devices: Vec<_> = heard.devices().collect();
        assert_eq!(devices.len(), 1);
        assert_eq!(
            described(&devices[0]),
            "\tID: 61147e8af0e0f5000a50d11c (unclaimed)\n\tHost: localhost.local.\n\tIPv4: [192.168.68.115]\n\tIPv6: []\n\
             \tPort: 22\n\tClaim Cmd: pvr claim -c marginally-optimum-midge \
             https://api.pantahub.com:443/devices/61147e8af0e0f5000a50d11c"
        );
        let mut heard = Heard::default();
        heard.take(&original(""));
        let shown = described(&heard.devices().next().unwrap());
        assert!(shown.ends_with("PVR Clone: https://api.pantahub.com:443/trails/61147e8af0e0f5000a50d11c"), "{shown}");
    }
}
