//! Tells the neighbours that the device is here: a small mDNS responder over IPv4.
//!
//! It answers who asks for `_pvr._tcp`, for `_ssh._tcp` (which is what the original's tools look for), or for the device by
//! name, and says so by itself when an address comes. It learns of addresses from the kernel, so it wakes up for nothing.
//! Invariants: it only answers, and believes nothing; it answers neighbours only (a source within the network of one of our
//! addresses), and no more than `BURST` and then `PER_SECOND`, so it is no use for flooding others. Packets are bounded.
//! Fault model: packets of any content; the port taken, the network gone: the device is then not found, and served as ever.
//! Not here: probing for others of the same name (the name is 48 random bits), IPv6.

use log::warn;
use runtime::dns::{self, Kind, MESSAGE_MAX, Message, Named, Pair, Question, Writer};
use rustix::{
    fd::OwnedFd,
    io::Errno,
    net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink::SocketAddrNetlink, sockopt},
};
use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    time::{Duration, Instant},
};

const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const PORT: u16 = 5353;
/// Services that we are found by.
const SERVICES: [&str; 2] = ["_pvr._tcp.local", "_ssh._tcp.local"];
/// What lists services.
const CATALOGUE: &str = "_services._dns-sd._udp.local";
/// Addresses of the device that are announced.
const ADDRESSES_MAX: usize = 8;
/// Packets that are read before others get their turn.
const ROUNDS: usize = 16;
/// Answers at once, and in the long run.
const BURST: u32 = 20;
const PER_SECOND: u32 = 5;
/// Time between the two announcements of an address.
const SECOND_TIME: Duration = Duration::from_secs(1);
/// How long others may remember us, and how long one who asked for himself. Seconds.
const TTL: u32 = 120;
const TTL_ONCE: u32 = 10;

/// What is told.
pub(super) struct Service {
    /// The device's name.
    pub(super) name: String,
    /// Where it listens.
    pub(super) port: u16,
    /// Whom it serves.
    pub(super) access: &'static str,
    /// How.
    pub(super) transport: &'static str,
}

/// An address of this device.
struct Here {
    address: Ipv4Addr,
    prefix: u8,
}

impl Here {
    fn is_next_to(&self, other: Ipv4Addr) -> bool {
        let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix.clamp(1, 32))).unwrap_or(u32::MAX);
        u32::from(self.address) & mask == u32::from(other) & mask
    }
}

/// The responder.
pub(super) struct Announcer {
    socket: OwnedFd,
    routes: OwnedFd,
    service: Option<Service>,
    here: Vec<Here>,
    /// Announcements still to be made, and when.
    left: u8,
    due: Option<Instant>,
    budget: u32,
    refilled: Instant,
    /// There may be something to read.
    pub(super) again: bool,
}

