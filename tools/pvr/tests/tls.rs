//! HTTPS: who is believed, and who is not.
//!
//! `vectors/tls` holds an authority's certificate, and one for `localhost` that it signed, with its key: made once with
//! openssl for a hundred years, worth nothing to anybody.

mod common;

use common::{
    Place,
    hub::{Hub, World},
    vector,
};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde_json::json;
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::Arc,
};

/// TLS in front of a hub; its port.
fn front(hub: &Hub) -> u16 {
    let certificate = CertificateDer::from_pem_file(vector("tls/server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(vector("tls/server.key")).unwrap();
    let config =
        ServerConfig::builder_with_provider(Arc::new(default_provider())).with_safe_default_protocol_versions();
    let config = Arc::new(config.unwrap().with_no_client_auth().with_single_cert(vec![certificate], key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let hub = hub.url.strip_prefix("http://").unwrap().to_owned();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let tls = StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), client.unwrap());
            // A client that does not like the certificate hangs up.
            let _ = relay(tls, &hub);
        }
    });
    port
}

/// One request without a body, and its answer.
fn relay(mut tls: StreamOwned<ServerConnection, TcpStream>, hub: &str) -> std::io::Result<()> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        tls.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let mut plain = TcpStream::connect(hub)?;
    plain.write_all(&head)?;
    plain.shutdown(std::net::Shutdown::Write)?;
    let mut answer = Vec::new();
    plain.read_to_end(&mut answer)?;
    tls.write_all(&answer)?;
    tls.conn.send_close_notify();
    tls.flush()
}

#[test]
fn the_systems_authorities_decide_and_a_name_counts() {
    let place = Place::new();
    let hub = Hub::start(World { is_hub: true, ..World::of(json!({"#spec": "s"})) });
    let answer = |body: serde_json::Value| {
        let body = body.to_string();
        format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    };
    let remote = json!({"json-get-url": "/state", "objects-endpoint": "/o", "post-url": "/p"});
    hub.world().scripted.insert("GET /x/.pvrremote".into(), answer(remote));
    hub.world().scripted.insert("GET /state".into(), answer(json!({"#spec": "s", "a.json": 1})));
    let port = front(&hub);
    let authority = vector("tls/ca.pem").display().to_string();
    let trusted = [("SSL_CERT_FILE", authority.as_str())];
    let inspect = |host: &str, flags: &[&str], set: &[(&str, &str)]| {
        let url = format!("https://{host}:{port}/x");
        place.pvr_with("home", &[flags, &["inspect", "-c", &url]].concat(), set)
    };
    let state = "{\"#spec\":\"s\",\"a.json\":1}\n";
    assert_eq!(inspect("localhost", &[], &trusted).good(), state);
    for (host, set) in [("localhost", &[][..]), ("127.0.0.1", &trusted)] {
        let error = inspect(host, &[], set).failed(4);
        assert!(error.contains("certificate") && error.contains("--insecure"), "{host}: {error}");
        let said = inspect(host, &["--insecure"], set);
        assert!(said.err.starts_with("WARNING: --insecure"), "{said:?}");
        assert_eq!(said.good(), state);
    }
    let asked = hub.lines().len();
    assert_eq!(asked, 6, "nothing was said to who is not believed");
    // What began with TLS does not go on without.
    let plain = format!(
        "HTTP/1.1 302 X\r\nLocation: {}/x/.pvrremote\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        hub.url
    );
    hub.world().scripted.insert("GET /x/.pvrremote".into(), plain.into_bytes());
    let error = inspect("localhost", &[], &trusted).failed(4);
    assert!(error.contains("not protected by TLS"), "{error}");
}
