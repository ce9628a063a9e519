//! The house rules when what was kept is out of reach, damaged, or answered by somebody else.

use super::*;
use crate::endpoint::house::RECALL_PAUSE;
use runtime::port::Owner;

const IO: Result<&[u8], Code> = Err(Code::StorageIo);

/// A time after every house was made.
fn now() -> Instant {
    Instant::now() + Duration::from_secs(1)
}

/// What a house keeps that has one client, its token, and what the house says of itself.
fn kept_with_one(now: Instant) -> (Vec<u8>, String, String) {
    let mut house = House::new(Access::PairedPlain, "");
    assert!(house.asks(now));
    house.recalled(now, Ok(&[]));
    assert!(house.unkept().is_some() && house.unkept().is_none(), "its identity, once");
    assert_eq!(house.kept(now, Ok(())), Some(Asker::Itself));
    let code = house.pairing.begin(now, None).unwrap();
    let answer = house.pair(now, 7, format!("{{\"secret\":\"{code}\"}}").as_bytes()).unwrap();
    let bytes = house.unkept().unwrap();
    assert_eq!(house.kept(now, Ok(())), Some(Asker::Client(7)));
    let bearer = format!("Bearer {}", member(&answer, "token"));
    (bytes, bearer, house.write(now, ""))
}

#[test]
fn what_is_out_of_reach_is_asked_for_again_and_never_overwritten() {
    let now = now();
    let (bytes, bearer, before) = kept_with_one(now);
    for code in [Code::StorageIo, Code::ErrandDied, Code::ErrandTimeout, Code::Busy] {
        let mut house = House::new(Access::PairedPlain, "");
        assert!(!house.is_known() && house.asks(now) && !house.asks(now), "asked once");
        house.recalled(now, Err(code));
        assert!(house.is_known(), "who may come without being known may come");
        assert_eq!(house.admit(now, Some(&bearer)), Err(Code::Busy), "a token that may be good is not wrong");
        let secret = house.pairing.begin(now, None).unwrap();
        let refusal = house.pair(now, 1, format!("{{\"secret\":\"{secret}\"}}").as_bytes()).unwrap_err();
        assert_eq!((refusal.code, house.revoke("all").unwrap_err().code), (Code::StorageIo, Code::StorageIo));
        assert_eq!(house.unkept(), None, "nothing takes the place of what is there");
        // It is asked again at its pace, as often as it takes.
        let mut later = now;
        for _ in 0..3 {
            assert!(!house.asks(later));
            later += RECALL_PAUSE;
            assert_eq!(house.recall_at(), Some(later));
            assert!(house.asks(later));
            house.recalled(later, IO);
        }
        later += RECALL_PAUSE;
        assert!(house.asks(later));
        house.recalled(later, Ok(&bytes));
        assert_eq!((house.recall_at(), house.unkept()), (None, None));
        assert_eq!(house.admit(later, Some(&bearer)), Ok(()));
        assert_eq!(
            house.write(now, "").replace("\"pairing\":true", "\"pairing\":false"),
            before,
            "name, key and token"
        );
    }
}

#[test]
fn what_is_damaged_is_a_new_beginning() {
    let now = now();
    for kept in [Ok(&b"rubbish"[..]), Err(Code::StorageDamaged)] {
        let mut house = House::new(Access::PairedPlain, "");
        assert!(house.asks(now));
        house.recalled(now, kept);
        assert!(house.unkept().is_some(), "a new name, and a key where there is TLS");
        assert_eq!(house.kept(now, Ok(())), Some(Asker::Itself));
        assert!(house.is_known() && house.may_keep().is_ok());
    }
}

#[test]
fn an_identity_that_cannot_be_kept_is_tried_again() {
    let now = now();
    let mut house = House::new(Access::PairedPlain, "");
    assert!(house.asks(now));
    house.recalled(now, Ok(&[]));
    assert!(house.unkept().is_some());
    assert_eq!(house.kept(now, Err(Code::NoSpace)), Some(Asker::Itself));
    assert!(house.is_known() && house.may_keep().is_err());
    assert_eq!((house.print(), house.transport()), (None, "plain"));
    assert!(house.asks(now + RECALL_PAUSE));
    house.recalled(now + RECALL_PAUSE, Ok(&[]));
    assert!(house.unkept().is_some());
    assert_eq!(house.kept(now, Ok(())), Some(Asker::Itself));
    assert_eq!(house.transport(), if cfg!(feature = "tls") { "tls" } else { "plain" });
}

#[test]
fn an_answer_that_nobody_waits_for_says_nothing() {
    let now = now();
    let mut house = House::new(Access::Paired, "");
    assert_eq!(house.kept(now, Ok(())), None);
    house.recalled(now, IO);
    assert!(!house.is_known() && house.asks(now), "nothing was asked yet");
    for outcome in [Ok(()), Err(Code::NoSpace)] {
        assert_eq!(house.kept(now, outcome), None);
        assert!(!house.is_known() && house.recall_at().is_none(), "it still waits for what was kept");
    }
    let (bytes, ..) = kept_with_one(now);
    house.recalled(now, Ok(&bytes));
    house.recalled(now, IO);
    assert_eq!(house.recall_at(), None, "one question, one answer");
}

/// Lets the endpoint take a client, and waits until it has read its beginning.
fn client_in_its_head(endpoint: &mut Endpoint<'_>, address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /sta").unwrap();
    turn_until(endpoint, "a client", |endpoint| endpoint.clients.iter().flatten().count() == 1);
    stream
}

#[test]
fn what_is_kept_for_a_client_that_is_gone_does_not_touch_the_next() {
    let (mut endpoint, address, _, _home) = endpoint("slot", Access::Open);
    begin_without_memory(&mut endpoint);
    drop(client_in_its_head(&mut endpoint, address));
    turn_until(&mut endpoint, "it to be gone", |endpoint| endpoint.clients.iter().flatten().count() == 0);
    let _second = client_in_its_head(&mut endpoint, address);
    let number = endpoint.clients.iter().flatten().next().unwrap().number;
    assert_eq!(number, 2, "in the same slot");
    for outcome in [Ok(()), Err(Code::NoSpace)] {
        endpoint.kept(Some(Asker::Client(1)), outcome);
        endpoint.kept(Some(Asker::Client(2)), outcome); // nor one that asked for nothing
        let client = endpoint.clients.iter().flatten().next().unwrap();
        assert!(matches!(client.phase, client::Phase::Head));
    }
}

#[test]
fn an_answer_of_pid1_counts_for_what_was_asked_with_its_serial() {
    let (mut endpoint, _, _, home) = endpoint("serials", Access::PairedPlain);
    turn_until(&mut endpoint, "the question", |endpoint| endpoint.house.recall_at().is_none());
    let mut buffer = Buffer::new();
    let serial = {
        let asked = home.pid1.receive(&mut buffer).unwrap().unwrap();
        assert_eq!(asked.message, Message::Recall { owner: Owner::Endpoint });
        asked.serial
    };
    // What another endpoint wanted kept is kept.
    home.pid1.send(REMEMBER, &Message::done(0), &[]).unwrap();
    home.pid1.send(REMEMBER, &Message::refused(Code::NoSpace), &[]).unwrap();
    endpoint.told = true;
    endpoint.turn().unwrap();
    assert!(!endpoint.house.is_known());
    home.pid1.send(serial, &Message::refused(Code::ErrandDied), &[]).unwrap();
    turn_until(&mut endpoint, "the refusal to be heard", |endpoint| endpoint.house.is_known());
    assert_eq!(endpoint.house.may_keep(), Err(Code::StorageIo));
}
