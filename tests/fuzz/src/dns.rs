//! DNS messages: what devices answer to, and what the host tool hears.
//!
//! Beyond "no panic": reading is bounded, and names are plain text without dots at their ends.
#![no_main]

use libfuzzer_sys::fuzz_target;
use runtime::dns::{Data, Message, texts};

fuzz_target!(|received: &[u8]| {
    let Some(message) = Message::read(received) else { return };
    for question in message.questions() {
        assert!(!question.name.as_str().ends_with('.'));
    }
    let mut count = 0;
    for record in message.records() {
        count += 1;
        assert!(record.name.as_str().bytes().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase()));
        if let Data::Texts(data) = record.data {
            assert!(texts(data).map(|text| text.len() + 1).sum::<usize>() <= data.len());
        }
    }
    assert!(count <= 64);
});
