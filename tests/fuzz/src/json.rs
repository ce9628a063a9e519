//! State JSON: tokenizer and revision model.
//!
//! Beyond "no panic": the tokenizer accepts exactly what an independent parser accepts (but for the depth), every
//! part of an accepted document is a document, and an accepted revision names only plain paths.
#![no_main]

use libfuzzer_sys::fuzz_target;
use runtime::{
    fault::Code,
    id::RevName,
    json::{Kind, Value},
    state::{Defaults, Plan, Spans, is_plain_path},
};
use std::cell::RefCell;

thread_local! {
    static TABLES: RefCell<(Box<Plan>, Box<Spans>)> =
        RefCell::new((Box::new(Plan::empty(RevName::factory())), Box::new(Spans::new())));
}

/// Walks everything; the depth was bounded by the tokenizer.
fn walk(value: Value<'_>) {
    assert_eq!(Value::parse(value.raw()).map(|again| again.raw()), Ok(value.raw()));
    let _ = (value.u32(), value.thousandths(), value.bool(), value.text::<16>());
    for (key, inner) in value.members() {
        assert!(key.same(key) && inner.at() > value.at());
        walk(inner);
    }
    for inner in value.elements() {
        assert!(inner.at() > value.at());
        walk(inner);
    }
    if value.kind() == Kind::Object {
        let _ = value.object().map(|object| object.get("name"));
    }
}

fuzz_target!(|text: &[u8]| {
    let ours = Value::parse(text);
    match ours {
        Err(fault) if fault.code == Code::StateTooDeep => {}
        _ => assert_eq!(ours.is_ok(), serde_json::from_slice::<serde_json::Value>(text).is_ok()),
    }
    // walking is quadratic, which the device's own reader is not
    if let (Ok(value), true) = (ours, text.len() <= 512) {
        walk(value);
    }
    TABLES.with_borrow_mut(|(plan, spans)| {
        let state = Plan::parse(text, RevName::factory(), &Defaults::default(), plan, spans);
        match state {
            Ok(state) => {
                assert!(state.entries().all(|entry| is_plain_path(entry.key)));
                assert!(state.boot_assets().is_ok());
                for container in &plan.containers {
                    assert!(usize::from(container.group) < plan.groups.len());
                    let content = state.container(container.name).expect("a planned container has content");
                    assert!(content.volumes().all(|file| file.is_ok()) && content.storage().all(|place| place.is_ok()));
                }
            }
            Err(refusal) => assert!(refusal.at as usize <= text.len()),
        }
    });
});
