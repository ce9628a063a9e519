//! States that are none, through both doors: the endpoint of `pvr`, and the control socket.

use runtime::fault::Code;
use runtime::limits::{JSON_DEPTH_MAX, STATE_MAX};
use serde_json::Value;

use super::ground::Ground;
use crate::tour::report::Report;
use crate::tour::steps::path_of;
use crate::tour::{Outcome, http};

/// Name of the revision that must not come to be.
const REFUSED: &str = "locals/refused";

/// What is wrong, the text, and its code.
type Case = (&'static str, Vec<u8>, Code);

/// Posts every case through both doors.
pub fn refuse(ground: &Ground, report: &mut Report) -> Outcome<()> {
    let before = ground.device.settled()?;
    let state = ground.manager.get("/steps/current")?;
    let endpoint = ground.device.ports.endpoint;
    let steps = post_path(endpoint)?;
    for (what, text, code) in cases(&state) {
        let answer = ground.manager.send("PUT", &format!("/steps/{REFUSED}"), Some(&text))?;
        ground.refused(report, "state", &format!("{what}, to the control socket"), &answer, code)?;
        let answer = http::send(endpoint, "POST", &steps, &["Content-Type: text/plain"], &envelope(&text))?;
        ground.refused(report, "state", &format!("{what}, to the endpoint"), &answer, code)?;
    }
    ground.no_upload_remains()?;
    ground.device.is_as(&before)?;
    report.fact(&format!("environment, journal and {} files under trails and objects are as before", before.len() - 2));
    Ok(())
}

/// Where the endpoint takes revisions, as it says itself.
fn post_path(endpoint: u16) -> Outcome<String> {
    let remote = http::get(endpoint, "/cgi-bin/pvr/.pvrremote")?.text();
    let remote: Value = serde_json::from_str(&remote).map_err(|error| format!("{error}: {remote}"))?;
    Ok(path_of(remote["post-url"].as_str().unwrap_or_default()))
}

/// The request of `pvr post`, around whatever stands for a state.
fn envelope(state: &[u8]) -> Vec<u8> {
    let head = format!(r#"{{"commit-msg":"refused","rev":"{REFUSED}","state":"#);
    [head.as_bytes(), state, b"}"].concat()
}

fn cases(state: &Value) -> Vec<Case> {
    let whole = state.to_string();
    let with = |members: &str| format!("{{{members},{}", &whole[1..]).into_bytes();
    let object = format!("\"{}\"", "ab".repeat(32));
    let known = state["manager/root.squashfs"].clone();
    let levels = JSON_DEPTH_MAX as usize;
    let mut group = state.clone();
    group["patient/run.json"]["group"] = "nowhere".into();
    let mut twice = state.clone();
    twice["patient/run.json"] = Value::Null;
    let twice = twice.to_string().replacen(
        "\"patient/run.json\":null",
        "\"patient/run.json\":{\"name\":\"patient\",\"name\":\"manager\"}",
        1,
    );
    vec![
        ("too large", format!("{{{}{}", " ".repeat(STATE_MAX), &whole[1..]).into_bytes(), Code::StateTooLarge),
        ("too deep", with(&format!("\"x.json\":{}{}", "[".repeat(levels), "]".repeat(levels))), Code::StateTooDeep),
        ("the same key twice", with(&format!("\"a\":{known},\"a\":{known}")), Code::StateDuplicateKey),
        ("the same key twice inside run.json", twice.into_bytes(), Code::StateDuplicateKey),
        ("`..` in a key", with(&format!("\"patient/../manager/x\":{known}")), Code::KeyUnsafe),
        ("`..` at the start of a key", with(&format!("\"../../objects/x\":{known}")), Code::KeyUnsafe),
        ("`..` written with escapes", with(&format!(r#""\u002e\u002e/x":{known}"#)), Code::KeyUnsafe),
        ("an escape in a key", with(&format!(r#""a\/b":{known}"#)), Code::KeyUnsafe),
        ("a missing object", with(&format!("\"patient/more\":{object}")), Code::ObjectMissing),
        // Inside a string, so that the envelope's own end does not end it.
        ("cut short", whole.split_inclusive("patient/ro").next().unwrap_or_default().into(), Code::StateTruncated),
        ("an unknown group", group.to_string().into_bytes(), Code::GroupUnknown),
        ("no JSON", b"hello".to_vec(), Code::StateSyntax),
        (
            "no UTF-8",
            with("\"\u{e4}\":1").into_iter().map(|byte| if byte == 0xc3 { 0xff } else { byte }).collect(),
            Code::StateUtf8,
        ),
    ]
}