impl Announcer {
    /// Opens what it needs; nothing can be opened later.
    pub(super) fn open() -> Option<Self> {
        let open = || {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = net::socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)?;
            sockopt::set_socket_reuseaddr(&socket, true)?;
            sockopt::set_socket_reuseport(&socket, true)?;
            net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, PORT))?;
            sockopt::set_ip_multicast_ttl(&socket, 255)?;
            let routes = net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?; // the first protocol: routes
            const ADDRESSES: u32 = 0x10; // the group that hears of addresses of version 4
            net::bind(&routes, &SocketAddrNetlink::new(0, ADDRESSES))?;
            Ok((socket, routes))
        };
        let (socket, routes) = open()
            .map_err(|error: Errno| warn!("it is not announced to its neighbours: {}", crate::kmsg::Why(error)))
            .ok()?;
        let (here, budget, refilled) = (Vec::new(), BURST, Instant::now());
        Some(Self { socket, routes, service: None, here, left: 0, due: None, budget, refilled, again: true })
    }

    /// Its two descriptors, to be watched.
    pub(super) fn descriptors(&self) -> [&OwnedFd; 2] {
        [&self.socket, &self.routes]
    }

    /// It is known what to tell: asks the kernel for the addresses.
    pub(super) fn begin(&mut self, service: Service) {
        self.service = Some(service);
        // struct nlmsghdr of RTM_GETADDR with NLM_F_REQUEST and NLM_F_DUMP, and struct ifaddrmsg of AF_INET.
        let mut request = [0u8; 24];
        request[..4].copy_from_slice(&24u32.to_ne_bytes());
        request[4..6].copy_from_slice(&22u16.to_ne_bytes());
        request[6..8].copy_from_slice(&0x301u16.to_ne_bytes());
        request[16] = 2;
        let _ = net::send(&self.routes, &request, SendFlags::empty()); // without it, later addresses are still heard of
        self.again = true;
    }

    /// When it wants its turn.
    pub(super) fn poll_at(&self) -> Option<Instant> {
        self.due
    }

    /// Hears and answers, some rounds of it.
    pub(super) fn turn(&mut self, now: Instant) {
        if self.again {
            self.again = self.hear_routes(now) | self.hear_neighbours(now);
        }
        if self.due.is_some_and(|due| now >= due) {
            for index in 0..self.here.len() {
                self.say(now, index, None, 0, None);
            }
            self.left = self.left.saturating_sub(1);
            self.due = (self.left > 0).then(|| now + SECOND_TIME);
        }
    }

    /// Learns of addresses; whether there may be more.
    fn hear_routes(&mut self, now: Instant) -> bool {
        let mut bytes = [0; 8192];
        for _ in 0..ROUNDS {
            let count = match net::recv(&self.routes, &mut bytes[..], RecvFlags::DONTWAIT) {
                Ok((count, _)) => count,
                Err(Errno::AGAIN) => return false,
                Err(_) => continue, // some were lost: those that come are taken
            };
            for (is_new, here) in changes(&bytes[..count]) {
                self.here.retain(|known| known.address != here.address);
                if is_new && !here.address.is_loopback() && self.here.len() < ADDRESSES_MAX {
                    let _ = sockopt::set_ip_add_membership(&self.socket, &GROUP, &here.address); // again: an error
                    self.here.push(here);
                    (self.left, self.due) = (2, Some(now));
                }
            }
        }
        true
    }

    /// Answers who asks; whether there may be more.
    fn hear_neighbours(&mut self, now: Instant) -> bool {
        let mut bytes = [0; MESSAGE_MAX];
        for _ in 0..ROUNDS {
            let (count, from) = match net::recvfrom(&self.socket, &mut bytes[..], RecvFlags::DONTWAIT) {
                Ok((count, _, from)) => (count, from),
                Err(Errno::AGAIN) => return false,
                Err(_) => continue,
            };
            let Some(Ok(SocketAddr::V4(from))) = from.map(SocketAddr::try_from) else { continue };
            let Some(index) = self.here.iter().position(|here| here.is_next_to(*from.ip())) else { continue };
            let Some(message) = Message::read(&bytes[..count]).filter(|message| !message.is_answer) else { continue };
            let Some(question) = message.questions().find(|question| self.is_ours(question)) else { continue };
            let alone = (from.port() != PORT).then_some(from);
            self.say(now, index, Some(&question), message.id, alone);
        }
        true
    }

    fn is_ours(&self, question: &Question) -> bool {
        let Some(service) = &self.service else { return false };
        let name = question.name.as_str();
        let of_instance = |suffix: &str| {
            name.strip_suffix(suffix).and_then(|name| name.strip_suffix('.')).is_some_and(|name| name == service.name)
        };
        match question.kind {
            Kind::Pointer => name == CATALOGUE || SERVICES.contains(&name),
            Kind::Service | Kind::Texts => SERVICES.iter().any(|suffix| of_instance(suffix)),
            Kind::A => of_instance("local"),
            Kind::Any => name == CATALOGUE || SERVICES.contains(&name) || of_instance("local"),
            _ => false,
        }
    }

    /// Says all that there is to say about one address: to the one who asked, or to all there.
    fn say(&mut self, now: Instant, index: usize, asked: Option<&Question>, id: u16, alone: Option<SocketAddrV4>) {
        let earned = now.saturating_duration_since(self.refilled).as_secs().min(u64::from(BURST)) as u32 * PER_SECOND;
        if earned > 0 {
            (self.budget, self.refilled) = ((self.budget + earned).min(BURST), now);
        }
        let (Some(service), Some(here), true) = (&self.service, self.here.get(index), self.budget > 0) else { return };
        self.budget -= 1;
        let mut out = [0; MESSAGE_MAX];
        let id = if alone.is_some() { id } else { 0 };
        let mut writer = Writer::answer(&mut out, id);
        if let (Some(question), Some(_)) = (asked, alone) {
            writer.ask(question.name.as_str(), question.kind);
        }
        let ttl = if alone.is_some() { TTL_ONCE } else { TTL };
        write_records(&mut writer, service, here.address, ttl, asked.is_some_and(|q| q.name.as_str() == CATALOGUE));
        let Some(packet) = writer.finish() else { return };
        let to = alone.unwrap_or(SocketAddrV4::new(GROUP, PORT));
        let _ = sockopt::set_ip_multicast_if(&self.socket, &here.address);
        let _ = net::sendto(&self.socket, packet, SendFlags::DONTWAIT, &to); // who asks again is answered again
    }
}

