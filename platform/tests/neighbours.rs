//! The `endpoint` errand in one network namespace, its neighbours in another, real packets between them. Needs root.
//!
//! With the feature `tls` the neighbour is also `pvr device scan`, from `tools/target/debug`, which must have been built.

mod device;

use device::Errand;
use platform::{
    config::Access,
    wire::{Buffer, Message},
};
use runtime::dns::{self, Data, Kind, MESSAGE_MAX, Writer};
use std::{
    fs::File,
    net::{Ipv4Addr, SocketAddrV4, TcpStream, UdpSocket},
    process::Command,
    thread,
    time::{Duration, Instant},
};

const GROUP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(224, 0, 0, 251), 5353);
const DEVICE: Ipv4Addr = Ipv4Addr::new(10, 71, 0, 7);
const US: Ipv4Addr = Ipv4Addr::new(10, 71, 0, 1);

fn run(program: &str, args: &str) {
    let done = Command::new(program).args(args.split(' ')).output().unwrap();
    assert!(done.status.success(), "{program} {args}: {}", String::from_utf8_lossy(&done.stderr));
}

/// Two network namespaces with a cable between them; gone with this.
struct Cable(String);

impl Cable {
    fn lay() -> Self {
        let name = format!("swb{}", std::process::id());
        for end in ["a", "b"] {
            run("ip", &format!("netns add {name}{end}"));
            run("ip", &format!("-n {name}{end} link set lo up"));
        }
        run("ip", &format!("-n {name}a link add eth0 type veth peer name eth0 netns {name}b"));
        for (end, address) in [("a", DEVICE), ("b", US)] {
            run("ip", &format!("-n {name}{end} link set eth0 up"));
            if end == "b" {
                run("ip", &format!("-n {name}{end} addr add {address}/24 dev eth0"));
            }
        }
        Self(name)
    }

    /// Moves this thread to one end.
    fn enter(&self, end: &str) {
        let namespace = File::open(format!("/run/netns/{}{end}", self.0)).unwrap();
        let kind = Some(rustix::thread::LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), kind).unwrap();
    }

    /// The device gets its address, as late as from a DHCP client.
    fn address(&self) {
        run("ip", &format!("-n {}a addr add {DEVICE}/24 dev eth0", self.0));
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        for end in ["a", "b"] {
            let _ = Command::new("ip").args(["netns", "del", &format!("{}{end}", self.0)]).status();
        }
    }
}

/// Answers the endpoint as PID 1 and the keeper do, until it ends.
fn serve(endpoint: &Errand) {
    let mut buffer = Buffer::new();
    while let Ok(Some(heard)) = endpoint.channel.receive(&mut buffer) {
        let answer = match heard.message {
            Message::Recall { .. } => Message::Memory { bytes: &[] },
            Message::Remember { .. } => Message::done(0),
            _ => continue,
        };
        endpoint.channel.send(heard.serial, &answer, &[]).unwrap();
    }
}

/// Sends a question until an answer comes; the answer's records as text.
fn ask(socket: &UdpSocket, name: &str, kind: Kind) -> String {
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let mut out = [0; MESSAGE_MAX];
        let question = Writer::question(&mut out, 77, name, kind).finish().unwrap();
        socket.send_to(question, GROUP).unwrap();
        let mut bytes = [0; 2000];
        if let Ok((count, from)) = socket.recv_from(&mut bytes) {
            assert_eq!(from.ip(), DEVICE);
            let message = dns::Message::read(&bytes[..count]).unwrap();
            assert!(message.is_answer && message.id == 77 && message.questions().count() == 1);
            return message.records().map(|record| format!("{record:?}\n")).collect();
        }
        assert!(Instant::now() < until, "nobody answers {name}");
    }
}

