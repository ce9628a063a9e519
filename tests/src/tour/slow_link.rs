//! A slow link between `pvr` and the device: a relay on the loopback that lets a bounded number of bytes per second
//! through towards the device, so that a test has time to look at the disk while objects arrive.
//!
//! Invariants: bytes are never changed or reordered, and dropped only where a connection is broken on purpose. A new
//! revision's request can be held back for good.
//! Does not: slow down answers; wait for anything when it is dropped (its threads end with their connections).

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::Outcome;

const PIECE: usize = 16 * 1024;

/// The relay; it ends when this is dropped.
pub struct SlowLink {
    /// The port to talk to instead of the device's.
    pub port: u16,
    carried: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
}

/// What the link does to what goes through it.
#[derive(Clone, Copy)]
pub struct Rule {
    /// Bytes per second of each connection towards the device.
    pub rate: usize,
    /// Whether the request that posts a revision is held back.
    pub hold_revision: bool,
    /// The first connection that has carried so many bytes towards the device breaks there; later ones do not.
    pub break_at: Option<u64>,
}

/// What the connections of a link share.
#[derive(Clone)]
struct Shared {
    ended: Arc<AtomicBool>,
    broken: Arc<AtomicBool>,
    carried: Arc<AtomicU64>,
}

impl SlowLink {
    /// Relays connections to `target` on the loopback.
    pub fn to(target: u16, rule: Rule) -> Outcome<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let ended = Arc::new(AtomicBool::new(false));
        let carried = Arc::new(AtomicU64::new(0));
        let shared = Shared { ended: ended.clone(), broken: Arc::default(), carried: carried.clone() };
        thread::spawn(move || {
            for client in listener.incoming() {
                if shared.ended.load(Ordering::Relaxed) {
                    return;
                }
                if let (Ok(client), Ok(device)) = (client, TcpStream::connect((Ipv4Addr::LOCALHOST, target))) {
                    relay(client, device, rule, shared.clone());
                }
            }
        });
        Ok(Self { port, carried, ended })
    }

    /// Bytes that went through towards the device.
    pub fn carried(&self) -> u64 {
        self.carried.load(Ordering::Relaxed)
    }
}

impl Drop for SlowLink {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // Wakes the accepting thread, which then sees the flag.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

/// Starts the two directions of one connection.
fn relay(client: TcpStream, device: TcpStream, rule: Rule, shared: Shared) {
    let (Ok(client_too), Ok(device_too)) = (client.try_clone(), device.try_clone()) else { return };
    thread::spawn(move || towards_device(client, device, rule, &shared));
    thread::spawn(move || towards_client(device_too, client_too));
}

fn towards_device(mut client: TcpStream, mut device: TcpStream, rule: Rule, shared: &Shared) {
    let Shared { ended, broken, carried } = shared;
    let (mut piece, mut own) = ([0; PIECE], 0);
    while let Ok(length) = client.read(&mut piece) {
        if length == 0 || ended.load(Ordering::Relaxed) {
            break;
        }
        if rule.hold_revision && posts_revision(&piece[..length]) {
            while !ended.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(50));
            }
            break;
        }
        if device.write_all(&piece[..length]).is_err() {
            break;
        }
        carried.fetch_add(length as u64, Ordering::Relaxed);
        own += length as u64;
        if rule.break_at.is_some_and(|most| own >= most) && !broken.swap(true, Ordering::Relaxed) {
            let _ = client.shutdown(Shutdown::Both);
            break;
        }
        thread::sleep(Duration::from_secs_f64(length as f64 / rule.rate as f64));
    }
    let _ = device.shutdown(Shutdown::Write);
    if ended.load(Ordering::Relaxed) {
        let _ = client.shutdown(Shutdown::Both);
    }
}

fn towards_client(mut device: TcpStream, mut client: TcpStream) {
    let _ = std::io::copy(&mut device, &mut client);
    let _ = client.shutdown(Shutdown::Write);
}

/// Whether these bytes begin the request with which `pvr post` hands over the new state.
fn posts_revision(bytes: &[u8]) -> bool {
    let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    line.starts_with("POST ") && !line.contains("/objects")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_go_through_unchanged_and_revisions_can_be_held() {
        let device = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let target = device.local_addr().unwrap().port();
        let rule = Rule { rate: 1 << 30, hold_revision: true, break_at: None };
        let link = SlowLink::to(target, rule).unwrap();
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, link.port)).unwrap();
        let data: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
        client.write_all(&data).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut got = Vec::new();
        device.accept().unwrap().0.read_to_end(&mut got).unwrap();
        assert_eq!((got, link.carried()), (data, 100_000));
        assert!(posts_revision(b"POST /cgi-bin/pvr/steps HTTP/1.1\r\nHost: x"));
        assert!(!posts_revision(b"POST /cgi-bin/pvr/objects/ HTTP/1.1\r\n"));
        assert!(!posts_revision(b"PUT /steps HTTP/1.1\r\n"));
    }
}