fn write_records(writer: &mut Writer<'_>, service: &Service, address: Ipv4Addr, ttl: u32, catalogue: bool) {
    let only = ttl == TTL; // to one who asks for himself, nothing replaces what others said
    let host = format!("{}.local", service.name);
    let [high, low] = service.port.to_be_bytes();
    for kind in SERVICES {
        if catalogue {
            writer.record(CATALOGUE, Kind::Pointer, false, ttl, &[&Named(kind)]);
            continue;
        }
        let instance = format!("{}.{kind}", service.name);
        writer.record(kind, Kind::Pointer, false, ttl, &[&Named(&instance)]);
        writer.record(&instance, Kind::Service, only, ttl, &[&[0, 0, 0, 0, high, low], &Named(&host)]);
        let texts: [&dyn dns::Part; 5] = [
            &Pair("device-id", &service.name),
            &Pair("pantahub", ""), // there is no hub
            &Pair("path", super::route::BASE),
            &Pair("access", service.access),
            &Pair("transport", service.transport),
        ];
        writer.record(&instance, Kind::Texts, only, ttl, &texts);
    }
    writer.record(&host, Kind::A, only, ttl, &[&address.octets()]);
}

/// Addresses that came or went, from messages of the kernel.
fn changes(bytes: &[u8]) -> Vec<(bool, Here)> {
    let mut found = Vec::new();
    let mut rest = bytes;
    // struct nlmsghdr: length, type, flags, sequence, port
    while let Some(length) = rest.first_chunk::<4>().map(|head| u32::from_ne_bytes(*head) as usize) {
        let Some(message) = rest.get(16..length) else { break };
        let kind = u16::from_ne_bytes([rest[4], rest[5]]);
        if let (20 | 21, Some(here)) = (kind, address(message)) {
            found.push((kind == 20, here));
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    }
    found
}

/// The address of a struct ifaddrmsg (family, prefix, flags, scope, interface) and its attributes.
fn address(message: &[u8]) -> Option<Here> {
    let (&[family, prefix, ..], mut rest) = message.split_first_chunk::<8>()?;
    if family != 2 {
        return None;
    }
    let mut address = None;
    while let Some(&[l0, l1, k0, k1]) = rest.first_chunk::<4>() {
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = rest.get(4..length)?;
        // IFA_LOCAL is our own end; IFA_ADDRESS the other one where there are two.
        match (u16::from_ne_bytes([k0, k1]), value.first_chunk::<4>()) {
            (2, Some(octets)) => address = Some(Ipv4Addr::from(*octets)),
            (1, Some(octets)) => address = address.or(Some(Ipv4Addr::from(*octets))),
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    }
    address.map(|address| Here { address, prefix })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_those_within_our_networks() {
        let here = |prefix| Here { address: Ipv4Addr::new(10, 0, 1, 7), prefix };
        assert!(here(24).is_next_to(Ipv4Addr::new(10, 0, 1, 200)) && !here(24).is_next_to(Ipv4Addr::new(10, 0, 2, 7)));
        assert!(here(8).is_next_to(Ipv4Addr::new(10, 9, 9, 9)) && !here(8).is_next_to(Ipv4Addr::new(11, 0, 0, 1)));
        assert!(here(32).is_next_to(Ipv4Addr::new(10, 0, 1, 7)) && !here(32).is_next_to(Ipv4Addr::new(10, 0, 1, 6)));
        assert!(!here(0).is_next_to(Ipv4Addr::new(200, 0, 0, 1)), "a network without an end has no neighbours");
    }

    #[test]
    fn messages_of_the_kernel_are_read_whole_or_not() {
        let mut message = Vec::new();
        message.extend_from_slice(&40u32.to_ne_bytes());
        message.extend_from_slice(&20u16.to_ne_bytes());
        message.extend_from_slice(&[0; 10]);
        message.extend_from_slice(&[2, 24, 0, 0, 2, 0, 0, 0]);
        for (kind, last) in [(1u16, 9u8), (2, 7)] {
            message.extend_from_slice(&8u16.to_ne_bytes());
            message.extend_from_slice(&kind.to_ne_bytes());
            message.extend_from_slice(&[10, 0, 0, last]);
        }
        let read = |bytes: &[u8]| changes(bytes).iter().map(|(new, here)| (*new, here.address)).collect::<Vec<_>>();
        assert_eq!(read(&message), [(true, Ipv4Addr::new(10, 0, 0, 7))]);
        for cut in 0..message.len() {
            assert!(read(&message[..cut]).is_empty(), "{cut}");
        }
        for at in 0..message.len() {
            for byte in [0, 1, 3, 255] {
                let mut copy = message.clone();
                copy[at] = byte;
                let _ = read(&copy);
            }
        }
    }
}