#[test]
fn a_device_is_found_by_its_neighbours_whatever_they_send() {
    let cable = Cable::lay();
    let endpoint = thread::scope(|scope| {
        let device = scope.spawn(|| {
            cable.enter("a");
            device::enter(|_| {});
            let endpoint = Errand::new(c"endpoint", 0);
            let listen = Message::Listen { address: "0.0.0.0:12368", access: Access::Open, names: "" };
            endpoint.ask(0, &listen, &[]);
            let mut buffer = Buffer::new();
            let ready = endpoint.channel.receive(&mut buffer).unwrap().expect("it lives");
            assert!(matches!(ready.message, Message::Ready));
            endpoint
        });
        device.join().unwrap()
    });
    thread::scope(|scope| {
        scope.spawn(|| serve(&endpoint));
        let neighbour = scope.spawn(|| {
            cable.enter("b");
            let group = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 5353)).unwrap();
            group.join_multicast_v4(GROUP.ip(), &US).unwrap();
            cable.address();
            // It says by itself that it is there.
            let mut bytes = [0; 2000];
            group.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            let (count, from) = group.recv_from(&mut bytes).unwrap();
            assert_eq!((from.ip(), from.port()), (DEVICE.into(), 5353));
            let message = dns::Message::read(&bytes[..count]).unwrap();
            assert!(message.is_answer);
            let service = message.records().find_map(|record| match record.data {
                Data::Service(port, host) if record.name.as_str().ends_with("._pvr._tcp.local") => Some((port, host)),
                _ => None,
            });
            let (port, host) = service.unwrap();
            assert!(port == 12368 && host.as_str().starts_with("switchback-") && host.as_str().ends_with(".local"));
            drop(group);

            let socket = UdpSocket::bind((US, 0)).unwrap();
            let garbage: [&[u8]; 6] =
                [b"", b"x", &[0xff; 1400], &[0; 1400], b"\0\0\0\0\xff\xff\0\0\0\0\0\0\xc0\x0c", &[0xc0; 600]];
            for packet in garbage.iter().cycle().take(600) {
                let _ = socket.send_to(packet, GROUP);
                let _ = socket.send_to(packet, (DEVICE, 5353));
            }
            for (name, kind) in [
                ("_ssh._tcp.local", Kind::Pointer),
                ("_PVR._tcp.LOCAL", Kind::Pointer),
                (host.as_str(), Kind::A),
                ("_services._dns-sd._udp.local", Kind::Pointer),
            ] {
                let said = ask(&socket, name, kind);
                assert!(said.contains("10, 71, 0, 7"), "{name}: {said}");
            }
            // A flood of questions is not a flood of answers.
            let mut out = [0; MESSAGE_MAX];
            let question = Writer::question(&mut out, 77, "_pvr._tcp.local", Kind::Any).finish().unwrap();
            for _ in 0..2000 {
                let _ = socket.send_to(question, GROUP);
            }
            socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
            let mut answers = 0;
            while socket.recv(&mut bytes).is_ok() {
                answers += 1;
                assert!(answers < 500, "it is of use for flooding others");
            }
            TcpStream::connect((DEVICE, port)).expect("it is served as ever");
        });
        let found = neighbour.join();
        #[cfg(feature = "tls")]
        scan(&cable);
        rustix::process::kill_process(endpoint.pid, rustix::process::Signal::KILL).unwrap();
        found.unwrap();
    });
    let said = endpoint.end();
    assert!(!said.contains("panicked"), "{said}");
}

/// The host's own tool finds it.
#[cfg(feature = "tls")]
fn scan(cable: &Cable) {
    let pvr = concat!(env!("CARGO_MANIFEST_DIR"), "/../tools/target/debug/pvr");
    let end = format!("{}b", cable.0);
    let scan = |more: &[&str]| {
        let args = [&["netns", "exec", &end, pvr, "device", "scan", "--time", "6"], more].concat();
        let done = Command::new("ip").args(args).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        (String::from_utf8_lossy(&done.stdout).into_owned(), String::from_utf8_lossy(&done.stderr).into_owned())
    };
    let (_, shown) = scan(&[]);
    assert!(shown.starts_with("Scanning ...\n\tID: switchback-") && shown.contains("\tIPv4: [10.71.0.7]\n"), "{shown}");
    assert!(shown.contains("\tPVR Clone: http://10.71.0.7:12368\n"), "{shown}");
    assert!(shown.ends_with("Pantavisor devices detected in network: 1 (see above for details)\n"), "{shown}");
    let (listed, _) = scan(&["--json"]);
    assert!(listed.contains(r#""endpoint":true"#) && listed.contains(r#""port":12368"#), "{listed}");
}
