//! Faults on demand are not in a binary that was built without asking for them.

#[test]
fn the_usual_binary_cannot_be_told_to_break() {
    let binary = std::fs::read(env!("CARGO_BIN_EXE_switchback")).unwrap();
    let holds = |words: &[u8]| binary.windows(words.len()).any(|window| window == words);
    assert!(holds(b"/etc/pantavisor.config"), "the words of the binary can be found at all");
    for words in ["/etc/switchback.fault", "nobarrier", "SWBMARK "] {
        assert_eq!(holds(words.as_bytes()), cfg!(feature = "faults"), "{words}");
    }
}
