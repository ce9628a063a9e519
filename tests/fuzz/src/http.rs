//! Heads of HTTP requests and answers.
//!
//! Beyond "no panic": a head is the same whether or not bytes follow it, and whatever made it complete was needed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use runtime::{
    http::{Head, HostRule, Reply},
    limits::HTTP_HEAD_MAX,
};

fuzz_target!(|received: &[u8]| {
    for rule in [HostRule::Local, HostRule::Any] {
        match Head::parse(received, rule) {
            Ok(Some(head)) => {
                assert!(head.path.starts_with('/') && head.size <= received.len().min(HTTP_HEAD_MAX));
                assert_eq!(Head::parse(&received[..head.size], rule), Ok(Some(head)));
                assert_eq!(Head::parse(&received[..head.size - 1], rule), Ok(None));
            }
            Ok(None) => assert!(received.len() < HTTP_HEAD_MAX),
            Err(_) => {}
        }
    }
    if let Ok(Some(reply)) = Reply::parse(received) {
        assert!(reply.size <= received.len().min(HTTP_HEAD_MAX));
        assert_eq!(Reply::parse(&received[..reply.size]), Ok(Some(reply)));
    }
});
